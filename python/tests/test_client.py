"""What a client asks of a node, and what it makes of the answers."""

from __future__ import annotations

import threading
import unittest
from datetime import datetime, timedelta, timezone
from typing import Any
from unittest import mock

import grpc

import skerry_jobs
from skerry_jobs import (
    Attempt,
    Client,
    Concurrency,
    Conflict,
    End,
    Exists,
    Failure,
    Floating,
    GroupStats,
    Invalid,
    JobCancelled,
    JobFailed,
    JobSpec,
    LeaseLost,
    NotFound,
    Rate,
    Retry,
    State,
    Unavailable,
    Waiting,
    WaitsFor,
)
from skerry_jobs._proto import jobs_pb2 as pb

from .fake_node import PATIENCE, FakeNode

NOON = datetime(2026, 1, 1, 12, tzinfo=timezone.utc)
NOON_MS = 1_767_268_800_000

SPEC = JobSpec(
    payload=b"\0payload",
    id="i",
    tenant="t",
    group="g",
    priority=0,
    start_at=NOON,
    metadata={"k": "v"},
    retry=Retry(retries=0, initial=0.5, longest=60.0, factor=1.5, jitter=0.0),
    lease=2.5,
    limits=(Concurrency("a", 1), Floating("b", 2, 60.0, "limits"), Rate("c", 5, per=0.5, burst=3)),
    max_run=600.0,
)
SPEC_SENT = pb.JobSpec(
    payload=b"\0payload",
    id="i",
    tenant="t",
    group="g",
    priority=0,
    start_at_ms=NOON_MS,
    metadata={"k": "v"},
    retry=pb.RetryPolicy(retries=0, initial_ms=500, max_ms=60_000, factor_percent=150, jitter_percent=0),
    lease_ms=2500,
    limits=[
        pb.Limit(name="a", concurrency=pb.ConcurrencyLimit(max=1)),
        pb.Limit(name="b", floating=pb.FloatingLimit(initial=2, refresh_ms=60_000, group="limits")),
        pb.Limit(name="c", rate=pb.RateLimit(count=5, per_ms=500, burst=3)),
    ],
    max_run_ms=600_000,
)


def job(state: int, **last: Any) -> pb.Job:
    """A job after two attempts: one that expired, and one that ended so."""
    attempts = [
        pb.Attempt(number=1, worker="a", started_ms=NOON_MS, ended_ms=NOON_MS + 2500, expired=True),
        pb.Attempt(number=2, worker="b", started_ms=NOON_MS + 3000, ended_ms=NOON_MS + 4000, **last),
    ]
    return pb.Job(spec=SPEC_SENT, state=state, created_ms=NOON_MS, ended_ms=NOON_MS + 4000, attempts=attempts)


class Addresses(unittest.TestCase):
    def test_no_proxy_stands_between_a_client_and_its_own_host(self) -> None:
        local = ("unix:/run/api.sock", "127.0.0.1:1", "tcp:127.9.0.1:1", "localhost:1", "[::1]:1")
        for address, is_direct in [(one, True) for one in local] + [("node.example:1", False), ("192.0.2.1:1", False)]:
            with self.subTest(address), mock.patch("grpc.insecure_channel") as opened:
                Client(address)
                options = dict(opened.call_args.kwargs["options"])
                self.assertEqual(options.get("grpc.enable_http_proxy"), 0 if is_direct else None)

    def test_a_proxy_of_the_environment_is_not_asked(self) -> None:
        node = FakeNode("127.0.0.1:0")
        self.addCleanup(node.close)
        node.on["ShowJob"] = lambda request, context: job(pb.JOB_STATE_SUCCEEDED, succeeded=b"")
        with mock.patch.dict("os.environ", grpc_proxy="http://127.0.0.1:9"), Client(node.address, timeout=PATIENCE) as client:
            self.assertIs(client.show("i").state, State.SUCCEEDED)

    def test_what_is_no_address_is_invalid(self) -> None:
        with self.assertRaises(Invalid):
            Client(8080)  # type: ignore[arg-type]


