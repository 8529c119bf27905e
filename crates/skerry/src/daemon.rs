//! A running node: its start from settings to servers, and its end.

pub(crate) mod announcer;
pub(crate) mod api_server;
pub(crate) mod engine_host;
pub(crate) mod exports;
pub(crate) mod listeners;
pub(crate) mod log_lines;
pub(crate) mod patience;
pub(crate) mod serve;
pub(crate) mod signals;
pub(crate) mod wiring;
