"""What a handler sees of the job that it works on, and what it can raise."""

from __future__ import annotations

import json
import threading
from typing import Any, Callable, Mapping, Optional

from ._proto import jobs_pb2 as pb


class Final(Exception):
    """Raised by a handler: the job failed, and trying again is no use. `code` is for programs."""

    def __init__(self, message: str, *, code: str = "Final") -> None:
        super().__init__(message)
        self.code = code


class Cancelled(Exception):
    """Raised by a handler that has stopped, as it was told to: the job ends as cancelled."""


class LeasedJob:
    """A job that this worker has."""

    def __init__(self, leased: pb.LeasedJob) -> None:
        self.id: str = leased.id
        self.tenant: str = leased.tenant
        self.group: str = leased.group
        #: The first is 1. An attempt after the first may find that one before it has done some of the work.
        self.attempt: int = leased.attempt
        self.payload: bytes = leased.payload
        self.metadata: Mapping[str, str] = dict(leased.metadata)
        #: Set when the work should stop: a client cancelled the job, or another worker may have it (`lost`).
        #: A handler that runs for long looks at it, and raises `Cancelled`; what it says otherwise counts.
        #: In a coroutine the worker also raises ``asyncio.CancelledError`` where the handler waits.
        self.cancelled = threading.Event()
        #: True if the lease was lost: nothing that the handler still does or says of the job counts.
        self.lost = False
        #: Seconds that the node waits for a sign of life; the worker gives them by itself.
        self.lease: float = leased.lease_ms / 1000
        self._lease_token: bytes = leased.lease
        self._on_cancel: Optional[Callable[[], None]] = None
        if leased.cancel_asked:
            self.cancelled.set()

    def json(self) -> Any:
        """The payload, read as JSON. Raises `Final` if it is no JSON: another try would not help."""
        try:
            return json.loads(self.payload)
        except ValueError as error:
            raise Final(f"the payload is no JSON: {error}", code="InvalidPayload") from error

    def _cancel(self) -> None:
        """Tells the handler to stop."""
        self.cancelled.set()
        if self._on_cancel:
            self._on_cancel()

    def _watch(self, on_cancel: Callable[[], None]) -> None:
        """Calls `on_cancel` when the handler is told to stop, or at once if it is told already."""
        self._on_cancel = on_cancel
        if self.cancelled.is_set():
            on_cancel()

    def __repr__(self) -> str:
        return f"<LeasedJob {self.tenant}/{self.id} attempt {self.attempt}>"
