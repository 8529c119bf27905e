//! Skerry testkit.
