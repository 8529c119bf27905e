//! Floating limits, whose maximum a worker reports.

use super::limits::Rule;
use super::{Floating, Machine, Phase};
use crate::error::{Error, ErrorKind, Result};
use crate::job::JobRef;
use crate::limit::LimitKind;
use crate::name::{Group, LimitKey, Tenant};

impl Machine {
    /// The task group of a job that has not ended. If the job waits, also its start time,
    /// milliseconds since 1970.
    pub fn group_of(&self, tenant: &Tenant, job: &JobRef) -> Option<(&Group, Option<u64>)> {
        let entry = &self.jobs[self.find(tenant, job)?];
        let starts_ms = match entry.phase {
            Phase::Early => Some(entry.timer_ms),
            Phase::Ready => Some(0),
            Phase::Running => None,
        };
        Some((self.groups.try_get(entry.group)?, starts_ms))
    }

    /// A floating limit, if a job is under it.
    pub fn floating(&self, tenant: &Tenant, key: &LimitKey) -> Option<Floating> {
        let tenant = self.tenants.find(tenant)?;
        let limit = &self.queues.limits[self.queues.find_limit(tenant, key)?];
        // A limit without jobs may be remembered as the rate that it was.
        match (&limit.kind, limit.rule) {
            _ if limit.users == 0 => None,
            (LimitKind::Floating { refresh_ms, group, .. }, Rule::AtOnce(max)) => {
                Some(Floating { max, refresh_ms: *refresh_ms, group: group.clone() })
            }
            _ => None,
        }
    }

    /// The names of all floating limits with jobs under them, in no order.
    pub fn floating_limits(&self) -> Vec<(Tenant, LimitKey)> {
        let limits = self.queues.limits.iter();
        let floating = limits
            .filter(|limit| limit.users > 0 && matches!(limit.kind, LimitKind::Floating { .. }));
        let named = floating.filter_map(|limit| {
            let (tenant, key) = &limit.key;
            Some((self.tenants.try_get(*tenant)?.clone(), key.clone()))
        });
        named.collect()
    }

    /// Sets the maximum of a floating limit, as a worker reported it. Does nothing if no job is
    /// under it.
    ///
    /// # Errors
    /// `Conflict` if it is no floating limit.
    pub fn set_limit(
        &mut self,
        tenant: &Tenant,
        key: &LimitKey,
        max: u32,
        now_ms: u64,
    ) -> Result<()> {
        self.set_now(now_ms);
        let tenant = self.tenants.find(tenant);
        let Some(no) = tenant.and_then(|tenant| self.queues.find_limit(tenant, key)) else {
            return Ok(());
        };
        if !matches!(self.queues.limits[no].kind, LimitKind::Floating { .. }) {
            let detail = format!("limit {key} is not a floating limit");
            return Err(Error::new(ErrorKind::Conflict, detail));
        }
        self.queues.set_rule(no, Rule::AtOnce(max));
        self.settle();
        Ok(())
    }
}
