//! Skerry serve.
