//! Measures what counting volatility adds to a write, from the first write to ten million. Then it
//! puts a million blocks in order. Prints figures; asserts nothing.
//!
//! `cargo bench -p skerry-device --bench volatility`
#![allow(clippy::disallowed_methods, reason = "a benchmark reads the real clock")]
#![allow(clippy::unwrap_used, reason = "a benchmark may stop at the first error")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use skerry_core::env::Clock;
use skerry_device::wrap::order::Queue;
use skerry_device::wrap::volatility::Volatility;
use skerry_device::{Attempt, Content, Device, Geometry, Result, StatusRange};

const BLOCK_BYTES: u64 = 4096;
const BLOCKS: u64 = 1_000_000;
const WRITES: u64 = 10_000_000;
const ROUNDS: usize = 10;

/// Reads the system's clock for each call, as the binary's does.
struct SystemClock(Instant);

impl Clock for SystemClock {
    fn boot(&self) -> Duration {
        self.0.elapsed()
    }

    fn wall_ms(&self) -> u64 {
        0
    }
}

/// Takes every write at once, and keeps nothing.
struct Null;

#[async_trait]
impl Device for Null {
    fn geometry(&self) -> Geometry {
        let size_bytes = BLOCKS * BLOCK_BYTES;
        Geometry { size_bytes, sector_bytes: 512, block_bytes: 4096, read_only: false }
    }

    fn try_write(&self, _offset: u64, _data: &[u8]) -> Attempt<()> {
        Attempt::Done(())
    }

    async fn read(&self, _offset: u64, _buf: &mut [u8]) -> Result<Content> {
        Ok(Content::Zeroes)
    }

    async fn write(&self, _offset: u64, _data: Bytes) -> Result<()> {
        Ok(())
    }

    async fn zero(&self, _offset: u64, _len: u64) -> Result<()> {
        Ok(())
    }

    async fn flush(&self) -> Result<()> {
        Ok(())
    }

    async fn status(&self, offset: u64, length: u64, _max: usize) -> Result<Vec<StatusRange>> {
        Ok(vec![StatusRange { offset, length, hole: true }])
    }
}

fn main() {
    let bare: Arc<dyn Device> = Arc::new(Null);
    let clock = Arc::new(SystemClock(Instant::now()));
    let half_life = Duration::from_secs(1);
    let counted = Volatility::new(bare.clone(), clock.clone(), BLOCK_BYTES, half_life).unwrap();
    println!("{:.1} ns a reading of the clock", ns_a_reading(&*clock));
    println!("ns a write to one of {BLOCKS} blocks at random: bare, counted, added");
    for round in 1..=ROUNDS {
        let bare_ns = ns_a_write(&*bare);
        let counted_ns = ns_a_write(&counted);
        println!(
            "{:>9} writes: {bare_ns:6.1} {counted_ns:6.1} {:6.1}",
            round as u64 * WRITES / ROUNDS as u64,
            counted_ns - bare_ns
        );
    }
    let begun = Instant::now();
    let queue = Queue::new(&counted.least_first(), BLOCKS);
    let took = begun.elapsed();
    println!("{} blocks in order: {:.1} ms", queue.waiting(), took.as_secs_f64() * 1e3);
}

/// Writes to blocks at random; gives the mean.
fn ns_a_write(device: &dyn Device) -> f64 {
    let writes = WRITES / ROUNDS as u64;
    let mut state = 1_u64;
    let begun = Instant::now();
    for _ in 0..writes {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let _ = black_box(device.try_write((state >> 33) % BLOCKS * BLOCK_BYTES, &[1]));
    }
    begun.elapsed().as_nanos() as f64 / writes as f64
}

/// Reads the clock, which is a part of what a write costs; gives the mean.
fn ns_a_reading(clock: &dyn Clock) -> f64 {
    let readings = 1_000_000;
    let begun = Instant::now();
    for _ in 0..readings {
        black_box(clock.boot());
    }
    begun.elapsed().as_nanos() as f64 / f64::from(readings)
}
