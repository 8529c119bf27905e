//! The reason why a job waits, for people who ask. It is the first one found: a job may wait for
//! several things at once.

use super::limits::Rule;
use super::{Machine, Phase, Why};
use crate::job::JobRef;
use crate::name::Tenant;

impl Machine {
    /// The reason why a job waits; none if a worker has it, or if it is not here.
    pub fn why(&self, tenant: &Tenant, job: &JobRef) -> Option<Why> {
        let entry = &self.jobs[self.find(tenant, job)?];
        match entry.phase {
            Phase::Early => return Some(Why::Time(entry.timer_ms)),
            Phase::Running => return None,
            Phase::Ready => {}
        }
        if self.groups.try_get(entry.group).is_some_and(|group| self.paused.contains(group)) {
            return Some(Why::Paused);
        }
        let now_us = self.now_us();
        let Some(no) = self.queues.full(entry.class, now_us) else { return Some(Why::Turn) };
        let limit = &self.queues.limits[no];
        let key = limit.key.1.clone();
        Some(match limit.rule {
            Rule::AtOnce(max) => Why::Limit { key, running: limit.held, max },
            Rule::Rate(flow) => {
                let at_ms = limit.bucket.more_us(flow, now_us).div_ceil(1000);
                Why::Rate { key, at_ms }
            }
        })
    }
}
