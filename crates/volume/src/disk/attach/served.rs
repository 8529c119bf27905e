//! A volume's device as front ends see it: the trait of devices, with read-ahead and the meaning of
//! the engine's errors for a client.

use crate::disk::attach::device::Device;
use crate::error::{Error, ErrorKind};
use async_trait::async_trait;
use bytes::Bytes;
use skerry_core::size::SECTOR_BYTES;
use skerry_device::{self as front, Attempt, Content, Geometry, StatusRange};

impl Device {
    fn check_writable(&self) -> front::Result<()> {
        if self.is_read_only() {
            let text = format!("{} is read-only here", self.name());
            return Err(front::Error::new(front::ErrorKind::ReadOnly, text));
        }
        Ok(())
    }
}

#[async_trait]
impl front::Device for Device {
    fn geometry(&self) -> Geometry {
        Geometry {
            size_bytes: self.size_bytes(),
            sector_bytes: SECTOR_BYTES as u32,
            block_bytes: self.block_size_bytes() as u32,
            read_only: self.is_read_only(),
        }
    }

    fn try_read(&self, offset: u64, buf: &mut [u8]) -> Attempt<Content> {
        // Every read is tried first, in the client's order. Reads that wait come again in any
        // order.
        self.note_read(offset, buf.len());
        attempt(self.try_read(offset, buf), Content::Data)
    }

    fn try_write(&self, offset: u64, data: &[u8]) -> Attempt<()> {
        match self.check_writable() {
            Ok(()) => attempt(self.try_write(offset, data), ()),
            Err(error) => Attempt::Failed(error),
        }
    }

    fn try_flush(&self) -> Attempt<()> {
        attempt(self.try_flush(), ())
    }

    async fn read(&self, offset: u64, buf: &mut [u8]) -> front::Result<Content> {
        self.read_into(offset, buf).await?;
        Ok(Content::Data)
    }

    async fn write(&self, offset: u64, data: Bytes) -> front::Result<()> {
        self.check_writable()?;
        Ok(self.write(offset, data).await?)
    }

    async fn zero(&self, offset: u64, len: u64) -> front::Result<()> {
        self.check_writable()?;
        Ok(self.zero(offset, len).await?)
    }

    async fn flush(&self) -> front::Result<()> {
        Ok(self.flush().await?)
    }

    async fn status(
        &self,
        offset: u64,
        len: u64,
        ranges_max: usize,
    ) -> front::Result<Vec<StatusRange>> {
        self.geometry().check(offset, len)?;
        Ok(self.status(offset, len, ranges_max).await?)
    }

    async fn prefetch(&self, offset: u64, len: u64) {
        self.prefetch(offset, len).await;
    }
}

fn attempt<T>(outcome: Option<Result<(), Error>>, done: T) -> Attempt<T> {
    match outcome {
        None => Attempt::WouldBlock,
        Some(Ok(())) => Attempt::Done(done),
        Some(Err(error)) => Attempt::Failed(error.into()),
    }
}

/// Only an error after which another attachment finds the same state is a
/// [`Reattach`](front::ErrorKind::Reattach). After a rollback or a release, a client that attaches
/// again by itself would go on, with all its memory, on another state.
impl From<Error> for front::Error {
    fn from(error: Error) -> Self {
        let kind = match error.kind() {
            _ if error.ends_attachment() => front::ErrorKind::Reattach,
            ErrorKind::Invalid => front::ErrorKind::Invalid,
            _ => front::ErrorKind::Failed,
        };
        Self::new(kind, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_one_meaning_for_a_client() {
        for (error, meaning) in [
            (Error::detached("x", "y"), front::ErrorKind::Failed),
            (Error::unavailable("x", "y"), front::ErrorKind::Failed),
            (Error::fenced("x", "y"), front::ErrorKind::Failed),
            (Error::corrupt("x", "y"), front::ErrorKind::Failed),
            (Error::invalid("x", "y"), front::ErrorKind::Invalid),
        ] {
            assert_eq!(front::Error::from(error.clone()).kind, meaning, "{error:?}");
        }
        let ended = Error::unavailable("x", "y").of_volume(true);
        assert_eq!(front::Error::from(ended).kind, front::ErrorKind::Reattach);
        let released = Error::detached("x", "y").of_volume(true);
        assert_eq!(front::Error::from(released).kind, front::ErrorKind::Failed);
    }
}
