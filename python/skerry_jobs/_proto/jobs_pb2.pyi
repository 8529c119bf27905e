from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class JobState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    JOB_STATE_UNSPECIFIED: _ClassVar[JobState]
    JOB_STATE_SCHEDULED: _ClassVar[JobState]
    JOB_STATE_RUNNING: _ClassVar[JobState]
    JOB_STATE_SUCCEEDED: _ClassVar[JobState]
    JOB_STATE_FAILED: _ClassVar[JobState]
    JOB_STATE_CANCELLED: _ClassVar[JobState]

class FailureKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FAILURE_KIND_UNSPECIFIED: _ClassVar[FailureKind]
    FAILURE_KIND_INVALID: _ClassVar[FailureKind]
    FAILURE_KIND_NOT_FOUND: _ClassVar[FailureKind]
    FAILURE_KIND_EXISTS: _ClassVar[FailureKind]
    FAILURE_KIND_CONFLICT: _ClassVar[FailureKind]
    FAILURE_KIND_LEASE_LOST: _ClassVar[FailureKind]
    FAILURE_KIND_UNAVAILABLE: _ClassVar[FailureKind]
    FAILURE_KIND_CORRUPT: _ClassVar[FailureKind]
    FAILURE_KIND_INTERNAL: _ClassVar[FailureKind]
JOB_STATE_UNSPECIFIED: JobState
JOB_STATE_SCHEDULED: JobState
JOB_STATE_RUNNING: JobState
JOB_STATE_SUCCEEDED: JobState
JOB_STATE_FAILED: JobState
JOB_STATE_CANCELLED: JobState
FAILURE_KIND_UNSPECIFIED: FailureKind
FAILURE_KIND_INVALID: FailureKind
FAILURE_KIND_NOT_FOUND: FailureKind
FAILURE_KIND_EXISTS: FailureKind
FAILURE_KIND_CONFLICT: FailureKind
FAILURE_KIND_LEASE_LOST: FailureKind
FAILURE_KIND_UNAVAILABLE: FailureKind
FAILURE_KIND_CORRUPT: FailureKind
FAILURE_KIND_INTERNAL: FailureKind

class JobSpec(_message.Message):
    __slots__ = ("id", "tenant", "group", "priority", "start_at_ms", "payload", "metadata", "retry", "lease_ms", "limits", "max_run_ms")
    class MetadataEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    ID_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    GROUP_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    START_AT_MS_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    RETRY_FIELD_NUMBER: _ClassVar[int]
    LEASE_MS_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    MAX_RUN_MS_FIELD_NUMBER: _ClassVar[int]
    id: str
    tenant: str
    group: str
    priority: int
    start_at_ms: int
    payload: bytes
    metadata: _containers.ScalarMap[str, str]
    retry: RetryPolicy
    lease_ms: int
    limits: _containers.RepeatedCompositeFieldContainer[Limit]
    max_run_ms: int
    def __init__(self, id: _Optional[str] = ..., tenant: _Optional[str] = ..., group: _Optional[str] = ..., priority: _Optional[int] = ..., start_at_ms: _Optional[int] = ..., payload: _Optional[bytes] = ..., metadata: _Optional[_Mapping[str, str]] = ..., retry: _Optional[_Union[RetryPolicy, _Mapping]] = ..., lease_ms: _Optional[int] = ..., limits: _Optional[_Iterable[_Union[Limit, _Mapping]]] = ..., max_run_ms: _Optional[int] = ...) -> None: ...

class RetryPolicy(_message.Message):
    __slots__ = ("retries", "initial_ms", "max_ms", "factor_percent", "jitter_percent")
    RETRIES_FIELD_NUMBER: _ClassVar[int]
    INITIAL_MS_FIELD_NUMBER: _ClassVar[int]
    MAX_MS_FIELD_NUMBER: _ClassVar[int]
    FACTOR_PERCENT_FIELD_NUMBER: _ClassVar[int]
    JITTER_PERCENT_FIELD_NUMBER: _ClassVar[int]
    retries: int
    initial_ms: int
    max_ms: int
    factor_percent: int
    jitter_percent: int
    def __init__(self, retries: _Optional[int] = ..., initial_ms: _Optional[int] = ..., max_ms: _Optional[int] = ..., factor_percent: _Optional[int] = ..., jitter_percent: _Optional[int] = ...) -> None: ...

