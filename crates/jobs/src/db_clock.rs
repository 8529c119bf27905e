//! The broker's clock for SlateDB. It never goes back, and makes SlateDB poll its store seldom when
//! nothing has been written for a while.

use chrono::{DateTime, Utc};
use parking_lot::Mutex;
use skerry_core::env::Clock;
use slatedb::DbStatus;
use slatedb_common::clock::{SystemClock, SystemClockTicker};
use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

type Sleep<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// The time for SlateDB.
struct Times {
    clock: Arc<dyn Clock>,
    /// The latest time that was told, milliseconds since 1970.
    last_ms: AtomicU64,
}

impl Times {
    fn now(&self) -> DateTime<Utc> {
        let now_ms = self.clock.wall_ms();
        let ms = self.last_ms.fetch_max(now_ms, Ordering::Relaxed).max(now_ms);
        i64::try_from(ms).ok().and_then(DateTime::from_timestamp_millis).unwrap_or_default()
    }
}

/// A database's clock.
pub(crate) struct DbClock {
    times: Arc<Times>,
    polls: Polls,
}

impl DbClock {
    /// Makes a clock that goes on from `last_ms`, milliseconds since 1970. Tickers with intervals
    /// below `seldom` slow down to it when nothing has been written for as long. A database that
    /// takes no writes until its files are merged has just been written to.
    pub(crate) fn new(clock: Arc<dyn Clock>, last_ms: u64, seldom: Duration) -> Self {
        let times = Arc::new(Times { clock, last_ms: last_ms.into() });
        let written = Mutex::new(Instant::now());
        let polls = Polls { times: times.clone(), seldom, status: OnceLock::new(), written };
        Self { times, polls }
    }

    /// Watches an open database: from now on, the clock sees whether anything is written.
    pub(crate) fn watch(&self, status: watch::Receiver<DbStatus>) {
        // It is opened once.
        let _ = self.polls.status.set(status);
    }
}

impl fmt::Debug for DbClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DbClock")
    }
}

impl SystemClock for DbClock {
    fn now(&self) -> DateTime<Utc> {
        self.times.now()
    }

    fn sleep<'a>(&'a self, time: Duration) -> Sleep<'a> {
        Box::pin(tokio::time::sleep(time))
    }

    fn ticker(&self, interval: Duration) -> SystemClockTicker<'_> {
        let is_poll = interval < self.polls.seldom;
        SystemClockTicker::new(if is_poll { &self.polls } else { self }, interval)
    }
}

/// The clock of tickers with short intervals.
struct Polls {
    times: Arc<Times>,
    seldom: Duration,
    status: OnceLock<watch::Receiver<DbStatus>>,
    /// Time when a write was last seen.
    written: Mutex<Instant>,
}

impl fmt::Debug for Polls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Polls")
    }
}

impl SystemClock for Polls {
    fn now(&self) -> DateTime<Utc> {
        self.times.now()
    }

    /// Sleeps for a while. If nothing was written for long, sleeps on until something is, at most
    /// for `seldom` in all.
    fn sleep<'a>(&'a self, time: Duration) -> Sleep<'a> {
        Box::pin(async move {
            let mut status = self.status.get().cloned();
            if let Some(status) = &mut status {
                status.mark_unchanged();
            }
            tokio::time::sleep(time).await;
            let Some(mut status) = status else { return };
            let mut is_written = matches!(status.has_changed(), Ok(true));
            // The first tick comes at once.
            let is_idle = !is_written && !time.is_zero();
            if is_idle && self.written.lock().elapsed() >= self.seldom {
                let rest = self.seldom.saturating_sub(time);
                is_written = tokio::time::timeout(rest, status.changed()).await.is_ok();
            }
            if is_written {
                *self.written.lock() = Instant::now();
            }
        })
    }

    fn ticker(&self, interval: Duration) -> SystemClockTicker<'_> {
        SystemClockTicker::new(self, interval)
    }
}
