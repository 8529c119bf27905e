//! Pins of read-only states: while a client is attached, no collector deletes their segments. If a
//! pin could not be renewed in time, the reading ends: by then the state may be gone.

use crate::context::Context;
use crate::error::{Error, Result};
use skerry_core::env::Clock;
use skerry_core::id::VolumeId;
use skerry_core::pins::{may_read, renewed};
use skerry_core::root::Base;
use skerry_store::refs::pin::HeldPin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::oneshot;

/// Number of renewals within a pin's time: two may fail.
const RENEWALS: u32 = 3;

/// Pins that are renewed until this is dropped.
pub(crate) struct Pinned {
    clock: Arc<dyn Clock>,
    ttl: Duration,
    /// The clock's reading before the last renewal of all pins, milliseconds since boot.
    renewed_ms: Arc<AtomicU64>,
    _ends_with_this: oneshot::Sender<()>,
}

impl Pinned {
    /// Pins bases, each rolled forward along the streams of its volume.
    pub(crate) async fn hold(ctx: &Context, bases: Vec<(VolumeId, Base)>) -> Result<Self> {
        let (ttl, clock) = (ctx.settings.pin_ttl, ctx.clock().clone());
        let began = clock.boot();
        let mut holds = Vec::new();
        for (volume, base) in bases {
            holds.push(HeldPin::new(&ctx.bucket, volume, base, ttl).await?);
        }
        let renewed_ms = Arc::new(AtomicU64::new(millis(began)));
        let (end, ended) = oneshot::channel();
        tokio::spawn(keep(holds, ended, ttl, clock.clone(), renewed_ms.clone()));
        Ok(Self { clock, ttl, renewed_ms, _ends_with_this: end })
    }

    /// Fails once the pins may have ended.
    pub(crate) fn check(&self, name: &str) -> Result<()> {
        let renewed = Duration::from_millis(self.renewed_ms.load(Ordering::Acquire));
        if may_read(renewed, self.clock.boot(), self.ttl) {
            return Ok(());
        }
        let why = "could not be kept from collection, for the bucket did not answer for long: \
                   attach again";
        Err(Error::unavailable(name.to_string(), why))
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

async fn keep(
    mut holds: Vec<HeldPin>,
    mut ended: oneshot::Receiver<()>,
    ttl: Duration,
    clock: Arc<dyn Clock>,
    renewed_ms: Arc<AtomicU64>,
) {
    loop {
        tokio::select! {
            _ = &mut ended => break,
            () = tokio::time::sleep(ttl / RENEWALS) => {}
        }
        let before = Duration::from_millis(renewed_ms.load(Ordering::Acquire));
        let began = clock.boot();
        if !may_read(before, began, ttl) {
            // Collectors may count it as ended: it must not come back.
            break;
        }
        let mut is_renewed = true;
        for hold in &mut holds {
            if let Err(error) = hold.renew().await {
                tracing::warn!(%error, "a pin could not be renewed; trying again");
                is_renewed = false;
            }
        }
        if is_renewed {
            let Some(from) = renewed(before, began, clock.boot(), ttl) else { break };
            renewed_ms.fetch_max(millis(from), Ordering::AcqRel);
        }
    }
    for hold in holds {
        hold.let_go().await;
    }
}