class Limit(_message.Message):
    __slots__ = ("name", "concurrency", "floating", "rate")
    NAME_FIELD_NUMBER: _ClassVar[int]
    CONCURRENCY_FIELD_NUMBER: _ClassVar[int]
    FLOATING_FIELD_NUMBER: _ClassVar[int]
    RATE_FIELD_NUMBER: _ClassVar[int]
    name: str
    concurrency: ConcurrencyLimit
    floating: FloatingLimit
    rate: RateLimit
    def __init__(self, name: _Optional[str] = ..., concurrency: _Optional[_Union[ConcurrencyLimit, _Mapping]] = ..., floating: _Optional[_Union[FloatingLimit, _Mapping]] = ..., rate: _Optional[_Union[RateLimit, _Mapping]] = ...) -> None: ...

class ConcurrencyLimit(_message.Message):
    __slots__ = ("max",)
    MAX_FIELD_NUMBER: _ClassVar[int]
    max: int
    def __init__(self, max: _Optional[int] = ...) -> None: ...

class FloatingLimit(_message.Message):
    __slots__ = ("initial", "refresh_ms", "group")
    INITIAL_FIELD_NUMBER: _ClassVar[int]
    REFRESH_MS_FIELD_NUMBER: _ClassVar[int]
    GROUP_FIELD_NUMBER: _ClassVar[int]
    initial: int
    refresh_ms: int
    group: str
    def __init__(self, initial: _Optional[int] = ..., refresh_ms: _Optional[int] = ..., group: _Optional[str] = ...) -> None: ...

class RateLimit(_message.Message):
    __slots__ = ("count", "per_ms", "burst")
    COUNT_FIELD_NUMBER: _ClassVar[int]
    PER_MS_FIELD_NUMBER: _ClassVar[int]
    BURST_FIELD_NUMBER: _ClassVar[int]
    count: int
    per_ms: int
    burst: int
    def __init__(self, count: _Optional[int] = ..., per_ms: _Optional[int] = ..., burst: _Optional[int] = ...) -> None: ...

class Job(_message.Message):
    __slots__ = ("spec", "state", "created_ms", "ended_ms", "cancel_asked", "attempts", "waiting")
    SPEC_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    CREATED_MS_FIELD_NUMBER: _ClassVar[int]
    ENDED_MS_FIELD_NUMBER: _ClassVar[int]
    CANCEL_ASKED_FIELD_NUMBER: _ClassVar[int]
    ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    WAITING_FIELD_NUMBER: _ClassVar[int]
    spec: JobSpec
    state: JobState
    created_ms: int
    ended_ms: int
    cancel_asked: bool
    attempts: _containers.RepeatedCompositeFieldContainer[Attempt]
    waiting: Waiting
    def __init__(self, spec: _Optional[_Union[JobSpec, _Mapping]] = ..., state: _Optional[_Union[JobState, str]] = ..., created_ms: _Optional[int] = ..., ended_ms: _Optional[int] = ..., cancel_asked: bool = ..., attempts: _Optional[_Iterable[_Union[Attempt, _Mapping]]] = ..., waiting: _Optional[_Union[Waiting, _Mapping]] = ...) -> None: ...

class Waiting(_message.Message):
    __slots__ = ("until_ms", "paused", "limit", "rate", "turn")
    UNTIL_MS_FIELD_NUMBER: _ClassVar[int]
    PAUSED_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    RATE_FIELD_NUMBER: _ClassVar[int]
    TURN_FIELD_NUMBER: _ClassVar[int]
    until_ms: int
    paused: bool
    limit: LimitReached
    rate: RateReached
    turn: bool
    def __init__(self, until_ms: _Optional[int] = ..., paused: bool = ..., limit: _Optional[_Union[LimitReached, _Mapping]] = ..., rate: _Optional[_Union[RateReached, _Mapping]] = ..., turn: bool = ...) -> None: ...

