//! Skerry store.
