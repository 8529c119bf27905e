//! Counts writes to each block, decaying: how likely a block is to change again.
//!
//! A block has one counter, which halves with each half-life that passes. It is halved when it is
//! next touched or read. So a write costs the same, however many came before.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use skerry_core::env::Clock;

use super::order::Order;
use crate::{Attempt, Content, Device, Error, ErrorKind, Geometry, Result, StatusRange};

/// The heat of one write. It outlasts ten half-lives.
pub const WRITE_HEAT: u32 = 1 << 10;

/// Counts writes and zeroings of the device below, with 8 bytes of memory for each block.
pub struct Volatility {
    below: Arc<dyn Device>,
    clock: Arc<dyn Clock>,
    block_shift: u32,
    half_life_ns: u64,
    counters: Box<[AtomicU64]>,
}

/// A counter: heat, and the half-life (counted from boot) in which it was last right.
#[derive(Debug, Clone, Copy)]
struct Counter {
    heat: u32,
    at: u32,
}

impl Counter {
    fn unpack(packed: u64) -> Self {
        Self { heat: packed as u32, at: (packed >> 32) as u32 }
    }

    fn pack(self) -> u64 {
        u64::from(self.at) << 32 | u64::from(self.heat)
    }

    /// Its heat in a later half-life.
    fn heat_at(self, now: u32) -> u32 {
        self.heat.checked_shr(now.saturating_sub(self.at)).unwrap_or(0)
    }

    /// The counter after a write.
    fn touched(self, now: u32) -> Self {
        Self { heat: self.heat_at(now).saturating_add(WRITE_HEAT), at: now.max(self.at) }
    }
}

impl Volatility {
    /// Counts from now on, in blocks of `block_bytes`, a power of two.
    ///
    /// # Errors
    /// `Invalid` if `block_bytes` is no power of two, or `half_life` is less than a millisecond.
    pub fn new(
        below: Arc<dyn Device>,
        clock: Arc<dyn Clock>,
        block_bytes: u64,
        half_life: Duration,
    ) -> Result<Self> {
        if !block_bytes.is_power_of_two() || half_life < Duration::from_millis(1) {
            let text =
                format!("volatility of blocks of {block_bytes} bytes, halved in {half_life:?}");
            return Err(Error::new(ErrorKind::Invalid, text));
        }
        let count = below.geometry().size_bytes.div_ceil(block_bytes);
        let counters = (0..count).map(|_| AtomicU64::new(0)).collect();
        let (block_shift, half_life_ns) = (block_bytes.trailing_zeros(), nanos(half_life));
        Ok(Self { below, clock, block_shift, half_life_ns, counters })
    }

    /// Gives the order by heat at this moment: the least volatile block first.
    #[must_use]
    pub fn least_first(&self) -> LeastFirst<'_> {
        LeastFirst { volatility: self, now: self.half_lives() }
    }

    /// Heat of a block: [`WRITE_HEAT`] for each write, halved with each half-life since.
    #[must_use]
    pub fn heat(&self, block: u64) -> u32 {
        self.heat_at(block, self.half_lives())
    }

    fn heat_at(&self, block: u64, now: u32) -> u32 {
        let counter = self.counters.get(block as usize);
        counter.map_or(0, |packed| Counter::unpack(packed.load(Ordering::Relaxed)).heat_at(now))
    }

    /// Half-lives since boot.
    fn half_lives(&self) -> u32 {
        (nanos(self.clock.boot()) / self.half_life_ns) as u32
    }

    fn count(&self, offset: u64, len: u64) {
        let end = offset.saturating_add(len);
        if offset >= end {
            return;
        }
        let (first, last) = (offset >> self.block_shift, (end - 1) >> self.block_shift);
        let blocks = first as usize..self.counters.len().min(last as usize + 1);
        let now = self.half_lives();
        for counter in self.counters.get(blocks).unwrap_or_default() {
            // No exchange, which would wait for memory: two writes at once may count as one.
            let touched = Counter::unpack(counter.load(Ordering::Relaxed)).touched(now);
            counter.store(touched.pack(), Ordering::Relaxed);
        }
    }
}

/// Nanoseconds in 64 bits: they hold centuries, and are divided faster.
fn nanos(time: Duration) -> u64 {
    time.as_secs() * 1_000_000_000 + u64::from(time.subsec_nanos())
}

/// The order of blocks by heat, the least first. Time stands still in it.
pub struct LeastFirst<'a> {
    volatility: &'a Volatility,
    now: u32,
}

impl Order for LeastFirst<'_> {
    type Rank = u32;

    fn rank(&self, block: u64) -> u32 {
        self.volatility.heat_at(block, self.now)
    }
}

#[async_trait]
impl Device for Volatility {
    fn geometry(&self) -> Geometry {
        self.below.geometry()
    }

    fn try_read(&self, offset: u64, buf: &mut [u8]) -> Attempt<Content> {
        self.below.try_read(offset, buf)
    }

    fn try_write(&self, offset: u64, data: &[u8]) -> Attempt<()> {
        let attempt = self.below.try_write(offset, data);
        if matches!(attempt, Attempt::Done(())) {
            self.count(offset, data.len() as u64);
        }
        attempt
    }

    fn try_flush(&self) -> Attempt<()> {
        self.below.try_flush()
    }

    async fn read(&self, offset: u64, buf: &mut [u8]) -> Result<Content> {
        self.below.read(offset, buf).await
    }

    async fn write(&self, offset: u64, data: Bytes) -> Result<()> {
        self.count(offset, data.len() as u64);
        self.below.write(offset, data).await
    }

    async fn zero(&self, offset: u64, len: u64) -> Result<()> {
        self.count(offset, len);
        self.below.zero(offset, len).await
    }

    async fn flush(&self) -> Result<()> {
        self.below.flush().await
    }

    async fn status(&self, offset: u64, len: u64, ranges_max: usize) -> Result<Vec<StatusRange>> {
        self.below.status(offset, len, ranges_max).await
    }

    async fn prefetch(&self, offset: u64, len: u64) {
        self.below.prefetch(offset, len).await;
    }
}