class ClientTest(unittest.TestCase):
    def setUp(self) -> None:
        self.node = FakeNode()
        self.addCleanup(self.node.close)
        self.client = Client(self.node.address)
        self.addCleanup(self.client.close)

    def answer(self, method: str, response: Any) -> None:
        self.node.on[method] = lambda request, context: response

    def refuse(self, method: str, code: grpc.StatusCode) -> None:
        self.node.on[method] = lambda request, context: context.abort(code, "because")

    def asked(self, method: str) -> Any:
        [request] = self.node.requests.pop(method)
        return request


class Enqueueing(ClientTest):
    def take_all(self, request: Any, context: grpc.ServicerContext) -> pb.EnqueueJobsResponse:
        return pb.EnqueueJobsResponse(jobs=[pb.EnqueuedJob(id=spec.id or "_0000000000000001", is_new=True) for spec in request.jobs])

    def setUp(self) -> None:
        super().setUp()
        self.node.on["EnqueueJobs"] = self.take_all

    def test_every_field_is_sent(self) -> None:
        fields = {name: getattr(SPEC, name) for name in SPEC.__dataclass_fields__}
        self.assertEqual(self.client.enqueue(**fields), "i")
        self.assertEqual(self.asked("EnqueueJobs"), pb.EnqueueJobsRequest(jobs=[SPEC_SENT]))

    def test_what_is_not_said_is_left_to_the_node(self) -> None:
        self.assertEqual(self.client.enqueue("text"), "_0000000000000001")
        sent = pb.JobSpec(payload=b"text", tenant="default", group="default")
        self.assertEqual(self.asked("EnqueueJobs").jobs[0], sent)

    def test_a_time_without_a_zone_and_a_negative_duration_are_refused(self) -> None:
        with self.assertRaisesRegex(Invalid, "time zone"):
            self.client.enqueue(start_at=datetime(2026, 1, 1))
        with self.assertRaisesRegex(Invalid, "not negative"):
            self.client.enqueue(lease=-1)

    def test_what_fits_into_no_message_is_refused_as_invalid(self) -> None:
        for fields in (
            {"id": 7},
            {"payload": 7},
            {"payload": "caf\udce9"},
            {"metadata": {"k": 1}},
            {"metadata": 5},
            {"priority": -1},
            {"priority": "first"},
            {"lease": float("inf")},
            {"lease": float("nan")},
            {"lease": 1e12},
            {"lease": "long"},
            {"start_at": "tomorrow"},
            {"retry": Retry(retries=1 << 40)},
            {"retry": 3},
            {"limits": ["smtp"]},
        ):
            with self.subTest(**fields), self.assertRaises(Invalid):
                self.client.enqueue(**fields)
        self.assertNotIn("EnqueueJobs", self.node.requests)

    def test_what_is_not_sent_is_told_of_in_its_place(self) -> None:
        specs = [JobSpec(id="a"), JobSpec(payload=7), JobSpec(id="b"), JobSpec(priority=-1)]
        enqueued = self.client.enqueue_many(specs)
        self.assertEqual([one.id for one in enqueued], ["a", "", "b", ""])
        self.assertEqual([isinstance(one.error, Invalid) for one in enqueued], [False, True, False, True])

    def test_times_far_away_are_sent(self) -> None:
        for time in (datetime.min, datetime(1969, 1, 1), datetime.max):
            self.client.enqueue(start_at=time.replace(tzinfo=timezone.utc))
        past, before, far = (request.jobs[0].start_at_ms for request in self.node.requests["EnqueueJobs"])
        self.assertEqual((past, before), (1, 1))
        self.assertGreater(far, NOON_MS)

    def test_a_job_that_is_refused_keeps_no_other_from_being_taken(self) -> None:
        failure = pb.Failure(kind=pb.FAILURE_KIND_INVALID, message="priority 100")
        answers = [pb.EnqueuedJob(id="a", is_new=False), pb.EnqueuedJob(failure=failure)]
        self.answer("EnqueueJobs", pb.EnqueueJobsResponse(jobs=answers))
        first, second = self.client.enqueue_many([JobSpec(id="a"), JobSpec(priority=100)])
        self.assertEqual((first.id, first.is_new, first.error), ("a", False, None))
        self.assertIsInstance(second.error, Invalid)
        self.answer("EnqueueJobs", pb.EnqueueJobsResponse(jobs=answers[1:]))
        with self.assertRaisesRegex(Invalid, "priority 100"):
            self.client.enqueue(priority=100)

    def test_many_jobs_are_sent_in_messages_that_a_node_takes(self) -> None:
        large = [JobSpec(b"x" * (1 << 20), id=str(number)) for number in range(7)]
        small = [JobSpec(id=str(number)) for number in range(7, 2500)]
        ids = [enqueued.id for enqueued in self.client.enqueue_many(large + small)]
        self.assertEqual(ids, [str(number) for number in range(2500)])
        self.assertEqual(len(self.node.requests["EnqueueJobs"]), 6)


