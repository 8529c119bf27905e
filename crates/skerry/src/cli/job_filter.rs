//! A filter of jobs: a command is about the jobs that match all of its terms.
//!
//! The node searches by tenant, task group, state and one entry of metadata. The command checks the
//! rest: age, and further entries.

use std::ops::RangeInclusive;

use jiff::Timestamp;
use skerry_api::{Result, v1};

use crate::cli::duration;
use crate::schedule::TENANT;
use crate::values::invalid;

/// Jobs of one page of a listing.
const PAGE_ITEMS: u32 = 1000;

/// The terms that a filter can have, for errors.
const TERMS: &str = "state, group, tenant, meta.KEY, older-than or newer-than";

/// An entry of metadata that jobs have.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    key: String,
    value: String,
    /// True if the value may go on.
    is_prefix: bool,
}

impl Entry {
    fn new(key: &str, value: &str) -> Self {
        let start = value.strip_suffix('*');
        let (key, value) = (key.to_owned(), start.unwrap_or(value).to_owned());
        Self { key, value, is_prefix: start.is_some() }
    }

    fn matches(&self, job: &v1::JobSpec) -> bool {
        let found = job.metadata.get(&self.key);
        found.is_some_and(|found| match self.is_prefix {
            true => found.starts_with(&self.value),
            false => *found == self.value,
        })
    }
}

/// The jobs that a command is about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct JobFilter {
    tenant: Option<String>,
    group: Option<String>,
    state: Option<v1::JobState>,
    metadata: Vec<Entry>,
    older_than_ms: Option<u64>,
    newer_than_ms: Option<u64>,
}

impl JobFilter {
    /// Reads a filter from its terms, `KEY=VALUE` each. A job must match all of them.
    ///
    /// # Errors
    /// `Invalid` names the term that is wrong or comes twice.
    pub(crate) fn parse<'a>(terms: impl IntoIterator<Item = &'a str>) -> Result<Self> {
        let mut filter = Self::default();
        for term in terms {
            let (key, value) = term.split_once('=').ok_or_else(|| {
                invalid(format!("--filter {term:?}: write KEY=VALUE, with {TERMS} as the key"))
            })?;
            filter.add(key, value)?;
        }
        if filter.tenant.is_none() && !filter.metadata.is_empty() {
            return Err(invalid("a search by metadata needs a tenant: add --tenant NAME"));
        }
        Ok(filter)
    }

    fn add(&mut self, key: &str, value: &str) -> Result<()> {
        if value.is_empty() && !key.starts_with("meta.") {
            return Err(invalid(format!("--filter {key}=: the value is empty")));
        }
        let twice = match key {
            "state" => self.state.replace(state(value)?).is_some(),
            "group" => self.group.replace(value.to_owned()).is_some(),
            "tenant" => self.tenant.replace(value.to_owned()).is_some(),
            "older-than" => self.older_than_ms.replace(duration::ms(value)?).is_some(),
            "newer-than" => self.newer_than_ms.replace(duration::ms(value)?).is_some(),
            _ => match key.strip_prefix("meta.").filter(|key| !key.is_empty()) {
                Some(key) => {
                    self.metadata.push(Entry::new(key, value));
                    false
                }
                None => {
                    let message = format!("--filter {key}={value}: a filter has {TERMS}");
                    return Err(invalid(message));
                }
            },
        };
        if twice {
            return Err(invalid(format!("the filter has {key} twice: a job has only one")));
        }
        Ok(())
    }

    /// The state that it asks for.
    pub(crate) fn state(&self) -> Option<v1::JobState> {
        self.state
    }

    /// The filter for one state.
    pub(crate) fn of_state(&self, state: v1::JobState) -> Self {
        Self { state: Some(state), ..self.clone() }
    }

    /// The request for the first page of a listing.
    pub(crate) fn request(&self) -> v1::ListJobsRequest {
        let entry = self.metadata.first().cloned();
        let entry = entry.unwrap_or_else(|| Entry::new("", ""));
        v1::ListJobsRequest {
            tenant: self.tenant.clone().unwrap_or_default(),
            group: self.group.clone().unwrap_or_default(),
            state: self.state.unwrap_or(v1::JobState::Unspecified).into(),
            metadata_key: entry.key,
            metadata_value: entry.value,
            metadata_prefix: entry.is_prefix,
            limit: PAGE_ITEMS,
            after: Default::default(),
        }
    }

    /// True if a job that the node found for the request matches. Jobs of the node itself match
    /// only a filter for their tenant.
    pub(crate) fn matches(&self, job: &v1::Job) -> bool {
        let Some(spec) = &job.spec else { return false };
        let is_others = self.tenant.is_some() || spec.tenant != TENANT;
        let made = self.made(Timestamp::now());
        is_others
            && made.contains(&job.created_ms)
            && self.metadata.iter().all(|entry| entry.matches(spec))
    }

    /// The times at which its jobs were made.
    fn made(&self, now: Timestamp) -> RangeInclusive<u64> {
        let now_ms = u64::try_from(now.as_millisecond()).unwrap_or_default();
        let first = self.newer_than_ms.map_or(0, |age| now_ms.saturating_sub(age));
        let last = self.older_than_ms.map_or(u64::MAX, |age| now_ms.saturating_sub(age));
        first..=last
    }
}