class LimitReached(_message.Message):
    __slots__ = ("name", "running", "max")
    NAME_FIELD_NUMBER: _ClassVar[int]
    RUNNING_FIELD_NUMBER: _ClassVar[int]
    MAX_FIELD_NUMBER: _ClassVar[int]
    name: str
    running: int
    max: int
    def __init__(self, name: _Optional[str] = ..., running: _Optional[int] = ..., max: _Optional[int] = ...) -> None: ...

class RateReached(_message.Message):
    __slots__ = ("name", "at_ms")
    NAME_FIELD_NUMBER: _ClassVar[int]
    AT_MS_FIELD_NUMBER: _ClassVar[int]
    name: str
    at_ms: int
    def __init__(self, name: _Optional[str] = ..., at_ms: _Optional[int] = ...) -> None: ...

class Attempt(_message.Message):
    __slots__ = ("number", "worker", "started_ms", "ended_ms", "succeeded", "failed", "expired", "cancelled", "returned", "too_long")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    WORKER_FIELD_NUMBER: _ClassVar[int]
    STARTED_MS_FIELD_NUMBER: _ClassVar[int]
    ENDED_MS_FIELD_NUMBER: _ClassVar[int]
    SUCCEEDED_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    EXPIRED_FIELD_NUMBER: _ClassVar[int]
    CANCELLED_FIELD_NUMBER: _ClassVar[int]
    RETURNED_FIELD_NUMBER: _ClassVar[int]
    TOO_LONG_FIELD_NUMBER: _ClassVar[int]
    number: int
    worker: str
    started_ms: int
    ended_ms: int
    succeeded: bytes
    failed: JobError
    expired: bool
    cancelled: bool
    returned: bool
    too_long: bool
    def __init__(self, number: _Optional[int] = ..., worker: _Optional[str] = ..., started_ms: _Optional[int] = ..., ended_ms: _Optional[int] = ..., succeeded: _Optional[bytes] = ..., failed: _Optional[_Union[JobError, _Mapping]] = ..., expired: bool = ..., cancelled: bool = ..., returned: bool = ..., too_long: bool = ...) -> None: ...

class JobError(_message.Message):
    __slots__ = ("code", "message", "final")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    FINAL_FIELD_NUMBER: _ClassVar[int]
    code: str
    message: str
    final: bool
    def __init__(self, code: _Optional[str] = ..., message: _Optional[str] = ..., final: bool = ...) -> None: ...

class Failure(_message.Message):
    __slots__ = ("kind", "message")
    KIND_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    kind: FailureKind
    message: str
    def __init__(self, kind: _Optional[_Union[FailureKind, str]] = ..., message: _Optional[str] = ...) -> None: ...

class EnqueueJobsRequest(_message.Message):
    __slots__ = ("jobs",)
    JOBS_FIELD_NUMBER: _ClassVar[int]
    jobs: _containers.RepeatedCompositeFieldContainer[JobSpec]
    def __init__(self, jobs: _Optional[_Iterable[_Union[JobSpec, _Mapping]]] = ...) -> None: ...

class ImportJobsRequest(_message.Message):
    __slots__ = ("jobs",)
    JOBS_FIELD_NUMBER: _ClassVar[int]
    jobs: _containers.RepeatedCompositeFieldContainer[Job]
    def __init__(self, jobs: _Optional[_Iterable[_Union[Job, _Mapping]]] = ...) -> None: ...

class EnqueueJobsResponse(_message.Message):
    __slots__ = ("jobs",)
    JOBS_FIELD_NUMBER: _ClassVar[int]
    jobs: _containers.RepeatedCompositeFieldContainer[EnqueuedJob]
    def __init__(self, jobs: _Optional[_Iterable[_Union[EnqueuedJob, _Mapping]]] = ...) -> None: ...

