//! Limits: rules on how many jobs may run at once, or start in a time.

use crate::error::{Error, Result};
use crate::name::{Group, LimitKey};

/// The most limits of one job.
pub const LIMITS_MAX: usize = 8;
/// The longest period of a rate, milliseconds: a day.
pub const RATE_MS_MAX: u32 = 86_400_000;
/// The longest time that a rate's empty bucket may take to fill, microseconds: ten years. Times in
/// microseconds have 64 bits: beyond this limit, a bucket would never count as full.
pub const FILL_US_MAX: u64 = 10 * 365 * 86_400_000_000;
/// The shortest time between two refreshes of a floating limit, milliseconds.
pub const REFRESH_MS_MIN: u32 = 1_000;

/// Default task group of the refreshers of floating limits. Workers of other jobs would take
/// refreshers that they can't answer.
pub const REFRESHERS: &str = "limits";

/// The kind of a limit. The newest job that names a limit defines it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum LimitKind {
    /// Jobs that run concurrently.
    Concurrency {
        /// At least one.
        max: u32,
    },
    /// As [`LimitKind::Concurrency`], but a worker reports the number again and again.
    Floating {
        /// The number until a worker has reported one.
        initial: u32,
        /// Interval at which a worker is asked, milliseconds.
        refresh_ms: u32,
        /// The task group whose workers are asked.
        group: Group,
    },
    /// A token bucket: attempts that begin.
    Rate {
        /// This many attempts …
        count: u32,
        /// … in this many milliseconds.
        per_ms: u32,
        /// And this many at once, if there were none for a while.
        burst: u32,
    },
}

/// A limit that a job is under.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Limit {
    /// Its name, the tenant's own.
    pub key: LimitKey,
    /// Its kind.
    pub kind: LimitKind,
}

impl Limit {
    /// Its bytes in a message.
    pub(crate) fn bytes(&self) -> usize {
        const NUMBERS: usize = 32;
        let group = match &self.kind {
            LimitKind::Floating { group, .. } => group.as_str().len(),
            LimitKind::Concurrency { .. } | LimitKind::Rate { .. } => 0,
        };
        NUMBERS + self.key.as_str().len() + group
    }
}

impl LimitKind {
    /// Checks that the numbers make sense.
    ///
    /// # Errors
    /// `Invalid` names the field.
    pub fn check(&self, key: &LimitKey) -> Result<()> {
        let reason = match self {
            Self::Concurrency { max: 0 } => "it lets no job run: its maximum is 0",
            Self::Floating { refresh_ms, .. } if *refresh_ms < REFRESH_MS_MIN => {
                "it is refreshed more often than once a second"
            }
            Self::Rate { count: 0, .. } => "it lets no job run: its count is 0",
            Self::Rate { burst: 0, .. } => "it lets no job run: its burst is 0",
            Self::Rate { per_ms, .. } if *per_ms == 0 || *per_ms > RATE_MS_MAX => {
                "its time is not between 1 ms and a day"
            }
            Self::Rate { count, per_ms, .. } if u64::from(*count) > u64::from(*per_ms) * 1000 => {
                "it allows more than one job in a microsecond"
            }
            Self::Rate { count, per_ms, burst }
                if Flow::period_us(*count, *per_ms).saturating_mul((*burst).into())
                    > FILL_US_MAX =>
            {
                "its empty bucket would take more than ten years to fill: lower the burst"
            }
            _ => return Ok(()),
        };
        Err(Error::invalid(format!("limit {key} is not valid: {reason}")))
    }

    /// The kind's name, for messages.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Concurrency { .. } => "concurrency limit",
            Self::Floating { .. } => "floating limit",
            Self::Rate { .. } => "rate limit",
        }
    }
}

/// A rate whose bucket is not full, as it outlives the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drained {
    /// This many attempts …
    pub count: u32,
    /// … in this many milliseconds.
    pub per_ms: u32,
    /// And this many at once.
    pub burst: u32,
    /// Time when the bucket is full again, milliseconds since 1970, rounded up.
    pub full_at_ms: u64,
}

impl Drained {
    /// The definition under which the last token was taken.
    pub fn kind(&self) -> LimitKind {
        LimitKind::Rate { count: self.count, per_ms: self.per_ms, burst: self.burst }
    }

    /// The bucket at this time, microseconds. At worst, it is empty: the clock may have been set
    /// back since.
    pub fn bucket(&self, now_us: u64) -> Bucket {
        let empty = Bucket::empty_at(Flow::new(self.count, self.per_ms, self.burst), now_us);
        Bucket { full_at_us: self.full_at_ms.saturating_mul(1000).min(empty.full_at_us) }
    }
}

/// A token bucket as one number: the time when the bucket is full again (the generic cell rate
/// algorithm, ITU-T I.371).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Bucket {
    /// Time when it is full again, microseconds.
    pub full_at_us: u64,
}

/// The rate at which a bucket fills.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flow {
    /// Time for one token, microseconds.
    period_us: u64,
    /// Time to fill an empty bucket, microseconds.
    depth_us: u64,
}

