//! The node's own log lines, on their way to standard error.
//!
//! A thread of its own writes them. So a reader that stalls (`| less`), a full disk behind
//! `2>>file` or a closed terminal neither stops nor ends the node. Lines that are not taken are
//! dropped, and counted. Panics and the node's last error go the same way.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{self, Write};
use std::panic::PanicHookInfo;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use skerry_api::{Error, ErrorKind, Result};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::fmt::MakeWriter;

use crate::settings::Variable;

/// Variable that sets what is logged.
const LOG_VARIABLE: &str = "SKERRY_LOG";
/// The default of what is logged.
const LOG_DEFAULT: &str = "info";
/// The target of the lines about panics.
const PANIC_TARGET: &str = "skerry::panic";
/// Lines that wait for the reader of standard error, at most: some hundred bytes each.
const LINES_MAX: usize = 4096;
/// Time for which the end of the node waits for that reader.
pub(crate) const LAST_LINES_TIME_MAX: Duration = Duration::from_secs(2);

/// Logging. A drop waits a bounded time until earlier lines are written.
pub(crate) struct Logging {
    lines: Lines,
}

impl Logging {
    /// Begins to log to standard error, with the environment's filter. Logs panics, too: the
    /// default of the system's library writes to standard error itself, and waits for its reader.
    ///
    /// # Errors
    /// `Invalid` for a malformed filter.
    pub(crate) fn start(variable: Variable<'_>) -> Result<Self> {
        let wanted = variable(LOG_VARIABLE).unwrap_or_else(|| LOG_DEFAULT.to_owned());
        let filter = filter(&wanted).map_err(|error| {
            let message = format!("{LOG_VARIABLE}={wanted:?} can't be understood: {error}");
            Error::new(ErrorKind::Invalid, message)
        })?;
        let lines = Lines::start(io::stderr())
            .map_err(|error| Error::new(ErrorKind::Unavailable, format!("no logging: {error}")))?;
        let started = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(lines.clone())
            // The feature for colours is not built in: asking for them is an error line.
            .with_ansi(false)
            // It would panic if standard error can't be written.
            .log_internal_errors(false)
            .try_init();
        started.map_err(|error| Error::new(ErrorKind::Internal, format!("no logging: {error}")))?;
        std::panic::set_hook(Box::new(log_panic));
        Ok(Self { lines })
    }

    /// Gives the queue of lines.
    pub(crate) fn lines(&self) -> Lines {
        self.lines.clone()
    }
}

impl Drop for Logging {
    fn drop(&mut self) {
        self.lines.finish(LAST_LINES_TIME_MAX);
    }
}

/// Parses a filter. Panics pass every filter.
fn filter(wanted: &str) -> std::result::Result<EnvFilter, ParseError> {
    Ok(EnvFilter::try_new(wanted)?.add_directive(format!("{PANIC_TARGET}=error").parse()?))
}

/// Logs a panic. Its trace follows if the environment asks for one (`RUST_BACKTRACE`).
fn log_panic(panic: &PanicHookInfo<'_>) {
    let thread = thread::current();
    let thread = thread.name().unwrap_or("without a name");
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    let message = panic.payload_as_str().unwrap_or("without a message");
    let trace = Backtrace::capture();
    match trace.status() {
        BacktraceStatus::Captured => {
            let message = format!("{message}\n{trace}");
            say_panic(thread, &place, &message);
        }
        _ => say_panic(thread, &place, message),
    }
}

fn say_panic(thread: &str, place: &str, message: &str) {
    tracing::error!(target: PANIC_TARGET, thread, place, "a part of the node panicked: {message}");
}

/// Messages to the thread.
enum LineMessage {
    Line(Vec<u8>),
    /// Asks for an answer when all earlier lines were written.
    Finish(SyncSender<()>),
}

/// Queue of lines. It never waits.
#[derive(Clone)]
pub(crate) struct Lines {
    thread: SyncSender<LineMessage>,
    dropped: Arc<AtomicU64>,
}

impl Lines {
    /// Starts the thread, which ends when its last sender is dropped.
    fn start(out: impl Write + Send + 'static) -> io::Result<Self> {
        let (thread, told) = sync_channel(LINES_MAX);
        let dropped = Arc::new(AtomicU64::new(0));
        let count = dropped.clone();
        thread::Builder::new().name("log-lines".to_owned()).spawn(move || {
            write_all(&told, &count, out);
        })?;
        Ok(Self { thread, dropped })
    }

    /// Waits until earlier lines are written, for a bounded time.
    pub(crate) fn finish(&self, time_max: Duration) {
        self.finish_with(None, time_max);
    }

    /// Writes a last line after the earlier ones. Waits a bounded time.
    pub(crate) fn finish_with(&self, last: Option<String>, time_max: Duration) {
        let (answer, answered) = sync_channel(1);
        let last = last.map(|line| LineMessage::Line(line.into_bytes()));
        let mut told = last.into_iter().chain([LineMessage::Finish(answer)]);
        let queue = self.thread.clone();
        // The queue may be full: a thread of its own waits for room, and is left if that takes
        // longer.
        let telling = thread::Builder::new().name("last-lines".to_owned());
        let telling = telling.spawn(move || told.try_for_each(|told| queue.send(told)));
        if telling.is_ok() {
            // If it takes longer, the lines are lost.
            let _ = answered.recv_timeout(time_max);
        }
    }
}