class EnqueuedJob(_message.Message):
    __slots__ = ("id", "is_new", "failure")
    ID_FIELD_NUMBER: _ClassVar[int]
    IS_NEW_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    id: str
    is_new: bool
    failure: Failure
    def __init__(self, id: _Optional[str] = ..., is_new: bool = ..., failure: _Optional[_Union[Failure, _Mapping]] = ...) -> None: ...

class LeasedJob(_message.Message):
    __slots__ = ("lease", "expires_ms", "tenant", "id", "group", "attempt", "payload", "metadata", "lease_ms", "cancel_asked")
    class MetadataEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    LEASE_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_MS_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    GROUP_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    LEASE_MS_FIELD_NUMBER: _ClassVar[int]
    CANCEL_ASKED_FIELD_NUMBER: _ClassVar[int]
    lease: bytes
    expires_ms: int
    tenant: str
    id: str
    group: str
    attempt: int
    payload: bytes
    metadata: _containers.ScalarMap[str, str]
    lease_ms: int
    cancel_asked: bool
    def __init__(self, lease: _Optional[bytes] = ..., expires_ms: _Optional[int] = ..., tenant: _Optional[str] = ..., id: _Optional[str] = ..., group: _Optional[str] = ..., attempt: _Optional[int] = ..., payload: _Optional[bytes] = ..., metadata: _Optional[_Mapping[str, str]] = ..., lease_ms: _Optional[int] = ..., cancel_asked: bool = ...) -> None: ...

class Outcome(_message.Message):
    __slots__ = ("lease", "succeeded", "failed", "cancelled", "returned")
    LEASE_FIELD_NUMBER: _ClassVar[int]
    SUCCEEDED_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    CANCELLED_FIELD_NUMBER: _ClassVar[int]
    RETURNED_FIELD_NUMBER: _ClassVar[int]
    lease: bytes
    succeeded: bytes
    failed: JobError
    cancelled: bool
    returned: bool
    def __init__(self, lease: _Optional[bytes] = ..., succeeded: _Optional[bytes] = ..., failed: _Optional[_Union[JobError, _Mapping]] = ..., cancelled: bool = ..., returned: bool = ...) -> None: ...

class Reported(_message.Message):
    __slots__ = ("lease", "ended", "retry_at_ms", "failure")
    LEASE_FIELD_NUMBER: _ClassVar[int]
    ENDED_FIELD_NUMBER: _ClassVar[int]
    RETRY_AT_MS_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    lease: bytes
    ended: JobState
    retry_at_ms: int
    failure: Failure
    def __init__(self, lease: _Optional[bytes] = ..., ended: _Optional[_Union[JobState, str]] = ..., retry_at_ms: _Optional[int] = ..., failure: _Optional[_Union[Failure, _Mapping]] = ...) -> None: ...

class Beat(_message.Message):
    __slots__ = ("lease", "expires_ms", "cancel_asked", "failure")
    LEASE_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_MS_FIELD_NUMBER: _ClassVar[int]
    CANCEL_ASKED_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    lease: bytes
    expires_ms: int
    cancel_asked: bool
    failure: Failure
    def __init__(self, lease: _Optional[bytes] = ..., expires_ms: _Optional[int] = ..., cancel_asked: bool = ..., failure: _Optional[_Union[Failure, _Mapping]] = ...) -> None: ...

