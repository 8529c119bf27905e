//! A fixed history, stopped after every n-th disk operation, for every n, with several ways of
//! losing unsynced data. The recovery after it is stopped in every place, too.
use crate::common::{Record, Reference, drive, recover, settle};
use skerry_log::{
    Error, ErrorKind, Log, LogPosition,
    sim::{SimDisk, SimRng},
};

/// Ways of losing power at each place.
const PATTERNS: u64 = 12;

/// Appends through several changes of file and reuses, with waits, marks, trims and a reopening.
/// The reference knows which records may be there at any moment, even if this stops half-way.
fn history(disk: &SimDisk, model: &mut Reference) -> Result<(), Error> {
    let mut rng = SimRng::new(11);
    for life in 0..2 {
        let (log, found) = recover(disk, 100 + life)?;
        model.recovered(&found);
        model.durable = log.durable_position();
        let outcome = one_life(&log, &mut rng, model);
        model.durable = model.durable.max(log.durable_position());
        outcome?;
        disk.kill();
    }
    Ok(())
}

fn one_life(log: &Log, rng: &mut SimRng, model: &mut Reference) -> Result<(), Error> {
    for turn in 0..24 {
        let record = Record::random(rng, 3000);
        let position = match record.append(log) {
            Ok(position) => position,
            Err(Error::Full { .. }) => {
                trim(log, model, 4);
                settle(log)?;
                record.append(log)?
            }
            Err(error) => return Err(error),
        };
        model.appended(position, record);
        match turn % 8 {
            2 => drive(log, log.wait_durable(position))?,
            4 => drop(log.commit_once()?),
            5 => {
                log.note_quiet();
                settle(log)?;
            }
            7 => trim(log, model, 3),
            _ => {}
        }
    }
    drive(log, log.close())
}

/// Trims some of the four groups: with three, files in the middle go and others stay.
fn trim(log: &Log, model: &mut Reference, groups: u32) {
    for group in 0..groups {
        log.trim(group, log.durable_position());
        model.trim(group, log.durable_position());
    }
}

/// The history, stopped after `stop` operations; then a loss of power.
fn stopped(stop: u64, pattern: u64) -> (SimDisk, Reference) {
    let disk = SimDisk::new();
    let mut model = Reference::default();
    disk.stop_after(stop);
    let error = history(&disk, &mut model).expect_err("it stops");
    assert_eq!(error.kind(), ErrorKind::Failed, "{error}");
    disk.crash(stop * PATTERNS + pattern);
    (disk, model)
}

fn all_operations() -> u64 {
    let disk = SimDisk::new();
    history(&disk, &mut Reference::default()).unwrap();
    disk.operations()
}

#[test]
fn stopped_after_every_operation() {
    let operations = all_operations();
    assert!(operations > 100, "{operations} operations are too few to mean much");
    for stop in 0..operations {
        for pattern in 0..PATTERNS {
            let (disk, mut model) = stopped(stop, pattern);
            let what = format!("stopped after {stop}, pattern {pattern}");
            let (log, found) = recover(&disk, 7).unwrap_or_else(|e| panic!("{what}: {e}"));
            model.recovered(&found);
            goes_on(&disk, log, &mut model);
        }
    }
}

#[test]
fn recovery_itself_stopped_after_every_operation() {
    let operations = all_operations();
    for stop in (0..operations).step_by(5) {
        for inner_stop in 0.. {
            let (disk, mut model) = stopped(stop, inner_stop);
            disk.stop_after(inner_stop);
            let first = recover(&disk, 8).map(|(log, found)| {
                model.recovered(&found);
                model.durable = log.durable_position();
            });
            let finished = first.is_ok();
            disk.crash(inner_stop);
            let (log, found) = recover(&disk, 9).unwrap();
            model.recovered(&found);
            goes_on(&disk, log, &mut model);
            if finished {
                break;
            }
        }
    }
}

/// Asserts that the log takes records again, and that these survive a loss of power.
fn goes_on(disk: &SimDisk, log: Log, model: &mut Reference) {
    for group in 0..4 {
        log.trim(group, LogPosition::MAX);
        model.trim(group, log.end_position());
    }
    settle(&log).unwrap();
    let record = Record { group: 9, kind: 1, payload: vec![1; 700] };
    let position = crate::common::append_durable(&log, &record);
    model.appended(position, record);
    model.durable = log.durable_position();
    drop(log);
    disk.crash(position.as_u64());
    let (_, found) = recover(disk, 10).unwrap();
    assert_eq!(found.last().unwrap().0, position);
    model.recovered(&found);
}
