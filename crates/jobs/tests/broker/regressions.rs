//! Loads that brought the previous system down: each must cost no more than its fair share.

use skerry_jobs::job::{Job, JobRef, JobState, Seq};
use skerry_jobs::limit::{Drained, Limit, LimitKind, RATE_MS_MAX};
use skerry_jobs::machine::{Expired, Hold, Machine, Next, Pace, Report};
use skerry_jobs::name::{Group, JobId, LimitKey, Tenant};
use skerry_jobs::retry::RetryPolicy;
use skerry_jobs::spec::JobSpec;

const NOW_MS: u64 = 1_000_000;

fn limit(key: &str, max: u32) -> Limit {
    Limit { key: LimitKey::new(key).expect("a name"), kind: LimitKind::Concurrency { max } }
}

fn tenant(name: &str) -> Tenant {
    Tenant::new(name).expect("a name")
}

fn enqueue(machine: &mut Machine, seq: u64, spec: JobSpec) {
    machine.enqueue(&Job::new(Seq(seq), spec, NOW_MS), NOW_MS).expect("takes it");
}

/// Leases and ends jobs until there is none; gives them in the order in which they ran.
fn drain(machine: &mut Machine) -> Vec<u64> {
    let mut order = Vec::new();
    while let Some(granted) = machine.lease(&Group::default(), NOW_MS) {
        let next = machine.report(granted.lease, Report::Succeeded, NOW_MS).expect("holds");
        assert_eq!(next, Next::End(JobState::Succeeded));
        order.push(granted.lease.seq.0);
    }
    order
}

fn tick(machine: &mut Machine, now_ms: u64) -> Vec<Expired> {
    machine.tick(now_ms, |_| Hold::Begun)
}

#[test]
fn thousands_behind_a_limit_of_one_keep_nobody_waiting() {
    const BEHIND: u64 = 29_000;
    let mut machine = Machine::new(1);
    for seq in 0..BEHIND {
        enqueue(&mut machine, seq, JobSpec { limits: vec![limit("one", 1)], ..JobSpec::default() });
    }
    let first = machine.lease(&Group::default(), NOW_MS).expect("one may run");
    assert_eq!(machine.lease(&Group::default(), NOW_MS), None);
    // Younger, of the same tenant and task group: it runs at once.
    enqueue(&mut machine, BEHIND, JobSpec::default());
    let free = machine.lease(&Group::default(), NOW_MS).expect("it is under no limit");
    assert_eq!(free.lease.seq, Seq(BEHIND));
    machine.report(first.lease, Report::Succeeded, NOW_MS).expect("holds");
    assert_eq!(drain(&mut machine), (1..BEHIND).collect::<Vec<_>>());
}

#[test]
fn hundreds_of_thousands_of_queues_are_as_good_as_one() {
    const QUEUES: u64 = 667_000;
    let mut machine = Machine::new(1);
    for seq in 0..QUEUES {
        let limits = vec![limit(&format!("queue-{seq}"), 1)];
        enqueue(&mut machine, seq, JobSpec { limits, ..JobSpec::default() });
    }
    assert_eq!(drain(&mut machine), (0..QUEUES).collect::<Vec<_>>());
    assert_eq!(machine.counts().active, 0);
}

#[test]
fn what_was_deleted_at_the_head_is_not_in_the_way() {
    const DELETED: u64 = 200_000;
    let mut machine = Machine::new(1);
    for seq in 0..=DELETED {
        enqueue(&mut machine, seq, JobSpec { priority: 1, ..JobSpec::default() });
    }
    for seq in 0..DELETED {
        let job = JobRef::Assigned(Seq(seq));
        machine.cancel(&Tenant::default(), &job, NOW_MS).expect("it waits");
    }
    assert_eq!(drain(&mut machine), [DELETED]);
}

#[test]
fn a_million_jobs_of_one_tenant_delay_another_by_one() {
    let mut machine = Machine::new(1);
    for seq in 0..1_000_000 {
        enqueue(&mut machine, seq, JobSpec { tenant: tenant("noisy"), ..JobSpec::default() });
    }
    machine.lease(&Group::default(), NOW_MS).expect("there is much to do");
    for seq in 1_000_000..1_000_010 {
        let spec = JobSpec { tenant: tenant("quiet"), priority: 99, ..JobSpec::default() };
        enqueue(&mut machine, seq, spec);
        let two = [(); 2].map(|()| machine.lease(&Group::default(), NOW_MS).expect("there is"));
        assert!(two.iter().any(|granted| granted.lease.seq == Seq(seq)), "{two:?}");
    }
}

