//! Skerry api.
