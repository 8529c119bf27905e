//! Tests with common clients: libnbd's tools, QEMU's tools, fio. A test whose client is not
//! installed says so, and names the Debian package.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use skerry_device::memory::MemoryDevice;
use skerry_serve::nbd::Server;
use skerry_serve::{Export, FixedExports};
use tempfile::TempDir;
use tokio::net::{TcpListener, UnixListener};
use tokio::process::Command;

use crate::client::serving;
use crate::gate::Gate;

const SIZE: u64 = 64 << 20;

/// A server on a socket in a directory of its own.
struct Node {
    folder: TempDir,
    server: Server,
}

impl Node {
    /// Three exports: `disk` is fast, `slow` never answers at once, `ro` is read-only.
    fn start() -> Self {
        let exports = vec![
            Export::new("disk", Arc::new(MemoryDevice::new(SIZE))),
            Export::new("slow", Gate::open(SIZE)),
            Export::new("ro", Arc::new(MemoryDevice::new(SIZE).read_only())),
        ];
        let node =
            Self { folder: TempDir::new().expect("a temporary folder"), server: serving(exports) };
        let listener = UnixListener::bind(node.socket()).expect("bound");
        let server = node.server.clone();
        tokio::spawn(async move { server.serve_unix(listener).await });
        node
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("nbd.sock")
    }

    fn uri(&self, export: &str) -> String {
        format!("nbd+unix:///{export}?socket={}", self.socket().display())
    }