#[test]
fn who_reports_after_the_lease_has_passed_on_is_refused() {
    let mut machine = Machine::new(1);
    let retry = RetryPolicy { initial_ms: 1, jitter_percent: 0, ..RetryPolicy::default() };
    let id = JobId::new("mail").expect("a name");
    enqueue(
        &mut machine,
        1,
        JobSpec { id: Some(id), retry, lease_ms: 1_000, ..JobSpec::default() },
    );
    let slow = machine.lease(&Group::default(), NOW_MS).expect("one");
    let [over] = &tick(&mut machine, NOW_MS + 1_000)[..] else { panic!("the lease is over") };
    assert_eq!((over.lease, over.next), (slow.lease, Next::Retry { at_ms: NOW_MS + 1_001 }));
    tick(&mut machine, NOW_MS + 1_001);
    let other = machine.lease(&Group::default(), NOW_MS + 1_001).expect("again");
    assert!(machine.report(slow.lease, Report::Succeeded, NOW_MS + 1_002).is_err());
    assert!(machine.heartbeat(slow.lease, NOW_MS + 1_002).is_err());
    machine.report(other.lease, Report::Succeeded, NOW_MS + 1_002).expect("holds");
}

#[test]
fn what_is_called_off_while_its_worker_is_dead_ends_with_the_lease() {
    let mut machine = Machine::new(1);
    let id = JobId::new("mail").expect("a name");
    let spec =
        JobSpec { id: Some(id.clone()), limits: vec![limit("one", 1)], ..JobSpec::default() };
    enqueue(&mut machine, 1, spec.clone());
    enqueue(&mut machine, 2, JobSpec { id: None, ..spec });
    let dead = machine.lease(&Group::default(), NOW_MS).expect("one");
    machine.cancel(&Tenant::default(), &JobRef::Named(id), NOW_MS).expect("it runs");
    assert_eq!(machine.lease(&Group::default(), NOW_MS), None, "its limit is held");
    let [over] = &tick(&mut machine, dead.expires_ms)[..] else { panic!("the lease is over") };
    assert_eq!(over.next, Next::End(JobState::Cancelled));
    assert_eq!(
        machine.lease(&Group::default(), dead.expires_ms).map(|g| g.lease.seq),
        Some(Seq(2))
    );
}

/// Once, there were tokens for three thousand years. The bucket's times did not fit 64 bits, its
/// timer was due for ever, and the tick never ended.
#[test]
fn a_bucket_without_bounds_stops_nobody() {
    let mut machine = Machine::new(1);
    let key = LimitKey::new("rate").expect("a name");
    let rate = Drained { count: 1, per_ms: RATE_MS_MAX, burst: u32::MAX, full_at_ms: u64::MAX };
    machine.restore_rate(&Tenant::default(), &key, rate, NOW_MS);
    let limits = vec![Limit { key, kind: rate.kind() }];
    for seq in 0..2 {
        enqueue(&mut machine, seq, JobSpec { limits: limits.clone(), ..JobSpec::default() });
    }
    let mut now_ms = NOW_MS;
    for seq in 0..2 {
        now_ms = machine.next_ms().filter(|at_ms| *at_ms > now_ms).expect("a token comes later");
        assert_eq!(machine.lease(&Group::default(), now_ms - 1), None);
        tick(&mut machine, now_ms);
        let granted = machine.lease(&Group::default(), now_ms).expect("there is a token");
        machine.report(granted.lease, Report::Succeeded, now_ms).expect("holds");
        assert_eq!(granted.lease.seq, Seq(seq));
    }
}

#[test]
fn what_is_due_at_once_is_seen_to_in_parts() {
    const DUE: u64 = 300_000;
    let mut machine = Machine::new(1);
    for seq in 0..DUE {
        enqueue(&mut machine, seq, JobSpec { start_at_ms: NOW_MS + 1, ..JobSpec::default() });
    }
    let (mut ready, part) = (0, Pace::default().timers as u64);
    while ready < DUE {
        assert_eq!(machine.next_ms(), Some(NOW_MS + 1));
        tick(&mut machine, NOW_MS + 1);
        let [(_, counts)] = &machine.groups()[..] else { panic!("one group") };
        assert!(counts.ready > ready && counts.ready <= ready + part, "{counts:?}");
        ready = counts.ready;
    }
    assert_eq!(machine.next_ms(), None);
}

