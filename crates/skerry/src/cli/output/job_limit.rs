//! Limits and retries of a job, as documents.

use serde::{Deserialize, Serialize};
use skerry_api::v1;

/// The retry policy of a job, as a document. The node's default stands for a field that is absent.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct RetryDocument {
    pub(crate) retries: Option<u32>,
    pub(crate) initial_ms: Option<u32>,
    pub(crate) max_ms: Option<u32>,
    pub(crate) factor_percent: Option<u32>,
    pub(crate) jitter_percent: Option<u32>,
}

impl From<v1::RetryPolicy> for RetryDocument {
    fn from(policy: v1::RetryPolicy) -> Self {
        let v1::RetryPolicy { retries, initial_ms, max_ms, factor_percent, jitter_percent } =
            policy;
        Self { retries, initial_ms, max_ms, factor_percent, jitter_percent }
    }
}

impl From<RetryDocument> for v1::RetryPolicy {
    fn from(document: RetryDocument) -> Self {
        let RetryDocument { retries, initial_ms, max_ms, factor_percent, jitter_percent } =
            document;
        Self { retries, initial_ms, max_ms, factor_percent, jitter_percent }
    }
}

/// A limit of a job, as a document.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum LimitDocument {
    Concurrency {
        name: String,
        max: u32,
    },
    Floating {
        name: String,
        initial: u32,
        refresh_ms: u32,
        #[serde(default)]
        group: String,
    },
    Rate {
        name: String,
        count: u32,
        per_ms: u32,
        #[serde(default = "one")]
        burst: u32,
    },
}

fn one() -> u32 {
    1
}

impl LimitDocument {
    /// The document of a limit; none for a kind that only a later version knows.
    pub(crate) fn of(limit: v1::Limit) -> Option<Self> {
        let name = limit.name;
        Some(match limit.kind? {
            v1::limit::Kind::Concurrency(limit) => Self::Concurrency { name, max: limit.max },
            v1::limit::Kind::Floating(limit) => {
                let v1::FloatingLimit { initial, refresh_ms, group } = limit;
                Self::Floating { name, initial, refresh_ms, group }
            }
            v1::limit::Kind::Rate(v1::RateLimit { count, per_ms, burst }) => {
                Self::Rate { name, count, per_ms, burst }
            }
        })
    }

    /// The limit's name.
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Concurrency { name, .. }
            | Self::Floating { name, .. }
            | Self::Rate { name, .. } => name,
        }
    }
}

impl From<LimitDocument> for v1::Limit {
    fn from(document: LimitDocument) -> Self {
        let (name, kind) = match document {
            LimitDocument::Concurrency { name, max } => {
                (name, v1::limit::Kind::Concurrency(v1::ConcurrencyLimit { max }))
            }
            LimitDocument::Floating { name, initial, refresh_ms, group } => {
                let floating = v1::FloatingLimit { initial, refresh_ms, group };
                (name, v1::limit::Kind::Floating(floating))
            }
            LimitDocument::Rate { name, count, per_ms, burst } => {
                (name, v1::limit::Kind::Rate(v1::RateLimit { count, per_ms, burst }))
            }
        };
        Self { name, kind: Some(kind) }
    }
}
