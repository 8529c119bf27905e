//! Limits and backoff of a job, in the form that people write.

use skerry_api::{Result, v1};
use v1::limit::Kind;

use crate::cli::duration;
use crate::values::invalid;

/// The lowest and the highest factor of a backoff.
const FACTOR_MIN: f64 = 1.0;
const FACTOR_MAX: f64 = 100.0;

/// Parts of a value, separated by commas: the first, and options.
struct Parts<'a> {
    flag: &'static str,
    text: &'a str,
    form: &'static str,
    first: &'a str,
    rest: Vec<&'a str>,
}

impl<'a> Parts<'a> {
    /// Splits `text`, or its `value` after a name.
    fn new(flag: &'static str, text: &'a str, value: &'a str, form: &'static str) -> Self {
        let mut parts = value.split(',');
        let first = parts.next().unwrap_or_default();
        Self { flag, text, form, first, rest: parts.collect() }
    }

    /// An error that says what is wrong, and the right form.
    fn wrong(&self, reason: &str) -> skerry_api::Error {
        let Self { flag, text, form, .. } = self;
        invalid(format!("{flag} {text:?}: {reason}; write {form}"))
    }

    fn time(&self, text: &str) -> Result<u32> {
        let ms = duration::ms(text).map_err(|error| self.wrong(error.message()))?;
        u32::try_from(ms).map_err(|_| self.wrong(&format!("{text:?} is longer than 49 days")))
    }

    fn count(&self, what: &str, text: &str) -> Result<u32> {
        text.parse().map_err(|_| self.wrong(&format!("{text:?} is no {what}")))
    }

    /// Takes the option that begins with `key`.
    fn take(&mut self, key: &str) -> Option<&'a str> {
        let place = self.rest.iter().position(|part| part.starts_with(key))?;
        self.rest.remove(place).strip_prefix(key)
    }

    /// Refuses options that are not known, or that come twice.
    fn end(&self) -> Result<()> {
        match self.rest.first() {
            None => Ok(()),
            Some(part) => Err(self.wrong(&format!("{part:?} is not known, or is there twice"))),
        }
    }
}

/// The name of a limit and its value.
fn named<'a>(flag: &'static str, text: &'a str, form: &'static str) -> Result<(String, Parts<'a>)> {
    let (name, value) = text.split_once('=').unwrap_or(("", text));
    let parts = Parts::new(flag, text, value, form);
    if name.is_empty() {
        return Err(parts.wrong("it has no name"));
    }
    Ok((name.to_owned(), parts))
}

/// `NAME=MAX`: a limit of jobs at once.
pub(crate) fn concurrency(text: &str) -> Result<v1::Limit> {
    let (name, parts) = named("--limit", text, "NAME=MAX, such as api=3")?;
    let max = parts.count("number of jobs", parts.first)?;
    parts.end()?;
    Ok(v1::Limit { name, kind: Some(Kind::Concurrency(v1::ConcurrencyLimit { max })) })
}

/// `NAME=COUNT/TIME[,burst=N]`: a limit of attempts that begin in a time.
pub(crate) fn rate(text: &str) -> Result<v1::Limit> {
    let form = "NAME=COUNT/TIME[,burst=N], such as smtp=10/1m,burst=5";
    let (name, mut parts) = named("--rate", text, form)?;
    let (count, per) = parts.first.split_once('/').ok_or_else(|| parts.wrong("it has no time"))?;
    let (count, per_ms) = (parts.count("number of attempts", count)?, parts.time(per)?);
    let burst = match parts.take("burst=") {
        Some(burst) => parts.count("number of attempts", burst)?,
        None => 1,
    };
    parts.end()?;
    Ok(v1::Limit { name, kind: Some(Kind::Rate(v1::RateLimit { count, per_ms, burst })) })
}

/// `NAME=INITIAL,every=TIME[,group=GROUP]`: a limit of jobs at once that a worker reports.
pub(crate) fn floating(text: &str) -> Result<v1::Limit> {
    let form = "NAME=INITIAL,every=TIME[,group=GROUP], such as gpu=2,every=1m";
    let (name, mut parts) = named("--floating", text, form)?;
    let initial = parts.count("number of jobs", parts.first)?;
    let every = parts.take("every=").ok_or_else(|| parts.wrong("it has no every=TIME"))?;
    let refresh_ms = parts.time(every)?;
    let group = parts.take("group=").unwrap_or_default().to_owned();
    parts.end()?;
    let floating = v1::FloatingLimit { initial, refresh_ms, group };
    Ok(v1::Limit { name, kind: Some(Kind::Floating(floating)) })
}

