//! Skerry: disks in a bucket.
fn main() {}
