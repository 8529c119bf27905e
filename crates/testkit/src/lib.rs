//! Helpers of the tests of the whole program: processes, nodes, an NBD client, a crash-proof record
//! of writes, mounts and guests. Never shipped.
//!
//! It knows the program only from outside: its command line, its `ready` line, its NBD exports. So
//! any NBD server can stand in for it. It is synchronous, and waits on events instead of sleeping.
//! It ends every process that it started by its pid, also when a test fails half-way.
//!
//! A test that needs a tool asks for it with [`require!`]; without the tool it is skipped visibly.
//!
//! [`layers`] stands apart: it reads the source of a crate.

#![forbid(unsafe_code)]

pub mod guest;
pub mod history;
pub mod layers;
pub mod load;
pub mod mount;
pub mod nbd;
pub mod node;
pub mod process;
pub mod s3;
pub mod s3_faults;
pub mod seeds;
pub mod skip;
pub mod stamp;
pub mod stand_in;
pub mod tool;
pub mod uri;

pub use history::{Bounds, History};
pub use load::{Load, LoadSettings};
pub use nbd::NbdClient;
pub use node::{NodeSettings, SkerryNode};
pub use process::Process;
pub use s3::S3Server;
pub use s3_faults::BadS3;
pub use seeds::Search;
pub use uri::NbdUri;

use std::time::Duration;

/// Time for which a test waits for an event that normally takes moments, before it counts as hung.
///
/// Generous on purpose: only a defect reaches it, never a slow machine.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// The number in the environment variable `name`, or `default`. It scales a test.
///
/// # Panics
/// When the variable is not a number: a soak must not silently run short.
#[must_use]
pub fn scale(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => match text.parse() {
            Ok(number) => number,
            Err(_) => panic!("{name}={text} is no number"),
        },
        Err(_) => default,
    }
}

/// The seed of a test run: `SKERRY_SEED` to replay one, else a fresh one.
///
/// Prints it, so that a person can replay a failure.
#[must_use]
pub fn seed(test: &str) -> u64 {
    let seed = scale("SKERRY_SEED", fresh_seed());
    eprintln!("{test}: SKERRY_SEED={seed}");
    seed
}

/// Makes a seed that differs from run to run.
fn fresh_seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(std::process::id()) >> 16
}