/// A state, by its name.
fn state(text: &str) -> Result<v1::JobState> {
    Ok(match text {
        "scheduled" => v1::JobState::Scheduled,
        "running" => v1::JobState::Running,
        "succeeded" => v1::JobState::Succeeded,
        "failed" => v1::JobState::Failed,
        "cancelled" => v1::JobState::Cancelled,
        _ => {
            let states = "scheduled, running, succeeded, failed or cancelled";
            return Err(invalid(format!("--filter state={text}: a state is {states}")));
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(tenant: &str, created_ms: u64) -> v1::Job {
        let metadata = [("user".to_owned(), "42".to_owned()), ("b".to_owned(), String::new())];
        let metadata = metadata.into_iter().collect();
        let spec = v1::JobSpec { tenant: tenant.to_owned(), metadata, ..v1::JobSpec::default() };
        v1::Job { spec: Some(spec), created_ms, ..v1::Job::default() }
    }

    #[test]
    fn the_node_is_asked_for_what_it_can_search() {
        let terms = ["state=failed", "group=mail", "tenant=a", "meta.user=4*", "meta.b="];
        let filter = JobFilter::parse(terms).expect("a filter");
        let request = filter.request();
        assert_eq!((request.tenant.as_str(), request.group.as_str()), ("a", "mail"));
        assert_eq!(request.state(), v1::JobState::Failed);
        assert_eq!((request.metadata_key.as_str(), request.metadata_value.as_str()), ("user", "4"));
        assert!(request.metadata_prefix && filter.matches(&job("a", 1)));
        let other = JobFilter::parse(["tenant=a", "meta.user=42", "meta.b=1"]).expect("a filter");
        assert!(!other.matches(&job("a", 1)), "the second entry counts, too");
    }

    #[test]
    fn ages_count_from_when_a_job_was_made() {
        let now_ms = Timestamp::now().as_millisecond() as u64;
        let (new, old) = (job("a", now_ms - 60_000), job("a", now_ms - 7_200_000));
        let older = JobFilter::parse(["older-than=1h"]).expect("a filter");
        assert!(older.matches(&old) && !older.matches(&new));
        let newer = JobFilter::parse(["newer-than=1h"]).expect("a filter");
        assert!(newer.matches(&new) && !newer.matches(&old));
    }

    #[test]
    fn jobs_of_the_node_itself_must_be_asked_for() {
        assert!(!JobFilter::default().matches(&job(TENANT, 1)));
        let asked = JobFilter::parse([format!("tenant={TENANT}").as_str()]).expect("a filter");
        assert!(asked.matches(&job(TENANT, 1)));
    }

    #[test]
    fn what_is_wrong_with_a_filter_is_said() {
        for (terms, said) in [
            (&["failed"][..], "KEY=VALUE"),
            (&["state=done"], "scheduled, running"),
            (&["age=7d"], "older-than"),
            (&["older-than=7"], "7d"),
            (&["group="], "empty"),
            (&["meta.=1"], "meta.KEY"),
            (&["meta.user=1"], "--tenant"),
            (&["state=failed", "state=running"], "twice"),
        ] {
            let error = JobFilter::parse(terms.iter().copied()).expect_err("a bad filter");
            assert!(error.message().contains(said), "{terms:?}: {error}");
        }
    }
}
