//! Stands below a wrapper: a clock that a test moves, and a device on which a test stops and fails
//! calls.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::channel::oneshot;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use skerry_core::env::Clock;
use skerry_device::memory::MemoryDevice;
use skerry_device::wrap::sleep::Sleep;
use skerry_device::{Content, Device, Error, ErrorKind, Geometry, Result, StatusRange};

/// A clock that moves when a test moves it, or to the end of the next sleep.
#[derive(Default)]
pub(crate) struct TestClock(AtomicU64, Mutex<Vec<(Duration, oneshot::Sender<()>)>>);

impl TestClock {
    pub(crate) fn forward(&self, time: Duration) {
        self.0.fetch_add(time.as_nanos() as u64, Ordering::SeqCst);
    }

    /// Runs a future to its end. When it waits, time goes on to the end of the shortest sleep.
    pub(crate) async fn run<T>(&self, future: impl Future<Output = T>) -> T {
        let mut future = std::pin::pin!(future);
        poll_fn(|context| {
            if let Poll::Ready(done) = future.as_mut().poll(context) {
                return Poll::Ready(done);
            }
            let mut sleeps = self.1.lock();
            sleeps.retain(|(_, sleeper)| !sleeper.is_canceled());
            sleeps.sort_by_key(|(end, _)| *end);
            if !sleeps.is_empty() {
                let (end, sleeper) = sleeps.remove(0);
                self.0.fetch_max(end.as_nanos() as u64, Ordering::SeqCst);
                let _ = sleeper.send(());
            }
            Poll::Pending
        })
        .await
    }
}

#[async_trait]
impl Sleep for TestClock {
    async fn sleep(&self, time: Duration) {
        let (sender, ended) = oneshot::channel();
        self.1.lock().push((self.boot() + time, sender));
        let _ = ended.await;
    }
}

impl Clock for TestClock {
    fn boot(&self) -> Duration {
        Duration::from_nanos(self.0.load(Ordering::SeqCst))
    }

    fn wall_ms(&self) -> u64 {
        0
    }
}

/// A point of a write or zeroing at which it can be stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum At {
    /// Before it has an effect.
    Begin,
    /// After its effect, and before its answer.
    End,
}

/// Calls that can be made to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    Read,
    Write,
    Flush,
}

/// A device in memory whose calls stop, fail and yield as told. Its fast path declines.
pub(crate) struct Stage {
    pub(crate) memory: MemoryDevice,
    stops: Mutex<Vec<(Call, At, oneshot::Receiver<()>)>>,
    failing: Mutex<Vec<Call>>,
    yields: Option<Mutex<StdRng>>,
    durable: Mutex<Vec<u8>>,
    /// Offset and length of each write and zeroing that had an effect.
    pub(crate) written: Mutex<Vec<(u64, u64)>>,
}

impl Stage {
    pub(crate) fn new(size_bytes: u64) -> Arc<Self> {
        Self::over(MemoryDevice::new(size_bytes), None)
    }

    /// Yields so often before and after each call as a generator says.
    pub(crate) fn yielding(size_bytes: u64, seed: u64) -> Arc<Self> {
        Self::over(MemoryDevice::new(size_bytes), Some(seed))
    }

    fn over(memory: MemoryDevice, seed: Option<u64>) -> Arc<Self> {
        let yields = seed.map(|seed| Mutex::new(StdRng::seed_from_u64(seed)));
        let (stops, failing, written) = (Mutex::default(), Mutex::default(), Mutex::default());
        let durable = Mutex::new(vec![0; memory.geometry().size_bytes as usize]);
        Arc::new(Self { memory, stops, failing, yields, durable, written })
    }

    /// Stops the next write or zeroing, until the sender is used or dropped.
    pub(crate) fn stop(&self, at: At) -> oneshot::Sender<()> {
        self.stop_call(Call::Write, at)
    }

    /// Stops the next such call.
    pub(crate) fn stop_call(&self, call: Call, at: At) -> oneshot::Sender<()> {
        let (sender, receiver) = oneshot::channel();
        self.stops.lock().push((call, at, receiver));
        sender
    }

    /// Lets such calls fail from now on; writes without an effect.
    pub(crate) fn fail(&self, calls: &[Call]) {
        *self.failing.lock() = calls.to_vec();
    }

    /// The device as it is after a crash: as it was when the last flush ended. This attachment
    /// fails from now on.
    pub(crate) fn crash(&self, seed: u64) -> Arc<Self> {
        self.fail(&[Call::Read, Call::Write, Call::Flush]);
        let durable = self.durable.lock().clone();
        let back = Self::yielding(durable.len() as u64, seed);
        assert!(matches!(back.memory.try_write(0, &durable), skerry_device::Attempt::Done(())));
        *back.durable.lock() = durable;
        back
    }

    /// All bytes of the device.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.memory.geometry().size_bytes as usize];
        match self.memory.try_read(0, &mut bytes) {
            skerry_device::Attempt::Done(Content::Data) => bytes,
            skerry_device::Attempt::Done(Content::Zeroes) => vec![0; bytes.len()],
            other => panic!("{other:?}"),
        }
    }

    async fn reach(&self, at: At, call: Call) -> Result<()> {
        let times = self.yields.as_ref().map_or(0, |rng| rng.lock().random_range(0..4));
        for _ in 0..times {
            yield_once().await;
        }
        let stop = {
            let mut stops = self.stops.lock();
            let index = stops.iter().position(|stop| (stop.0, stop.1) == (call, at));
            index.map(|index| stops.remove(index).2)
        };
        if let Some(stop) = stop {
            let _ = stop.await;
        }
        if at == At::Begin && self.failing.lock().contains(&call) {
            return Err(Error::new(ErrorKind::Failed, format!("the stage fails: {call:?}")));
        }
        Ok(())
    }
}

async fn yield_once() {
    let mut yielded = false;
    poll_fn(|context| {
        if yielded {
            return Poll::Ready(());
        }
        yielded = true;
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

#[async_trait]
impl Device for Stage {
    fn geometry(&self) -> Geometry {
        self.memory.geometry()
    }

    async fn read(&self, offset: u64, buf: &mut [u8]) -> Result<Content> {
        self.reach(At::Begin, Call::Read).await?;
        let content = self.memory.read(offset, buf).await?;
        self.reach(At::End, Call::Read).await?;
        Ok(content)
    }

    async fn write(&self, offset: u64, data: Bytes) -> Result<()> {
        self.reach(At::Begin, Call::Write).await?;
        self.memory.write(offset, data.clone()).await?;
        self.written.lock().push((offset, data.len() as u64));
        self.reach(At::End, Call::Write).await
    }

    async fn zero(&self, offset: u64, len: u64) -> Result<()> {
        self.reach(At::Begin, Call::Write).await?;
        self.memory.zero(offset, len).await?;
        self.written.lock().push((offset, len));
        self.reach(At::End, Call::Write).await
    }

    async fn flush(&self) -> Result<()> {
        self.reach(At::Begin, Call::Flush).await?;
        *self.durable.lock() = self.bytes();
        self.reach(At::End, Call::Flush).await
    }

    async fn status(&self, offset: u64, len: u64, ranges_max: usize) -> Result<Vec<StatusRange>> {
        self.memory.status(offset, len, ranges_max).await
    }
}
