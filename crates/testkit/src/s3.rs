//! A real S3 server for tests: moto, on a free port, with a bucket in it, ended by its pid.

use crate::process::Process;
use crate::skip::SkipReason;
use crate::tool::Tool;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../scripts/moto");
/// The server's bucket.
pub const BUCKET: &str = "things";

/// An S3 server with the bucket [`BUCKET`] in its memory.
pub struct S3Server {
    /// The server ends with it.
    process: Process,
    port: u16,
}

impl S3Server {
    /// Starts a server.
    ///
    /// # Errors
    /// The reason to skip: the server is not installed, or does not start.
    pub fn start() -> Result<Self, SkipReason> {
        let found =
            Tool::new(SCRIPT).output().map_err(|error| SkipReason::new(error.to_string()))?;
        if !found.status.success() {
            let said = String::from_utf8_lossy(&found.stderr);
            return Err(SkipReason::new(said.lines().last().unwrap_or("scripts/moto failed")));
        }
        let program = String::from_utf8_lossy(&found.stdout).trim_end().to_owned();
        let failed = |error: std::io::Error| SkipReason::new(format!("{program}: {error}"));
        let port = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr());
        let port = port.map_err(failed)?.port();
        let mut command = Command::new("sh");
        // The server reports on standard error that it serves.
        command.args([
            "-c",
            "exec \"$0\" -H 127.0.0.1 -p \"$1\" 2>&1",
            &program,
            &port.to_string(),
        ]);
        let server = Self { process: Process::spawn(&mut command).map_err(failed)?, port };
        server.process.wait_line(|line| line.contains("Running on")).map_err(failed)?;
        server.put_bucket().map_err(failed)?;
        Ok(server)
    }

    fn put_bucket(&self) -> std::io::Result<()> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        let request = format!(
            "PUT /{BUCKET} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let is_made = answer.starts_with("HTTP/1.1 200");
        is_made.then_some(()).ok_or_else(|| std::io::Error::other(answer))
    }

    /// A client's options for it: names as in `[bucket.options]` of the settings, and values.
    pub fn options(&self) -> [(&'static str, String); 5] {
        [
            ("endpoint", format!("http://127.0.0.1:{}", self.port)),
            ("region", "us-east-1".to_owned()),
            ("access_key_id", "someone".to_owned()),
            ("secret_access_key", "something".to_owned()),
            ("allow_http", "true".to_owned()),
        ]
    }
}