class AwaitingEnds(ClientTest):
    def test_the_result(self) -> None:
        ended = pb.AwaitJobsResponse(id="i", job=job(pb.JOB_STATE_SUCCEEDED, succeeded=b"out"))
        self.answer("AwaitJobs", [ended])
        self.assertEqual(self.client.result("i", "t"), b"out")
        self.assertEqual(self.asked("AwaitJobs"), pb.AwaitJobsRequest(tenant="t", ids=["i"]))

    def test_a_job_that_came_to_another_end_is_an_error(self) -> None:
        failed = pb.JobError(code="Bounced", message="no such address", final=True)
        for ended, error, text in [
            (job(pb.JOB_STATE_FAILED, failed=failed), JobFailed, "Bounced: no such address"),
            (job(pb.JOB_STATE_FAILED, expired=True), JobFailed, "no sign of life"),
            (job(pb.JOB_STATE_CANCELLED, cancelled=True), JobCancelled, "was cancelled"),
        ]:
            self.answer("AwaitJobs", [pb.AwaitJobsResponse(id="i", job=ended)])
            with self.assertRaisesRegex(error, text):
                self.client.result("i", "t")
        failure = pb.Failure(kind=pb.FAILURE_KIND_NOT_FOUND, message="no job i")
        self.answer("AwaitJobs", [pb.AwaitJobsResponse(id="i", failure=failure)])
        with self.assertRaisesRegex(NotFound, "no job i"):
            self.client.result("i", "t")

    def test_a_node_that_goes_away_is_asked_again_for_what_is_left(self) -> None:
        def answer(request: Any, context: grpc.ServicerContext) -> Any:
            ended = job(pb.JOB_STATE_SUCCEEDED, succeeded=b"")
            yield pb.AwaitJobsResponse(id=request.ids[0], job=ended)
            if len(request.ids) > 1:
                context.abort(grpc.StatusCode.UNAVAILABLE, "going away")

        self.node.on["AwaitJobs"] = answer
        awaited = [awaited.id for awaited in self.client.await_jobs(["c", "a", "b"])]
        self.assertEqual(awaited, ["a", "b", "c"])

    def test_a_node_that_opens_its_jobs_again_is_asked_again(self) -> None:
        not_now = pb.Failure(kind=pb.FAILURE_KIND_UNAVAILABLE, message="jobs are being opened")
        ended = job(pb.JOB_STATE_SUCCEEDED, succeeded=b"out")
        answers = iter([
            [pb.AwaitJobsResponse(id="i", failure=not_now)],
            [pb.AwaitJobsResponse(id="i", job=ended)],
        ])
        self.node.on["AwaitJobs"] = lambda request, context: next(answers)
        self.assertEqual(self.client.result("i"), b"out")

    def test_patience_ends(self) -> None:
        def answer(request: Any, context: grpc.ServicerContext) -> Any:
            ended = threading.Event()
            context.add_callback(ended.set)
            ended.wait(PATIENCE)
            return []

        self.node.on["AwaitJobs"] = answer
        with self.assertRaisesRegex(TimeoutError, "1 jobs"):
            self.client.result("i", timeout=0.2)


