//! Keys of a shard's database: one letter for the kind, the tenant's hash, then the row's own name.
//!
//! The letter is the segment of SlateDB's tree, and the hash decides a row's shard. Only the
//! descriptor and the paused task groups have no hash: they are the shard's own. Names hold no
//! control characters, so a zero byte ends each.

use crate::error::{Error, ErrorKind, Result};
use crate::hash::TenantHash;
use crate::job::{JobKey, JobRef, Seq};
use crate::name::{Group, JobId, LimitKey, Tenant};
use slatedb::{PrefixExtractor, PrefixTarget};

/// The shard's descriptor, which has the format's version.
pub const DESCRIPTOR: &[u8] = b"f";
/// Letter of jobs that have not ended, each followed by its lease if a worker has it.
pub const ACTIVE: u8 = b'a';
/// Letter of ended jobs.
pub const ENDED: u8 = b't';
/// Letter of dead letters, newest last.
pub const DEAD: u8 = b'd';
/// Letter of jobs by metadata.
pub const METADATA: u8 = b'm';
/// Letter of limits.
pub const LIMIT: u8 = b'l';
/// Letter of rates whose buckets are not full.
pub const RATE: u8 = b'r';
/// Letter of paused task groups.
pub const PAUSED: u8 = b'p';

/// Follows the key of a job in the key of its lease.
const LEASE: u8 = 1;
/// A letter, a hash and a place.
const JOB_BYTES: usize = 17;

/// SlateDB's segments: a tree for each letter.
#[derive(Debug)]
pub struct ByLetter;

impl PrefixExtractor for ByLetter {
    fn name(&self) -> &'static str {
        "skerry-letter"
    }

    fn prefix_len(&self, target: &PrefixTarget) -> Option<usize> {
        let (PrefixTarget::Point(key) | PrefixTarget::Prefix(key)) = target;
        (!key.is_empty()).then_some(1)
    }
}

/// The rows of one kind of all tenants with this hash.
pub fn of_hash(letter: u8, hash: TenantHash) -> Vec<u8> {
    let mut key = Vec::with_capacity(64);
    key.push(letter);
    key.extend_from_slice(&hash.0.to_be_bytes());
    key
}

fn put_text(key: &mut Vec<u8>, text: &str) {
    key.extend_from_slice(text.as_bytes());
    key.push(0);
}

fn of_job(letter: u8, job: JobKey) -> Vec<u8> {
    let mut key = of_hash(letter, job.hash);
    key.extend_from_slice(&job.seq.0.to_be_bytes());
    key
}

/// The row of a job that has not ended.
pub fn active(job: JobKey) -> Vec<u8> {
    of_job(ACTIVE, job)
}

/// The lease of a job that a worker has: the row after the job's own.
pub fn lease(job: JobKey) -> Vec<u8> {
    lease_after(&active(job))
}

/// The lease of a job, by the key of the job's own row.
pub fn lease_after(active: &[u8]) -> Vec<u8> {
    [active, &[LEASE]].concat()
}

/// True for the key of a lease among the active jobs.
pub fn is_lease(key: &[u8]) -> bool {
    key.len() > JOB_BYTES
}

/// The rows of one kind of a tenant whose names begin with texts: the tenant, then these.
fn of_texts(letter: u8, tenant: &Tenant, texts: &[&str]) -> Vec<u8> {
    let mut key = of_hash(letter, TenantHash::of(tenant));
    put_text(&mut key, tenant.as_str());
    texts.iter().for_each(|text| put_text(&mut key, text));
    key
}

/// A job's name in keys: places have all their digits, so that older jobs come first.
fn text_of(name: &JobRef) -> String {
    match name {
        JobRef::Named(id) => id.as_str().to_owned(),
        JobRef::Assigned(seq) => format!("~{:016x}", seq.0),
    }
}

