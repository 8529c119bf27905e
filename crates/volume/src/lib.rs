//! Skerry volume.
