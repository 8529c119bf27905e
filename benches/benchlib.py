"""What the benches share: servers to measure, fio, and what /proc says about a server.

Python's standard library and fio only. A bench compares: every figure is taken from each server in
turn, on the same disk, through the same client, and the rounds are interleaved, so that a machine
that is slow for a minute is slow for all of them. Nothing here judges; `nbd` and `size` do.
"""

import contextlib
import json
import os
import random
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TARGET = os.environ.get("CARGO_TARGET_DIR", os.path.join(ROOT, "target"))
SKERRY = os.environ.get("SKERRY_BIN", os.path.join(TARGET, "release", "skerry"))
BARELOOP = os.path.join(TARGET, "release", "examples", "bareloop")
KIB, MIB, GIB, TIB, PIB = 1 << 10, 1 << 20, 1 << 30, 1 << 40, 1 << 50

# How long a server may take to serve, and to end after SIGTERM (a node destages first).
START_SECONDS_MAX = 120
STOP_SECONDS_MAX = 600


def note(text):
    """Says something on the way; results go to standard output, this does not."""
    print(f"-- {text}", file=sys.stderr, flush=True)


class Unavailable(Exception):
    """A server that can't be had here, and why."""


class Server:
    """A process that serves one NBD export on a Unix socket, and what it costs."""

    def __init__(self, name, command, socket, export="", ready=None):
        self.name, self.socket, self.export = name, socket, export
        with contextlib.suppress(FileNotFoundError):
            os.unlink(socket)
        if shutil.which(command[0]) is None:
            raise Unavailable(f"{command[0]} is missing")
        self.errors = tempfile.TemporaryFile()
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stderr=self.errors,
            stdout=subprocess.PIPE if ready else subprocess.DEVNULL, text=bool(ready))
        if ready:
            self._wait_line(ready)
        else:
            self._wait_socket()

    def _wait_line(self, ready):
        for line in self.process.stdout:
            if line.startswith(ready):
                self.ready = line.strip()
                return
        raise Unavailable(f"{self.name} ended before it was ready: {self._said()}")

    def _wait_socket(self):
        deadline = time.monotonic() + START_SECONDS_MAX
        while time.monotonic() < deadline:
            if os.path.exists(self.socket):
                return
            if self.process.poll() is not None:
                raise Unavailable(f"{self.name} ended before it was ready: {self._said()}")
            time.sleep(0.01)
        self.stop()
        raise Unavailable(f"{self.name} never made its socket")

    def _said(self):
        self.errors.seek(0)
        return self.errors.read().decode(errors="replace")[-2000:].strip()

    @property
    def uri(self):
        return f"nbd+unix:///{self.export}?socket={self.socket}"

    def usage(self):
        """CPU seconds and the largest resident set of the process."""
        pid = self.process.pid
        with open(f"/proc/{pid}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
        ticks = int(fields[11]) + int(fields[12])
        usage = {"cpu_seconds": ticks / os.sysconf("SC_CLK_TCK")}
        with open(f"/proc/{pid}/status") as file:
            text = file.read()
        usage["rss_peak_bytes"] = int(re.search(r"VmHWM:\s+(\d+)", text)[1]) * KIB
        return usage

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(STOP_SECONDS_MAX)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


class Node(Server):
    """A node of Skerry's, on a data directory that outlives it."""

    def __init__(self, data, export="", bucket=None, args=()):
        if not os.path.exists(SKERRY):
            raise Unavailable(f"{SKERRY} is not built (cargo build --release -p skerry)")
        os.makedirs(data, exist_ok=True)
        self.data = data
        socket = os.path.join(data, "nbd.sock")
        command = [SKERRY, "serve", "--data", data, "--nbd", f"unix:{socket}", *args]
        if bucket:
            command += ["--bucket", bucket]
        super().__init__("skerry", command, socket, export, ready="ready ")

    def cli(self, *words):
        """Runs a command against the node; its standard output."""
        return subprocess.run([SKERRY, "--data", self.data, *words], check=True,
                              stdout=subprocess.PIPE, text=True).stdout

    def json(self, *words):
        return json.loads(self.cli("--json", *words))

    def wait_destaged(self, name):
        """Waits until nothing of the volume is in the log alone."""
        while self.json("volume", "show", name)["undestaged_bytes"] > 0:
            time.sleep(0.2)


def qemu_nbd(name, work, image, *options, image_format="raw"):
    socket = os.path.join(work, f"{name}.sock")
    command = ["qemu-nbd", "-f", image_format, "-k", socket, "-e", "64", "-t", "--discard=unmap",
               *options, image]
    return Server(name, command, socket)


def nbdkit(name, work, *plugin):
    socket = os.path.join(work, f"{name}.sock")
    return Server(name, ["nbdkit", "-f", "-U", socket, *plugin], socket)


def fio(uri, seconds=None, **options):
    """Runs fio against an export; returns operations and bytes a second, latencies, and counts.

    Every write has bytes of its own (refill_buffers): blocks that repeat or compress would measure
    something else than the disk.
    """
    settings = {"name": "bench", "ioengine": "nbd", "uri": uri, "thread": 1, "group_reporting": 1,
                "refill_buffers": 1, "norandommap": 1, "randrepeat": 0,
                "randseed": random.getrandbits(31), "output-format": "json", **options}
    if seconds:
        settings.update(time_based=1, runtime=seconds)
    with tempfile.NamedTemporaryFile() as output:
        command = ["fio", f"--output={output.name}"]
        command += [f"--{key}={value}" for key, value in settings.items()]
        run = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        text = output.read().decode()
    if run.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {run.stdout}{text[-2000:]}")
    job = json.loads(text[text.index("{"):])["jobs"][0]
    side = job["write"] if job["write"]["total_ios"] else job["read"]
    return {"iops": side["iops"], "bytes_per_second": side["bw_bytes"],
            "operations": side["total_ios"], "bytes": side["io_bytes"],
            "lat_ms_p50": side["clat_ns"]["percentile"]["50.000000"] / 1e6,
            "lat_ms_p99": side["clat_ns"]["percentile"]["99.000000"] / 1e6}


def disk_written(path):
    """The bytes ever written to the disk that holds `path`, once everything dirty is on it.

    It is the device that is asked: what /proc says of a process counts a whole large page of the page
    cache for each small write into it. So nothing else should be writing meanwhile.
    """
    settle()
    device = os.stat(path).st_dev
    with contextlib.suppress(OSError):
        with open(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/stat") as file:
            return int(file.read().split()[6]) * 512
    return 0


def measured(server, **options):
    """fio against a server, with what that cost the server and the disk."""
    folder = os.path.dirname(server.socket)
    written = disk_written(folder)
    before = server.usage()
    start = time.monotonic()
    result = fio(server.uri, **options)
    result["took_seconds"] = time.monotonic() - start
    after = server.usage()
    cpu = after["cpu_seconds"] - before["cpu_seconds"]
    result["cpu_us_per_op"] = 1e6 * cpu / max(1, result["operations"])
    result["disk_write_bytes"] = disk_written(folder) - written
    result["rss_peak_bytes"] = after["rss_peak_bytes"]
    return result


# What fio writes where data can be compressed: half of each 4 KiB is zeros, the rest is noise.
COMPRESSIBLE = {"buffer_compress_percentage": 50, "buffer_compress_chunk": 4096}


def prefill(uri, size, **options):
    """Fills an export with bytes that can't be compressed, unless `options` say otherwise."""
    fio(uri, rw="write", bs="1M", iodepth=4, size=size, end_fsync=1, **options)


def prefill_file(path, size):
    """Fills a file with incompressible bytes, unless it is full already."""
    if os.path.exists(path) and os.stat(path).st_blocks * 512 >= size:
        return
    with open(path, "wb") as file:
        for _ in range(size // MIB):
            file.write(random.randbytes(MIB))
        file.flush()
        os.fsync(file.fileno())


def build(*target):
    """Builds the binary (unless SKERRY_BIN names one) and a helper; what can't be built is absent."""
    targets = [target] if "SKERRY_BIN" in os.environ else [("-p", "skerry"), target]
    for words in targets:
        command = ["cargo", "build", "--release", "--quiet", *words]
        if subprocess.run(command, cwd=ROOT).returncode != 0:
            sys.exit(f"{' '.join(command)} failed; SKERRY_BIN names a binary that is built already")


def settle():
    """Lets what earlier runs left in the page cache reach the disk, so that nobody else pays."""
    os.sync()


def rest(seconds_max=60):
    """Waits until nobody computes (nine tenths of the machine are idle for a second): what one workload left to be done in the
    background is not to slow the next, whosever it is."""
    def idle():
        with open("/proc/stat", encoding="ascii") as stat:
            times = [int(word) for word in stat.readline().split()[1:9]]
        return times[3] + times[4], sum(times)

    end = time.monotonic() + seconds_max
    while time.monotonic() < end:
        idle_before, all_before = idle()
        time.sleep(1)
        idle_now, all_now = idle()
        if idle_now - idle_before >= 0.9 * (all_now - all_before):
            return


def drop_page_cache():
    """Empties the kernel's cache; says whether it could."""
    os.sync()
    try:
        with open("/proc/sys/vm/drop_caches", "w") as file:
            file.write("3")
        return True
    except OSError:
        return False


def tree_bytes(path):
    """The bytes that a directory's files take on the disk."""
    total = 0
    for folder, _, files in os.walk(path):
        for file in files:
            with contextlib.suppress(FileNotFoundError):
                total += os.lstat(os.path.join(folder, file)).st_blocks * 512
    return total


def need_space(path, needed):
    """Ends the bench at once if the disk can't hold what it will write."""
    free = shutil.disk_usage(path).free
    if free < needed:
        sys.exit(f"{path} has {free / GIB:.1f} GiB free, this needs {needed / GIB:.0f} GiB; "
                 "give another place with --work")
    note(f"{path}: {free / GIB:.1f} GiB free, at most {needed / GIB:.0f} GiB are used")


def spread(values):
    """Median, smallest and largest."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values),
            "values": values}


def machine():
    """What the figures were taken on."""
    def first_line(*command):
        with contextlib.suppress(OSError):
            run = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            return run.stdout.splitlines()[0] if run.stdout else ""
        return "missing"
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {"cpus": os.cpu_count(), "memory_bytes": memory, "kernel": os.uname().release,
            "qemu-nbd": first_line("qemu-nbd", "--version"),
            "nbdkit": first_line("nbdkit", "--version"), "fio": first_line("fio", "--version"),
            "commit": first_line("git", "-C", ROOT, "describe", "--always", "--dirty")}


def save(name, document):
    """Writes the figures beside the sources, where git ignores them."""
    folder = os.path.join(ROOT, "bench-out")
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, f"{name}-{time.strftime('%Y%m%dT%H%M%S')}.json")
    with open(path, "w") as file:
        json.dump(document, file, indent=1)
    note(f"figures: {path}")