/// The row of an ended job.
pub fn ended(tenant: &Tenant, name: &JobRef) -> Vec<u8> {
    of_texts(ENDED, tenant, &[&text_of(name)])
}

/// The ended jobs of a tenant.
pub fn ended_of(tenant: &Tenant) -> Vec<u8> {
    of_texts(ENDED, tenant, &[])
}

/// The row of a dead letter.
pub fn dead(job: JobKey, tenant: &Tenant, name: &JobRef) -> Vec<u8> {
    let mut key = of_job(DEAD, job);
    put_text(&mut key, tenant.as_str());
    put_text(&mut key, &text_of(name));
    key
}

/// The row of an entry of a job's metadata.
pub fn metadata(tenant: &Tenant, entry: &(String, String), seq: Seq, name: &JobRef) -> Vec<u8> {
    let mut key = of_texts(METADATA, tenant, &[&entry.0, &entry.1]);
    key.extend_from_slice(&seq.0.to_be_bytes());
    put_text(&mut key, &text_of(name));
    key
}

/// Prefix of the rows of jobs whose entry of metadata has this value, or, with `is_prefix`, begins
/// with it.
pub fn metadata_prefix(tenant: &Tenant, entry: &(String, String), is_prefix: bool) -> Vec<u8> {
    let mut key = of_texts(METADATA, tenant, &[&entry.0, &entry.1]);
    if is_prefix {
        key.pop();
    }
    key
}

/// The row of a limit.
pub fn limit(tenant: &Tenant, limit: &LimitKey) -> Vec<u8> {
    of_texts(LIMIT, tenant, &[limit.as_str()])
}

/// The row of a rate, with the time when its bucket is full again.
pub fn rate(tenant: &Tenant, limit: &LimitKey) -> Vec<u8> {
    of_texts(RATE, tenant, &[limit.as_str()])
}

/// The row of a paused task group.
pub fn paused(group: &Group) -> Vec<u8> {
    let mut key = vec![PAUSED];
    put_text(&mut key, group.as_str());
    key
}

/// A job that a row points to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pointer {
    /// The job's tenant.
    pub tenant: Tenant,
    /// Its place.
    pub seq: Seq,
    /// Its name.
    pub name: JobRef,
}

impl Pointer {
    /// The job that a row of dead letters or of metadata points to.
    ///
    /// # Errors
    /// `Corrupt` if the key is neither.
    pub fn decode(key: &[u8]) -> Result<Self> {
        let mut rest = key;
        let letter = take(&mut rest, 1)?.first().copied();
        take(&mut rest, 8)?;
        match letter {
            Some(DEAD) => {
                let seq = take_seq(&mut rest)?;
                let tenant = Tenant::new(take_text(&mut rest)?)?;
                Ok(Self { tenant, seq, name: take_name(&mut rest)? })
            }
            Some(METADATA) => {
                let tenant = Tenant::new(take_text(&mut rest)?)?;
                take_text(&mut rest)?;
                take_text(&mut rest)?;
                let seq = take_seq(&mut rest)?;
                Ok(Self { tenant, seq, name: take_name(&mut rest)? })
            }
            _ => Err(bad()),
        }
    }
}

/// The tenant and the name of a limit, by the key of either kind of row that limits have.
///
/// # Errors
/// `Corrupt` if the key is no limit's.
pub fn limit_of(key: &[u8]) -> Result<(Tenant, LimitKey)> {
    let mut rest = key;
    take(&mut rest, 9)?;
    let tenant = Tenant::new(take_text(&mut rest)?)?;
    Ok((tenant, LimitKey::new(take_text(&mut rest)?)?))
}

/// The task group of a row of paused groups.
///
/// # Errors
/// `Corrupt` if the key is no task group's.
pub fn paused_of(key: &[u8]) -> Result<Group> {
    let mut rest = key;
    take(&mut rest, 1)?;
    Group::new(take_text(&mut rest)?)
}