class WorkRequest(_message.Message):
    __slots__ = ("begin", "credits", "beats", "outcomes", "stop")
    BEGIN_FIELD_NUMBER: _ClassVar[int]
    CREDITS_FIELD_NUMBER: _ClassVar[int]
    BEATS_FIELD_NUMBER: _ClassVar[int]
    OUTCOMES_FIELD_NUMBER: _ClassVar[int]
    STOP_FIELD_NUMBER: _ClassVar[int]
    begin: WorkBegin
    credits: int
    beats: _containers.RepeatedScalarFieldContainer[bytes]
    outcomes: _containers.RepeatedCompositeFieldContainer[Outcome]
    stop: bool
    def __init__(self, begin: _Optional[_Union[WorkBegin, _Mapping]] = ..., credits: _Optional[int] = ..., beats: _Optional[_Iterable[bytes]] = ..., outcomes: _Optional[_Iterable[_Union[Outcome, _Mapping]]] = ..., stop: bool = ...) -> None: ...

class WorkBegin(_message.Message):
    __slots__ = ("group", "worker", "begins_with_beat")
    GROUP_FIELD_NUMBER: _ClassVar[int]
    WORKER_FIELD_NUMBER: _ClassVar[int]
    BEGINS_WITH_BEAT_FIELD_NUMBER: _ClassVar[int]
    group: str
    worker: str
    begins_with_beat: bool
    def __init__(self, group: _Optional[str] = ..., worker: _Optional[str] = ..., begins_with_beat: bool = ...) -> None: ...

class WorkResponse(_message.Message):
    __slots__ = ("jobs", "cancels", "beats", "reports")
    JOBS_FIELD_NUMBER: _ClassVar[int]
    CANCELS_FIELD_NUMBER: _ClassVar[int]
    BEATS_FIELD_NUMBER: _ClassVar[int]
    REPORTS_FIELD_NUMBER: _ClassVar[int]
    jobs: _containers.RepeatedCompositeFieldContainer[LeasedJob]
    cancels: _containers.RepeatedScalarFieldContainer[bytes]
    beats: _containers.RepeatedCompositeFieldContainer[Beat]
    reports: _containers.RepeatedCompositeFieldContainer[Reported]
    def __init__(self, jobs: _Optional[_Iterable[_Union[LeasedJob, _Mapping]]] = ..., cancels: _Optional[_Iterable[bytes]] = ..., beats: _Optional[_Iterable[_Union[Beat, _Mapping]]] = ..., reports: _Optional[_Iterable[_Union[Reported, _Mapping]]] = ...) -> None: ...

class LeaseJobsRequest(_message.Message):
    __slots__ = ("group", "worker", "max", "wait_ms")
    GROUP_FIELD_NUMBER: _ClassVar[int]
    WORKER_FIELD_NUMBER: _ClassVar[int]
    MAX_FIELD_NUMBER: _ClassVar[int]
    WAIT_MS_FIELD_NUMBER: _ClassVar[int]
    group: str
    worker: str
    max: int
    wait_ms: int
    def __init__(self, group: _Optional[str] = ..., worker: _Optional[str] = ..., max: _Optional[int] = ..., wait_ms: _Optional[int] = ...) -> None: ...

class LeaseJobsResponse(_message.Message):
    __slots__ = ("jobs",)
    JOBS_FIELD_NUMBER: _ClassVar[int]
    jobs: _containers.RepeatedCompositeFieldContainer[LeasedJob]
    def __init__(self, jobs: _Optional[_Iterable[_Union[LeasedJob, _Mapping]]] = ...) -> None: ...

class HeartbeatJobsRequest(_message.Message):
    __slots__ = ("leases",)
    LEASES_FIELD_NUMBER: _ClassVar[int]
    leases: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, leases: _Optional[_Iterable[bytes]] = ...) -> None: ...

class HeartbeatJobsResponse(_message.Message):
    __slots__ = ("beats",)
    BEATS_FIELD_NUMBER: _ClassVar[int]
    beats: _containers.RepeatedCompositeFieldContainer[Beat]
    def __init__(self, beats: _Optional[_Iterable[_Union[Beat, _Mapping]]] = ...) -> None: ...

