//! `skerry`: the daemon of a node, and the commands that ask it.
//!
//! Wiring only: settings, clock and randomness are read here and passed on; other crates decide and
//! store.
//!
//! The folders are layers, from above: [`cli`], [`daemon`], [`rpc`], [`schedule`] and [`metrics`],
//! [`jobs`], [`home`], [`settings`]. Other modules are leaves, which know no folder. No layer
//! imports one above it; `tests/layers.rs` holds that.
#![forbid(unsafe_code)]

mod api_error;
mod background;
mod cli;
mod daemon;
mod env;
mod exit;
mod home;
mod jobs;
mod metric;
mod metrics;
mod rpc;
mod schedule;
mod settings;
#[cfg(test)]
mod tests;
mod values;
mod zeros;

/// The system's allocator keeps memory that threads have freed: half as much again under load.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> std::process::ExitCode {
    let variable = |name: &str| std::env::var(name).ok();
    let (mut out, mut err) = (std::io::stdout(), std::io::stderr());
    cli::commands::main(std::env::args_os(), &variable, &mut out, &mut err).into()
}
