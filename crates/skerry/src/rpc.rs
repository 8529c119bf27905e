//! The gRPC services: each checks a request, asks, and converts the answer.

pub(crate) mod control;
pub(crate) mod gate;
pub(crate) mod jobs;