    fn file(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    fn random_file(&self, name: &str, seed: u64) -> (String, Vec<u8>) {
        let mut bytes = vec![0; SIZE as usize];
        StdRng::seed_from_u64(seed).fill_bytes(&mut bytes);
        bytes[(8 << 20)..(24 << 20)].fill(0);
        std::fs::write(self.file(name), &bytes).expect("written");
        (self.file(name), bytes)
    }

    /// Runs a client; `None` (and a line that says so) if it isn't installed.
    async fn run(&self, program: &str, package: &str, args: &[&str]) -> Option<String> {
        if !is_installed(program) {
            println!("SKIPPED: {program} isn't installed (apt-get install -y {package})");
            return None;
        }
        let mut command = Command::new(program);
        command.args(args).current_dir(self.folder.path()).stdin(Stdio::null());
        let output = command.output().await.expect("started");
        let text = format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        assert!(output.status.success(), "{program} {args:?}: {}\n{text}", output.status);
        Some(text)
    }

    async fn qemu_io(&self, export: &str, commands: &[&str]) -> Option<String> {
        let uri = self.uri(export);
        let mut args = vec!["-f", "raw", "-t", "none", "-d", "unmap"];
        for command in commands {
            args.extend(["-c", command]);
        }
        args.push(&uri);
        let text = self.run("qemu-io", "qemu-utils", &args).await?;
        assert!(!text.contains("error") && !text.contains("failed"), "{text}");
        Some(text)
    }
}

fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let executable = |path: &Path| {
        path.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
    };
    std::env::split_paths(&path).any(|folder| executable(&folder.join(program)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nbdinfo_shows_exports_flags_and_map() {
    let node = Node::start();
    let Some(text) = node.run("nbdinfo", "libnbd-bin", &[&node.uri("disk")]).await else {
        return;
    };
    for expected in [
        "protocol: newstyle-fixed without TLS, using structured packets",
        "export-size: 67108864",
        "can_multi_conn: true",
        "can_fast_zero: true",
        "block_size_minimum: 512",
        "block_size_preferred: 4096",
        "block_size_maximum: 33554432",
        "base:allocation",
        "is_read_only: false",
    ] {
        assert!(text.contains(expected), "{expected} in {text}");
    }
    let list = node.run("nbdinfo", "libnbd-bin", &["--list", &node.uri("")]).await;
    let list = list.expect("installed");
    for name in ["disk", "slow", "ro"] {
        assert!(list.contains(&format!("export=\"{name}\"")), "{list}");
    }
    assert!(list.contains("is_read_only: true"), "{list}");
    node.qemu_io("disk", &["write -P 1 1M 64k"]).await;
    let map = node.run("nbdinfo", "libnbd-bin", &["--map", &node.uri("disk")]).await;
    let map = map.expect("installed");
    let fields: Vec<Vec<&str>> =
        map.lines().map(|line| line.split_whitespace().take(3).collect()).collect();
    if is_installed("qemu-io") {
        let expected =
            [["0", "1048576", "3"], ["1048576", "65536", "0"], ["1114112", "65994752", "3"]];
        assert_eq!(fields, expected);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nbdsh_uses_every_command() {
    const SCRIPT: &str = r#"
import errno, os, sys
def connect(uri, structured):
    h = nbd.NBD()
    h.set_request_structured_replies(structured)
    h.add_meta_context(nbd.CONTEXT_BASE_ALLOCATION)
    h.set_strict_mode(0)
    h.connect_uri(uri)
    return h
def fails(code, f, *args):
    try:
        f(*args)
    except nbd.Error as e:
        assert e.errnum == code, (e.errnum, code)
        return
    raise AssertionError("should have failed")
for uri in sys.argv[1:]:
    for structured in (True, False):
        h = connect(uri, structured)
        size = h.get_size()
        data = os.urandom(3 * 1024 * 1024)
        h.pwrite(data, 512)
        assert h.pread(len(data), 512) == data
        h.pwrite(data[:4096], 1 << 20, nbd.CMD_FLAG_FUA)
        assert h.pread(4096, 1 << 20) == data[:4096]
        h.zero(65536, 65536)
        h.zero(65536, 262144, nbd.CMD_FLAG_NO_HOLE)
        assert h.pread(65536, 65536) == bytes(65536) == h.pread(65536, 262144)
        h.zero(65536, 65536, nbd.CMD_FLAG_FAST_ZERO | nbd.CMD_FLAG_FUA)
        fails(errno.ENOTSUP, h.zero, 1000, 0, nbd.CMD_FLAG_FAST_ZERO)
        h.trim(size, 0)
        assert h.pread(1 << 20, 0) == bytes(1 << 20)
        h.cache(4096, 0)
        h.flush()
        fails(errno.EINVAL, h.pread, 512, size)
        fails(errno.ENOSPC, h.pwrite, bytes(512), size)
        h.pwrite(data[:100], 7)
        assert h.pread(102, 6) == bytes(1) + data[:100] + bytes(1)
        h.trim(size, 0)
        h.pwrite(data[:65536], 131072)
        if structured:
            got = []
            h.block_status(size, 0, lambda ctx, off, ext, err: got.extend(ext))
            assert got == [131072, 3, 65536, 0, size - 196608, 3], got
            one = []
            status = lambda ctx, off, ext, err: one.extend(ext)
            h.block_status(size, 0, status, nbd.CMD_FLAG_REQ_ONE)
            assert one == [131072, 3], one
            assert h.pread_structured(65536, 131072, lambda *a: 0, nbd.CMD_FLAG_DF) == data[:65536]
        h.trim(size, 0)
        h.shutdown()
print("all good")
"#;
    if !is_installed("nbdsh") {
        println!("SKIPPED: nbdsh isn't installed (apt-get install -y python3-libnbd)");
        return;
    }
    let node = Node::start();
    let script = format!("import nbd\n{SCRIPT}");
    let (disk, slow) = (node.uri("disk"), node.uri("slow"));
    let args = ["-c", &script, &disk, &slow];
    // libnbd's Python module belongs to Debian's own Python.
    let text = node.run("/usr/bin/python3", "python3-libnbd", &args);
    let text = match Path::new("/usr/bin/python3").exists() {
        true => run_absolute(&args).await,
        false => text.await.unwrap_or_default(),
    };
    assert!(text.contains("all good"), "{text}");
}

async fn run_absolute(args: &[&str]) -> String {
    let output = Command::new("/usr/bin/python3").args(args).output().await.expect("started");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{text}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn qemu_io_reads_what_it_wrote_aligned_and_not() {
    let node = Node::start();
    for export in ["disk", "slow"] {
        let done = node
            .qemu_io(
                export,
                &[
                    "write -P 5 0 1M",
                    "read -P 5 0 1M",
                    "write -P 6 512 512",
                    "read -P 5 0 512",
                    "read -P 6 512 512",
                    "write -P 7 1000 3000",
                    "read -P 7 1000 3000",
                    "read -P 5 4000 96",
                    "write -f -P 8 2M 64k",
                    "write -z -u 64k 128k",
                    "read -P 0 64k 128k",
                    "write -z 2M 4k",
                    "discard 512k 256k",
                    "read -P 0 512k 256k",
                    "read -P 0 2M 4k",
                    "read -P 8 2052k 60k",
                    "flush",
                    "aio_write -P 9 4M 8M",
                    "aio_flush",
                    "read -P 9 4M 8M",
                ],
            )
            .await;
        if done.is_none() {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nbdcopy_copies_there_and_back() {
    let node = Node::start();
    let (source, bytes) = node.random_file("source", 7);
    let back = node.file("back");
    for export in ["disk", "slow"] {
        let uri = node.uri(export);
        if node.run("nbdcopy", "libnbd-bin", &["--flush", &source, &uri]).await.is_none() {
            return;
        }
        let _ = std::fs::remove_file(&back);
        node.run("nbdcopy", "libnbd-bin", &[&uri, &back]).await;
        assert!(std::fs::read(&back).expect("read") == bytes, "{export}");
        node.run("nbdcopy", "libnbd-bin", &["--requests=64", &uri, &node.uri("disk")]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn qemu_img_converts_compares_and_maps() {
    let node = Node::start();
    let (source, _) = node.random_file("source", 8);
    for export in ["disk", "slow"] {
        let uri = node.uri(export);
        let convert = ["convert", "-n", "-f", "raw", "-O", "raw", &source, &uri];
        if node.run("qemu-img", "qemu-utils", &convert).await.is_none() {
            return;
        }
        let compare = ["compare", "-f", "raw", "-F", "raw", &source, &uri];
        let text = node.run("qemu-img", "qemu-utils", &compare).await.expect("installed");
        assert!(text.contains("identical"), "{text}");
        let map = ["map", "-f", "raw", "--output=json", &uri];
        let text = node.run("qemu-img", "qemu-utils", &map).await.expect("installed");
        assert!(text.contains("\"start\": 8388608, \"length\": 16777216"), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fio_verifies_what_several_jobs_wrote() {
    let node = Node::start();
    for export in ["disk", "slow"] {
        let uri = format!("--uri={}", node.uri(export));
        let mut args =
            vec!["--ioengine=nbd", &uri, "--name=v", "--rw=randwrite", "--bsrange=512-64k"];
        args.extend(["--iodepth=16", "--numjobs=4", "--size=16m", "--offset_increment=16m"]);
        args.extend(["--verify=crc32c", "--verify_fatal=1", "--do_verify=1", "--randseed=42"]);
        args.extend(["--bs_unaligned=0", "--group_reporting"]);
        if node.run("fio", "fio", &args).await.is_none() {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tcp_serves_as_well_and_a_shutdown_is_seen() {
    let exports = vec![Export::new("disk", Arc::new(MemoryDevice::new(SIZE)))];
    let server = Server::new(Arc::new(FixedExports::new(exports)), Default::default());
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let port = listener.local_addr().expect("bound").port();
    let serving = tokio::spawn({
        let server = server.clone();
        async move { server.serve_tcp(listener).await }
    });
    let node = Node::start();
    let uri = format!("nbd://127.0.0.1:{port}/disk");
    let text = node.run("nbdinfo", "libnbd-bin", &["--size", &uri]).await;
    assert!(text.is_none_or(|text| text.trim() == SIZE.to_string()));
    server.shutdown(Duration::from_secs(60)).await;
    serving.await.expect("no longer accepting");
}
