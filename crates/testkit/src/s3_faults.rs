//! A small S3 server in memory, on a thread of its own, with faults on demand.
//!
//! It knows the calls of an `object_store` client, and no signatures. A test sets faults for a kind
//! of call. It waits for [`BadS3::failed`], not for time.

use parking_lot::{Condvar, Mutex};
use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// The longest wait for a call; only a hang reaches it.
const PATIENCE: Duration = Duration::from_secs(300);

/// The answer to a faulty call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// A status and a code, such as 503 and `SlowDown`; the server does nothing.
    Refuse(u16, &'static str),
    /// A status and a body that is no code of S3, as from a proxy; the server does nothing.
    Text(u16, &'static str),
    /// The body ends early.
    CutBody,
    /// The server does it, and closes the connection without an answer.
    LoseAnswer,
}

/// Kind of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// GET and HEAD of objects.
    Read,
    /// PUT.
    Write,
    /// LIST.
    List,
    /// DELETE, of one or many.
    Delete,
}

/// An object.
struct Object {
    bytes: Vec<u8>,
    /// Headers with its writer's metadata. After a lost answer a client knows its own object by
    /// them.
    metadata: String,
}

#[derive(Default)]
struct State {
    objects: BTreeMap<String, Object>,
    /// Each with its number of calls left.
    faults: Vec<(Call, Fault, u64)>,
    failed: u64,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    ends: AtomicBool,
}

/// A server; it ends when this is dropped.
pub struct BadS3 {
    shared: Arc<Shared>,
    port: u16,
}

impl BadS3 {
    /// Starts a server without faults.
    ///
    /// # Errors
    /// When no port is free.
    pub fn start() -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let port = listener.local_addr()?.port();
        let shared = Arc::new(Shared::default());
        let serving = shared.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if serving.ends.load(Ordering::Acquire) {
                    return;
                }
                let shared = serving.clone();
                // A client that leaves ends its thread.
                std::thread::spawn(move || serve(&shared, &stream));
            }
        });
        Ok(Self { shared, port })
    }

    /// A client's options for it: names as in `[bucket.options]` of the settings, and values.
    #[must_use]
    pub fn options(&self) -> [(&'static str, String); 5] {
        [
            ("endpoint", format!("http://127.0.0.1:{}", self.port)),
            ("region", "us-east-1".to_owned()),
            ("access_key_id", "someone".to_owned()),
            ("secret_access_key", "something".to_owned()),
            ("allow_http", "true".to_owned()),
        ]
    }

    /// Gives this fault to the next `count` calls of this kind.
    pub fn fail(&self, call: Call, fault: Fault, count: u64) {
        self.shared.state.lock().faults.push((call, fault, count));
    }

    /// Removes all faults.
    pub fn mend(&self) {
        self.shared.state.lock().faults.clear();
    }

    /// Number of calls with a fault so far.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.shared.state.lock().failed
    }

    /// Waits until this number of calls got a fault.
    ///
    /// # Errors
    /// When the calls do not come.
    pub fn wait_failed(&self, count: u64) -> io::Result<()> {
        let mut state = self.shared.state.lock();
        let few = |state: &mut State| state.failed < count;
        let late = self.shared.changed.wait_while_for(&mut state, few, PATIENCE).timed_out();
        if late { Err(io::Error::other("nobody calls the store")) } else { Ok(()) }
    }
}

