"""Between what Python sees and the messages of the API. Converts and refuses nonsense, nothing else."""

from __future__ import annotations

import json
import math
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from typing import Iterator, Optional

from . import errors
from ._proto import jobs_pb2 as pb
from .model import (
    Attempt,
    Awaited,
    Concurrency,
    Data,
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

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
#: The last time that Python can tell. Times after it are shown as it: one odd job must not hide the others of a list.
_LAST = datetime.max.replace(tzinfo=timezone.utc)
_LAST_MS = (_LAST - _EPOCH) // timedelta(milliseconds=1)

#: The most of an error's code or message that is sent, bytes: a node keeps no more.
ERROR_BYTES_MAX = 4096

_STATES = {
    State.SCHEDULED: pb.JOB_STATE_SCHEDULED,
    State.RUNNING: pb.JOB_STATE_RUNNING,
    State.SUCCEEDED: pb.JOB_STATE_SUCCEEDED,
    State.FAILED: pb.JOB_STATE_FAILED,
    State.CANCELLED: pb.JOB_STATE_CANCELLED,
}
_STATES_BACK = {number: state for state, number in _STATES.items()}


def as_bytes(data: Data) -> bytes:
    """Bytes as they are, text as UTF-8, dicts and lists as JSON."""
    if isinstance(data, (dict, list)):
        data = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    if isinstance(data, str):
        return data.encode()
    if not isinstance(data, (bytes, bytearray, memoryview)):
        # Of a number, bytes() would make as many zeros.
        raise TypeError(f"bytes, str, dict or list are wanted, not {type(data).__name__}")
    return bytes(data)


def error_text(error: object) -> str:
    """What an exception says, as a node takes it: valid UTF-8, at most `ERROR_BYTES_MAX` bytes. Never raises."""
    try:
        text = str(error)
    except BaseException as worse:
        text = f"its text can't be had: __str__ raised {type(worse).__name__}"
    # A character has at least one byte: no more than so many are encoded of a text that is huge.
    encoded = text[:ERROR_BYTES_MAX].encode("utf-8", "backslashreplace")
    return encoded[:ERROR_BYTES_MAX].decode("utf-8", "ignore")


@contextmanager
def checked(what: str) -> Iterator[None]:
    """Turns what Python says of a value that fits into no message into `Invalid`."""
    try:
        yield
    except (TypeError, ValueError, AttributeError, OverflowError) as error:
        raise errors.Invalid(f"{what}: {error}") from error


def ms(seconds: float) -> int:
    """Seconds as milliseconds."""
    if not 0 <= seconds < math.inf:
        raise errors.Invalid(f"{seconds} s: a duration is finite, and not negative")
    return round(seconds * 1000)


def time_ms(time: datetime) -> int:
    """A time as milliseconds since 1970. Times before that have passed like any other, and 0 means none."""
    if time.tzinfo is None:
        raise errors.Invalid(f"{time} has no time zone: say datetime.now(timezone.utc), for one")
    return max(1, (time - _EPOCH) // timedelta(milliseconds=1))


def time(since_1970_ms: int) -> datetime:
    """Milliseconds since 1970 as a time (UTC), the last that Python can tell at most."""
    return _LAST if since_1970_ms >= _LAST_MS else _EPOCH + timedelta(milliseconds=since_1970_ms)


def state_to(state: Optional[State]) -> pb.JobState:
    """A state, or any."""
    if state is None:
        return pb.JOB_STATE_UNSPECIFIED
    if not isinstance(state, State):
        raise errors.Invalid(f"{state!r} is no State")
    return _STATES[state]


def spec_to(spec: JobSpec) -> pb.JobSpec:
    """What somebody wants done, for the node."""
    with checked(f"job {spec.id!r}" if spec.id else "a job without an id"):
        return pb.JobSpec(
            id=spec.id or "",
            tenant=spec.tenant,
            group=spec.group,
            priority=spec.priority,
            start_at_ms=time_ms(spec.start_at) if spec.start_at else 0,
            payload=as_bytes(spec.payload),
            metadata=dict(spec.metadata),
            retry=_retry_to(spec.retry) if spec.retry else None,
            lease_ms=0 if spec.lease is None else max(1, ms(spec.lease)),
            limits=[_limit_to(limit) for limit in spec.limits],
            max_run_ms=0 if spec.max_run is None else max(1, ms(spec.max_run)),
        )


def _retry_to(retry: Retry) -> pb.RetryPolicy:
    return pb.RetryPolicy(
        retries=retry.retries,
        initial_ms=None if retry.initial is None else ms(retry.initial),
        max_ms=None if retry.longest is None else ms(retry.longest),
        factor_percent=None if retry.factor is None else round(retry.factor * 100),
        jitter_percent=None if retry.jitter is None else round(retry.jitter * 100),
    )


def _limit_to(limit: Limit) -> pb.Limit:
    if isinstance(limit, Concurrency):
        return pb.Limit(name=limit.name, concurrency=pb.ConcurrencyLimit(max=limit.max))
    if isinstance(limit, Floating):
        floating = pb.FloatingLimit(initial=limit.initial, refresh_ms=ms(limit.refresh), group=limit.group)
        return pb.Limit(name=limit.name, floating=floating)
    rate = pb.RateLimit(count=limit.count, per_ms=ms(limit.per), burst=limit.burst)
    return pb.Limit(name=limit.name, rate=rate)


def spec_from(spec: pb.JobSpec) -> JobSpec:
    """What somebody wants done, as the node has it."""
    return JobSpec(
        payload=spec.payload,
        id=spec.id,
        tenant=spec.tenant,
        group=spec.group,
        priority=spec.priority if spec.HasField("priority") else None,
        start_at=time(spec.start_at_ms) if spec.start_at_ms else None,
        metadata=dict(spec.metadata),
        retry=_retry_from(spec.retry) if spec.HasField("retry") else None,
        lease=spec.lease_ms / 1000 if spec.lease_ms else None,
        limits=tuple(limit for limit in map(_limit_from, spec.limits) if limit),
        max_run=spec.max_run_ms / 1000 if spec.max_run_ms else None,
    )


def _retry_from(retry: pb.RetryPolicy) -> Retry:
    def scaled(field: str, by: int) -> Optional[float]:
        return getattr(retry, field) / by if retry.HasField(field) else None

    return Retry(
        retries=retry.retries if retry.HasField("retries") else None,
        initial=scaled("initial_ms", 1000),
        longest=scaled("max_ms", 1000),
        factor=scaled("factor_percent", 100),
        jitter=scaled("jitter_percent", 100),
    )


def _limit_from(limit: pb.Limit) -> Optional[Limit]:
    kind = limit.WhichOneof("kind")
    if kind == "concurrency":
        return Concurrency(limit.name, limit.concurrency.max)
    if kind == "floating":
        floating = limit.floating
        return Floating(limit.name, floating.initial, floating.refresh_ms / 1000, floating.group)
    if kind == "rate":
        return Rate(limit.name, limit.rate.count, limit.rate.per_ms / 1000, limit.rate.burst)
    # Of a kind that a newer node has.
    return None


def job_from(job: pb.Job) -> Job:
    """A job as the node shows it."""
    return Job(
        spec=spec_from(job.spec),
        state=_state_from(job.state),
        created=time(job.created_ms),
        ended=time(job.ended_ms) if job.HasField("ended_ms") else None,
        cancel_asked=job.cancel_asked,
        attempts=tuple(_attempt_from(attempt) for attempt in job.attempts),
        waiting=_waiting_from(job.waiting) if job.HasField("waiting") else None,
    )


def _waiting_from(waiting: pb.Waiting) -> Optional[Waiting]:
    reason = waiting.WhichOneof("reason")
    if reason == "until_ms":
        return Waiting(WaitsFor.TIME, until=time(waiting.until_ms))
    if reason == "limit":
        limit = waiting.limit
        return Waiting(WaitsFor.LIMIT, limit=limit.name, running=limit.running, max=limit.max)
    if reason == "rate":
        return Waiting(WaitsFor.RATE, until=time(waiting.rate.at_ms), limit=waiting.rate.name)
    # None is a reason that a newer node has.
    return Waiting(WaitsFor(reason)) if reason else None


def _state_from(number: int) -> State:
    state = _STATES_BACK.get(number)
    if state is None:
        raise errors.Internal(f"the node says that a job is in state {number}: a newer skerry_jobs may know it")
    return state


def _attempt_from(attempt: pb.Attempt) -> Attempt:
    end = attempt.WhichOneof("end")
    return Attempt(
        number=attempt.number,
        worker=attempt.worker,
        started=time(attempt.started_ms),
        ended=time(attempt.ended_ms) if attempt.HasField("ended_ms") else None,
        end=End(end) if end else None,
        result=attempt.succeeded if end == "succeeded" else None,
        failure=_failure_from(attempt.failed) if end == "failed" else None,
    )


def _failure_from(failed: pb.JobError) -> Failure:
    return Failure(failed.code, failed.message, failed.final)


def enqueued_from(enqueued: pb.EnqueuedJob) -> Enqueued:
    """What became of a job that was enqueued."""
    error = errors.of_failure(enqueued.failure) if enqueued.HasField("failure") else None
    return Enqueued(enqueued.id, enqueued.is_new, error)


def awaited_from(awaited: pb.AwaitJobsResponse) -> Awaited:
    """A job that was waited for."""
    if awaited.HasField("failure"):
        return Awaited(awaited.id, None, errors.of_failure(awaited.failure))
    return Awaited(awaited.id, job_from(awaited.job))


def stats_from(stats: pb.GetJobStatsResponse) -> Stats:
    """What the node counts."""
    return Stats(
        enqueued=stats.enqueued,
        leased=stats.leased,
        succeeded=stats.succeeded,
        failed=stats.failed,
        cancelled=stats.cancelled,
        retried=stats.retried,
        expired=stats.expired,
        groups=tuple(
            GroupStats(group.group, group.early, group.ready, group.running, group.is_paused)
            for group in stats.groups
        ),
    )