class ReportJobsRequest(_message.Message):
    __slots__ = ("outcomes", "next")
    OUTCOMES_FIELD_NUMBER: _ClassVar[int]
    NEXT_FIELD_NUMBER: _ClassVar[int]
    outcomes: _containers.RepeatedCompositeFieldContainer[Outcome]
    next: LeaseJobsRequest
    def __init__(self, outcomes: _Optional[_Iterable[_Union[Outcome, _Mapping]]] = ..., next: _Optional[_Union[LeaseJobsRequest, _Mapping]] = ...) -> None: ...

class ReportJobsResponse(_message.Message):
    __slots__ = ("reports", "jobs")
    REPORTS_FIELD_NUMBER: _ClassVar[int]
    JOBS_FIELD_NUMBER: _ClassVar[int]
    reports: _containers.RepeatedCompositeFieldContainer[Reported]
    jobs: _containers.RepeatedCompositeFieldContainer[LeasedJob]
    def __init__(self, reports: _Optional[_Iterable[_Union[Reported, _Mapping]]] = ..., jobs: _Optional[_Iterable[_Union[LeasedJob, _Mapping]]] = ...) -> None: ...

class JobRequest(_message.Message):
    __slots__ = ("tenant", "id")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    id: str
    def __init__(self, tenant: _Optional[str] = ..., id: _Optional[str] = ...) -> None: ...

class AwaitJobsRequest(_message.Message):
    __slots__ = ("tenant", "ids")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, tenant: _Optional[str] = ..., ids: _Optional[_Iterable[str]] = ...) -> None: ...

class AwaitJobsResponse(_message.Message):
    __slots__ = ("id", "job", "failure")
    ID_FIELD_NUMBER: _ClassVar[int]
    JOB_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    id: str
    job: Job
    failure: Failure
    def __init__(self, id: _Optional[str] = ..., job: _Optional[_Union[Job, _Mapping]] = ..., failure: _Optional[_Union[Failure, _Mapping]] = ...) -> None: ...

class ListJobsRequest(_message.Message):
    __slots__ = ("tenant", "group", "state", "metadata_key", "metadata_value", "metadata_prefix", "limit", "after")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    GROUP_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    METADATA_KEY_FIELD_NUMBER: _ClassVar[int]
    METADATA_VALUE_FIELD_NUMBER: _ClassVar[int]
    METADATA_PREFIX_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    group: str
    state: JobState
    metadata_key: str
    metadata_value: str
    metadata_prefix: bool
    limit: int
    after: bytes
    def __init__(self, tenant: _Optional[str] = ..., group: _Optional[str] = ..., state: _Optional[_Union[JobState, str]] = ..., metadata_key: _Optional[str] = ..., metadata_value: _Optional[str] = ..., metadata_prefix: bool = ..., limit: _Optional[int] = ..., after: _Optional[bytes] = ...) -> None: ...

class ListJobsResponse(_message.Message):
    __slots__ = ("jobs", "next")
    JOBS_FIELD_NUMBER: _ClassVar[int]
    NEXT_FIELD_NUMBER: _ClassVar[int]
    jobs: _containers.RepeatedCompositeFieldContainer[Job]
    next: bytes
    def __init__(self, jobs: _Optional[_Iterable[_Union[Job, _Mapping]]] = ..., next: _Optional[bytes] = ...) -> None: ...

class CancelJobResponse(_message.Message):
    __slots__ = ("is_done",)
    IS_DONE_FIELD_NUMBER: _ClassVar[int]
    is_done: bool
    def __init__(self, is_done: bool = ...) -> None: ...

class RestartJobResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ExpediteJobResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class DeleteJobResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class SetJobPriorityRequest(_message.Message):
    __slots__ = ("tenant", "id", "priority")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    id: str
    priority: int
    def __init__(self, tenant: _Optional[str] = ..., id: _Optional[str] = ..., priority: _Optional[int] = ...) -> None: ...

class SetJobPriorityResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class TaskGroupRequest(_message.Message):
    __slots__ = ("group",)
    GROUP_FIELD_NUMBER: _ClassVar[int]
    group: str
    def __init__(self, group: _Optional[str] = ...) -> None: ...

class PauseJobsResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ResumeJobsResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetJobStatsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetJobStatsResponse(_message.Message):
    __slots__ = ("enqueued", "leased", "succeeded", "failed", "cancelled", "retried", "expired", "groups")
    ENQUEUED_FIELD_NUMBER: _ClassVar[int]
    LEASED_FIELD_NUMBER: _ClassVar[int]
    SUCCEEDED_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    CANCELLED_FIELD_NUMBER: _ClassVar[int]
    RETRIED_FIELD_NUMBER: _ClassVar[int]
    EXPIRED_FIELD_NUMBER: _ClassVar[int]
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    enqueued: int
    leased: int
    succeeded: int
    failed: int
    cancelled: int
    retried: int
    expired: int
    groups: _containers.RepeatedCompositeFieldContainer[TaskGroupStats]
    def __init__(self, enqueued: _Optional[int] = ..., leased: _Optional[int] = ..., succeeded: _Optional[int] = ..., failed: _Optional[int] = ..., cancelled: _Optional[int] = ..., retried: _Optional[int] = ..., expired: _Optional[int] = ..., groups: _Optional[_Iterable[_Union[TaskGroupStats, _Mapping]]] = ...) -> None: ...

class TaskGroupStats(_message.Message):
    __slots__ = ("group", "early", "ready", "running", "is_paused")
    GROUP_FIELD_NUMBER: _ClassVar[int]
    EARLY_FIELD_NUMBER: _ClassVar[int]
    READY_FIELD_NUMBER: _ClassVar[int]
    RUNNING_FIELD_NUMBER: _ClassVar[int]
    IS_PAUSED_FIELD_NUMBER: _ClassVar[int]
    group: str
    early: int
    ready: int
    running: int
    is_paused: bool
    def __init__(self, group: _Optional[str] = ..., early: _Optional[int] = ..., ready: _Optional[int] = ..., running: _Optional[int] = ..., is_paused: bool = ...) -> None: ...

class ListJobNodesRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListJobNodesResponse(_message.Message):
    __slots__ = ("nodes", "shards")
    NODES_FIELD_NUMBER: _ClassVar[int]
    SHARDS_FIELD_NUMBER: _ClassVar[int]
    nodes: _containers.RepeatedCompositeFieldContainer[JobNode]
    shards: _containers.RepeatedCompositeFieldContainer[JobShard]
    def __init__(self, nodes: _Optional[_Iterable[_Union[JobNode, _Mapping]]] = ..., shards: _Optional[_Iterable[_Union[JobShard, _Mapping]]] = ...) -> None: ...

class JobNode(_message.Message):
    __slots__ = ("database", "node", "host", "taken_ms", "is_here")
    DATABASE_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    TAKEN_MS_FIELD_NUMBER: _ClassVar[int]
    IS_HERE_FIELD_NUMBER: _ClassVar[int]
    database: str
    node: str
    host: str
    taken_ms: int
    is_here: bool
    def __init__(self, database: _Optional[str] = ..., node: _Optional[str] = ..., host: _Optional[str] = ..., taken_ms: _Optional[int] = ..., is_here: bool = ...) -> None: ...

class JobShard(_message.Message):
    __slots__ = ("number", "standing", "reason")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    STANDING_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    number: int
    standing: str
    reason: str
    def __init__(self, number: _Optional[int] = ..., standing: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class TakeOverJobsRequest(_message.Message):
    __slots__ = ("node",)
    NODE_FIELD_NUMBER: _ClassVar[int]
    node: str
    def __init__(self, node: _Optional[str] = ...) -> None: ...

class TakeOverJobsResponse(_message.Message):
    __slots__ = ("shards",)
    SHARDS_FIELD_NUMBER: _ClassVar[int]
    shards: _containers.RepeatedCompositeFieldContainer[JobShard]
    def __init__(self, shards: _Optional[_Iterable[_Union[JobShard, _Mapping]]] = ...) -> None: ...
