"""Durable jobs of a Skerry node: enqueue them, wait for them, work on them.

All durations are seconds, all times are aware ``datetime`` objects, and payloads and results are bytes
(text is taken as UTF-8). What goes wrong is a `JobError`; its class says what to do about it.
"""

from .client import Client
from .errors import (
    Conflict,
    Corrupt,
    Exists,
    Internal,
    Invalid,
    JobCancelled,
    JobError,
    JobFailed,
    LeaseLost,
    NotFound,
    Unavailable,
)
from .leased import Cancelled, Final, LeasedJob
from .model import (
    Attempt,
    Awaited,
    Concurrency,
    End,
    Enqueued,
    Failure,
    Floating,
    GroupStats,
    Job,
    JobSpec,
    Limit,
    Rate,
    Retry,
    State,
    Stats,
    Waiting,
    WaitsFor,
)
from .worker import Worker

__all__ = [
    "Attempt",
    "Awaited",
    "Cancelled",
    "Client",
    "Concurrency",
    "Conflict",
    "Corrupt",
    "End",
    "Enqueued",
    "Exists",
    "Failure",
    "Final",
    "Floating",
    "GroupStats",
    "Internal",
    "Invalid",
    "Job",
    "JobCancelled",
    "JobError",
    "JobFailed",
    "JobSpec",
    "LeaseLost",
    "LeasedJob",
    "Limit",
    "NotFound",
    "Rate",
    "Retry",
    "State",
    "Stats",
    "Unavailable",
    "Waiting",
    "WaitsFor",
    "Worker",
]
