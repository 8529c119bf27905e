//! Metrics of the broker.

use skerry_jobs::broker::Broker;
use skerry_jobs::machine::GroupCounts;
use skerry_jobs::shard::Totals;
use skerry_store::objects::meter::{CallKind, Counters};

use crate::metric::{Metric, Sample, Value};

/// All metrics, now.
pub(super) fn of(broker: &Broker) -> Vec<Metric> {
    let Totals { enqueued, leased, succeeded, failed, cancelled, retried, expired } =
        broker.totals();
    let counter =
        |name, help, count| Metric::new(name, help, vec![Sample::plain(Value::Counter(count))]);
    let ends = [("succeeded", succeeded), ("failed", failed), ("cancelled", cancelled)];
    let ends = ends.map(|(state, count)| Sample::of("state", state, Value::Counter(count)));
    vec![
        counter("jobs_enqueued", "Jobs that were taken", enqueued),
        counter("jobs_attempts", "Attempts that began", leased),
        counter("jobs_retried", "Attempts that are followed by another", retried),
        counter("jobs_expired", "Attempts whose worker was silent", expired),
        Metric::new("jobs_ended", "Jobs that came to their end", ends.into()),
        now(broker),
        shards(broker),
    ]
}

/// The number of shards of each standing.
fn shards(broker: &Broker) -> Metric {
    let standings = broker.standings();
    let samples = ["opening", "open", "elsewhere", "failed"].map(|name| {
        let count = standings.iter().filter(|now| now.name() == name).count();
        Sample::of("standing", name, Value::Gauge(count as f64))
    });
    Metric::new("jobs_shards", "Shards of jobs, by their standing", samples.into())
}

/// Metrics of calls to the databases' stores.
pub(super) fn calls(store: &Counters) -> Vec<Metric> {
    let tally = store.tally();
    let each = |value: &dyn Fn(CallKind) -> u64| {
        let sample = |kind: CallKind| Sample::of("call", kind.name(), Value::Counter(value(kind)));
        CallKind::ALL.map(sample).into()
    };
    let (calls, bytes) = (each(&|kind| tally.calls(kind)), each(&|kind| tally.bytes(kind)));
    vec![
        Metric::new("jobs_store_calls", "Calls of the jobs' object store", calls),
        Metric::new("jobs_store_bytes", "Bytes moved by calls of the jobs' object store", bytes),
    ]
}

fn now(broker: &Broker) -> Metric {
    let groups = broker.groups();
    let sum = |count: fn(&GroupCounts) -> u64| {
        Value::Gauge(groups.values().map(count).sum::<u64>() as f64)
    };
    let samples = vec![
        Sample::of("state", "delayed", sum(|counts| counts.early)),
        Sample::of("state", "waiting", sum(|counts| counts.ready)),
        Sample::of("state", "running", sum(|counts| counts.running)),
    ];
    Metric::new("jobs", "Jobs that have not come to their end", samples)
}