impl Drop for BadS3 {
    fn drop(&mut self) {
        self.shared.ends.store(true, Ordering::Release);
        // Wakes the accepting thread; if this fails, the thread ends with the process.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

/// A request.
struct Request {
    method: String,
    path: String,
    query: String,
    range: Option<(usize, usize)>,
    if_none_match: bool,
    metadata: String,
    body: Vec<u8>,
}

impl Request {
    fn read(input: &mut impl BufRead) -> io::Result<Option<Self>> {
        let mut line = String::new();
        if input.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let mut words = line.split_ascii_whitespace();
        let method = words.next().unwrap_or_default().to_owned();
        let target = words.next().unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let mut request = Self {
            method,
            path: decode(path),
            query: query.to_owned(),
            range: None,
            if_none_match: false,
            metadata: String::new(),
            body: Vec::new(),
        };
        let mut length = 0;
        loop {
            let mut header = String::new();
            input.read_line(&mut header)?;
            let Some((name, value)) = header.split_once(':') else { break };
            let value = value.trim();
            match name.to_ascii_lowercase().as_str() {
                "content-length" => length = value.parse().unwrap_or(0),
                "if-none-match" => request.if_none_match = true,
                "range" => request.range = parse_range(value),
                name if name.starts_with("x-amz-meta-") => {
                    request.metadata.push_str(&format!("{name}: {value}\r\n"));
                }
                _ => {}
            }
        }
        request.body.resize(length, 0);
        input.read_exact(&mut request.body)?;
        Ok(Some(request))
    }

    /// The name of the object within its bucket; empty for the bucket itself.
    fn key(&self) -> &str {
        self.path.trim_start_matches('/').split_once('/').map_or("", |(_, key)| key)
    }

    fn call(&self) -> Call {
        match self.method.as_str() {
            "PUT" => Call::Write,
            "DELETE" | "POST" => Call::Delete,
            _ if self.key().is_empty() => Call::List,
            _ => Call::Read,
        }
    }
}

/// Reads `bytes=1-9` as 1 and 10.
fn parse_range(value: &str) -> Option<(usize, usize)> {
    let (first, last) = value.strip_prefix("bytes=")?.split_once('-')?;
    let end = if last.is_empty() { usize::MAX } else { last.parse::<usize>().ok()? + 1 };
    Some((first.parse().ok()?, end))
}

fn decode(text: &str) -> String {
    let (mut bytes, mut rest) = (Vec::new(), text.as_bytes());
    while let Some((first, tail)) = rest.split_first() {
        let hex = tail.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        match hex.filter(|_| *first == b'%').and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// An answer.
struct Answer {
    status: u16,
    headers: String,
    body: Vec<u8>,
}

impl Answer {
    fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: String::new(), body: body.into() }
    }

    fn error(status: u16, code: &str) -> Self {
        Self::new(status, format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code></Error>"))
    }

    /// Sends the answer; if it is cut, only the first half of the body.
    fn send(&self, output: &mut impl Write, is_head: bool, is_cut: bool) -> io::Result<()> {
        let Self { status, headers, body } = self;
        let length = body.len();
        write!(output, "HTTP/1.1 {status} x\r\n{headers}Content-Length: {length}\r\n\r\n")?;
        if !is_head {
            output.write_all(&body[..if is_cut { length / 2 } else { length }])?;
        }
        output.flush()
    }
}

/// Serves one connection until it is closed, or must be.
fn serve(shared: &Shared, stream: &TcpStream) -> io::Result<()> {
    let mut input = BufReader::new(stream);
    let mut output = stream;
    while let Some(request) = Request::read(&mut input)? {
        let call = request.call();
        let mut state = shared.state.lock();
        let at = state.faults.iter().position(|(of, _, left)| *of == call && *left > 0);
        let fault = at.map(|at| {
            state.faults[at].2 -= 1;
            state.failed += 1;
            shared.changed.notify_all();
            state.faults[at].1
        });
        let answer = match fault {
            Some(Fault::Refuse(status, code)) => Answer::error(status, code),
            Some(Fault::Text(status, body)) => Answer::new(status, body),
            _ => carry_out(&mut state.objects, &request),
        };
        drop(state);
        if fault == Some(Fault::LoseAnswer) {
            return Ok(());
        }
        let is_cut = fault == Some(Fault::CutBody);
        answer.send(&mut output, request.method == "HEAD", is_cut)?;
        if is_cut {
            return Ok(());
        }
    }
    Ok(())
}

fn carry_out(objects: &mut BTreeMap<String, Object>, request: &Request) -> Answer {
    let key = request.key();
    match request.call() {
        Call::List => list(objects, &request.query),
        Call::Read => read(objects.get(key), request.range),
        Call::Write if request.if_none_match && objects.contains_key(key) => {
            Answer::error(412, "PreconditionFailed")
        }
        Call::Write => {
            let (bytes, metadata) = (request.body.clone(), request.metadata.clone());
            objects.insert(key.to_owned(), Object { bytes, metadata });
            Answer { headers: "ETag: \"x\"\r\n".to_owned(), ..Answer::new(200, "") }
        }
        Call::Delete => {
            let body = String::from_utf8_lossy(&request.body);
            let many = body.split("<Key>").skip(1).filter_map(|rest| rest.split("</Key>").next());
            let mut deleted = String::new();
            for key in many.chain([key]) {
                objects.remove(key);
                deleted.push_str(&format!("<Deleted><Key>{key}</Key></Deleted>"));
            }
            Answer::new(
                200,
                format!("<?xml version=\"1.0\"?><DeleteResult>{deleted}</DeleteResult>"),
            )
        }
    }
}

fn read(object: Option<&Object>, range: Option<(usize, usize)>) -> Answer {
    const HEADERS: &str = "ETag: \"x\"\r\nLast-Modified: Mon, 01 Jan 2024 00:00:00 GMT\r\n";
    let Some(Object { bytes: object, metadata }) = object else {
        return Answer::error(404, "NoSuchKey");
    };
    let Some((start, end)) = range else {
        return Answer {
            headers: format!("{HEADERS}{metadata}"),
            ..Answer::new(200, object.clone())
        };
    };
    let end = end.min(object.len());
    if start >= end {
        return Answer::error(416, "InvalidRange");
    }
    let total = object.len();
    let headers = format!("{HEADERS}Content-Range: bytes {start}-{}/{total}\r\n", end - 1);
    Answer { headers, ..Answer::new(206, &object[start..end]) }
}

/// Lists all objects below a prefix, without telling directories apart. Tests have few objects.
fn list(objects: &BTreeMap<String, Object>, query: &str) -> Answer {
    let value = |name: &str| {
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.clone().find(|(n, _)| *n == name).map_or(String::new(), |(_, value)| decode(value))
    };
    let (prefix, after) = (value("prefix"), value("start-after"));
    let found: String = objects
        .iter()
        .filter(|(key, _)| key.starts_with(&prefix) && key.as_str() > after.as_str())
        .map(|(key, object)| {
            format!(
                "<Contents><Key>{key}</Key><LastModified>2024-01-01T00:00:00.000Z</LastModified>\
                 <ETag>\"x\"</ETag><Size>{}</Size></Contents>",
                object.bytes.len()
            )
        })
        .collect();
    let body = format!(
        "<?xml version=\"1.0\"?><ListBucketResult><IsTruncated>false</IsTruncated>{found}</ListBucketResult>"
    );
    Answer::new(200, body)
}
