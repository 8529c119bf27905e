//! Listings: jobs that are certainly there are in them, jobs that are gone are not. No job is in
//! them twice unless it changed meanwhile.

use crate::calls::{Caller, Gone};
use crate::changes;
use crate::known::{Facts, Known};
use skerry_jobs::job::{Job, JobState};
use skerry_jobs::keys;
use skerry_jobs::shard::Query;
use std::collections::BTreeSet;

/// A job that may not start before this waits, whatever happens.
pub const FAR_MS: u64 = 4_000_000_000_000;

/// Lists all jobs, `limit` at once.
pub fn everything(limit: usize) -> Query {
    #[rustfmt::skip]
    let query = Query {
        tenant: None, group: None, state: None, metadata: None, is_prefix: false, limit,
    };
    query
}

fn value_of<'a>(query: &Query, entries: &'a [(String, String)]) -> Option<&'a str> {
    let (key, _) = query.metadata.as_ref()?;
    let entry = entries.iter().find(|(other, _)| other == key)?;
    Some(&entry.1)
}

/// True if a job of this specification may be in this listing, in some state.
fn may_match(query: &Query, spec: &skerry_jobs::spec::JobSpec) -> bool {
    query.tenant.as_ref().is_none_or(|tenant| spec.tenant == *tenant)
        && query.group.as_ref().is_none_or(|group| spec.group == *group)
        && query.metadata.as_ref().is_none_or(|(_, wanted)| {
            let value = value_of(query, &spec.metadata);
            value.is_some_and(|value| {
                value == wanted || query.is_prefix && value.starts_with(wanted)
            })
        })
}

/// True if no call restarts or deletes the job, nor has since `before` was certain.
fn is_settled(known: &Known, before: &Facts) -> bool {
    !known.busy && known.facts.epoch == before.epoch
}

/// True if the listing must have the job.
fn must_match(query: &Query, known: &Known, before: &Facts) -> bool {
    if !(before.exists && is_settled(known, before) && may_match(query, &known.spec)) {
        return false;
    }
    let waits = known.spec.start_at_ms >= FAR_MS && !known.cancel_tried;
    match query.state {
        None => true,
        Some(JobState::Scheduled) => waits,
        Some(state) => before.finished == Some(state),
    }
}

impl Caller<'_> {
    /// Lists jobs, page by page, and checks the listing.
    pub async fn list(&self, query: &Query) -> Result<(), Gone> {
        self.say(format!("list {query:?}"));
        let all_facts = |caller: &Self| -> Vec<Facts> {
            let model = caller.sim.model.borrow();
            model.jobs.iter().map(|known| known.facts.clone()).collect()
        };
        let (before, mut after, mut jobs) = (all_facts(self), None, Vec::new());
        loop {
            let listed = self.shard.list(query, after.as_ref()).await;
            let listed = listed.map_err(|error| self.gone("list", &error))?;
            assert!(listed.jobs.len() <= query.limit, "{} jobs", listed.jobs.len());
            jobs.extend(listed.jobs);
            after = listed.next;
            if after.is_none() {
                break;
            }
        }
        if self.is_old() {
            return Ok(());
        }
        self.say(format!("list: {} jobs", jobs.len()));
        self.is_in_order(query, &jobs);
        let mut found = BTreeSet::new();
        for job in jobs.iter().filter(|job| job.name() != changes::refresher()) {
            self.is_listed_rightly(query, &before, job, &mut found);
        }
        let model = self.sim.model.borrow();
        for (number, (known, before)) in model.jobs.iter().zip(&before).enumerate() {
            let is_missed = !found.contains(&number) && must_match(query, known, before);
            assert!(!is_missed, "job {number} is not in {query:?}: {known:?}");
        }
        Ok(())
    }

    /// Checks the order of rows: by the tenant's hash, then by age; ended jobs come after the
    /// others, by name. By value and age if metadata were asked for.
    fn is_in_order(&self, query: &Query, jobs: &[Job]) {
        let key = |job: &Job| match (&query.metadata, query.state) {
            (Some((key, _)), _) => {
                let value = value_of(query, &job.spec.metadata).unwrap_or_default().to_owned();
                keys::metadata(&job.spec.tenant, &(key.clone(), value), job.seq, &job.name())
            }
            (None, Some(JobState::Failed)) => keys::dead(job.key(), &job.spec.tenant, &job.name()),
            _ if job.state.is_final() => keys::ended(&job.spec.tenant, &job.name()),
            _ => keys::active(job.key()),
        };
        let descents = jobs.windows(2).filter(|pair| key(&pair[0]) >= key(&pair[1])).count();
        assert_eq!(descents, 0, "some are out of order or twice in {query:?}");
    }

    fn is_listed_rightly(
        &self,
        query: &Query,
        before: &[Facts],
        job: &Job,
        found: &mut BTreeSet<usize>,
    ) {
        assert!(query.state.is_none_or(|state| state == job.state), "{query:?}: {job:?}");
        assert!(may_match(query, &job.spec), "{query:?}: {job:?}");
        let mut model = self.sim.model.borrow_mut();
        let number = model.number_of(job);
        let is_first = found.insert(number);
        let Some(before) = before.get(number) else {
            return model.jobs[number].is_same(number, job);
        };
        model.seen(number, before, job);
        let may_move = before.finished.is_none() || !is_settled(&model.jobs[number], before);
        assert!(is_first || may_move, "job {number} is twice in {query:?}");
    }
}