/// `FIRST[..LONGEST][,xFACTOR][,jitter=PERCENT]`: intervals between attempts. Without the longest
/// they are all as long as the first.
pub(crate) fn backoff(text: &str) -> Result<v1::RetryPolicy> {
    let form = "FIRST..LONGEST[,xFACTOR][,jitter=PERCENT], such as 1s..5m,x2,jitter=10%";
    let mut parts = Parts::new("--backoff", text, text, form);
    let (first, longest) = parts.first.split_once("..").unwrap_or((parts.first, parts.first));
    let (initial_ms, max_ms) = (parts.time(first)?, parts.time(longest)?);
    if max_ms < initial_ms {
        return Err(parts.wrong("the longest interval is shorter than the first"));
    }
    let factor = parts.take("x").map(|factor| factor_percent(&parts, factor)).transpose()?;
    let jitter = parts.take("jitter=").map(|jitter| {
        let percent = parts.count("percentage", jitter.strip_suffix('%').unwrap_or(jitter))?;
        if percent > 100 { Err(parts.wrong("the jitter is over 100%")) } else { Ok(percent) }
    });
    let jitter = jitter.transpose()?;
    parts.end()?;
    Ok(v1::RetryPolicy {
        retries: None,
        initial_ms: Some(initial_ms),
        max_ms: Some(max_ms),
        factor_percent: factor,
        jitter_percent: jitter,
    })
}

fn factor_percent(parts: &Parts<'_>, text: &str) -> Result<u32> {
    let factor = text.parse().ok().filter(|factor| (FACTOR_MIN..=FACTOR_MAX).contains(factor));
    let factor: f64 = factor.ok_or_else(|| parts.wrong("the factor is not between x1 and x100"))?;
    // In range, by the check above.
    Ok((factor * 100.0).round() as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_as_people_write_them() {
        let kind = |limit: Result<v1::Limit>| {
            let v1::Limit { name, kind } = limit.expect("a limit");
            assert_eq!(name, "n");
            kind.expect("a kind")
        };
        assert_eq!(kind(concurrency("n=3")), Kind::Concurrency(v1::ConcurrencyLimit { max: 3 }));
        for (text, burst) in [("n=10/1m", 1), ("n=10/1m,burst=5", 5)] {
            let limit = v1::RateLimit { count: 10, per_ms: 60_000, burst };
            assert_eq!(kind(rate(text)), Kind::Rate(limit));
        }
        for (text, group) in [("n=2,every=30s", ""), ("n=2,group=g,every=30s", "g")] {
            let group = group.to_owned();
            let limit = v1::FloatingLimit { initial: 2, refresh_ms: 30_000, group };
            assert_eq!(kind(floating(text)), Kind::Floating(limit));
        }
    }

    #[test]
    fn a_backoff_is_read_as_people_write_it() {
        for (text, times, factor, jitter) in [
            ("1s..5m", (1_000, 300_000), None, None),
            ("250ms..1h,x1.5", (250, 3_600_000), Some(150), None),
            ("5s,x1,jitter=0%", (5_000, 5_000), Some(100), Some(0)),
            ("1s..2s,jitter=100,x100", (1_000, 2_000), Some(10_000), Some(100)),
        ] {
            let policy = backoff(text).expect(text);
            assert_eq!((policy.initial_ms, policy.max_ms), (Some(times.0), Some(times.1)));
            assert_eq!((policy.factor_percent, policy.jitter_percent), (factor, jitter), "{text}");
        }
    }

    #[test]
    fn an_error_says_what_is_wrong_and_how_to_write_it() {
        type Read = fn(&str) -> Result<v1::Limit>;
        for (read, text, reason) in [
            (concurrency as Read, "3", "no name"),
            (concurrency, "n=", "\"\" is no number"),
            (concurrency, "n=3,burst=1", "not known"),
            (rate, "n=10", "no time"),
            (rate, "n=x/1m", "\"x\" is no number"),
            (rate, "n=10/1", "\"1\" is no time"),
            (rate, "n=10/50d", "49 days"),
            (rate, "n=10/1m,burst=1,burst=2", "twice"),
            (floating, "n=2", "every=TIME"),
            (floating, "n=2,every=1m,max=9", "not known"),
        ] {
            let error = read(text).expect_err(text);
            assert!(error.message().contains(reason), "{text}: {error}");
            assert!(error.message().contains("write NAME="), "{text}: {error}");
        }
        for (text, reason) in [
            ("", "no time"),
            ("5m..1s", "shorter"),
            ("1s..5m,x0.5", "factor"),
            ("1s..5m,xNaN", "factor"),
            ("1s..5m,jitter=101%", "jitter"),
            ("1s..5m,2", "not known"),
        ] {
            let error = backoff(text).expect_err(text);
            assert!(error.message().contains(reason), "{text}: {error}");
        }
    }
}
