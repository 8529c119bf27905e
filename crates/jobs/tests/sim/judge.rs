//! Rules for the database of a shard whose jobs have all ended.

use crate::changes;
use crate::known::Known;
use crate::sim::Sim;
use skerry_jobs::job::{Job, JobState};
use skerry_jobs::keys;
use skerry_jobs::limit::{Limit, LimitKind};
use skerry_jobs::name::Tenant;
use std::collections::{BTreeMap, BTreeSet};

/// True for the key of a lease, among the jobs that have not ended.
fn is_lease(key: &[u8]) -> bool {
    key[0] == keys::ACTIVE && keys::is_lease(key)
}

/// Learns the jobs that were taken and whose callers got no answer. No shard has the database open.
pub async fn learn_names(sim: &Sim) {
    for (key, value) in sim.world.rows().await {
        let is_over = [keys::LIMIT, keys::PAUSED].contains(&key[0]);
        assert!(!is_over, "nothing is paused, and no limit is in use: {key:?}");
        if [keys::ACTIVE, keys::ENDED].contains(&key[0]) && !is_lease(&key) {
            let job = Job::decode(&value).expect("a job");
            if job.name() == changes::refresher() {
                continue;
            }
            let mut model = sim.model.borrow_mut();
            let number = model.number_of(&job);
            model.jobs[number].is_same(number, &job);
            let gone_ms = model.jobs[number].facts.gone_ms;
            assert_eq!(gone_ms, None, "job {number} was deleted: {job:?}");
        }
    }
}

/// Checks the database at rest: no shard has it open, and every job has ended.
pub async fn at_rest(sim: &Sim) {
    let rows = sim.world.rows().await;
    let mut found: BTreeMap<usize, Job> = BTreeMap::new();
    let mut wanted: BTreeSet<Vec<u8>> = BTreeSet::from([keys::DESCRIPTOR.to_vec()]);
    for (key, value) in &rows {
        assert_ne!(key[0], keys::ACTIVE, "a job has not come to its end: {key:?}");
        if key[0] == keys::ENDED {
            let job = Job::decode(value).expect("a job");
            wanted.extend(keys_of(&job));
            if job.name() == changes::refresher() {
                continue;
            }
            let number = sim.model.borrow().number_of(&job);
            let other = found.insert(number, job);
            assert!(other.is_none(), "job {number} is there twice: {other:?}");
        }
    }
    // Rates whose buckets were not full may be there.
    let rows = rows.into_iter().filter(|(key, _)| key[0] != keys::RATE);
    let there: BTreeSet<Vec<u8>> = rows.map(|(key, _)| key).collect();
    let differ: Vec<_> = there.symmetric_difference(&wanted).collect();
    assert!(differ.is_empty(), "these keys are too many or not there: {differ:?}");
    for (number, known) in sim.model.borrow().jobs.iter().enumerate() {
        is_kept(number, known, found.get(&number));
    }
    if !sim.jumped.get() {
        limits_held(found.values());
    }
    sim.say(format!("{} jobs at rest", found.len()));
}

/// All keys of an ended job.
fn keys_of(job: &Job) -> Vec<Vec<u8>> {
    let (tenant, name) = (&job.spec.tenant, job.name());
    let mut all = vec![keys::ended(tenant, &name)];
    all.extend((job.state == JobState::Failed).then(|| keys::dead(job.key(), tenant, &name)));
    let entries = job.spec.metadata.iter();
    all.extend(entries.map(|entry| keys::metadata(tenant, entry, job.seq, &name)));
    all
}

fn is_kept(number: usize, known: &Known, found: Option<&Job>) {
    assert!(!known.facts.exists || found.is_some(), "job {number} was lost: {known:?}");
    assert!(
        known.facts.gone_ms.is_none() || found.is_none(),
        "job {number} was deleted: {found:?}"
    );
    if let Some(record) = &known.facts.record {
        assert_eq!(Some(record), found, "job {number} had ended");
    }
}

/// Times, and how many more or fewer jobs ran from then on.
type Changes = Vec<(u64, i32)>;

/// Checks in hindsight that no limit had more jobs than it may have. Goes by the wall clock, which
/// must not have been set.
fn limits_held<'a>(jobs: impl Iterator<Item = &'a Job>) {
    let mut changes: BTreeMap<(&Tenant, &str, u32), Changes> = BTreeMap::new();
    for job in jobs {
        for Limit { key, kind } in &job.spec.limits {
            let LimitKind::Concurrency { max } = kind else { continue };
            let of = changes.entry((&job.spec.tenant, key.as_str(), *max)).or_default();
            for attempt in &job.attempts {
                let (ended_ms, _) = attempt.ended.as_ref().expect("all have ended");
                of.extend([(attempt.started_ms, 1), (*ended_ms, -1)]);
            }
        }
    }
    for ((tenant, key, max), mut changes) in changes {
        // Within a millisecond, attempts that end make room for attempts that begin.
        changes.sort_unstable();
        let mut running = 0;
        for (at_ms, change) in changes {
            running += change;
            assert!(running <= max as i32, "{running} under {tenant}'s {key} at {at_ms}");
        }
    }
}
