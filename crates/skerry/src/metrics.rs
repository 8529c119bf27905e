//! Metrics as plain data, and their form as a Prometheus page.
//!
//! The engine fills [`Metric`]s and does not know Prometheus. Each scrape reads them, so nothing is
//! counted twice and nothing has to be registered.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use crate::engine::Engine;
use crate::jobs::JobsHost;

/// One counter or gauge, with a sample for each set of labels.
///
/// Names follow Prometheus' rules and carry their unit (`…_bytes`, `…_seconds`). They lack the
/// `skerry_` in front and, for counters, the `_total` behind: both are added.
#[derive(Debug, Clone)]
pub(crate) struct Metric {
    /// Its name.
    pub(crate) name: &'static str,
    /// A sentence about it, without the full stop.
    pub(crate) help: &'static str,
    /// Its samples: all of one kind.
    pub(crate) samples: Vec<Sample>,
}

/// A value and its labels.
#[derive(Debug, Clone)]
pub(crate) struct Sample {
    /// Label and value, such as `volume`, `db`.
    pub(crate) labels: Vec<(&'static str, String)>,
    /// The value.
    pub(crate) value: Value,
}

/// A value of a metric.
#[derive(Debug, Clone)]
#[allow(dead_code, reason = "which kinds there are is up to the engine")]
pub(crate) enum Value {
    /// A number that only grows while the process runs.
    Counter(u64),
    /// A number that goes up and down.
    Gauge(f64),
    /// Observations by bucket.
    Histogram {
        /// The sum of all observations.
        sum: f64,
        /// Upper bound of each bucket, ascending, and the number of observations in that bucket
        /// alone. The last bound is [`f64::INFINITY`].
        buckets: Vec<(f64, u64)>,
    },
}

impl Metric {
    /// A metric with these samples.
    pub(crate) fn new(name: &'static str, help: &'static str, samples: Vec<Sample>) -> Self {
        Self { name, help, samples }
    }
}

impl Sample {
    /// A sample with one label.
    pub(crate) fn of(label: &'static str, of: impl Into<String>, value: Value) -> Self {
        Self { labels: vec![(label, of.into())], value }
    }

    /// A sample without labels.
    #[allow(dead_code, reason = "which samples there are is up to the engine")]
    pub(crate) fn plain(value: Value) -> Self {
        Self { labels: Vec::new(), value }
    }
}

/// The sources that a scrape reads: an engine, the NBD clients, and the jobs.
struct Source {
    engine: Arc<dyn Engine>,
    clients: Box<dyn Fn() -> Vec<(String, usize)> + Send + Sync>,
    jobs: Option<Arc<JobsHost>>,
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Source")
    }
}

impl Source {
    fn metrics(&self) -> Vec<Metric> {
        let clients = (self.clients)().into_iter();
        let clients =
            clients.map(|(export, count)| Sample::of("export", export, Value::Gauge(count as f64)));
        let version = Sample::of("version", env!("CARGO_PKG_VERSION"), Value::Gauge(1.0));
        let mut all = vec![
            Metric::new("build", "The program that runs", vec![version]),
            Metric::new("nbd_clients", "NBD connections to each export", clients.collect()),
        ];
        all.extend(self.engine.metrics());
        all.extend(self.jobs.iter().flat_map(|jobs| jobs.metrics()));
        all
    }
}

impl Collector for Source {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for metric in self.metrics() {
            let Some(first) = metric.samples.first() else { continue };
            let kind = kind(&first.value);
            let mut family = encoder.encode_descriptor(metric.name, metric.help, None, kind)?;
            for sample in &metric.samples {
                if sample.labels.is_empty() {
                    encode(&sample.value, &mut family)?;
                } else {
                    encode(&sample.value, &mut family.encode_family(&sample.labels)?)?;
                }
            }
        }
        Ok(())
    }
}

fn kind(value: &Value) -> MetricType {
    match value {
        Value::Counter(_) => MetricType::Counter,
        Value::Gauge(_) => MetricType::Gauge,
        Value::Histogram { .. } => MetricType::Histogram,
    }
}

fn encode(value: &Value, encoder: &mut MetricEncoder<'_>) -> fmt::Result {
    match value {
        Value::Counter(count) => encoder.encode_counter::<NoLabelSet, _, u64>(count, None),
        Value::Gauge(value) => encoder.encode_gauge(value),
        Value::Histogram { sum, buckets } => {
            let count = buckets.iter().map(|(_, count)| count).sum();
            encoder.encode_histogram::<NoLabelSet>(*sum, count, buckets, None)
        }
    }
}

/// Makes a registry that asks `engine`, `jobs`, and `clients` for the connections to each export.
pub(crate) fn registry(
    engine: Arc<dyn Engine>,
    clients: impl Fn() -> Vec<(String, usize)> + Send + Sync + 'static,
    jobs: Option<Arc<JobsHost>>,
) -> Registry {
    let mut registry = Registry::with_prefix("skerry");
    registry.register_collector(Box::new(Source { engine, clients: Box::new(clients), jobs }));
    registry
}
