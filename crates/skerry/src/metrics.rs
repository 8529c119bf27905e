//! The node's metrics as a Prometheus page.
//!
//! Each scrape reads the sources, so nothing is counted twice and nothing has to be registered.

pub(crate) mod node;
pub(crate) mod scrape;

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;
use skerry_store::objects::meter::Counters;
use skerry_volume::Engine;

use crate::jobs::JobsHost;
use crate::metric::{Metric, Sample, Value};

/// The sources that a scrape reads: a node, its store, the NBD clients, and the jobs.
struct Source {
    engine: Arc<Engine>,
    store: Arc<Counters>,
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
        all.extend(node::all(&self.engine, &self.store));
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

/// Makes a registry that asks `node`, `store`, `jobs`, and `clients` for the connections to each
/// export.
pub(crate) fn registry(
    engine: Arc<Engine>,
    store: Arc<Counters>,
    clients: impl Fn() -> Vec<(String, usize)> + Send + Sync + 'static,
    jobs: Option<Arc<JobsHost>>,
) -> Registry {
    let mut registry = Registry::with_prefix("skerry");
    registry.register_collector(Box::new(Source {
        engine,
        store,
        clients: Box::new(clients),
        jobs,
    }));
    registry
}
