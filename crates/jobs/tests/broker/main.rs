//! Tests of the broker: one binary, so that it is linked once.

mod budget;
mod common;
mod cost;
mod machine;
mod opening;
mod owners;
mod rates;
mod reclaim;
mod regressions;
mod rows;
mod shard;
mod split;
