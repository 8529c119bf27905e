//! Tests of the check: each shows an image that must be refused, beside one that must not.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;
use crate::stamp::BadBlock;
use Content::{Written, Zeroes};

const BLOCKS: u64 = 4;

fn history() -> History {
    History::new(1, BLOCKS)
}

fn image(contents: [Content; 4]) -> Image {
    Image::of(contents.map(Ok))
}

fn write(history: &History, block: Block) -> Sequence {
    let sequence = history.issue(block, Kind::Write);
    history.acknowledge(sequence, false);
    sequence
}

#[test]
fn a_flushed_write_that_is_missing_is_found() {
    let history = history();
    let one = write(&history, 0);
    let flush = history.send_flush();
    let two = write(&history, 1);
    history.flushed(flush);
    assert!(history.check(&image([Written(one), Zeroes, Zeroes, Zeroes]), Bounds::SYNCED).is_ok());
    let all = image([Written(one), Written(two), Zeroes, Zeroes]);
    assert_eq!(history.check(&all, Bounds::SYNCED).unwrap().included, 2);
    let lost = image([Zeroes; 4]);
    assert!(matches!(
        history.check(&lost, Bounds::SYNCED),
        Err(Violation::Lost { block: 0, missing, .. }) if missing == one
    ));
    assert!(history.check(&lost, Bounds::PREFIX).is_ok());
}

#[test]
fn a_flush_that_was_not_answered_covers_nothing() {
    let history = history();
    write(&history, 0);
    let _unanswered = history.send_flush();
    assert!(history.check(&image([Zeroes; 4]), Bounds::SYNCED).is_ok());
}

#[test]
fn a_write_with_fua_needs_no_flush() {
    let history = history();
    let one = history.issue(0, Kind::Write);
    history.acknowledge(one, true);
    assert!(history.check(&image([Zeroes; 4]), Bounds::SYNCED).is_err());
    assert!(history.check(&image([Zeroes; 4]), Bounds::PREFIX).is_ok());
    assert!(history.check(&image([Written(one), Zeroes, Zeroes, Zeroes]), Bounds::SYNCED).is_ok());
}

#[test]
fn a_gap_in_the_middle_is_no_prefix() {
    let history = history();
    let one = write(&history, 0);
    let two = write(&history, 1);
    let three = write(&history, 2);
    let gap = image([Written(one), Zeroes, Written(three), Zeroes]);
    assert!(matches!(
        history.check(&gap, Bounds::PREFIX),
        Err(Violation::Lost { block: 1, missing, .. }) if missing == two
    ));
    let whole = image([Written(one), Written(two), Zeroes, Zeroes]);
    assert_eq!(
        history.check(&whole, Bounds::PREFIX),
        Ok(Found { included: 2, issued: 3, acknowledged: 3 })
    );
}

#[test]
fn writes_in_flight_together_may_be_there_in_any_combination() {
    let history = history();
    let one = history.issue(0, Kind::Write);
    let two = history.issue(1, Kind::Write);
    history.acknowledge(two, false);
    history.acknowledge(one, false);
    for contents in [[Written(one), Zeroes], [Zeroes, Written(two)], [Written(one), Written(two)]] {
        let image = image([contents[0], contents[1], Zeroes, Zeroes]);
        assert!(history.check(&image, Bounds::PREFIX).is_ok());
    }
    // A third, issued after both were acknowledged, can't be there without either.
    let three = write(&history, 2);
    let without = image([Written(one), Zeroes, Written(three), Zeroes]);
    assert!(history.check(&without, Bounds::PREFIX).is_err());
}

#[test]
fn zeroes_are_explained_by_the_request_that_fits_the_rest() {
    let history = history();
    let one = write(&history, 0);
    let zero = history.issue(0, Kind::Zero);
    history.acknowledge(zero, false);
    let two = write(&history, 1);
    assert!(history.check(&image([Zeroes, Written(two), Zeroes, Zeroes]), Bounds::PREFIX).is_ok());
    let resurrected = image([Written(one), Written(two), Zeroes, Zeroes]);
    assert!(history.check(&resurrected, Bounds::PREFIX).is_err());
}

