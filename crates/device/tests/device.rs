//! The reference device keeps the trait's rules, and the checks see a device that breaks one.

use async_trait::async_trait;
use bytes::Bytes;
use futures::executor::block_on;
use skerry_device::memory::MemoryDevice;
use skerry_device::{Attempt, Content, Device, Geometry, Result, StatusRange, conformance};

const SIZE_BYTES: u64 = (1 << 20) + 512;

/// A size whose last sector is short.
const SHORT_BYTES: u64 = (1 << 20) + 78;

#[test]
fn memory_keeps_the_rules() {
    block_on(conformance::writable(&MemoryDevice::new(SIZE_BYTES)));
    block_on(conformance::read_only(&MemoryDevice::new(SIZE_BYTES).read_only()));
}

#[test]
fn sizes_need_be_no_multiples_of_a_sector() {
    for size_bytes in [900, (1 << 20) + 78, 1_234_567] {
        block_on(conformance::writable(&MemoryDevice::new(size_bytes)));
        block_on(conformance::read_only(&MemoryDevice::new(size_bytes).read_only()));
    }
}

#[test]
fn a_short_last_sector_is_whole() {
    let geometry = MemoryDevice::new(900).geometry();
    assert!(geometry.is_whole(0, 900) && geometry.is_whole(512, 388) && geometry.is_whole(0, 512));
    assert!(!geometry.is_whole(0, 388) && !geometry.is_whole(388, 512));
}

/// A rule to break.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Breaks {
    Writes,
    Parts,
    Zeros,
    End,
    Status,
    FastReads,
    ShortSector,
}

/// A device in memory that breaks a rule.
struct Broken(MemoryDevice, Breaks);

#[async_trait]
impl Device for Broken {
    fn geometry(&self) -> Geometry {
        self.0.geometry()
    }

    fn try_read(&self, _offset: u64, buf: &mut [u8]) -> Attempt<Content> {
        buf.fill(1);
        if self.1 == Breaks::FastReads {
            return Attempt::Done(Content::Data);
        }
        Attempt::WouldBlock
    }

    async fn read(&self, offset: u64, buf: &mut [u8]) -> Result<Content> {
        self.0.read(offset, buf).await
    }

    async fn write(&self, offset: u64, data: Bytes) -> Result<()> {
        match self.1 {
            Breaks::Writes => Ok(()),
            Breaks::Parts => self.0.write(offset / 512 * 512, data).await,
            // What fits is written.
            Breaks::End => {
                let room = SIZE_BYTES.saturating_sub(offset).min(data.len() as u64);
                self.0.write(offset.min(SIZE_BYTES), data.slice(..room as usize)).await
            }
            Breaks::ShortSector if offset == SHORT_BYTES / 512 * 512 => Ok(()),
            _ => self.0.write(offset, data).await,
        }
    }

    async fn zero(&self, offset: u64, len: u64) -> Result<()> {
        if self.1 == Breaks::Zeros { Ok(()) } else { self.0.zero(offset, len).await }
    }

    async fn flush(&self) -> Result<()> {
        self.0.flush().await
    }

    async fn status(&self, offset: u64, len: u64, ranges_max: usize) -> Result<Vec<StatusRange>> {
        if self.1 == Breaks::Status {
            return Ok(vec![StatusRange { offset, length: len, hole: true }]);
        }
        self.0.status(offset, len, ranges_max).await
    }
}

#[test]
fn a_broken_rule_is_seen() {
    use Breaks::{End, FastReads, Parts, ShortSector, Status, Writes, Zeros};
    for breaks in [Writes, Parts, Zeros, End, Status, FastReads, ShortSector] {
        let size_bytes = if breaks == ShortSector { SHORT_BYTES } else { SIZE_BYTES };
        let checked = std::panic::catch_unwind(|| {
            block_on(conformance::writable(&Broken(MemoryDevice::new(size_bytes), breaks)));
        });
        assert!(checked.is_err(), "{breaks:?}");
    }
}