/// Writes messages. Counts lines that can't be written, and says their number before the next one
/// that can.
fn write_all(told: &Receiver<LineMessage>, dropped: &AtomicU64, mut out: impl Write) {
    while let Ok(told) = told.recv() {
        let count = dropped.swap(0, Ordering::Relaxed);
        if count > 0
            && writeln!(out, "{count} lines were dropped: standard error did not take them")
                .is_err()
        {
            dropped.fetch_add(count, Ordering::Relaxed);
        }
        match told {
            LineMessage::Line(line) => {
                if out.write_all(&line).is_err() {
                    dropped.fetch_add(1, Ordering::Relaxed);
                }
            }
            LineMessage::Finish(answer) => drop(answer.send(())),
        }
    }
}

impl Write for Lines {
    /// Takes a line as a whole.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.thread.try_send(LineMessage::Line(line.to_vec())).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[cfg(test)]
pub(in crate::daemon) mod tests {
    use parking_lot::Mutex;

    use super::*;

    /// Keeps its lines, once it may.
    #[derive(Clone, Default)]
    struct Reader {
        text: Arc<Mutex<Vec<u8>>>,
        /// Held while the reader stalls.
        stalls: Arc<Mutex<()>>,
    }

    impl Write for Reader {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            drop(self.stalls.lock());
            self.text.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Gives the log lines of a piece of work in this thread.
    pub(in crate::daemon) fn said_by(work: impl FnOnce()) -> String {
        said_through(LOG_DEFAULT, work)
    }

    /// Gives the lines that pass another filter.
    fn said_through(wanted: &str, work: impl FnOnce()) -> String {
        let reader = Reader::default();
        let lines = Lines::start(reader.clone()).expect("a thread");
        let to_lines = tracing_subscriber::fmt().with_writer(lines.clone()).with_ansi(false);
        let to_lines = to_lines.with_env_filter(filter(wanted).expect("a filter"));
        tracing::subscriber::with_default(to_lines.finish(), work);
        lines.finish(skerry_testkit::PATIENCE);
        String::from_utf8(reader.text.lock().clone()).expect("text")
    }

    /// Fails as a full disk does, this often; then keeps its lines.
    struct Full(usize, Reader);

    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.0 == 0 {
                return self.1.write(bytes);
            }
            self.0 -= 1;
            Err(io::ErrorKind::StorageFull.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_are_written_in_order_before_the_end() {
        let reader = Reader::default();
        let mut lines = Lines::start(reader.clone()).expect("a thread");
        for number in 0..100 {
            writeln!(lines, "line {number}").expect("taken");
        }
        lines.finish(skerry_testkit::PATIENCE);
        let text = reader.text.lock().clone();
        let expected: String = (0..100).map(|number| format!("line {number}\n")).collect();
        assert_eq!(String::from_utf8(text).expect("text"), expected);
    }

    #[test]
    fn a_reader_that_stalls_or_fails_stops_nobody() {
        let reader = Reader::default();
        let stalled = reader.stalls.lock();
        let mut lines = Lines::start(reader.clone()).expect("a thread");
        for _ in 0..LINES_MAX * 2 {
            lines.write_all(b"line\n").expect("taken");
        }
        lines.finish(Duration::ZERO);
        let (end, last) = (lines.clone(), Some("end\n".to_owned()));
        let ending = thread::spawn(move || end.finish_with(last, skerry_testkit::PATIENCE));
        // The queue is full until the reader goes on.
        drop(stalled);
        ending.join().expect("ends");
        let text = String::from_utf8(reader.text.lock().clone()).expect("text");
        let kept = text.matches("line\n").count();
        assert!((LINES_MAX..LINES_MAX + 2).contains(&kept), "{kept}");
        let dropped = text.lines().filter_map(|line| line.split_once(" lines were dropped"));
        let dropped: usize = dropped.map(|(count, _)| count.parse().unwrap_or(0)).sum();
        assert_eq!(kept + dropped, LINES_MAX * 2, "{text}");
        assert!(text.ends_with("end\n"), "the last line is the reason of the end: {text}");
    }

    #[test]
    fn lines_that_can_not_be_written_are_counted() {
        let reader = Reader::default();
        let mut lines = Lines::start(Full(3, reader.clone())).expect("a thread");
        for line in ["one\n", "two\n", "three\n", "four\n"] {
            lines.write_all(line.as_bytes()).expect("taken");
        }
        lines.finish(skerry_testkit::PATIENCE);
        let text = String::from_utf8(reader.text.lock().clone()).expect("text");
        assert!(text.starts_with("2 lines were dropped"), "{text}");
        assert!(text.ends_with("three\nfour\n"), "{text}");
    }

    /// The system's library writes to standard error itself, and waits for its reader.
    #[test]
    fn a_panic_is_a_line_like_others() {
        let (before, me) = (Arc::new(std::panic::take_hook()), thread::current().id());
        let others = before.clone();
        // Other tests panic as before.
        std::panic::set_hook(Box::new(move |panic| match thread::current().id() == me {
            true => log_panic(panic),
            false => others(panic),
        }));
        let texts = [LOG_DEFAULT, "off", "skerry_volume=debug"].map(|filter| {
            said_through(filter, || {
                std::panic::catch_unwind(|| panic!("out of {}", "tea")).expect_err("it panics");
            })
        });
        std::panic::set_hook(Box::new(move |panic| before(panic)));
        for text in texts {
            for said in ["ERROR", "out of tea", "log_lines.rs", "thread="] {
                assert!(text.contains(said), "{said}: {text}");
            }
        }
    }
}
