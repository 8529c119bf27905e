//! Metrics as plain data. The engine and the jobs fill them, and do not know Prometheus.

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
