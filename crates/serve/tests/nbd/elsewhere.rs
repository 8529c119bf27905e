//! Tests which reads the connection's own thread makes, and which it passes on.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use skerry_serve::memory::MemoryExport;
use skerry_serve::nbd::wire::{Request, command};
use skerry_serve::{Attempt, Content, Export, ExportInfo, IoError, StatusExtent, ZeroesOptions};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::client::{Client, DISK_BYTES, serving};

/// A disk that can answer every read at once. Notes the offsets of reads for which the server
/// waits.
struct Elsewhere {
    inner: MemoryExport,
    reads: Mutex<Vec<u64>>,
}

#[async_trait]
impl Export for Elsewhere {
    fn info(&self) -> ExportInfo {
        self.inner.info()
    }

    fn try_read(&self, offset: u64, buf: &mut [u8]) -> Attempt<Content> {
        self.inner.try_read(offset, buf)
    }

    async fn read(&self, offset: u64, buf: &mut [u8]) -> Result<Content, IoError> {
        self.reads.lock().expect("no panic").push(offset);
        self.inner.read(offset, buf).await
    }

    async fn write(&self, offset: u64, data: Bytes, fua: bool) -> Result<(), IoError> {
        self.inner.write(offset, data, fua).await
    }

    async fn flush(&self) -> Result<(), IoError> {
        self.inner.flush().await
    }

    async fn trim(&self, offset: u64, len: u64, fua: bool) -> Result<(), IoError> {
        self.inner.trim(offset, len, fua).await
    }

    async fn write_zeroes(&self, offset: u64, len: u64, o: ZeroesOptions) -> Result<(), IoError> {
        self.inner.write_zeroes(offset, len, o).await
    }

    async fn cache(&self, offset: u64, len: u64) -> Result<(), IoError> {
        self.inner.cache(offset, len).await
    }

    async fn block_status(&self, offset: u64, len: u64) -> Result<Vec<StatusExtent>, IoError> {
        self.inner.block_status(offset, len).await
    }
}

/// Once, one thread unpacked all reads of a connection, however many stood in line.
#[tokio::test]
async fn a_long_read_with_another_behind_it_is_made_elsewhere() {
    const LEN: u32 = 64 << 10;
    let inner = MemoryExport::new("disk", DISK_BYTES);
    let disk = Arc::new(Elsewhere { inner, reads: Mutex::default() });
    let mut client = Client::open(&serving(vec![disk.clone()]), "disk", false).await;
    client.read(0, LEN).await;
    assert!(disk.reads.lock().expect("no panic").is_empty(), "none stood behind it");
    let request = |cookie, offset, len| {
        Request { flags: 0, command: command::READ, cookie, offset, len }.encode()
    };
    let (short, long) = (request(1, 512, 4096), request(2, 1024, LEN));
    let together = [short, long, request(3, 1536, LEN)].concat();
    client.stream.write_all(&together).await.expect("sent");
    let mut replies = vec![0; 3 * 16 + 4096 + 2 * LEN as usize];
    client.stream.read_exact(&mut replies).await.expect("three replies");
    assert_eq!(*disk.reads.lock().expect("no panic"), [1024], "the long one that is not last");
}
