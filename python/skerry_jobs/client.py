"""What one asks of a node about jobs: everything but working on them."""

from __future__ import annotations

import time
from datetime import datetime
from types import TracebackType
from typing import Any, Callable, Dict, Iterable, Iterator, List, Mapping, Optional, Sequence, Type

import grpc

from . import _wire, errors
from ._channel import MESSAGE_BYTES_MAX, Backoff, open_channel
from ._proto import jobs_pb2 as pb
from ._proto import jobs_pb2_grpc
from .model import Awaited, Data, Enqueued, Job, JobSpec, Limit, Retry, State, Stats

#: How many jobs are enqueued by one call: enough that calls cost little beside their jobs.
_ENQUEUE_MAX = 1000


class Client:
    """A node's jobs.

    `address` is ``unix:PATH`` of the node's API socket (``api.sock`` in its data directory) or ``HOST:PORT``.
    A call that gets no answer within `timeout` seconds raises `Unavailable`. All calls raise a `JobError`, and
    `Unavailable` in particular when the node is away. May be shared by threads, but not by forked processes.
    """

    def __init__(self, address: str = "unix:skerry-data/api.sock", *, timeout: float = 30.0) -> None:
        self._channel = open_channel(address)
        self._stub: Any = jobs_pb2_grpc.JobsStub(self._channel)  # type: ignore[no-untyped-call]
        self._timeout = timeout

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.close()

    def close(self) -> None:
        """Lets go of the node: calls that go on end with `Unavailable`, later ones with ``ValueError``."""
        self._channel.close()

    def enqueue(
        self,
        payload: Data = b"",
        *,
        id: Optional[str] = None,
        tenant: str = "default",
        group: str = "default",
        priority: Optional[int] = None,
        start_at: Optional[datetime] = None,
        metadata: Optional[Mapping[str, str]] = None,
        retry: Optional[Retry] = None,
        lease: Optional[float] = None,
        limits: Sequence[Limit] = (),
        max_run: Optional[float] = None,
    ) -> str:
        """Enqueues a job, durably, and returns its id; `JobSpec` says what the arguments mean.

        With an `id` of one's own it may be asked again after `Unavailable`: a job that is there is not taken again.
        """
        spec = JobSpec(
            payload, id, tenant, group, priority, start_at, metadata or {}, retry, lease, limits, max_run
        )
        [enqueued] = self.enqueue_many([spec])
        if enqueued.error:
            raise enqueued.error
        return enqueued.id

    def enqueue_many(self, specs: Iterable[JobSpec]) -> List[Enqueued]:
        """Enqueues jobs, in as many calls as they need, and says in order what became of each.

        A job that is refused keeps no other from being taken: its error is in its place. After `Unavailable`,
        some may have been taken; with ids of one's own all of them can be asked again.
        """
        taken: List[Enqueued] = []
        # By their places: what fits into no message is not sent.
        refused: Dict[int, Enqueued] = {}
        for request in _enqueue_requests(specs, refused):
            response = self._send(self._stub.EnqueueJobs, request)
            taken.extend(_wire.enqueued_from(one) for one in response.jobs)
        rest = iter(taken)
        places = range(len(taken) + len(refused))
        return [refused[place] if place in refused else next(rest) for place in places]

    def result(self, id: str, tenant: str = "default", *, timeout: Optional[float] = None) -> bytes:
        """Waits until a job has come to its end, and returns what came out of it.

        Raises `JobFailed`, `JobCancelled`, `NotFound`; ``TimeoutError`` after `timeout` seconds.
        """
        [awaited] = self.await_jobs([id], tenant, timeout=timeout)
        if awaited.job is None:
            raise awaited.error or errors.Internal(f"the node said nothing of job {id}")
        if awaited.job.state is State.FAILED:
            raise errors.JobFailed(awaited.job)
        if awaited.job.state is State.CANCELLED:
            raise errors.JobCancelled(awaited.job)
        return awaited.job.result or b""

    def await_jobs(
        self, ids: Iterable[str], tenant: str = "default", *, timeout: Optional[float] = None
    ) -> Iterator[Awaited]:
        """Yields jobs, each as it comes to its end, and those that there are not with the reason.

        Goes on waiting when the node restarts, or opens its jobs again. Raises ``TimeoutError`` when `timeout` seconds are over first.
        """
        left = {ids} if isinstance(ids, str) else set(ids)
        until = None if timeout is None else time.monotonic() + timeout
        backoff = Backoff()
        while left:
            try:
                for awaited in self._await_once(sorted(left, key=str), tenant, until):
                    if isinstance(awaited.error, errors.Unavailable):
                        # The node opens its jobs again: it does not know now, and will.
                        continue
                    backoff.succeeded()
                    left.discard(awaited.id)
                    yield awaited
            except errors.Unavailable:
                pass
            if left:
                _sleep(backoff.next(), until, f"{len(left)} jobs have not come to their end")

    def _await_once(self, ids: List[str], tenant: str, until: Optional[float]) -> Iterator[Awaited]:
        timeout = None if until is None else max(0.0, until - time.monotonic())
        with _wire.checked("what is waited for"):
            request = pb.AwaitJobsRequest(tenant=tenant, ids=ids)
        call = self._stub.AwaitJobs(request, timeout=timeout)
        try:
            yield from map(_wire.awaited_from, call)
        except grpc.RpcError as error:
            raise errors.of_rpc(error) from None
        finally:
            call.cancel()

    def show(self, id: str, tenant: str = "default") -> Job:
        """A job, with what has become of it."""
        return _wire.job_from(self._call(self._stub.ShowJob, pb.JobRequest, tenant=tenant, id=id))

    def list(
        self,
        *,
        tenant: Optional[str] = None,
        group: Optional[str] = None,
        state: Optional[State] = None,
        metadata: Optional[Mapping[str, str]] = None,
        metadata_prefix: bool = False,
        page: int = 100,
    ) -> Iterator[Job]:
        """Yields the jobs that match, of all tenants if none is named; reads `page` of them (1000 at most) at a time.

        `metadata` is one entry that they have, and needs a tenant; with `metadata_prefix` its value only begins so.
        Of a tenant, the oldest first; those that have come to their end after the others, by id; by value if metadata were
        asked for.
        Payloads and results are not listed: `show` has them.
        """
        with _wire.checked("what is listed"):
            request = pb.ListJobsRequest(
                tenant=tenant or "", group=group or "", state=_wire.state_to(state), limit=page
            )
            if metadata:
                if len(metadata) != 1:
                    raise errors.Invalid(f"{len(metadata)} entries of metadata: jobs are found by one")
                [(request.metadata_key, request.metadata_value)] = metadata.items()
                request.metadata_prefix = metadata_prefix
        return self._pages(request)

    def _pages(self, request: pb.ListJobsRequest) -> Iterator[Job]:
        while True:
            response = self._send(self._stub.ListJobs, request)
            yield from map(_wire.job_from, response.jobs)
            if not response.next:
                return
            request.after = response.next

    def cancel(self, id: str, tenant: str = "default") -> bool:
        """Calls a job off. True if it has ended; False if it runs, and its worker was told."""
        response = self._call(self._stub.CancelJob, pb.JobRequest, tenant=tenant, id=id)
        return bool(response.is_done)

    def restart(self, id: str, tenant: str = "default") -> None:
        """Lets a job that has come to its end begin anew, with its history; `Conflict` if it has not."""
        self._call(self._stub.RestartJob, pb.JobRequest, tenant=tenant, id=id)

    def expedite(self, id: str, tenant: str = "default") -> None:
        """Lets a job that waits for its time start at once; `Conflict` if it does not wait."""
        self._call(self._stub.ExpediteJob, pb.JobRequest, tenant=tenant, id=id)

    def delete(self, id: str, tenant: str = "default") -> None:
        """Deletes a job, with all that is known of it; `Conflict` if it runs."""
        self._call(self._stub.DeleteJob, pb.JobRequest, tenant=tenant, id=id)

    def set_priority(self, id: str, priority: int, tenant: str = "default") -> None:
        """Changes the priority (0, the first, to 99) of a job that waits; `Conflict` if it does not."""
        self._call(self._stub.SetJobPriority, pb.SetJobPriorityRequest, tenant=tenant, id=id, priority=priority)

    def pause(self, group: str = "default") -> None:
        """No job of the task group is given out until it is resumed; those that run go on."""
        self._call(self._stub.PauseJobs, pb.TaskGroupRequest, group=group)

    def resume(self, group: str = "default") -> None:
        """Jobs of the task group are given out again."""
        self._call(self._stub.ResumeJobs, pb.TaskGroupRequest, group=group)

    def stats(self) -> Stats:
        """What has happened since the node started, and how the task groups stand."""
        return _wire.stats_from(self._call(self._stub.GetJobStats, pb.GetJobStatsRequest))

    def _call(self, method: Callable[..., Any], kind: Callable[..., Any], **fields: Any) -> Any:
        with _wire.checked("the request"):
            request = kind(**fields)
        return self._send(method, request)

    def _send(self, method: Callable[..., Any], request: Any) -> Any:
        try:
            return method(request, timeout=self._timeout)
        except grpc.RpcError as error:
            raise errors.of_rpc(error) from None


def _sleep(seconds: float, until: Optional[float], why: str) -> None:
    if until is None:
        time.sleep(seconds)
        return
    left = until - time.monotonic()
    if left <= 0:
        raise TimeoutError(why)
    time.sleep(min(seconds, left))


def _enqueue_requests(specs: Iterable[JobSpec], refused: Dict[int, Enqueued]) -> Iterator[pb.EnqueueJobsRequest]:
    """The jobs, in order, in requests that are not too large; those that can't be sent are `refused`."""
    batch: List[pb.JobSpec] = []
    batch_bytes = 0
    for place, one in enumerate(specs):
        try:
            spec = _wire.spec_to(one)
        except errors.Invalid as error:
            refused[place] = Enqueued("", False, error)
            continue
        spec_bytes = spec.ByteSize()
        if batch and (len(batch) == _ENQUEUE_MAX or batch_bytes + spec_bytes > MESSAGE_BYTES_MAX):
            yield pb.EnqueueJobsRequest(jobs=batch)
            batch, batch_bytes = [], 0
        batch.append(spec)
        batch_bytes += spec_bytes
    if batch:
        yield pb.EnqueueJobsRequest(jobs=batch)