#[test]
fn an_overwritten_block_that_went_back_in_time_is_found() {
    let history = history();
    let old = write(&history, 0);
    let new = write(&history, 0);
    history.flushed(history.send_flush());
    assert!(history.check(&image([Written(new), Zeroes, Zeroes, Zeroes]), Bounds::SYNCED).is_ok());
    assert!(history.check(&image([Written(old), Zeroes, Zeroes, Zeroes]), Bounds::SYNCED).is_err());
}

#[test]
fn what_one_crash_lost_must_not_come_back_after_the_next() {
    let history = history();
    let kept = write(&history, 0);
    let lost = write(&history, 0);
    let found = image([Written(kept), Zeroes, Zeroes, Zeroes]);
    assert!(history.check(&found, Bounds::PREFIX).is_ok());
    history.restart_at(&found);
    let ghost = image([Written(lost), Zeroes, Zeroes, Zeroes]);
    assert_eq!(
        history.check(&ghost, Bounds::PREFIX),
        Err(Violation::NotIssued { block: 0, found: Written(lost) })
    );
    assert!(history.check(&found, Bounds::PREFIX).is_ok());
}

#[test]
fn a_snapshot_has_what_was_acknowledged_before_and_nothing_issued_after() {
    let history = history();
    let before = write(&history, 0);
    let began = history.now();
    let during = history.issue(1, Kind::Write);
    let returned = history.now();
    history.acknowledge(during, false);
    let after = write(&history, 2);
    let bounds = Bounds::snapshot(began, returned);
    let check = |contents| history.check(&image(contents), bounds);
    assert!(check([Written(before), Zeroes, Zeroes, Zeroes]).is_ok());
    assert!(check([Written(before), Written(during), Zeroes, Zeroes]).is_ok());
    assert!(matches!(check([Zeroes; 4]), Err(Violation::Lost { .. })));
    assert!(matches!(
        check([Written(before), Written(during), Written(after), Zeroes]),
        Err(Violation::TooNew { block: 2, .. })
    ));
}

#[test]
fn torn_blocks_and_wrong_sizes_are_violations() {
    let history = history();
    write(&history, 3);
    let torn = Image::of([Err(BadBlock::Torn { sequence: 1 }), Ok(Zeroes), Ok(Zeroes), Ok(Zeroes)]);
    assert!(matches!(history.check(&torn, Bounds::PREFIX), Err(Violation::Bad { block: 0, .. })));
    let short = Image::of([Ok(Zeroes)]);
    assert_eq!(history.check(&short, Bounds::PREFIX), Err(Violation::Size { found: 1 }));
}

/// Makes random histories of a disk that applies requests in the order of issue. The check accepts
/// each of its states, and refuses a state without one of its earlier changes.
#[test]
fn every_state_of_an_ordered_disk_is_a_prefix_and_no_state_with_a_hole_is() {
    for seed in 0..200 {
        let mut rng = StdRng::seed_from_u64(seed);
        let history = history();
        let mut states = vec![[Zeroes; 4]];
        let mut last = [Zeroes; 4];
        for _ in 0..rng.random_range(2..20) {
            let block = rng.random_range(0..BLOCKS);
            let sequence = write(&history, block);
            last[block as usize] = Written(sequence);
            states.push(last);
        }
        for (n, state) in states.iter().enumerate() {
            let found = history.check(&image(*state), Bounds::PREFIX).unwrap();
            assert_eq!(found.included, n as u64, "seed {seed}");
        }
        // Undoes the last write but one in the final state, unless the last hides it.
        let [.., before, undone, end] = states[..] else { continue };
        let changed = (0..4).find(|at| before[*at] != undone[*at]).unwrap();
        if end[changed] == undone[changed] {
            let mut hole = end;
            hole[changed] = before[changed];
            assert!(history.check(&image(hole), Bounds::PREFIX).is_err(), "seed {seed}");
        }
    }
}
