//! Rates that outlive the machine: the changes of their buckets to keep, and the kept buckets.

use super::Machine;
use crate::limit::{Drained, LimitKind};
use crate::name::{LimitKey, Tenant};

/// The most rates in one batch that are no longer kept: deletions of many thousands take long.
const FORGOTTEN_AT_ONCE: usize = 1024;

impl Machine {
    /// Restores a kept rate. It comes before the jobs under it.
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

    /// Takes the changed buckets of rates since the last call: each with its new state, or with
    /// none if it is no longer kept. Gives a bounded part of the latter at once.
    pub fn take_rates(&mut self) -> Vec<(Tenant, LimitKey, Option<Drained>)> {
        let mut rates = Vec::new();
        for no in std::mem::take(&mut self.queues.drained) {
            let limit = &self.queues.limits[no];
            let tenant = self.tenants.try_get(limit.key.0);
            if let (Some(tenant), Some(LimitKind::Rate { count, per_ms, burst })) =
                (tenant, &limit.drained_under)
            {
                let full_at_ms = limit.bucket.full_at_us.div_ceil(1000);
                let (count, per_ms, burst) = (*count, *per_ms, *burst);
                let kept = Drained { count, per_ms, burst, full_at_ms };
                let name = (tenant.clone(), limit.key.1.clone());
                // It had been full before.
                self.full_rates.remove(&name);
                rates.push((name.0, name.1, Some(kept)));
            }
        }
        let full = (0..FORGOTTEN_AT_ONCE).map_while(|_| self.full_rates.pop_first());
        rates.extend(full.map(|(tenant, key)| (tenant, key, None)));
        rates
    }
}
