//! The disk cache: frames as they were fetched, in a ring of files.