class Looking(ClientTest):
    def test_a_time_past_what_python_can_tell_hides_no_other_job(self) -> None:
        far = pb.Job(spec=pb.JobSpec(id="far", start_at_ms=(1 << 64) - 1), state=pb.JOB_STATE_SCHEDULED)
        self.answer("ListJobs", pb.ListJobsResponse(jobs=[far, job(pb.JOB_STATE_SUCCEEDED, succeeded=b"")]))
        first, second = self.client.list()
        self.assertEqual(first.spec.start_at, datetime.max.replace(tzinfo=timezone.utc))
        self.assertEqual(second.spec.id, "i")

    def test_what_can_not_be_asked_for_is_invalid(self) -> None:
        for ask in (
            lambda: self.client.show(7),  # type: ignore[arg-type]
            lambda: self.client.pause(None or 3),  # type: ignore[arg-type]
            lambda: self.client.set_priority("i", "x"),  # type: ignore[arg-type]
            lambda: list(self.client.list(state="running")),  # type: ignore[arg-type]
            lambda: list(self.client.list(page=-1)),
            lambda: list(self.client.list(metadata={"k": 1})),  # type: ignore[dict-item]
            lambda: list(self.client.await_jobs([1, "a"])),  # type: ignore[list-item]
        ):
            with self.assertRaises(Invalid):
                ask()

    def test_a_job(self) -> None:
        failed = pb.JobError(code="Bounced", message="no such address", final=True)
        self.answer("ShowJob", job(pb.JOB_STATE_FAILED, failed=failed))
        shown = self.client.show("i", "t")
        self.assertEqual(self.asked("ShowJob"), pb.JobRequest(tenant="t", id="i"))
        self.assertEqual(shown.spec, SPEC)
        self.assertEqual((shown.id, shown.tenant, shown.state), ("i", "t", State.FAILED))
        self.assertEqual((shown.created, shown.ended), (NOON, NOON + timedelta(seconds=4)))
        self.assertEqual(shown.failure, Failure("Bounced", "no such address", final=True))
        self.assertIsNone(shown.result)
        expired = Attempt(1, "a", NOON, NOON + timedelta(seconds=2.5), End.EXPIRED)
        self.assertEqual(shown.attempts[0], expired)
        self.assertEqual(shown.attempts[1].end, End.FAILED)

    def test_why_a_job_waits(self) -> None:
        limit = pb.LimitReached(name="api", running=3, max=2)
        rate = pb.RateReached(name="mail", at_ms=NOON_MS)
        for sent, waiting in (
            (pb.Waiting(until_ms=NOON_MS), Waiting(WaitsFor.TIME, until=NOON)),
            (pb.Waiting(paused=True), Waiting(WaitsFor.PAUSED)),
            (pb.Waiting(limit=limit), Waiting(WaitsFor.LIMIT, limit="api", running=3, max=2)),
            (pb.Waiting(rate=rate), Waiting(WaitsFor.RATE, until=NOON, limit="mail")),
            (pb.Waiting(turn=True), Waiting(WaitsFor.TURN)),
            (pb.Waiting(), None),
            (None, None),
        ):
            self.answer("ShowJob", pb.Job(spec=SPEC_SENT, state=pb.JOB_STATE_SCHEDULED, waiting=sent))
            self.assertEqual(self.client.show("i", "t").waiting, waiting)

    def test_a_listing_is_read_page_by_page(self) -> None:
        def answer(request: Any, context: grpc.ServicerContext) -> pb.ListJobsResponse:
            page = int(request.after or b"0")
            one = job(pb.JOB_STATE_SUCCEEDED, succeeded=b"%d" % page)
            # The second page is empty, and not the last.
            return pb.ListJobsResponse(jobs=[one] * (page != 1), next=b"%d" % (page + 1) if page < 2 else b"")

        self.node.on["ListJobs"] = answer
        listed = self.client.list(
            tenant="t", group="g", state=State.SUCCEEDED, metadata={"k": "v"}, metadata_prefix=True, page=1
        )
        self.assertEqual([one.result for one in listed], [b"0", b"2"])
        first = self.node.requests["ListJobs"][0]
        sent = pb.ListJobsRequest(tenant="t", group="g", state=pb.JOB_STATE_SUCCEEDED, limit=1)
        sent.metadata_key, sent.metadata_value, sent.metadata_prefix = "k", "v", True
        self.assertEqual(first, sent)
        with self.assertRaises(Invalid):
            self.client.list(tenant="t", metadata={"a": "", "b": ""})

    def test_the_figures(self) -> None:
        group = pb.TaskGroupStats(group="g", early=1, ready=2, running=3, is_paused=True)
        self.answer("GetJobStats", pb.GetJobStatsResponse(enqueued=7, expired=1, groups=[group]))
        stats = self.client.stats()
        self.assertEqual((stats.enqueued, stats.leased, stats.expired), (7, 0, 1))
        self.assertEqual(stats.groups, (GroupStats("g", early=1, ready=2, running=3, is_paused=True),))