fn bad() -> Error {
    Error::new(ErrorKind::Corrupt, "a row of the jobs' database has a name that is none")
}

fn take<'a>(rest: &mut &'a [u8], len: usize) -> Result<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(len).ok_or_else(bad)?;
    *rest = left;
    Ok(taken)
}

fn take_seq(rest: &mut &[u8]) -> Result<Seq> {
    let bytes = take(rest, 8)?.first_chunk().ok_or_else(bad)?;
    Ok(Seq(u64::from_be_bytes(*bytes)))
}

fn take_text<'a>(rest: &mut &'a [u8]) -> Result<&'a str> {
    let end = rest.iter().position(|byte| *byte == 0).ok_or_else(bad)?;
    let text = std::str::from_utf8(take(rest, end)?).map_err(|_| bad())?;
    take(rest, 1)?;
    Ok(text)
}

fn take_name(rest: &mut &[u8]) -> Result<JobRef> {
    let text = take_text(rest)?;
    let place = text.strip_prefix('~').filter(|digits| digits.len() == 16);
    match place.and_then(|digits| u64::from_str_radix(digits, 16).ok()) {
        Some(seq) => Ok(JobRef::Assigned(Seq(seq))),
        None => JobId::new(text).map(JobRef::Named),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(text: &str) -> Tenant {
        Tenant::new(text).expect("a name")
    }

    fn job(hash: u64, seq: u64) -> JobKey {
        JobKey { hash: TenantHash(hash), seq: Seq(seq) }
    }

    #[test]
    fn keys_are_in_the_order_of_age_and_do_not_mix() {
        assert!(active(job(1, 255)) < active(job(1, 256)));
        assert!(active(job(1, u64::MAX)) < active(job(2, 0)));
        assert!(active(job(1, 7)) < lease(job(1, 7)) && lease(job(1, 7)) < active(job(1, 8)));
        assert!(is_lease(&lease(job(1, 7))) && !is_lease(&active(job(1, 7))));
        let entry = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let (acme, name) = (tenant("a"), JobRef::Assigned(Seq(9)));
        let one = metadata(&acme, &entry("k", "value"), Seq(9), &name);
        for (text, is_prefix, is_in) in
            [("value", false, true), ("val", false, false), ("val", true, true), ("", true, true)]
        {
            let prefix = metadata_prefix(&acme, &entry("k", text), is_prefix);
            assert_eq!(one.starts_with(&prefix), is_in, "{text}");
        }
        assert!(!one.starts_with(&metadata_prefix(&acme, &entry("kv", ""), true)));
    }

    #[test]
    fn what_a_row_points_to_is_read_back() {
        let acme = tenant("acme");
        let entry = ("key".to_owned(), String::new());
        for name in ["mail-1", "~limit/api", "~ff"] {
            // A place with a zero byte in it, and one that ends with one.
            for seq in [Seq(0), Seq(0x100), Seq(u64::MAX)] {
                let name: JobRef = name.parse().expect("a name");
                let wanted = Pointer { tenant: acme.clone(), seq, name: name.clone() };
                let place = JobKey { hash: TenantHash::of(&acme), seq };
                let dead = dead(place, &acme, &name);
                assert_eq!(Pointer::decode(&dead), Ok(wanted.clone()));
                let metadata = metadata(&acme, &entry, seq, &name);
                assert_eq!(Pointer::decode(&metadata), Ok(wanted));
                for len in 0..dead.len() {
                    assert!(Pointer::decode(&dead[..len]).is_err(), "{len} bytes");
                }
            }
        }
        let api = LimitKey::new("api").expect("a name");
        assert_eq!(limit_of(&limit(&acme, &api)), Ok((acme.clone(), api.clone())));
        assert_eq!(limit_of(&rate(&acme, &api)), Ok((acme, api)));
        let mail = Group::new("mail").expect("a name");
        assert_eq!(paused_of(&paused(&mail)), Ok(mail));
    }
}
