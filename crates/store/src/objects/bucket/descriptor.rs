//! The bucket's descriptor. It is numbered, so that a feature can be raised on a bucket in use.
//!
//! The highest number counts. Raising a feature creates the next number, and never changes one. A
//! running node reads it before it takes a volume over and before it deletes anything. An older
//! Skerry must not collect where it does not know what holds segments.

use super::{Bucket, Created, Inner};
use crate::error::{Error, Result};
use skerry_core::FormatError;
use skerry_core::descriptor::{BucketDesc, Features};
use skerry_core::id::BucketId;
use skerry_core::names::{self, Object};
use std::sync::atomic::{AtomicU64, Ordering};

/// Name of the descriptor in a former layout, which no version reads today.
const FORMER: &str = "bucket";

/// A descriptor, and the highest number that was seen.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) id: BucketId,
    number: AtomicU64,
}

impl Seen {
    pub(super) fn none() -> Self {
        Self { id: BucketId::NONE, number: AtomicU64::new(0) }
    }
}

impl Bucket {
    /// Fails if a feature that this version does not know was raised since the bucket was opened:
    /// one GET.
    ///
    /// # Errors
    /// [`Error::Format`], written by a newer Skerry.
    pub async fn check_features(&self) -> Result<()> {
        let seen = &self.inner.desc.number;
        loop {
            let next = seen.load(Ordering::Acquire) + 1;
            match self.get(&names::descriptor(next)).await? {
                Some(bytes) => self.inner.decode_desc(next, &bytes)?,
                None => return Ok(()),
            };
            seen.fetch_max(next, Ordering::AcqRel);
        }
    }

    /// Raises features for all nodes, now and later. Returns when they stand in the bucket. Running
    /// nodes find out by [`Self::check_features`].
    ///
    /// # Errors
    /// [`Error::Format`] if the bucket has features, or is given some, that this version does not
    /// know.
    pub async fn raise(&self, features: Features) -> Result<BucketDesc> {
        loop {
            let (number, now) = self.inner.newest_desc().await?.ok_or_else(|| {
                Error::not_found(names::descriptor(self.inner.desc.number.load(Ordering::Acquire)))
            })?;
            if now.features.union(features) == now.features {
                return Ok(now);
            }
            let raised = BucketDesc { features: now.features.union(features), ..now };
            let name = names::descriptor(number + 1);
            let bytes = raised.encode(self.nonce());
            if self.create(&name, vec![bytes]).await? == Created::Ours {
                return Ok(raised);
            }
        }
    }
}

impl Inner {
    fn decode_desc(&self, number: u64, bytes: &[u8]) -> Result<BucketDesc> {
        let name = names::descriptor(number);
        BucketDesc::decode(bytes).map_err(|error| match error {
            FormatError::BadMagic { .. } => Error::Foreign {
                place: self.store.to_string(),
                found: format!("{name:?}, which Skerry did not write"),
            },
            error => Error::format(format!("{name:?} in {}", self.store), error),
        })
    }

    async fn newest_desc(&self) -> Result<Option<(u64, BucketDesc)>> {
        let listed = self.list(names::DESCRIPTORS).await?;
        let numbers = listed.iter().filter_map(|object| match names::parse(&object.name) {
            Object::Bucket(number) => Some(number),
            _ => None,
        });
        let Some(number) = numbers.max() else { return Ok(None) };
        let name = names::descriptor(number);
        let bytes = self.get(&name).await?.ok_or_else(|| Error::not_found(&name))?;
        Ok(Some((number, self.decode_desc(number, &bytes)?)))
    }

    /// Opens the bucket, or makes one in an empty place.
    pub(super) async fn open_desc(&self, create: bool) -> Result<Seen> {
        let (number, desc) = match self.newest_desc().await? {
            Some(found) => found,
            None => self.create_desc(create).await?,
        };
        Ok(Seen { id: desc.id, number: AtomicU64::new(number) })
    }

    async fn create_desc(&self, create: bool) -> Result<(u64, BucketDesc)> {
        let place = self.store.to_string();
        if let Some(found) = self.first_object().await? {
            // Another node may have made the bucket between the two listings.
            if let Some(made) = self.newest_desc().await? {
                return Ok(made);
            }
            return Err(self.why_not_here(place, found).await?);
        }
        if !create {
            return Err(Error::NoBucket { place });
        }
        let desc = BucketDesc {
            id: BucketId::random(&*self.env.entropy),
            features: Features::default(),
            created_ms: self.env.clock.wall_ms(),
        };
        let (number, bytes) = (1, desc.encode(self.env.entropy.id_bytes()));
        match self.create(&names::descriptor(number), bytes.into()).await? {
            Created::Ours => Ok((number, desc)),
            // Another node made the bucket between this node's read and create: use that one.
            Created::Theirs => {
                let name = names::descriptor(number);
                self.newest_desc().await?.ok_or_else(|| Error::not_found(&name))
            }
        }
    }

    /// Says what stands in the place of the bucket.
    async fn why_not_here(&self, place: String, found: String) -> Result<Error> {
        let former = self.get(FORMER).await?;
        if former.is_some_and(|bytes| BucketDesc::is(&bytes)) {
            let detail = "a Skerry before 0.2 made it, whose layout is not read any more: export its volumes with that \
                          version, and import them into a new bucket";
            return Ok(Error::Unfit { place, detail: detail.to_owned() });
        }
        Ok(Error::Foreign { place, found })
    }
}
