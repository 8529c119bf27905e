//! Names, descriptors and refs; the states of a volume that they lead to, and who may write it.

pub mod catalog;
pub mod claim;
pub mod pin;
pub mod view;
