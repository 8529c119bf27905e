"""A worker: takes jobs of one task group from a node, and runs a handler for each."""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
import queue
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Awaitable, Callable, Dict, Iterator, Optional, Union, cast

import grpc

from . import errors
from ._channel import Backoff, open_channel
from ._ledger import CONCURRENCY_MAX, Ledger
from ._loop import HandlerLoop
from ._proto import jobs_pb2 as pb
from ._proto import jobs_pb2_grpc
from ._wire import ERROR_BYTES_MAX, as_bytes, checked, error_text
from .leased import Cancelled, Final, LeasedJob
from .model import Data

_log = logging.getLogger("skerry_jobs")

#: The largest result, bytes.
RESULT_BYTES_MAX = 1 << 20

#: How long a worker that has nothing left to say waits for the node to close the connection, seconds.
CLOSE_SECONDS = 10.0

#: Signals that come so close together are one, seconds.
SAME_SIGNAL_SECONDS = 1.0

#: What does the work. What it returns is the job's result; an exception means that the attempt failed.
Handler = Callable[[LeasedJob], Optional[Data]]

#: The same as a coroutine (``async def``).
AsyncHandler = Callable[[LeasedJob], Awaitable[Optional[Data]]]


class Worker:
    """Runs `handler` in threads, `concurrency` at once, for the jobs of a task group.

    If `handler` is a coroutine (``async def``), it runs on an event loop in one thread instead, also `concurrency`
    at once. A client that cancels the job, and a lost lease, raise ``asyncio.CancelledError`` in it where it waits.

    A job is given at least once: the handler must stand being run again for one that it has done. What it returns
    (1 MiB at most) is the job's result. An exception is a failed attempt with the class's name as code, and the job
    is tried again as its retry policy says; `Final` means never again, `Cancelled` that it stopped as it was told to.

    Signs of life are given by the worker. If the node goes away the handlers go on, and what came out of them is
    said when it is back. `name` is for people; the host's name and the process id if it is None.
    """

    def __init__(
        
        self,
        address: str,
        group: str,
        handler: Union[Handler, AsyncHandler],
        *,
        concurrency: int = 1,
        name: Optional[str] = None,
    ) -> None:
        self._address = address
        self._handler = handler
        with checked("a worker"):
            if not 1 <= concurrency <= CONCURRENCY_MAX:
                raise errors.Invalid(f"concurrency {concurrency} is not between 1 and {CONCURRENCY_MAX}")
            self._ledger = Ledger(group, name or f"{socket.gethostname()}:{os.getpid()}", concurrency)
        #: Guards the ledger; told when it may have something new to say.
        self._changed = threading.Condition()
        self._pool = ThreadPoolExecutor(concurrency, thread_name_prefix="skerry-job")
        #: For a handler that is a coroutine, while the worker lives.
        self._loop: Optional[HandlerLoop] = None
        self._thread = threading.Thread(target=self._live, name="skerry-worker", daemon=True)
        self._error: Optional[BaseException] = None
        #: What `run` waits for. Of all that threads wait for, only this may be told something by a signal handler.
        self._news: queue.SimpleQueue[str] = queue.SimpleQueue()

    def run(self) -> None:
        """Works until SIGTERM, SIGINT or `stop`, then finishes what runs; to be called by the main thread.

        A second signal does what it would have done without this. Raises a `JobError` if the node refuses the worker.
        """
        before = {number: signal.signal(number, self._on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            self.start()
            if self._news.get() == "signal":
                self.stop()
                # Some send a signal to a process and to its group: that is one wish, and not a second.
                self.join(SAME_SIGNAL_SECONDS)
                _restore(before)
        finally:
            _restore(before)
        self.join()

    def start(self) -> None:
        """Begins to work, in threads of its own."""
        self._thread.start()

    def stop(self) -> None:
        """Takes no more jobs, gives back those that were not begun, and ends when those that run are done.

        Returns at once; `join` waits for the end.
        """
        with self._changed:
            self._ledger.stop()
            self._changed.notify_all()

    def join(self, timeout: Optional[float] = None) -> bool:
        """Waits for the end, or for `timeout` seconds; says whether it has ended. Raises as `run`."""
        self._thread.join(timeout)
        if self._error:
            raise self._error
        return not self._thread.is_alive()

    def _on_signal(self, _number: int, _frame: Any) -> None:
        self._news.put("signal")

    def _live(self) -> None:
        try:
            if _is_coroutine(self._handler):
                self._loop = HandlerLoop()
            with open_channel(self._address) as channel:
                self._keep_connected(jobs_pb2_grpc.JobsStub(channel))  # type: ignore[no-untyped-call]
        except BaseException as error:
            self._error = error
            with self._changed:
                self._ledger.stop()
                self._ledger.lose_all()
        finally:
            self._pool.shutdown()
            if self._loop:
                self._loop.close()
            self._news.put("ended")

    def _keep_connected(self, stub: Any) -> None:
        backoff = Backoff()
        while True:
            try:
                _Connection(self, stub, backoff).serve()
                why = "the node closed the connection"
            except errors.Invalid:
                raise
            except errors.JobError as error:
                why = str(error)
            # Said aloud once: a node that is away for long is no news.
            level = logging.WARNING if backoff.is_first else logging.INFO
            if not self._pause(backoff.next(), why, level):
                return

    def _pause(self, seconds: float, why: str, level: int) -> bool:
        """Waits before the next connection; False if there is nothing left to say, or no use in it."""
        with self._changed:
            if self._ledger.is_done:
                return False
            now = time.monotonic()
            last_words_end = self._ledger.last_words_end(now)
            if last_words_end is not None and now >= last_words_end:
                _log.error("gave up on %d outcomes: %s", self._ledger.unanswered(), why)
                return False
            _log.log(level, "connecting again in %.1f s: %s", seconds, why)
            was_stopping = self._ledger.is_stopping
            self._changed.wait_for(lambda: self._ledger.is_stopping != was_stopping, seconds)
            return not self._ledger.is_done

    def _submit(self, job: LeasedJob) -> None:
        if self._loop:
            self._loop.submit(self._await_work(self._loop, job))
        else:
            self._pool.submit(self._work_on, job)

    def _work_on(self, job: LeasedJob) -> None:
        if self._begin(job):
            self._end(job, _outcome_of(cast(Handler, self._handler), job))

    async def _await_work(self, loop: HandlerLoop, job: LeasedJob) -> None:
        if not self._begin(job):
            return
        task = asyncio.current_task()
        assert task, "a coroutine of the loop is a task"
        job._watch(lambda: loop.cancel(task))
        self._end(job, await _awaited_outcome_of(cast(AsyncHandler, self._handler), job))

    def _begin(self, job: LeasedJob) -> bool:
        with self._changed:
            begins = self._ledger.begin(job)
            self._changed.notify_all()
        return begins

    def _end(self, job: LeasedJob, outcome: pb.Outcome) -> None:
        with self._changed:
            self._ledger.end(job, outcome)
            self._changed.notify_all()


class _Connection:
    """One connection of a worker, until it breaks or there is nothing left to say."""

    def __init__(self, worker: Worker, stub: Any, backoff: Backoff) -> None:
        self._worker = worker
        self._ledger = worker._ledger
        self._changed = worker._changed
        self._backoff = backoff
        self._is_open = True
        self._patience: Optional[threading.Timer] = None
        with self._changed:
            self._ledger.connected(time.monotonic())
            # Under the lock: what asks for requests runs already, and must find the call when it goes on.
            self._call = stub.Work(self._requests())

    def serve(self) -> None:
        """Hears what the node says; raises why the connection broke."""
        try:
            for response in self._call:
                self._backoff.succeeded()
                self._hear(response)
        except grpc.RpcError as error:
            raise errors.of_rpc(error) from None
        finally:
            self._close()

    def _hear(self, response: pb.WorkResponse) -> None:
        with self._changed:
            jobs = self._ledger.heard(response)
            self._changed.notify_all()
        for job in jobs:
            self._worker._submit(job)

    def _close(self) -> None:
        with self._changed:
            self._is_open = False
            self._changed.notify_all()
            if self._patience:
                self._patience.cancel()
        self._call.cancel()

    def _requests(self) -> Iterator[pb.WorkRequest]:
        """What is said, as it comes up. Its end tells the node that no more follows."""
        while True:
            request = self._next_request()
            if request is None:
                return
            yield request

    def _next_request(self) -> Optional[pb.WorkRequest]:
        with self._changed:
            while self._is_open:
                now = time.monotonic()
                request = self._ledger.next_request(now)
                if request is not None:
                    return request
                if self._ledger.is_done:
                    self._wait_for_the_node_to_close()
                    return None
                wake_at = self._wake_at(now)
                if wake_at is not None and wake_at <= now:
                    break
                self._changed.wait(None if wake_at is None else wake_at - now)
        self._call.cancel()
        return None

    def _wait_for_the_node_to_close(self) -> None:
        # Jobs may be on their way, to be given back; so it is the node that closes, but not for ever.
        self._patience = threading.Timer(CLOSE_SECONDS, self._call.cancel)
        self._patience.daemon = True
        self._patience.start()

    def _wake_at(self, now: float) -> Optional[float]:
        times = (self._ledger.last_words_end(now), self._ledger.next_at())
        return min((at for at in times if at is not None), default=None)


def _outcome_of(handler: Handler, job: LeasedJob) -> pb.Outcome:
    """Runs the handler. Whatever it raises is an outcome: no job may hang because of an exception."""
    try:
        return pb.Outcome(succeeded=_result_of(handler(job)))
    except BaseException as error:
        return _outcome_of_error(job, error)


async def _awaited_outcome_of(handler: AsyncHandler, job: LeasedJob) -> pb.Outcome:
    """The same for a coroutine."""
    try:
        return pb.Outcome(succeeded=_result_of(await handler(job)))
    except asyncio.CancelledError as error:
        # A handler may also meet this error of a task of its own.
        return pb.Outcome(cancelled=True) if job.cancelled.is_set() else _outcome_of_error(job, error)
    except BaseException as error:
        return _outcome_of_error(job, error)


def _outcome_of_error(job: LeasedJob, error: BaseException) -> pb.Outcome:
    if isinstance(error, Cancelled):
        return pb.Outcome(cancelled=True)
    failed = _failed(error)
    if not failed.final:
        # A trace ends with the whole text of the error: only of a short one is it wanted in a log.
        is_short = len(failed.message.encode()) < ERROR_BYTES_MAX
        _log.warning("%r failed: %s", job, failed.code, exc_info=error if is_short else None)
    return pb.Outcome(failed=failed)


def _is_coroutine(handler: Union[Handler, AsyncHandler]) -> bool:
    """True for ``async def``, also in a ``functools.partial`` or as ``__call__`` of an object."""
    return inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(getattr(handler, "__call__", None))


def _failed(error: BaseException) -> pb.JobError:
    """What an exception says, whatever it is like: its text may be huge, no UTF-8, or not to be had."""
    if isinstance(error, Final):
        return pb.JobError(code=error_text(error.code), message=error_text(error), final=True)
    return pb.JobError(code=error_text(type(error).__name__), message=error_text(error))


def _result_of(returned: Optional[Data]) -> bytes:
    if returned is None:
        return b""
    if not isinstance(returned, (bytes, bytearray, memoryview, str, dict, list)):
        raise TypeError(f"a handler returns bytes, str, dict, list or None, not {type(returned).__name__}")
    result = as_bytes(returned)
    if len(result) > RESULT_BYTES_MAX:
        raise ValueError(f"a result of {len(result)} bytes: 1 MiB at most; put it elsewhere and return where")
    return result


def _restore(handlers: Dict[signal.Signals, Any]) -> None:
    for number, handler in handlers.items():
        signal.signal(number, handler)
