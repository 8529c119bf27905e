use super::*;
use crate::objects::faulty::{FaultPlan, Faulty};
use crate::objects::testing::bucket_in;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use object_store::memory::InMemory;
use std::sync::Arc;

/// Interval between two looks at the number of sends on the uplink.
const STEP: Duration = Duration::from_millis(100);
const MIB: usize = 1 << 20;

/// An uplink of this many bytes a second, shared by all sends.
struct Slow {
    bytes_per_s: usize,
    running: Mutex<usize>,
}

struct Sending<'a>(&'a Slow);

impl Drop for Sending<'_> {
    fn drop(&mut self) {
        *self.0.running.lock() -= 1;
    }
}

impl Slow {
    async fn carry(&self, bytes: usize) -> Result<()> {
        *self.running.lock() += 1;
        let _sending = Sending(self);
        let mut left = bytes as f64;
        while left > 0.0 {
            tokio::time::sleep(STEP).await;
            left -= self.bytes_per_s as f64 * STEP.as_secs_f64() / *self.running.lock() as f64;
        }
        Ok(())
    }
}

/// Sends `count` objects of 16 MiB at once, each until it finishes. Gives the number of tries.
async fn send_all(count: usize, bytes_per_s: usize) -> usize {
    let slow = Slow { bytes_per_s, running: Mutex::new(0) };
    let line = Line::default();
    let tries = Mutex::new(0);
    let one = async || loop {
        *tries.lock() += 1;
        if line.send(16 * MIB, || slow.carry(16 * MIB)).await.is_ok() {
            break;
        }
    };
    let all: FuturesUnordered<_> = (0..count).map(|_| one()).collect();
    let hours = Duration::from_secs(4 * 3600);
    let done = tokio::time::timeout(hours, all.count()).await;
    assert_eq!(done, Ok(count), "{:?}", line.state.lock());
    tries.into_inner()
}

/// Once, four volumes of 64 MiB at 1 MB/s sent sixteen objects at once, which got 4 MB each through
/// in a minute, for ever.
#[tokio::test(start_paused = true)]
async fn objects_that_share_a_slow_line_are_through_in_the_end() {
    let tries = send_all(16, 1_000_000).await;
    assert!(tries <= 16 + 32, "{tries}");
    assert_eq!(send_all(16, 100_000_000).await, 16, "a fast line cuts nothing off");
}

#[tokio::test(start_paused = true)]
async fn a_line_too_slow_for_one_object_in_a_minute_gets_time() {
    let tries = send_all(2, 80_000).await;
    assert!(tries <= 8, "{tries}");
}

#[tokio::test(start_paused = true)]
async fn a_line_that_gets_fast_is_used_again() {
    let line = Line::default();
    for _ in 0..10 {
        let hung = line.send(MIB, std::future::pending::<Result<()>>);
        assert!(hung.await.is_err());
    }
    assert_eq!(line.state.lock().timeout, SEND_TIMEOUT_MAX);
    line.state.lock().at_once_max = 1;
    for _ in 0..AT_ONCE_MAX {
        assert!(line.send(MIB, async || Ok(())).await.is_ok());
    }
    let state = line.state.lock();
    assert_eq!((state.timeout, state.at_once_max, state.running), (CALL_TIMEOUT, AT_ONCE_MAX, 0));
}

/// Once, with one send at a time and all the time for it, an object that hung kept the others for
/// eight minutes.
#[tokio::test(start_paused = true)]
async fn an_object_that_hangs_keeps_no_other_for_long() {
    let line = Line::default();
    {
        let mut state = line.state.lock();
        (state.at_once_max, state.timeout) = (1, SEND_TIMEOUT_MAX);
    }
    let hung = line.send(MIB, std::future::pending::<Result<()>>);
    let began = Instant::now();
    let others = async {
        for _ in 0..10 {
            let sent = line.send(MIB, async || Ok(())).await;
            assert!(matches!(sent, Ok(Ok(()))));
        }
        began.elapsed()
    };
    tokio::select! {
        biased;
        _ = hung => panic!("the others waited for it"),
        took = others => assert!(took <= CALL_TIMEOUT, "{took:?}"),
    }
    let state = line.state.lock();
    assert_eq!((state.running, state.long.len()), (0, 0), "{state:?}");
}

