//! Certain facts of task groups and limits, by the shard's clock. They bound when a group may give
//! out nothing, and how many jobs a floating limit may let run. They also bound how many attempts a
//! rate may let begin.
//!
//! All of them go by the time when a lease was given, which its worker is told. They mean nothing
//! once the wall clock was set: then only timeless rules are checked.

use skerry_jobs::limit::LimitKind;
use skerry_jobs::name::{Group, LimitKey, Tenant};
use skerry_jobs::spec::JobSpec;
use std::collections::BTreeMap;

/// Number of jobs that the floating limit of each tenant lets run before a worker reports one.
pub const FLOATING_INITIAL: u32 = 3;

/// Facts of a task group.
#[derive(Default)]
pub struct GroupFacts {
    /// Whether it is paused, if that is certain.
    pub is_paused: Option<bool>,
    /// A call pauses or resumes it: there is never another.
    pub busy: bool,
    /// Times between which it was certainly paused, milliseconds.
    paused_ms: Vec<(u64, u64)>,
}

impl GroupFacts {
    fn is_paused_at(&self, at_ms: u64) -> bool {
        self.paused_ms.iter().any(|(from, until)| (*from < at_ms) && (at_ms < *until))
    }

    /// Notes that it was paused at this time at the latest.
    pub fn paused(&mut self, now_ms: u64) {
        self.is_paused = Some(true);
        if self.paused_ms.last().is_none_or(|(_, until)| *until < u64::MAX) {
            self.paused_ms.push((now_ms, u64::MAX));
        }
    }

    /// Notes that a call begins to resume it.
    pub fn resuming(&mut self, now_ms: u64) {
        self.is_paused = None;
        if let Some((_, until)) = self.paused_ms.last_mut() {
            *until = now_ms.min(*until);
        }
    }
}

/// A number that a worker reported for a floating limit, and when it may have held.
#[derive(Debug)]
struct Said {
    max: u32,
    from_ms: u64,
    until_ms: u64,
}

/// The floating limit of a tenant.
#[derive(Default)]
pub struct Floating {
    /// A job that does not end is under it: the limit is known, and does not begin anew.
    pub is_anchored: bool,
    said: Vec<Said>,
}

impl Floating {
    /// Notes a report of how many may run; gives the report's index.
    pub fn saying(&mut self, max: u32, now_ms: u64) -> usize {
        self.said.push(Said { max, from_ms: now_ms, until_ms: u64::MAX });
        self.said.len() - 1
    }

    /// Notes that a report was acknowledged: earlier numbers no longer hold.
    pub fn said(&mut self, number: usize, now_ms: u64) {
        for before in self.said[..number].iter_mut().filter(|_| self.is_anchored) {
            before.until_ms = before.until_ms.min(now_ms);
        }
    }

    /// Notes that a report was refused.
    pub fn unsay(&mut self, number: usize, now_ms: u64) {
        self.said[number].until_ms = now_ms;
    }
}

/// Certain facts of task groups and limits.
#[derive(Default)]
pub struct Bounds {
    pub groups: BTreeMap<Group, GroupFacts>,
    floating: BTreeMap<Tenant, Floating>,
    /// Times when attempts under each rate began, over all lives of the shard.
    begun_ms: BTreeMap<(Tenant, LimitKey), Vec<u64>>,
    /// True if the wall clock was set.
    pub clock_was_set: bool,
}

impl Bounds {
    /// A tenant's floating limit.
    pub fn floating(&mut self, tenant: &Tenant) -> &mut Floating {
        self.floating.entry(tenant.clone()).or_insert_with(|| {
            let first = Said { max: FLOATING_INITIAL, from_ms: 0, until_ms: u64::MAX };
            Floating { is_anchored: false, said: vec![first] }
        })
    }

    /// The largest number of jobs that a tenant's floating limit may have let run at this time.
    pub fn floating_max(&self, tenant: &Tenant, at_ms: u64) -> u32 {
        let Some(floating) = self.floating.get(tenant) else { return FLOATING_INITIAL };
        let held = floating
            .said
            .iter()
            .filter(|said| self.clock_was_set || (said.from_ms..=said.until_ms).contains(&at_ms));
        held.map(|said| said.max).max().expect("something holds at any time")
    }

    /// Notes that a worker was given a job at this time.
    pub fn given(&mut self, spec: &JobSpec, at_ms: u64) {
        if self.clock_was_set {
            return;
        }
        if let Some(group) = self.groups.get(&spec.group) {
            assert!(!group.is_paused_at(at_ms), "{} is paused, and gave at {at_ms}", spec.group);
        }
        for limit in &spec.limits {
            let LimitKind::Rate { count, per_ms, burst } = limit.kind else { continue };
            let key = (spec.tenant.clone(), limit.key.clone());
            let begun = self.begun_ms.entry(key).or_default();
            let at = begun.partition_point(|before| *before <= at_ms);
            begun.insert(at, at_ms);
            let period_us = (u64::from(per_ms) * 1000).div_ceil(count.into());
            let may = |from_ms: u64, to_ms: u64| (to_ms - from_ms) * 1000 / period_us;
            for (first, from_ms) in begun[..=at].iter().enumerate() {
                for (last, to_ms) in begun.iter().enumerate().skip(at) {
                    let count = (last - first + 1) as u64;
                    let most = u64::from(burst) + may(*from_ms, *to_ms);
                    assert!(count <= most, "{limit:?}: {count} from {from_ms} to {to_ms}");
                }
            }
        }
    }
}