/// Once, each of many users had a limit of its own, and all shared one. A free room under the
/// shared limit looked at every user's jobs in one go, while other workers' heartbeats waited.
#[test]
fn a_place_that_comes_free_behind_other_limits_is_passed_on_in_parts() {
    const USERS: u64 = 20_000;
    let mut machine = Machine::new(1);
    let spec = |limits: Vec<Limit>| JobSpec { limits, ..JobSpec::default() };
    enqueue(&mut machine, 0, spec(vec![limit("shared", 1)]));
    let shared = machine.lease(&Group::default(), NOW_MS).expect("one may run");
    let own = |user: u64| limit(&format!("user-{user}"), 1);
    for user in 1..=USERS {
        enqueue(&mut machine, user, spec(vec![limit("shared", 1), own(user)]));
    }
    // A job of each user's own, beside.
    for user in 1..=USERS {
        enqueue(&mut machine, USERS + user, spec(vec![own(user)]));
        machine.lease(&Group::default(), NOW_MS).expect("it is under no other limit");
    }
    enqueue(&mut machine, 3 * USERS, spec(vec![limit("shared", 1)]));
    machine.report(shared.lease, Report::Succeeded, NOW_MS).expect("holds");
    let mut parts = 0;
    let granted = loop {
        if let Some(granted) = machine.lease(&Group::default(), NOW_MS) {
            break granted;
        }
        assert_eq!(machine.next_ms(), Some(NOW_MS), "there is more to look at");
        tick(&mut machine, NOW_MS);
        parts += 1;
    };
    assert_eq!(granted.lease.seq, Seq(3 * USERS));
    let Pace { wakes, looks, .. } = Pace::default();
    assert!(parts >= USERS as usize / (wakes + 2 * looks), "{parts} parts");
}

fn rate(key: &str, per_ms: u32) -> Limit {
    let kind = LimitKind::Rate { count: 1, per_ms, burst: 1 };
    Limit { key: LimitKey::new(key).expect("a name"), kind }
}

fn under(limit: &Limit) -> JobSpec {
    JobSpec { limits: vec![limit.clone()], ..JobSpec::default() }
}

/// Once, a batch deleted all rates in one go that had filled since the previous one.
#[test]
fn rates_that_have_filled_are_forgotten_in_parts() {
    const RATES: usize = 3_000;
    let mut machine = Machine::new(1);
    let full = Drained { count: 1, per_ms: 1000, burst: 1, full_at_ms: 1 };
    let name = |n: usize| format!("rate{n:04}");
    for n in 0..RATES {
        let key = LimitKey::new(&name(n)).expect("a name");
        machine.restore_rate(&Tenant::default(), &key, full, NOW_MS);
    }
    let used = rate(&name(RATES - 1), 1000);
    enqueue(&mut machine, 1, under(&used));
    machine.lease(&Group::default(), NOW_MS).expect("its bucket is full");
    let mut rows = std::collections::BTreeMap::new();
    loop {
        let rates = machine.take_rates();
        assert!(rates.len() <= 1025, "{} in one batch", rates.len());
        if rates.is_empty() {
            break;
        }
        rows.extend(rates.into_iter().map(|(_, key, rate)| (key, rate)));
    }
    assert_eq!(rows.len(), RATES);
    let kept = |(key, rate): (&LimitKey, &Option<Drained>)| rate.map(|_| key.clone());
    let kept: Vec<_> = rows.iter().filter_map(kept).collect();
    assert_eq!(kept, [used.key], "a token was taken since its bucket was full");
}

