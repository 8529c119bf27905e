//! Skerry log.
