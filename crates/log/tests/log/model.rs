//! Random histories on a simulated disk against a naïve reference, in every order. They append,
//! commit, wait, trim, mark, read, close, kill, lose power, and fail or stop the disk.
use crate::common::{Record, Reference, poll_now, recover, settle, small};
use skerry_log::{
    Disk, Error, ErrorKind, FullReason, Log, LogPosition,
    sim::{SimDisk, SimRng},
};
use skerry_testkit::Search;

struct Run {
    disk: SimDisk,
    rng: SimRng,
    log: Option<Log>,
    model: Reference,
    recoveries: u64,
    appended: u64,
}

impl Run {
    fn new(seed: u64) -> Self {
        let mut run = Self {
            disk: SimDisk::new(),
            rng: SimRng::new(seed),
            log: None,
            model: Reference::default(),
            recoveries: 0,
            appended: 0,
        };
        run.reopen();
        run
    }

    fn log(&self) -> &Log {
        self.log.as_ref().unwrap()
    }

    /// Opens until it succeeds; now and then the disk stops or fails on the way.
    fn reopen(&mut self) {
        self.log = None;
        loop {
            match self.rng.below(4) {
                0 => self.disk.stop_after(self.rng.below(12)),
                1 => self.disk.fail_after(self.rng.below(12), self.rng.next_u64()),
                _ => {}
            }
            match recover(&self.disk, self.rng.next_u64()) {
                Ok((log, found)) => {
                    self.disk.repair();
                    self.model.recovered(&found);
                    self.model.durable = log.durable_position();
                    self.recoveries += 1;
                    // The caller repeats which records it does not need.
                    for (&group, &mark) in &self.model.marks {
                        log.trim(group, mark);
                    }
                    self.log = Some(log);
                    return;
                }
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Failed, "{error}");
                    self.end_process();
                }
            }
        }
    }

    fn end_process(&mut self) {
        if self.rng.chance(30) {
            self.disk.kill();
            self.disk.repair();
        } else {
            self.disk.crash(self.rng.next_u64());
        }
    }

    fn crash(&mut self) {
        self.model.durable = self.log().durable_position();
        self.end_process();
        self.reopen();
    }

    /// After an error, the log refuses everything, and durable records stay.
    fn failed(&mut self, error: &Error) {
        assert_eq!(error.kind(), ErrorKind::Failed, "{error}");
        let refused = self.log().append(0, 0, &[]).unwrap_err();
        assert_eq!(refused.to_string(), error.to_string(), "the first cause is kept");
        self.crash();
    }

    fn append(&mut self) {
        let longest = small().max_payload_bytes() as u64;
        let record = Record::random(&mut self.rng, longest);
        match record.append(self.log()) {
            Ok(position) => {
                self.model.appended(position, record);
                self.appended += 1;
            }
            Err(Error::Full { reason }) => self.make_room(reason, record.payload.len()),
            Err(error) => self.failed(&error),
        }
    }

    fn make_room(&mut self, reason: FullReason, payload_bytes: usize) {
        let waiting = self.log().wait_room(payload_bytes).unwrap();
        if let Err(error) = settle(self.log()) {
            return self.failed(&error);
        }
        if reason == FullReason::Files && self.rng.chance(70) {
            self.trim();
        }
        // Buffers always come back; files only if enough was trimmed.
        let ready = poll_now(waiting).is_ready();
        assert!(ready || reason == FullReason::Files || self.log().used_bytes() > 0);
    }

    fn commit(&mut self) {
        if let Err(error) = self.log().commit_once() {
            self.failed(&error);
        }
    }

    fn wait(&mut self) {
        let Some(index) = (!self.model.records.is_empty())
            .then(|| self.rng.below(self.model.records.len() as u64) as usize)
        else {
            return;
        };
        let position = *self.model.records.keys().nth(index).unwrap();
        let log = self.log().clone();
        if self.rng.chance(40) {
            match log.try_sync(position) {
                Ok(true) => assert!(log.durable_position() > position),
                Ok(false) => {}
                Err(error) => self.failed(&error),
            }
            return;
        }
        if let Err(error) = crate::common::drive(&log, log.wait_durable(position)) {
            return self.failed(&error);
        }
        assert!(log.durable_position() > position);
    }

    fn trim(&mut self) {
        let group = self.rng.below(4) as u32;
        let positions: Vec<LogPosition> = self.model.records.keys().copied().collect();
        let below = match self.rng.below(4) {
            0 => self.log().durable_position(),
            1 => self.log().end_position(),
            _ if positions.is_empty() => return,
            _ => positions[self.rng.below(positions.len() as u64) as usize],
        };
        self.log().trim(group, below);
        self.model.trim(group, below);
    }

    fn close(&mut self) {
        let log = self.log().clone();
        match crate::common::drive(&log, log.close()) {
            Ok(()) => {
                assert!(matches!(log.append(0, 0, &[]), Err(Error::Closed)));
                self.model.durable = log.end_position();
                self.end_process();
                self.reopen();
            }
            Err(error) => self.failed(&error),
        }
    }

    fn step(&mut self) {
        match self.rng.below(100) {
            0..=49 => self.append(),
            50..=64 => self.commit(),
            65..=76 => self.wait(),
            77..=85 => self.trim(),
            86..=88 => self.log().note_quiet(),
            89..=91 => self.model.check_reads(self.log.as_ref().unwrap(), &mut self.rng),
            92..=93 => self.disk.stop_after(self.rng.below(6)),
            94 => self.disk.fail_after(self.rng.below(6), self.rng.next_u64()),
            95 => self.close(),
            _ => self.crash(),
        }
        let log = self.log();
        assert!(log.used_bytes() <= log.cap_bytes() + small().file_bytes, "over the cap");
    }
}

#[test]
fn recovery_gives_an_exact_prefix_with_everything_durable() {
    let (mut recoveries, mut appended) = (0, 0);
    Search { name: "log: model", percent: 5, least: 2000 }.run(|seed| {
        let mut run = Run::new(seed);
        for _ in 0..300 {
            run.step();
        }
        run.crash();
        recoveries += run.recoveries;
        appended += run.appended;
    });
    assert!(recoveries > 1 && appended > 10, "{recoveries} recoveries of {appended} records");
}

#[test]
fn the_same_seed_does_the_same() {
    let trace = |seed| {
        let mut run = Run::new(seed);
        for _ in 0..200 {
            run.step();
        }
        let names = run.disk.list().unwrap();
        let images: Vec<_> = names.iter().map(|name| run.disk.contents(name).unwrap()).collect();
        (run.disk.operations(), images)
    };
    assert!(trace(7) == trace(7));
    assert!(trace(7) != trace(8));
}
