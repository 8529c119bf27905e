//! `skerry`: the daemon of a node, and the commands that ask it.
//!
//! Wiring only: settings, clock and randomness are read here and passed on; other crates decide and
//! store. [`cli`] is the command line, [`commands`] ask a node, [`serve`] is one.
#![forbid(unsafe_code)]

mod api_error;
mod api_server;
mod background;
mod bucket_place;
mod claim;
mod cli;
mod commands;
mod control;
mod engine;
mod env;
mod exit;
mod exports;
#[cfg(test)]
mod fake;
mod gate;
mod identity;
mod image_format;
mod jobs;
mod layout;
mod listen;
mod lock;
mod log_lines;
mod log_place;
mod log_room;
mod machine;
mod metric;
mod metrics;
mod node_engine;
mod node_metrics;
mod note;
mod output;
mod overrides;
mod parked;
mod patience;
mod progress;
mod schedule;
mod scrape;
mod serve;
mod settings;
mod signals;
mod slots;
mod sparse;
mod staged;
#[cfg(test)]
mod tests;
mod values;
mod wiring;
mod zeros;

/// The system's allocator keeps memory that threads have freed: half as much again under load.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> std::process::ExitCode {
    let variable = |name: &str| std::env::var(name).ok();
    let (mut out, mut err) = (std::io::stdout(), std::io::stderr());
    commands::main(std::env::args_os(), &variable, &mut out, &mut err).into()
}
