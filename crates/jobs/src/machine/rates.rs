//! Rates that outlive the machine: what to keep of their buckets, and buckets as they were kept.

use super::Machine;
use crate::limit::{Drained, LimitKind};
use crate::name::{LimitKey, Tenant};

impl Machine {
    /// Takes a rate as it was kept. It comes before the jobs that are under it.
    pub fn restore_rate(&mut self, tenant: &Tenant, key: &LimitKey, rate: Drained, now_ms: u64) {
        self.set_now(now_ms);
        let now_us = self.now_us();
        let bucket = rate.bucket(now_us);
        if bucket.full_at_us <= now_us {
            self.full_rates.insert((tenant.clone(), key.clone()));
            return;
        }
        let held = self.tenants.hold(tenant);
        let no = self.queues.define_limit(held, key, &rate.kind(), now_us);
        self.queues.restore(no, bucket);
        self.settle_limits();
        self.tenants.release(held);
    }

    /// What has changed of the buckets of rates since this was asked before: what to keep, or that nothing is kept.
    pub fn take_rates(&mut self) -> Vec<(Tenant, LimitKey, Option<Drained>)> {
        let full = std::mem::take(&mut self.full_rates).into_iter();
        let mut rates: Vec<_> = full.map(|(tenant, key)| (tenant, key, None)).collect();
        for no in std::mem::take(&mut self.queues.drained) {
            let limit = &self.queues.limits[no];
            let tenant = self.tenants.try_get(limit.key.0);
            if let (Some(tenant), LimitKind::Rate { count, per_ms, burst }) = (tenant, &limit.kind)
            {
                let full_at_ms = limit.bucket.full_at_us.div_ceil(1000);
                let (count, per_ms, burst) = (*count, *per_ms, *burst);
                let kept = Drained { count, per_ms, burst, full_at_ms };
                rates.push((tenant.clone(), limit.key.1.clone(), Some(kept)));
            }
        }
        rates
    }
}
