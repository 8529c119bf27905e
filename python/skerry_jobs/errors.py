"""What can go wrong: a class for each thing that a caller can do about it.

A call as a whole fails with a gRPC code, an item of a call with a kind of failure. Both become the same
classes here, by the two tables at the end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Dict, Type

import grpc

from ._proto import jobs_pb2 as pb

if TYPE_CHECKING:
    from .model import Job


class JobError(Exception):
    """Something about a job could not be done; the text names it."""


class Invalid(JobError):
    """The request can't be carried out as it stands: mend it."""


class NotFound(JobError):
    """There is no such job."""


class Exists(JobError):
    """There is such a job already."""


class Conflict(JobError):
    """The job is not in a state in which this can be done: look at it."""


class LeaseLost(JobError):
    """Another worker has the job, or nobody: stop the work."""


class Unavailable(JobError):
    """The node does not answer, or not in time: try again. What was asked for may have been done."""


class Corrupt(JobError):
    """What the node has stored is damaged, or newer than the node."""


class Internal(JobError):
    """A fault of the node: report it."""


class JobFailed(JobError):
    """The job that was waited for was tried for the last time; `job` has its attempts."""

    def __init__(self, job: Job) -> None:
        failure = job.failure
        why = f"{failure.code}: {failure.message}" if failure else "its worker gave no sign of life"
        super().__init__(f"job {job.id} failed: {why}")
        self.job = job


class JobCancelled(JobError):
    """The job that was waited for was called off."""

    def __init__(self, job: Job) -> None:
        super().__init__(f"job {job.id} was cancelled")
        self.job = job


def of_failure(failure: pb.Failure) -> JobError:
    """The error that an item of a call failed with."""
    return _KINDS.get(failure.kind, Internal)(failure.message)


def of_rpc(error: grpc.RpcError) -> JobError:
    """The error that a call failed with."""
    code, text = error.code(), error.details()
    return _CODES.get(code, Internal)(text or f"the node answered {code.name} and no reason")


_KINDS: Dict[int, Type[JobError]] = {
    pb.FAILURE_KIND_INVALID: Invalid,
    pb.FAILURE_KIND_NOT_FOUND: NotFound,
    pb.FAILURE_KIND_EXISTS: Exists,
    pb.FAILURE_KIND_CONFLICT: Conflict,
    pb.FAILURE_KIND_LEASE_LOST: LeaseLost,
    pb.FAILURE_KIND_UNAVAILABLE: Unavailable,
    pb.FAILURE_KIND_CORRUPT: Corrupt,
    pb.FAILURE_KIND_INTERNAL: Internal,
}

# The node's own codes, then those that come from what lies between.
_CODES: Dict[grpc.StatusCode, Type[JobError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: Invalid,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.ALREADY_EXISTS: Exists,
    grpc.StatusCode.FAILED_PRECONDITION: Conflict,
    grpc.StatusCode.ABORTED: LeaseLost,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.DATA_LOSS: Corrupt,
    grpc.StatusCode.INTERNAL: Internal,
    grpc.StatusCode.CANCELLED: Unavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: Unavailable,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Unavailable,
    grpc.StatusCode.UNIMPLEMENTED: Invalid,
    grpc.StatusCode.OUT_OF_RANGE: Invalid,
    grpc.StatusCode.PERMISSION_DENIED: Invalid,
    grpc.StatusCode.UNAUTHENTICATED: Invalid,
}