/// Once, on a line on which each object takes longer than a call should, the first of the queue
/// tried beside each. No try finished, and a sender with the wrong turns never got through.
#[tokio::test(start_paused = true)]
async fn a_slow_line_is_not_spent_on_tries() {
    for (senders, bytes_per_s) in [(4, 250_000), (2, 200_000), (3, 60_000)] {
        let slow = Slow { bytes_per_s, running: Mutex::new(0) };
        let line = Line::default();
        let (calls, sent, longest) = (Mutex::new(0), Mutex::new(0), Mutex::new(Duration::ZERO));
        let one = async || loop {
            let began = Instant::now();
            let call = || async {
                *calls.lock() += 1;
                slow.carry(16 * MIB).await
            };
            while line.send(16 * MIB, call).await.is_err() {}
            *sent.lock() += 1;
            let mut longest = longest.lock();
            *longest = began.elapsed().max(*longest);
        };
        let all: FuturesUnordered<_> = (0..senders).map(|_| one()).collect();
        let hours = Duration::from_secs(4 * 3600);
        assert!(tokio::time::timeout(hours, all.count()).await.is_err(), "they never end");
        let (calls, sent, longest) = (calls.into_inner(), sent.into_inner(), longest.into_inner());
        let most = 4 * 3600 * bytes_per_s / (16 * MIB);
        let what = format!("{senders} senders, {bytes_per_s} bytes/s: {calls} calls, {sent} sent");
        assert!(sent * 10 >= most * 9 && calls <= sent + 4 * senders, "{what} of {most}");
        let alone = Duration::from_secs((16 * MIB / bytes_per_s) as u64);
        assert!(longest <= 10 * alone, "{what}, {longest:?} for one");
    }
}

/// A try that fails does not send its caller to the end of the queue.
#[tokio::test(start_paused = true)]
async fn a_try_that_fails_keeps_its_place() {
    let line = Line::default();
    {
        let mut state = line.state.lock();
        (state.at_once_max, state.timeout) = (1, SEND_TIMEOUT_MAX);
    }
    let order = Mutex::new(Vec::new());
    let first = line.send(MIB, std::future::pending::<Result<()>>);
    let send = async |number: usize| {
        let began = Mutex::new(0);
        let call = || async {
            *began.lock() += 1;
            if number == 2 && *began.lock() == 1 {
                std::future::pending::<()>().await;
            }
            order.lock().push(number);
            Ok(())
        };
        (line.send(MIB, call).await.is_ok(), began.into_inner())
    };
    let done = tokio::join!(biased; first, send(2), send(3), send(4));
    assert!(done.0.is_err());
    assert_eq!((done.1, done.2, done.3), ((true, 2), (true, 1), (true, 1)));
    assert_eq!(*order.lock(), [2, 3, 4]);
}

#[tokio::test(start_paused = true)]
async fn a_bucket_gives_a_large_object_more_time_with_each_try() {
    let faulty = Faulty::new(Arc::new(InMemory::new()), 1, FaultPlan::default());
    let faults = faulty.faults();
    let bucket = bucket_in(Arc::new(faulty), 1).await;
    let hang = FaultPlan { slow: 1000, slow_ms: 200_000..200_001, ..FaultPlan::default() };
    faults.set_plan(hang);
    // A large one gets two tries, of 60 and 120 s.
    for (bytes, seconds) in [(7, 60), (MIB, 120)] {
        let error = bucket.create("a/b", vec![1; bytes]).await.expect_err("200 s are too long");
        assert!(error.to_string().contains(&format!("no answer within {seconds}s")), "{error}");
    }
    // Now it has 240 s.
    assert!(bucket.create("a/b", vec![1; MIB]).await.is_ok());
}

/// A busy sender passes none that waits.
#[tokio::test(start_paused = true)]
async fn turns_are_taken_in_the_order_of_asking() {
    let line = Line::default();
    line.state.lock().at_once_max = 1;
    let order = Mutex::new(Vec::new());
    let send = async |number: usize| {
        let call = || async {
            tokio::time::sleep(STEP).await;
            order.lock().push(number);
            Ok(())
        };
        let _ = line.send(LARGE_BYTES_MIN, call).await;
    };
    let busy = async {
        for number in 0..10 {
            send(number).await;
        }
    };
    // A caller that leaves while it waits holds up none behind it.
    let gone = tokio::time::timeout(STEP / 2, send(99));
    let _ = tokio::join!(busy, gone, send(50));
    assert_eq!(order.lock()[..3], [0, 50, 1]);
}
