//! The reference device keeps the trait's rules, and the checks see a device that breaks one.

use async_trait::async_trait;
use bytes::Bytes;
use futures::executor::block_on;
use skerry_device::memory::MemoryDevice;
use skerry_device::{Attempt, Content, Device, Geometry, Result, StatusRange, conformance};

const SIZE_BYTES: u64 = (1 << 20) + 512;

#[test]
fn memory_keeps_the_rules() {
    block_on(conformance::writable(&MemoryDevice::new(SIZE_BYTES)));
    block_on(conformance::read_only(&MemoryDevice::new(SIZE_BYTES).read_only()));
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
    use Breaks::{End, FastReads, Parts, Status, Writes, Zeros};
    for breaks in [Writes, Parts, Zeros, End, Status, FastReads] {
        let checked = std::panic::catch_unwind(|| {
            block_on(conformance::writable(&Broken(MemoryDevice::new(SIZE_BYTES), breaks)));
        });
        assert!(checked.is_err(), "{breaks:?}");
    }
}
