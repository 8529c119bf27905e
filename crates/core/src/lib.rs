//! Skerry core.
