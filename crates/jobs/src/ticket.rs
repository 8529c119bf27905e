//! Tickets as bytes: a lease, and its job's names. Workers give them back with every report.
//!
//! Little-endian: version 1 (1), place (8), attempt (4), epoch (4), the tenant and the job's id,
//! each a length (1) and its bytes. No id for a job whose owner gave it none. The hash is that of
//! the tenant. The names are there because they find the record of an ended job: a worker may
//! repeat its report by then.

use crate::error::{Error, Result};
use crate::hash::TenantHash;
use crate::job::{AttemptNo, Epoch, Lease, Seq, Ticket};
use crate::name::{JobId, Tenant};
use bytes::{Buf, BufMut, Bytes, BytesMut};

const VERSION: u8 = 1;

impl Ticket {
    /// Encodes a ticket for its worker.
    pub fn encode(&self) -> Bytes {
        let id = self.id.as_ref().map_or("", JobId::as_str);
        let mut out = BytesMut::with_capacity(19 + self.tenant.as_str().len() + id.len());
        out.put_u8(VERSION);
        out.put_u64_le(self.lease.seq.0);
        out.put_u32_le(self.lease.attempt.0);
        out.put_u32_le(self.lease.epoch.0);
        for text in [self.tenant.as_str(), id] {
            // A name has at most 128 bytes.
            out.put_u8(text.len() as u8);
            out.put_slice(text.as_bytes());
        }
        out.freeze()
    }

    /// Decodes a worker's ticket.
    ///
    /// # Errors
    /// `Invalid` if it is none.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        take(bytes).ok_or_else(|| Error::invalid("this is no lease"))
    }
}

fn take(mut bytes: &[u8]) -> Option<Ticket> {
    let version = bytes.try_get_u8().ok()?;
    let seq = Seq(bytes.try_get_u64_le().ok()?);
    let attempt = AttemptNo(bytes.try_get_u32_le().ok()?);
    let epoch = Epoch(bytes.try_get_u32_le().ok()?);
    let tenant = Tenant::new(take_text(&mut bytes)?).ok()?;
    let id = match take_text(&mut bytes)? {
        "" => None,
        id => Some(JobId::new(id).ok()?),
    };
    let lease = Lease { hash: TenantHash::of(&tenant), seq, attempt, epoch };
    (version == VERSION && bytes.is_empty()).then_some(Ticket { lease, tenant, id })
}

fn take_text<'a>(bytes: &mut &'a [u8]) -> Option<&'a str> {
    let len = bytes.try_get_u8().ok()?;
    let (text, rest) = bytes.split_at_checked(len.into())?;
    *bytes = rest;
    std::str::from_utf8(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_worker_carries_is_read_back() {
        let tenant = Tenant::new("acme").expect("a name");
        let hash = TenantHash::of(&tenant);
        let lease = Lease { hash, seq: Seq(7), attempt: AttemptNo(2), epoch: Epoch(3) };
        for id in [None, Some("mail-1"), Some("~limit/api")] {
            let id = id.map(|id| JobId::new(id).expect("a name"));
            let ticket = Ticket { lease, tenant: tenant.clone(), id };
            let bytes = ticket.encode();
            assert_eq!(Ticket::decode(&bytes), Ok(ticket));
            for len in 0..bytes.len() {
                assert!(Ticket::decode(&bytes[..len]).is_err(), "{len} bytes");
            }
            assert!(Ticket::decode(&[&bytes[..], &[0]].concat()).is_err());
        }
    }
}