class Doing(ClientTest):
    def test_each_asks_for_what_it_says(self) -> None:
        one = pb.JobRequest(tenant="t", id="i")
        priority = pb.SetJobPriorityRequest(tenant="t", id="i", priority=7)
        group = pb.TaskGroupRequest(group="g")
        for method, response, call, request in [
            ("RestartJob", pb.RestartJobResponse(), lambda: self.client.restart("i", "t"), one),
            ("ExpediteJob", pb.ExpediteJobResponse(), lambda: self.client.expedite("i", "t"), one),
            ("DeleteJob", pb.DeleteJobResponse(), lambda: self.client.delete("i", "t"), one),
            ("SetJobPriority", pb.SetJobPriorityResponse(), lambda: self.client.set_priority("i", 7, "t"), priority),
            ("PauseJobs", pb.PauseJobsResponse(), lambda: self.client.pause("g"), group),
            ("ResumeJobs", pb.ResumeJobsResponse(), lambda: self.client.resume("g"), group),
        ]:
            self.answer(method, response)
            self.assertIsNone(call())
            self.assertEqual(self.asked(method), request)
        self.answer("CancelJob", pb.CancelJobResponse(is_done=True))
        self.assertTrue(self.client.cancel("i", "t"))
        self.assertEqual(self.asked("CancelJob"), one)

    def test_what_goes_wrong_says_what_to_do(self) -> None:
        for code, error in [
            (grpc.StatusCode.INVALID_ARGUMENT, Invalid),
            (grpc.StatusCode.NOT_FOUND, NotFound),
            (grpc.StatusCode.ALREADY_EXISTS, Exists),
            (grpc.StatusCode.FAILED_PRECONDITION, Conflict),
            (grpc.StatusCode.UNAVAILABLE, Unavailable),
            (grpc.StatusCode.DATA_LOSS, skerry_jobs.Corrupt),
            (grpc.StatusCode.INTERNAL, skerry_jobs.Internal),
            (grpc.StatusCode.UNKNOWN, skerry_jobs.Internal),
        ]:
            self.refuse("RestartJob", code)
            with self.assertRaisesRegex(error, "because"):
                self.client.restart("i")

    def test_every_kind_of_failure_has_its_class(self) -> None:
        kinds = {kind for kind in pb.FailureKind.values() if kind != pb.FAILURE_KIND_UNSPECIFIED}
        self.assertEqual(set(skerry_jobs.errors._KINDS), kinds)
        lost = skerry_jobs.errors.of_failure(pb.Failure(kind=pb.FAILURE_KIND_LEASE_LOST, message="x"))
        self.assertIsInstance(lost, LeaseLost)

    def test_a_node_that_is_not_there_is_unavailable(self) -> None:
        with Client("unix:/nowhere/api.sock") as client, self.assertRaises(Unavailable):
            client.stats()
