//! A reader's pin in the bucket, renewed until the reader lets go.
//!
//! The reader must make sure that its copy still counted when the pin was there. A head must still
//! be the newest; a snapshot must have no tombstone (`docs/protocols.md`).

use crate::error::Result;
use crate::objects::bucket::Bucket;
use skerry_core::descriptor::Pin;
use skerry_core::id::{PinId, VolumeId};
use skerry_core::names;
use skerry_core::root::Base;
use std::time::Duration;

/// A pin that this process renews.
pub struct HeldPin {
    bucket: Bucket,
    volume: VolumeId,
    pin: Pin,
}

impl HeldPin {
    /// Creates a pin of a base that rolls forward along the streams of `volume`.
    pub async fn new(bucket: &Bucket, volume: VolumeId, base: Base, ttl: Duration) -> Result<Self> {
        let id = PinId::random(bucket.entropy().as_ref());
        let ttl_ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        let hold =
            Self { bucket: bucket.clone(), volume, pin: Pin { id, renewal: 0, ttl_ms, base } };
        hold.put().await?;
        Ok(hold)
    }

    fn name(&self) -> String {
        names::pin(self.volume, self.pin.id, self.pin.renewal)
    }

    async fn put(&self) -> Result<()> {
        let bytes = self.pin.encode(self.bucket.nonce());
        // Only this process makes names of this id: an existing object is an earlier try.
        self.bucket.create(&self.name(), vec![bytes]).await.map(drop)
    }

    /// Renews the pin: its time begins anew.
    pub async fn renew(&mut self) -> Result<()> {
        let before = self.name();
        self.pin.renewal += 1;
        self.put().await?;
        // If it stays, the newer one counts.
        let _ = self.bucket.delete(&before).await;
        Ok(())
    }

    /// Deletes the pin. If that fails, the pin ends by itself.
    pub async fn let_go(self) {
        if let Err(error) = self.bucket.delete(&self.name()).await {
            tracing::debug!(%error, "a pin is left to expire");
        }
    }
}
