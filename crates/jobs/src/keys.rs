//! The names of everything in a shard's database: one letter for the kind, then what it is of. Names hold no
//! control characters, so a zero byte ends each.

use crate::error::{Error, ErrorKind, Result};
use crate::job::Seq;
use crate::name::{Group, JobId, LimitKey, Tenant};

/// The shard's descriptor: what format it has.
pub const DESCRIPTOR: &[u8] = b"f";
/// Before jobs that have not come to their end.
pub const ACTIVE: u8 = b'a';
/// Before jobs that have.
pub const FINAL: u8 = b't';
/// Before the places of jobs that have come to their end, by tenant and id.
pub const NAMED: u8 = b'i';
/// Before dead letters, newest last.
pub const DEAD: u8 = b'd';
/// Before places by metadata.
pub const METADATA: u8 = b'm';
/// Before what is known of limits.
pub const LIMIT: u8 = b'l';
/// Before task groups that are paused.
pub const PAUSED: u8 = b'p';

fn of_seq(kind: u8, seq: Seq) -> Vec<u8> {
    let mut key = Vec::with_capacity(9);
    key.push(kind);
    key.extend_from_slice(&seq.0.to_be_bytes());
    key
}

fn of_texts(kind: u8, texts: &[&str]) -> Vec<u8> {
    let mut key = vec![kind];
    for text in texts {
        key.extend_from_slice(text.as_bytes());
        key.push(0);
    }
    key
}

/// A job that has not come to its end.
pub fn active(seq: Seq) -> Vec<u8> {
    of_seq(ACTIVE, seq)
}

/// A job that has.
pub fn ended(seq: Seq) -> Vec<u8> {
    of_seq(FINAL, seq)
}

/// That a job failed for good.
pub fn dead(seq: Seq) -> Vec<u8> {
    of_seq(DEAD, seq)
}

/// The place of a job that has come to its end, by its id.
pub fn named(tenant: &Tenant, id: &JobId) -> Vec<u8> {
    of_texts(NAMED, &[tenant.as_str(), id.as_str()])
}

/// That a job has this entry of metadata.
pub fn metadata(tenant: &Tenant, entry: &(String, String), seq: Seq) -> Vec<u8> {
    let mut key = of_texts(METADATA, &[tenant.as_str(), &entry.0, &entry.1]);
    key.extend_from_slice(&seq.0.to_be_bytes());
    key
}

/// What all keys begin with of jobs whose entry of metadata has this value, or, with `is_prefix`, one that begins so.
pub fn metadata_prefix(tenant: &Tenant, entry: &(String, String), is_prefix: bool) -> Vec<u8> {
    let mut key = of_texts(METADATA, &[tenant.as_str(), &entry.0, &entry.1]);
    if is_prefix {
        key.pop();
    }
    key
}

/// What is known of a limit.
pub fn limit(tenant: &Tenant, limit: &LimitKey) -> Vec<u8> {
    of_texts(LIMIT, &[tenant.as_str(), limit.as_str()])
}

/// That a task group is paused.
pub fn paused(group: &Group) -> Vec<u8> {
    of_texts(PAUSED, &[group.as_str()])
}

/// The texts that a key is made of, after its letter.
///
/// # Errors
/// `Corrupt` if there are not so many.
pub fn texts_of<const N: usize>(key: &[u8]) -> Result<[&str; N]> {
    let bad =
        || Error::new(ErrorKind::Corrupt, "a row of the jobs' database has a name that is none");
    let rest = key.get(1..).and_then(|rest| rest.strip_suffix(&[0])).ok_or_else(bad)?;
    let texts = rest.split(|byte| *byte == 0).map(std::str::from_utf8);
    let texts: Vec<&str> = texts.collect::<std::result::Result<_, _>>().map_err(|_| bad())?;
    texts.try_into().map_err(|_| bad())
}

/// The place at the end of a key.
pub fn seq_of(key: &[u8]) -> Option<Seq> {
    key.last_chunk().map(|bytes| Seq(u64::from_be_bytes(*bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_in_the_order_of_age_and_do_not_mix() {
        assert!(active(Seq(255)) < active(Seq(256)) && active(Seq(u64::MAX)) < ended(Seq(0)));
        assert_eq!(seq_of(&active(Seq(7))), Some(Seq(7)));
        let tenant = |text| Tenant::new(text).expect("a name");
        let entry = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let one = metadata(&tenant("a"), &entry("k", "value"), Seq(9));
        assert_eq!(seq_of(&one), Some(Seq(9)));
        for (text, is_prefix, is_in) in
            [("value", false, true), ("val", false, false), ("val", true, true), ("", true, true)]
        {
            let prefix = metadata_prefix(&tenant("a"), &entry("k", text), is_prefix);
            assert_eq!(one.starts_with(&prefix), is_in, "{text}");
        }
        assert!(!one.starts_with(&metadata_prefix(&tenant("a"), &entry("kv", ""), true)));
    }
}
