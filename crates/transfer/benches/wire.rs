//! Measures the wire.

fn main() {}
