"""What a handler sees of the job that it works on, and what it can raise."""

from __future__ import annotations

import threading
from typing import Mapping

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
        #: Set when the work should stop: somebody called the job off, or another worker may have it (`lost`).
        #: A handler that runs for long looks at it, and raises `Cancelled`; what it says otherwise counts.
        self.cancelled = threading.Event()
        #: True if the lease was lost: nothing that the handler still does or says of the job counts.
        self.lost = False
        #: Seconds that the node waits for a sign of life; the worker gives them by itself.
        self.lease: float = leased.lease_ms / 1000
        self._lease_token: bytes = leased.lease
        if leased.cancel_asked:
            self.cancelled.set()

    def __repr__(self) -> str:
        return f"<LeasedJob {self.tenant}/{self.id} attempt {self.attempt}>"
