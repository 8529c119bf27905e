//! Searches: tests that try seeds until their share of one budget of time is used up.
//!
//! | variable | meaning |
//! |---|---|
//! | `SKERRY_TEST_BUDGET` | seconds for all searches together |
//! | `SKERRY_SEEDS` | number of seeds of each search, whatever the time |
//! | `SKERRY_FIRST_SEED` | the first of them |
//! | `SKERRY_SEED` | the one seed to try: replays a failure |
//! | `SKERRY_SEARCHES` | file to which each search adds a line: its seeds and its time |

use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Duration;

use crate::scale;

/// Seconds for all searches together, unless `SKERRY_TEST_BUDGET` says otherwise.
const BUDGET_DEFAULT_S: u64 = 50;

/// One search.
#[derive(Debug, Clone, Copy)]
pub struct Search {
    /// Its name, for people.
    pub name: &'static str,
    /// Its share of the budget, percent.
    pub percent: u64,
    /// Number of seeds to try though the time is over.
    pub least: u64,
}

impl Search {
    /// Tries seeds in order. A seed fails by a panic, which ends the search and names the seed.
    pub fn run(&self, mut test: impl FnMut(u64)) {
        if std::env::var_os("SKERRY_SEED").is_some() {
            return test(scale("SKERRY_SEED", 0));
        }
        let first = scale("SKERRY_FIRST_SEED", 0);
        let wanted = std::env::var_os("SKERRY_SEEDS").map(|_| scale("SKERRY_SEEDS", 0));
        let time = self.time(scale("SKERRY_TEST_BUDGET", BUDGET_DEFAULT_S));
        #[expect(clippy::disallowed_methods, reason = "real time bounds how many seeds are tried")]
        let begun = std::time::Instant::now();
        let mut tried = 0;
        while self.goes_on(tried, wanted, begun.elapsed() < time) {
            let seed = first + tried;
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| test(seed))) {
                eprintln!("{}: seed {seed} fails: SKERRY_SEED={seed} replays it", self.name);
                resume_unwind(panic);
            }
            tried += 1;
        }
        let seconds = begun.elapsed().as_secs();
        announce(&format!("{}: {tried} seeds from {first} in {seconds} s\n", self.name));
    }

    /// Its share of a budget of so many seconds.
    fn time(&self, budget_s: u64) -> Duration {
        Duration::from_millis(budget_s * 10 * self.percent)
    }

    /// True if another seed is to be tried after `tried` seeds.
    fn goes_on(&self, tried: u64, wanted: Option<u64>, has_time: bool) -> bool {
        match wanted {
            Some(count) => tried < count,
            None => has_time || tried < self.least,
        }
    }
}

/// Says a search's line. The harness swallows what a passing test prints, so it goes to a file too.
fn announce(line: &str) {
    print!("{line}");
    if let Some(file) = std::env::var_os("SKERRY_SEARCHES") {
        let opened = std::fs::OpenOptions::new().append(true).create(true).open(file);
        let _ = opened.and_then(|mut file| file.write_all(line.as_bytes()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEARCH: Search = Search { name: "a search", percent: 20, least: 3 };

    #[test]
    fn a_number_of_seeds_counts_more_than_the_time() {
        assert!(SEARCH.goes_on(9, Some(10), false));
        assert!(!SEARCH.goes_on(10, Some(10), true));
    }

    #[test]
    fn without_a_number_the_time_decides_after_the_least() {
        assert!(SEARCH.goes_on(1000, None, true));
        assert!(SEARCH.goes_on(2, None, false));
        assert!(!SEARCH.goes_on(3, None, false));
    }

    #[test]
    fn the_budget_is_shared() {
        assert_eq!(SEARCH.time(50), Duration::from_secs(10));
    }
}
