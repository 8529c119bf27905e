//! Tests which reads the connection's own thread makes, and which it passes on.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use skerry_device::memory::MemoryDevice;
use skerry_device::{Attempt, Content, Device, Geometry, Result, StatusRange};
use skerry_serve::nbd::wire::{Request, command};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::client::{Client, DISK_BYTES, disk, serving};

/// A disk that can answer every read at once. Notes the offsets of reads for which the server
/// waits.
struct Elsewhere {
    inner: MemoryDevice,
    reads: Mutex<Vec<u64>>,
}

#[async_trait]
impl Device for Elsewhere {
    fn geometry(&self) -> Geometry {
        self.inner.geometry()
    }

    fn try_read(&self, offset: u64, buf: &mut [u8]) -> Attempt<Content> {
        self.inner.try_read(offset, buf)
    }

    async fn read(&self, offset: u64, buf: &mut [u8]) -> Result<Content> {
        self.reads.lock().expect("no panic").push(offset);
        self.inner.read(offset, buf).await
    }

    async fn write(&self, offset: u64, data: Bytes) -> Result<()> {
        self.inner.write(offset, data).await
    }

    async fn zero(&self, offset: u64, len: u64) -> Result<()> {
        self.inner.zero(offset, len).await
    }

    async fn flush(&self) -> Result<()> {
        self.inner.flush().await
    }

    async fn status(&self, offset: u64, len: u64, ranges_max: usize) -> Result<Vec<StatusRange>> {
        self.inner.status(offset, len, ranges_max).await
    }
}

/// Once, one thread unpacked all reads of a connection, however many stood in line.
#[tokio::test]
async fn a_long_read_with_another_behind_it_is_made_elsewhere() {
    const LEN: u32 = 64 << 10;
    let inner = MemoryDevice::new(DISK_BYTES);
    let device = Arc::new(Elsewhere { inner, reads: Mutex::default() });
    let mut client = Client::open(&serving(vec![disk(device.clone())]), "disk", false).await;
    client.read(0, LEN).await;
    assert!(device.reads.lock().expect("no panic").is_empty(), "none stood behind it");
    let request = |cookie, offset, len| {
        Request { flags: 0, command: command::READ, cookie, offset, len }.encode()
    };
    let (short, long) = (request(1, 512, 4096), request(2, 1024, LEN));
    let together = [short, long, request(3, 1536, LEN)].concat();
    client.stream.write_all(&together).await.expect("sent");
    let mut replies = vec![0; 3 * 16 + 4096 + 2 * LEN as usize];
    client.stream.read_exact(&mut replies).await.expect("three replies");
    assert_eq!(*device.reads.lock().expect("no panic"), [1024], "the long one that is not last");
}
