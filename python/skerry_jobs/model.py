"""Jobs as Python sees them. Durations are seconds, times are aware ``datetime`` objects."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Dict, List, Mapping, Optional, Sequence, Union

from .errors import JobError


#: A payload or a result. The package encodes text as UTF-8, and dicts and lists as JSON.
Data = Union[bytes, str, Dict[str, Any], List[Any]]


class State(enum.Enum):
    """Where a job is in its life."""

    #: It waits: for its time, for a limit, for a worker.
    SCHEDULED = "scheduled"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    #: It was tried for the last time: a dead letter.
    FAILED = "failed"
    CANCELLED = "cancelled"


class End(enum.Enum):
    """How an attempt ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    #: The worker gave no sign of life for a lease.
    EXPIRED = "expired"
    #: The worker stopped, as it was told to.
    CANCELLED = "cancelled"
    #: Given back, not begun: it does not count as a try.
    RETURNED = "returned"
    #: It took longer than its job lets an attempt take.
    TOO_LONG = "too_long"


class WaitsFor(enum.Enum):
    """What a job waits for: the first reason that the node finds."""

    #: Its time.
    TIME = "until_ms"
    #: Its task group is paused.
    PAUSED = "paused"
    #: As many jobs run under a limit as may.
    LIMIT = "limit"
    #: A rate has no token.
    RATE = "rate"
    #: Other jobs go before it, or no worker asks.
    TURN = "turn"


@dataclass(frozen=True)
class Waiting:
    """Why a job waits."""

    reason: WaitsFor
    #: When its time or the rate's next token comes.
    until: Optional[datetime] = None
    #: The limit or the rate.
    limit: Optional[str] = None
    #: Jobs that run under the limit, and how many may.
    running: Optional[int] = None
    max: Optional[int] = None


@dataclass(frozen=True)
class Retry:
    """When a job that failed is tried again. What is None is the node's default."""

    #: How many times, after the first attempt (3).
    retries: Optional[int] = None
    #: Before the first retry, seconds (1).
    initial: Optional[float] = None
    #: The longest wait, seconds, but for jitter (300).
    longest: Optional[float] = None
    #: What a wait is multiplied by for the next, 1 to 100 (2).
    factor: Optional[float] = None
    #: How much earlier or later a retry may be, as a part of the wait, 0 to 1 (0.1).
    jitter: Optional[float] = None


@dataclass(frozen=True)
class Concurrency:
    """A limit: so many jobs at once."""

    name: str
    max: int


@dataclass(frozen=True)
class Floating:
    """A limit: so many jobs at once, as a worker of `group` says every `refresh` seconds.

    It gets jobs ``~limit/NAME`` with the name as payload, and returns the number in decimal digits.
    """

    name: str
    #: How many until a worker has said so.
    initial: int
    #: Seconds, at least 1.
    refresh: float
    #: Workers of other jobs can't answer these.
    group: str = "limits"


@dataclass(frozen=True)
class Rate:
    """A limit: `count` attempts may begin in `per` seconds, and `burst` at once if there were none for a while."""

    name: str
    count: int
    #: Seconds, up to a day.
    per: float = 1.0
    burst: int = 1


#: A limit is known by its name to all jobs of a tenant; the newest job says how much it lets through.
Limit = Union[Concurrency, Floating, Rate]


@dataclass(frozen=True)
class JobSpec:
    """What somebody wants done."""

    #: What the worker gets, 1 MiB at most. A dict or a list is sent as JSON: `LeasedJob.json` reads it.
    payload: Data = b""
    #: Unique within the tenant. Without one it gets one, and asking twice makes two jobs.
    id: Optional[str] = None
    tenant: str = "default"
    #: The task group: workers ask for work by it.
    group: str = "default"
    #: 0, the first, to 99; 50 if None.
    priority: Optional[int] = None
    #: Not before this; None is now.
    start_at: Optional[datetime] = None
    #: What it can be found by: 16 entries at most, of 256 bytes a key and a value.
    metadata: Mapping[str, str] = field(default_factory=dict)
    retry: Optional[Retry] = None
    #: Seconds that a worker has it without a sign of life, 0.1 to a day; 30 if None.
    lease: Optional[float] = None
    #: All of these must let it run: 8 at most.
    limits: Sequence[Limit] = ()
    #: Seconds that an attempt may take in all, at least 0.1, whatever signs of life there are; as long as it wants if None.
    max_run: Optional[float] = None


@dataclass(frozen=True)
class Failure:
    """Why an attempt failed."""

    #: For programs; of a Python worker, the name of the exception's class.
    code: str
    #: For people.
    message: str
    #: Trying again is no use.
    final: bool = False


@dataclass(frozen=True)
class Attempt:
    """One time that a worker had a job."""

    #: The first is 1; none is given twice.
    number: int
    worker: str
    started: datetime
    #: None if it goes on; then `end` is None too.
    ended: Optional[datetime] = None
    end: Optional[End] = None
    #: What came out, if it succeeded.
    result: Optional[bytes] = None
    #: Why not, if it failed.
    failure: Optional[Failure] = None


@dataclass(frozen=True)
class Job:
    """A job, with what has become of it."""

    spec: JobSpec
    state: State
    created: datetime
    ended: Optional[datetime]
    #: Somebody wants its worker to stop.
    cancel_asked: bool
    #: The newest 64, oldest first.
    attempts: Sequence[Attempt]
    #: Why it waits, of a job that waits; only `Client.show` and `Client.list` tell.
    waiting: Optional[Waiting] = None

    @property
    def id(self) -> str:
        """Its id: its owner's, or "_" and 16 hexadecimal digits."""
        return self.spec.id or ""

    @property
    def tenant(self) -> str:
        """Whose it is."""
        return self.spec.tenant

    @property
    def result(self) -> Optional[bytes]:
        """What came out of it, if it succeeded."""
        return self.attempts[-1].result if self.attempts and self.state is State.SUCCEEDED else None

    @property
    def failure(self) -> Optional[Failure]:
        """Why its last attempt failed; None if it did not, or if its worker just went silent."""
        return self.attempts[-1].failure if self.attempts else None


@dataclass(frozen=True)
class Enqueued:
    """What became of one of many jobs that were enqueued."""

    id: str
    #: False if a job of its id was there: nothing was changed then.
    is_new: bool
    #: Why it was not taken.
    error: Optional[JobError] = None


@dataclass(frozen=True)
class Awaited:
    """One of many jobs that were waited for: `job`, which has come to its end, or why there is none."""

    id: str
    job: Optional[Job]
    error: Optional[JobError] = None


@dataclass(frozen=True)
class GroupStats:
    """The jobs of a task group that have not come to their end."""

    group: str
    #: Their time has not come.
    early: int
    #: They could run, but for limits and workers.
    ready: int
    running: int
    is_paused: bool


@dataclass(frozen=True)
class Stats:
    """What has happened since the node started, and how the task groups stand now."""

    enqueued: int
    leased: int
    succeeded: int
    failed: int
    cancelled: int
    retried: int
    expired: int
    groups: Sequence[GroupStats]
