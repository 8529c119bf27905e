//! The objects of a bucket: creating, reading and deleting them, in any store.

#[cfg(feature = "s3")]
pub(crate) mod aws_profile;
pub mod bucket;
pub(crate) mod direct;
pub mod faulty;
pub(crate) mod fresh;
pub(crate) mod health;
pub mod line;
pub mod litter;
pub mod local;
pub mod local_root;
pub mod meter;
pub mod probe;
#[cfg(feature = "cloud")]
pub(crate) mod renew;
pub mod segment_io;
#[cfg(test)]
pub(crate) mod testing;
pub mod tries;
pub mod url;