/// Once, the newest definition was kept with a token that was taken under the previous one: a
/// restart forgave the debt.
#[test]
fn a_token_is_kept_with_the_definition_that_it_was_taken_under() {
    const LATER_MS: u64 = NOW_MS + 10_000;
    let (slow, fast) = (rate("api", 3_600_000), rate("api", 1_000));
    let mut machine = Machine::new(1);
    enqueue(&mut machine, 1, under(&slow));
    machine.lease(&Group::default(), NOW_MS).expect("its bucket is full");
    enqueue(&mut machine, 2, under(&fast));
    let (tenant, key, kept) = machine.take_rates().pop().expect("a token was taken");
    let kept = kept.expect("its bucket is not full");
    assert_eq!(kept.kind(), slow.kind);
    let mut again = Machine::new(1);
    again.restore_rate(&tenant, &key, kept, LATER_MS);
    enqueue(&mut again, 2, under(&fast));
    for machine in [&mut machine, &mut again] {
        assert_eq!(machine.lease(&Group::default(), LATER_MS), None, "an hour is owed");
    }
}

/// Once, a concurrency limit of an equal name, between two jobs under a rate, filled the bucket.
#[test]
fn a_limit_of_another_kind_and_the_same_name_fills_no_bucket() {
    const HOUR_MS: u64 = 3_600_000;
    let mut machine = Machine::new(1);
    let api = rate("api", HOUR_MS as u32);
    enqueue(&mut machine, 1, under(&api));
    enqueue(&mut machine, 2, under(&api));
    assert_eq!(drain(&mut machine), [1]);
    machine.remove(&Tenant::default(), &JobRef::Assigned(Seq(2)), NOW_MS).expect("it waits");
    enqueue(&mut machine, 3, under(&limit("api", 1)));
    assert_eq!(drain(&mut machine), [3]);
    enqueue(&mut machine, 4, under(&api));
    assert_eq!(drain(&mut machine), [0; 0], "an hour is owed");
    let (_, _, kept) = machine.take_rates().pop().expect("a token was taken");
    assert_eq!(kept.map(|kept| kept.full_at_ms), Some(NOW_MS + HOUR_MS));
    tick(&mut machine, NOW_MS + HOUR_MS);
    assert!(machine.lease(&Group::default(), NOW_MS + HOUR_MS).is_some());
}

/// Once, a debt of tokens kept a floating limit alive without jobs.
#[test]
fn a_limit_that_only_owes_is_none_that_a_worker_is_asked_about() {
    let mut machine = Machine::new(1);
    let api = rate("api", 3_600_000);
    enqueue(&mut machine, 1, under(&api));
    assert_eq!(drain(&mut machine), [1]);
    let kind = LimitKind::Floating { initial: 1, refresh_ms: 1000, group: Group::default() };
    enqueue(&mut machine, 2, under(&Limit { key: api.key.clone(), kind }));
    assert!(machine.floating(&Tenant::default(), &api.key).is_some());
    assert_eq!(drain(&mut machine), [2]);
    assert_eq!(machine.floating(&Tenant::default(), &api.key), None);
    assert!(machine.floating_limits().is_empty());
}

/// A crash can leave a job that ended under one kind of a limit beside one that began under
/// another. Once, the shard of two such jobs never opened again.
#[test]
fn two_kinds_of_a_limit_are_read_back_and_the_later_one_holds() {
    let under = |seq, kind| {
        let limits = vec![Limit { key: LimitKey::new("api").expect("a name"), kind }];
        Job::new(Seq(seq), JobSpec { limits, ..JobSpec::default() }, NOW_MS)
    };
    let mut machine = Machine::new(1);
    let rate = LimitKind::Rate { count: 1, per_ms: 1000, burst: 1 };
    machine.resume_waiting(&under(1, rate.clone()), NOW_MS).expect("reads");
    let at_once = LimitKind::Concurrency { max: 2 };
    machine.resume_waiting(&under(2, at_once.clone()), NOW_MS).expect("reads");
    // A new job of the other kind is still refused.
    let refused = machine.enqueue(&under(3, rate), NOW_MS).expect_err("another kind");
    assert_eq!(refused.kind(), skerry_jobs::ErrorKind::Conflict);
    machine.enqueue(&under(3, at_once), NOW_MS).expect("takes it");
    let run = |machine: &mut Machine| machine.lease(&Group::default(), NOW_MS);
    let first = run(&mut machine).expect("there is room for two");
    run(&mut machine).expect("there is room for two");
    assert_eq!(run(&mut machine), None);
    machine.report(first.lease, Report::Succeeded, NOW_MS).expect("holds");
    assert!(run(&mut machine).is_some());
}
