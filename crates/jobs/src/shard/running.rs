//! The records of jobs that workers have: the end of an attempt writes a whole record, and need not
//! read it first. Memory bounds them: payloads of a megabyte each would take as much memory as
//! there are workers. A record that is not kept is read again when the job changes.

use crate::job::{Job, JobKey};
use std::collections::{HashMap, HashSet};

/// Bytes of kept records of a shard: some hundred thousand small jobs.
const BYTES_MAX: usize = 32 << 20;
/// Bytes of a record besides what its owner and its workers gave it.
const RECORD_BYTES: usize = 256;

/// Jobs that workers have.
pub(super) struct Running {
    jobs: HashMap<JobKey, Job>,
    bytes: usize,
    /// Jobs that workers have, and whose records are not kept.
    let_go: HashSet<JobKey>,
}

fn bytes_of(job: &Job) -> usize {
    RECORD_BYTES + job.bytes()
}

impl Running {
    /// Workers had these jobs when the shard was opened.
    pub(super) fn new(resumed: HashSet<JobKey>) -> Self {
        Self { jobs: HashMap::new(), bytes: 0, let_go: resumed }
    }

    /// Keeps a job, if there is room.
    pub(super) fn keep(&mut self, job: Job) {
        let (key, bytes) = (job.key(), bytes_of(&job));
        drop(self.take(key));
        if self.bytes + bytes <= BYTES_MAX {
            self.bytes += bytes;
            self.jobs.insert(key, job);
        } else {
            self.let_go.insert(key);
        }
    }

    /// Takes a kept job that is about to change.
    pub(super) fn take(&mut self, key: JobKey) -> Option<Job> {
        let job = self.jobs.remove(&key)?;
        self.bytes -= bytes_of(&job);
        Some(job)
    }

    /// Notes that a job is about to change; true if its record is not kept though a worker has it.
    pub(super) fn take_let_go(&mut self, key: JobKey) -> bool {
        self.let_go.remove(&key)
    }

    pub(super) fn has(&self, key: JobKey) -> bool {
        self.jobs.contains_key(&key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::Seq;
    use crate::spec::JobSpec;

    #[test]
    fn what_is_kept_is_bounded() {
        let mut running = Running::new(HashSet::new());
        let mut keys = Vec::new();
        for seq in 0..200 {
            let payload = vec![0; if seq % 2 == 0 { 1 << 20 } else { 1 }].into();
            let job = Job::new(Seq(seq), JobSpec { payload, ..JobSpec::default() }, 0);
            keys.push(job.key());
            running.keep(job);
            let sum: usize = running.jobs.values().map(bytes_of).sum();
            assert_eq!(running.bytes, sum);
            assert!(sum <= BYTES_MAX);
        }
        assert!(running.has(keys[199]) && !running.has(keys[198]), "small ones have room longer");
        for key in keys {
            assert!(running.take(key).is_some() != running.take_let_go(key), "one or the other");
        }
        assert_eq!(running.bytes, 0);
    }
}
