//! The rows of a job in its database, from its beginning to its end.

use crate::common::{Place, named, one, spec, tenant};
use skerry_jobs::job::{JobError, JobState};
use skerry_jobs::keys;
use skerry_jobs::retry::RetryPolicy;
use skerry_jobs::shard::Outcome;
use skerry_jobs::spec::JobSpec;
use std::time::Duration;

/// Reads the letters of all rows, but for those of the shard itself, in order. The shard is closed.
async fn letters(place: &Place) -> String {
    let db = place.database().await;
    let mut found = db.scan(..).await.expect("reads");
    let mut letters = String::new();
    while let Some(row) = found.next().await.expect("reads") {
        let letter = row.key[0];
        if ![keys::DESCRIPTOR[0], keys::PAUSED].contains(&letter) {
            letters.push(char::from(letter));
        }
    }
    db.close().await.expect("closes");
    letters
}

/// Opens the shard, does `work`, closes it, and reads the letters.
async fn after(place: &Place, work: impl AsyncFnOnce(&skerry_jobs::shard::Shard)) -> String {
    let shard = place.open().await;
    work(&shard).await;
    shard.close().await.expect("closes");
    letters(place).await
}

fn failure() -> Outcome {
    Outcome::Failed(JobError { code: "no".into(), message: "way".into(), is_final: true })
}

/// A waiting job is one row, a running one two, an ended one one. So a job writes three.
#[tokio::test(start_paused = true)]
async fn a_job_is_a_row_and_a_lease_another() {
    let place = Place::new();
    let enqueued = after(&place, async |shard| {
        shard.enqueue(spec("a")).await.expect("takes it");
    });
    assert_eq!(enqueued.await, "a");
    let leased = after(&place, async |shard| {
        let leased = one(shard).await;
        shard.heartbeat(leased.lease).expect("holds");
    });
    assert_eq!(leased.await, "aa", "the job, and its lease");
    let ended = after(&place, async |shard| {
        tokio::time::sleep(Duration::from_secs(120)).await;
        let leased = one(shard).await;
        assert_eq!(leased.lease.attempt.0, 2, "the first lease is over");
        shard.report(leased.ticket(), Outcome::Succeeded("x".into())).await.expect("holds");
        assert_eq!(
            shard.show(&tenant(), &named("a")).await.expect("there").state,
            JobState::Succeeded
        );
    });
    assert_eq!(ended.await, "t");
    let gone = after(&place, async |shard| {
        shard.delete(&tenant(), &named("a")).await.expect("deletes it");
    });
    assert_eq!(gone.await, "");
}

#[tokio::test(start_paused = true)]
async fn a_dead_letter_and_each_entry_of_metadata_are_rows() {
    let place = Place::new();
    let job = JobSpec {
        metadata: [("k".to_owned(), "v".to_owned()), ("l".to_owned(), "w".to_owned())].to_vec(),
        retry: RetryPolicy { retries: 0, ..RetryPolicy::default() },
        ..spec("a")
    };
    let enqueued = after(&place, async |shard| {
        shard.enqueue(job).await.expect("takes it");
    });
    assert_eq!(enqueued.await, "amm");
    let failed = after(&place, async |shard| {
        let leased = one(shard).await;
        shard.report(leased.ticket(), failure()).await.expect("holds");
    });
    assert_eq!(failed.await, "dmmt");
    let again = after(&place, async |shard| {
        shard.restart(&tenant(), &named("a")).await.expect("begins anew");
    });
    assert_eq!(again.await, "amm");
}
