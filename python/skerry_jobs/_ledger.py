"""What a worker has, what it still has to say, and what it says next.

Decides, and does nothing: no threads, no sockets, no clock (times are seconds of one that never goes back).
The worker keeps one ledger over all its connections, and calls it under a lock. What must hold:

* So many credits are out as there are free handlers, and none while too many outcomes wait for their answer.
* An outcome is kept, byte for byte, until it is answered. On each new connection it is said again: the node
  answers a repeated report as it did the first. What the node can't keep now is not answered, and is said again
  a while later. A connection is never given up for that, as the jobs of other shards go on over it.
* The first sign of life of a job says that its handler begins: a worker that is frozen before fails no attempt.
* A job whose lease is lost is never spoken of again, but holds its handler until that returns.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from typing import Deque, Dict, List, Optional

from ._channel import MESSAGE_BYTES_MAX
from ._proto import jobs_pb2 as pb
from .leased import LeasedJob

_log = logging.getLogger("skerry_jobs")

#: The most credits that a node takes, and so the most jobs at once.
CONCURRENCY_MAX = 10_000

#: No more jobs are taken while so many outcomes are not answered: each may hold a result of 1 MiB.
UNANSWERED_MAX = 256

#: Outcomes in one message, as many as a node takes.
OUTCOMES_MAX = 10_000

#: How long it keeps to itself what the node could not keep, seconds: less than the time for last words.
SAY_AGAIN_SECONDS = 10.0

#: A sign of life is given so many times in a lease.
BEATS_PER_LEASE = 3

#: How long a worker that stops tries to say its last outcomes, seconds. Then the leases run out.
LAST_WORDS_SECONDS = 30.0


class _Held:
    """A job whose lease is not known to be lost, and that has not come to its outcome."""

    def __init__(self, job: LeasedJob) -> None:
        self.job = job
        self.every = job.lease / BEATS_PER_LEASE
        #: None until it begins, or its connection is gone: the first sign of life says that it begins.
        self.beat_at: Optional[float] = None


class Ledger:
    """The worker's side of the protocol."""

    def __init__(self, group: str, name: str, concurrency: int) -> None:
        self._begin = pb.WorkBegin(group=group, worker=name, begins_with_beat=True)
        self._concurrency = concurrency
        self._held: Dict[bytes, _Held] = {}
        #: Handlers that have a job, or are about to; also those whose lease was lost.
        self._busy = 0
        #: Outcomes that were not answered, oldest first.
        self._unanswered: Dict[bytes, pb.Outcome] = {}
        # Of the present connection: what it has not been told, and what it was.
        self._unsaid: Deque[bytes] = deque()
        #: What the node could not keep, and when it is said again; None until that is known.
        self._put_off: List[bytes] = []
        self._again_at: Optional[float] = None
        self._credits = 0
        self._has_begun = False
        self._has_said_stop = False
        #: Whether it takes no more.
        self.is_stopping = False
        self._idle_since: Optional[float] = None

    # What happens.

    def connected(self, now: float) -> None:
        """A connection begins: it knows nothing of the one before."""
        self._unsaid = deque(self._unanswered)
        self._put_off, self._again_at = [], None
        self._credits = 0
        self._has_begun = False
        self._has_said_stop = False
        for held in self._held.values():
            held.beat_at = now

    def heard(self, response: pb.WorkResponse) -> List[LeasedJob]:
        """The node spoke: returns the jobs to begin."""
        for lease in response.cancels:
            self._cancel(lease)
        for beat in response.beats:
            self._hear_beat(beat)
        for report in response.reports:
            self._hear_report(report)
        return [job for job in map(LeasedJob, response.jobs) if self._take(job)]

    def begin(self, job: LeasedJob) -> bool:
        """A handler is ready for a job: that is said at once. False if it should not begin any more; then that is."""
        if job.lost:
            self._free()
        elif job.cancelled.is_set():
            self._conclude(job, pb.Outcome(cancelled=True))
        elif self.is_stopping:
            self._conclude(job, pb.Outcome(returned=True))
        else:
            held = self._held.get(job._lease_token)
            if held:
                held.beat_at = -math.inf
            return True
        return False

    def end(self, job: LeasedJob, outcome: pb.Outcome) -> None:
        """A handler is done with a job."""
        if job.lost:
            _log.warning("%r: its lease was lost, so its outcome is dropped", job)
            self._free()
        else:
            self._conclude(job, outcome)

    def stop(self) -> None:
        """The worker takes no more."""
        self.is_stopping = True

    # What follows.

    @property
    def is_done(self) -> bool:
        """Whether it has stopped, nothing runs, and all that was said is answered."""
        return self.is_stopping and self._busy == 0 and not self._unanswered

    def last_words_end(self, now: float) -> Optional[float]:
        """Until when outcomes that were not answered are worth waiting for; None while work goes on."""
        if not self.is_stopping or self._busy > 0:
            self._idle_since = None
            return None
        if self._idle_since is None:
            self._idle_since = now
        return self._idle_since + LAST_WORDS_SECONDS

    def next_request(self, now: float) -> Optional[pb.WorkRequest]:
        """What to say now, if anything."""
        self._take_up_again(now)
        credits = self._free_credits()
        request = pb.WorkRequest(
            begin=None if self._has_begun else self._begin,
            credits=credits,
            beats=self._due_beats(now),
            outcomes=self._next_outcomes(),
            stop=self.is_stopping and not self._has_said_stop,
        )
        if not request.ByteSize():
            return None
        self._has_begun = True
        self._has_said_stop = self.is_stopping
        self._credits += credits
        return request

    def next_at(self) -> Optional[float]:
        """When there is something to say even if nothing happens."""
        times = [held.beat_at for held in self._held.values()] + [self._again_at]
        return min((at for at in times if at is not None), default=None)

    def unanswered(self) -> int:
        """How many outcomes were not answered."""
        return len(self._unanswered)

    def lose_all(self) -> None:
        """The worker gives up: nothing that it still does counts."""
        for lease in list(self._held):
            self._lose(lease, "the worker gave up")
        self._unanswered.clear()

    # How.

    def _take(self, job: LeasedJob) -> bool:
        self._credits = max(0, self._credits - 1)
        self._busy += 1
        self._held[job._lease_token] = _Held(job)
        return not self.is_stopping or self.begin(job)

    def _free_credits(self) -> int:
        if self.is_stopping or len(self._unanswered) >= UNANSWERED_MAX:
            return 0
        return max(0, self._concurrency - self._busy - self._credits)

    def _due_beats(self, now: float) -> List[bytes]:
        due = [lease for lease, held in self._held.items() if held.beat_at is not None and held.beat_at <= now]
        for lease in due:
            self._held[lease].beat_at = now + self._held[lease].every
        return due

    def _take_up_again(self, now: float) -> None:
        if self._put_off and self._again_at is None:
            self._again_at = now + SAY_AGAIN_SECONDS
        elif self._again_at is not None and self._again_at <= now:
            self._unsaid.extend(self._put_off)
            self._put_off, self._again_at = [], None

    def _next_outcomes(self) -> List[pb.Outcome]:
        outcomes: List[pb.Outcome] = []
        bytes_left = MESSAGE_BYTES_MAX
        while self._unsaid and len(outcomes) < OUTCOMES_MAX:
            outcome = self._unanswered.get(self._unsaid[0])
            if outcome is not None:
                bytes_left -= outcome.ByteSize()
                if bytes_left < 0 and outcomes:
                    break
                outcomes.append(outcome)
            self._unsaid.popleft()
        return outcomes

    def _conclude(self, job: LeasedJob, outcome: pb.Outcome) -> None:
        self._held.pop(job._lease_token, None)
        self._free()
        outcome.lease = job._lease_token
        self._say(outcome)

    def _say(self, outcome: pb.Outcome) -> None:
        self._unanswered[outcome.lease] = outcome
        self._unsaid.append(outcome.lease)

    def _free(self) -> None:
        self._busy -= 1

    def _cancel(self, lease: bytes) -> None:
        held = self._held.get(lease)
        if held:
            held.job._cancel()

    def _hear_beat(self, beat: pb.Beat) -> None:
        if beat.HasField("failure"):
            # What the node can't look at now, it may be able to look at for the next sign of life.
            if beat.failure.kind != pb.FAILURE_KIND_UNAVAILABLE:
                self._lose(beat.lease, beat.failure.message)
        elif beat.cancel_asked:
            self._cancel(beat.lease)

    def _lose(self, lease: bytes, why: str) -> None:
        held = self._held.pop(lease, None)
        if held:
            _log.warning("%r: its lease was lost: %s", held.job, why)
            held.job.lost = True
            held.job._cancel()

    def _hear_report(self, report: pb.Reported) -> None:
        failure = report.failure if report.HasField("failure") else None
        # A shard is away, or could not look this up: it is said again later, or over the next connection.
        if failure and failure.kind == pb.FAILURE_KIND_UNAVAILABLE:
            self._put_off.append(report.lease)
            return
        outcome = self._unanswered.pop(report.lease, None)
        if outcome is None or failure is None:
            return
        if failure.kind == pb.FAILURE_KIND_INVALID and outcome.WhichOneof("end") == "succeeded":
            # Of a result that the node does not take, the job must not hang until its lease is over.
            failed = pb.JobError(code="InvalidResult", message=failure.message)
            self._say(pb.Outcome(lease=report.lease, failed=failed))
        else:
            _log.warning("an outcome was not taken: %s", failure.message)