impl Flow {
    /// `count` tokens in `per_ms` milliseconds, and at most `burst` in the bucket, or as many as
    /// fill in [`FILL_US_MAX`].
    pub fn new(count: u32, per_ms: u32, burst: u32) -> Self {
        let period_us = Self::period_us(count, per_ms);
        let depth_us = period_us.saturating_mul(u64::from(burst.max(1)));
        Self { period_us, depth_us: depth_us.min(FILL_US_MAX) }
    }

    fn period_us(count: u32, per_ms: u32) -> u64 {
        let per_us = u64::from(per_ms.min(RATE_MS_MAX)) * 1000;
        per_us.div_ceil(u64::from(count.max(1))).max(1)
    }
}

impl Bucket {
    /// A bucket that is empty at `at_us`.
    pub fn empty_at(flow: Flow, at_us: u64) -> Self {
        Self { full_at_us: at_us + flow.depth_us }
    }

    /// Time when the next token can be taken, microseconds.
    fn next_us(&self, flow: Flow) -> u64 {
        (self.full_at_us + flow.period_us).saturating_sub(flow.depth_us)
    }

    /// Number of tokens that can be taken now.
    pub fn tokens(&self, flow: Flow, now_us: u64) -> u32 {
        let next_us = self.next_us(flow);
        if next_us > now_us {
            return 0;
        }
        let full = flow.depth_us / flow.period_us;
        u32::try_from(full.min(1 + (now_us - next_us) / flow.period_us)).unwrap_or(u32::MAX)
    }

    /// Time when there is one token more than now, microseconds.
    pub fn more_us(&self, flow: Flow, now_us: u64) -> u64 {
        self.next_us(flow) + u64::from(self.tokens(flow, now_us)) * flow.period_us
    }

    /// Takes a token.
    pub fn take(&mut self, flow: Flow, now_us: u64) {
        self.full_at_us = self.full_at_us.max(now_us) + flow.period_us;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        let flow = Flow::new(10, 1_000, 3);
        let mut bucket = Bucket::default();
        let mut taken = Vec::new();
        let mut now_us = 1_000_000;
        while taken.len() < 6 {
            if bucket.tokens(flow, now_us) > 0 {
                bucket.take(flow, now_us);
                taken.push(now_us);
            } else {
                now_us = bucket.more_us(flow, now_us);
            }
        }
        assert_eq!(taken, [1_000_000, 1_000_000, 1_000_000, 1_100_000, 1_200_000, 1_300_000]);
    }

    #[test]
    fn no_window_sees_more_than_burst_and_rate() {
        let flow = Flow::new(7, 1_000, 5);
        let mut bucket = Bucket::default();
        let mut taken: Vec<u64> = Vec::new();
        for step in 0..20_000u64 {
            let now_us = 10_000_000 + step * 1_373 % 900_000 + step * 1_000;
            let now_us = now_us.max(taken.last().copied().unwrap_or_default());
            if bucket.tokens(flow, now_us) > 0 {
                bucket.take(flow, now_us);
                taken.push(now_us);
            }
        }
        for (first, from) in taken.iter().enumerate() {
            let within = taken[first..].iter().take_while(|at| **at < from + 1_000_000).count();
            assert!(within <= 5 + 7, "{within} in a second");
        }
        assert!(taken.len() > 100);
    }

    #[test]
    fn nonsense_is_refused() {
        let key = LimitKey::new("api").expect("a name");
        let rate = |count, per_ms, burst| LimitKind::Rate { count, per_ms, burst };
        for bad in [
            LimitKind::Concurrency { max: 0 },
            LimitKind::Floating { initial: 1, refresh_ms: 999, group: Group::default() },
            rate(0, 1, 1),
            rate(1, 0, 1),
            rate(1, 1, 0),
            rate(1, RATE_MS_MAX + 1, 1),
            rate(1_001, 1, 1),
            rate(1, RATE_MS_MAX, 3_651),
            rate(1, RATE_MS_MAX, u32::MAX),
        ] {
            let error = bad.check(&key).expect_err("nonsense");
            assert!(error.message().contains("api"), "{error}");
        }
        assert_eq!(rate(1_000, 1, u32::MAX).check(&key), Ok(()));
        assert_eq!(rate(1, RATE_MS_MAX, 3_650).check(&key), Ok(()));
    }

    #[test]
    fn any_numbers_make_a_bucket_that_gives_and_fills() {
        for (count, per_ms, burst) in
            [(1, RATE_MS_MAX, u32::MAX), (1, u32::MAX, u32::MAX), (0, 0, 0)]
        {
            let flow = Flow::new(count, per_ms, burst);
            let now_us = 1_700_000_000_000_000;
            let mut bucket = Bucket::empty_at(flow, now_us);
            assert_eq!(bucket.tokens(flow, now_us), 0);
            let more_us = bucket.more_us(flow, now_us);
            assert!(more_us > now_us, "{more_us}");
            assert_eq!(bucket.tokens(flow, more_us), 1);
            bucket.take(flow, more_us);
            assert!(bucket.full_at_us <= more_us + FILL_US_MAX + flow.period_us);
        }
    }
}
