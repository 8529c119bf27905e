//! The metrics of a node.

use std::sync::atomic::{AtomicU64, Ordering};

use skerry_log::LATENCY_BUCKETS;
use skerry_store::objects::meter::{CallKind, Counters};
use skerry_volume::Engine;
use skerry_volume::volume::{IoCounts, Volume};

use crate::metric::{Metric, Sample, Value};

fn get(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

fn counter(value: u64) -> Value {
    Value::Counter(value)
}

fn gauge(value: u64) -> Value {
    Value::Gauge(value as f64)
}

/// 1 if there is a failure.
fn is(failure: &Option<String>) -> Value {
    gauge(failure.is_some().into())
}

/// All metrics, now.
pub(crate) fn all(engine: &Engine, store: &Counters) -> Vec<Metric> {
    let mut out = state(engine);
    out.extend(caches(engine));
    out.extend(calls(store));
    out.extend(volumes(engine));
    out
}

fn state(engine: &Engine) -> Vec<Metric> {
    let status = engine.status();
    let counts = engine.context().log.counters();
    let plain = |name, help, value| Metric::new(name, help, vec![Sample::plain(value)]);
    vec![
        plain("log_used_bytes", "Bytes of the log that are in use", gauge(status.log_used_bytes)),
        plain("log_cap_bytes", "The most bytes of the log", gauge(status.log_cap_bytes)),
        plain("log_failing", "1 if the log's disk refuses or is full", is(&status.log_failure)),
        plain("bucket_failing", "1 if the bucket fails now", is(&status.bucket_failure)),
        plain(
            "needs_attention",
            "Parked tails, and volumes that are out of service",
            gauge(status.parked.len() as u64),
        ),
        plain("log_records", "Records appended to the log", counter(counts.records)),
        plain(
            "log_written_bytes",
            "Bytes written to the log's files",
            counter(counts.written_bytes),
        ),
        plain(
            "log_filled_bytes",
            "Zeros written to make log files ready",
            counter(counts.filled_bytes),
        ),
        plain("log_syncs", "Syncs of the log", counter(counts.syncs)),
        plain("log_sync_seconds", "How long syncs of the log took", sync_times(&counts)),
    ]
}

fn sync_times(counts: &skerry_log::Snapshot) -> Value {
    let bound = |bucket: usize| match bucket + 1 {
        LATENCY_BUCKETS => f64::INFINITY,
        _ => 2f64.powi(bucket as i32) / 1e6,
    };
    let buckets = counts.latency.iter().enumerate().map(|(i, count)| (bound(i), *count)).collect();
    Value::Histogram { sum: counts.sync_ns as f64 / 1e9, buckets }
}

fn caches(engine: &Engine) -> Vec<Metric> {
    let blocks = engine.context().blocks.counters();
    let of = |tier, n: &AtomicU64| Sample::of("tier", tier, counter(get(n)));
    vec![
        Metric::new(
            "cache_hits",
            "Blocks found, by where they were found",
            vec![
                of("ram", &blocks.ram_hits),
                of("disk", &blocks.disk_hits),
                of("local", &blocks.local_blocks),
            ],
        ),
        Metric::new(
            "cache_misses",
            "Blocks not found, by where they were looked for",
            vec![of("ram", &blocks.ram_misses), of("disk", &blocks.disk_misses)],
        ),
        Metric::new(
            "fetched_bytes",
            "Bytes of frames fetched from the bucket",
            vec![Sample::plain(counter(get(&blocks.fetched_bytes)))],
        ),
    ]
}

fn calls(store: &Counters) -> Vec<Metric> {
    let tally = store.tally();
    let each = |value: &dyn Fn(CallKind) -> u64| {
        CallKind::ALL.iter().map(|&k| Sample::of("call", k.name(), counter(value(k)))).collect()
    };
    vec![
        Metric::new("store_calls", "Calls of the bucket", each(&|k| tally.calls(k))),
        Metric::new("store_bytes", "Bytes moved by calls of the bucket", each(&|k| tally.bytes(k))),
        Metric::new(
            "store_errors",
            "Calls of the bucket that failed; that something is missing, or there, is an answer",
            each(&|k| tally.errors(k)),
        ),
    ]
}

fn volumes(engine: &Engine) -> Vec<Metric> {
    let open = engine.open_volumes();
    let now = engine.context().bucket.clock().boot();
    let dirty: Vec<_> = open.iter().map(|v| (v.name(), v.undestaged(now))).collect();
    let dirty = |value: &dyn Fn(u64, f64) -> f64| {
        dirty
            .iter()
            .map(|(name, (bytes, age))| {
                Sample::of("volume", name, Value::Gauge(value(*bytes, age.as_secs_f64())))
            })
            .collect()
    };
    let io = |value: fn(&IoCounts) -> &AtomicU64| {
        let sample =
            |v: &std::sync::Arc<Volume>| Sample::of("volume", v.name(), counter(get(value(&v.io))));
        open.iter().map(sample).collect()
    };
    vec![
        Metric::new(
            "undestaged_bytes",
            "Bytes that are not in the bucket yet",
            dirty(&|b, _| b as f64),
        ),
        Metric::new("undestaged_age_seconds", "Age of the oldest of them", dirty(&|_, age| age)),
        Metric::new("volume_reads", "Reads", io(|io| &io.reads)),
        Metric::new("volume_read_bytes", "Bytes read", io(|io| &io.read_bytes)),
        Metric::new("volume_writes", "Writes", io(|io| &io.writes)),
        Metric::new("volume_written_bytes", "Bytes written", io(|io| &io.written_bytes)),
        Metric::new("volume_flushes", "Flushes", io(|io| &io.flushes)),
        Metric::new("volume_zeroes", "Trims and zeroes", io(|io| &io.zeroes)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_one() {
        let number = |failure: Option<String>| match is(&failure) {
            Value::Gauge(number) => number,
            other => panic!("{other:?}"),
        };
        assert_eq!((number(None), number(Some("full".to_owned()))), (0.0, 1.0));
    }
}
