//! The command line: arguments, commands, and their output.

pub(crate) mod args;
pub(crate) mod commands;
pub(crate) mod completion;
pub(crate) mod duration;
pub(crate) mod image_format;
pub(crate) mod job_filter;
pub(crate) mod job_limits;
pub(crate) mod man;
pub(crate) mod output;
pub(crate) mod overrides;
pub(crate) mod program;
pub(crate) mod progress;
pub(crate) mod sparse;
pub(crate) mod staged;
