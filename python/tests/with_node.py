"""The client and the worker with a real node: SKERRY_ADDRESS=unix:… python -m unittest tests.with_node

Not found by `test`; crates/skerry/tests/real/jobs.rs starts the node and runs it. Task groups are each test's own.
"""

from __future__ import annotations

import asyncio
import logging
import os
import queue
import threading
import unittest
from datetime import datetime, timedelta, timezone
from typing import Any, Callable, List

from skerry_jobs import (
    Cancelled,
    Client,
    Concurrency,
    Conflict,
    End,
    Final,
    Floating,
    Invalid,
    Job,
    JobCancelled,
    JobFailed,
    JobSpec,
    LeasedJob,
    NotFound,
    Rate,
    Retry,
    State,
    Waiting,
    WaitsFor,
    Worker,
)

PATIENCE = 60.0
LATER = datetime.now(timezone.utc).replace(microsecond=0) + timedelta(days=1)


class WithNode(unittest.TestCase):
    def setUp(self) -> None:
        logging.disable(logging.ERROR)
        self.address = os.environ["SKERRY_ADDRESS"]
        self.group = self.id()
        self.client = Client(self.address)
        self.addCleanup(self.client.close)

    def work(self, handler: Callable[[LeasedJob], Any], concurrency: int = 1) -> Worker:
        worker = Worker(self.address, self.group, handler, concurrency=concurrency, name="tester")
        worker.start()
        self.addCleanup(lambda: self.assertTrue(worker.join(PATIENCE)))
        self.addCleanup(worker.stop)
        return worker

    def enqueue(self, payload: str = "", **fields: Any) -> str:
        return self.client.enqueue(payload, group=self.group, **fields)

    def result(self, id: str) -> bytes:
        return self.client.result(id, timeout=PATIENCE)

    def list(self, **fields: Any) -> List[Job]:
        return list(self.client.list(group=self.group, **fields))

    def test_a_job_comes_back_as_it_was_enqueued(self) -> None:
        spec = JobSpec(
            payload=b"\0\xff",
            id=self.group,
            tenant="tester",
            group=self.group,
            priority=7,
            start_at=LATER,
            metadata={"user": "42"},
            retry=Retry(retries=5, initial=0.25, longest=10.0, factor=1.5, jitter=0.2),
            lease=2.5,
            limits=(Concurrency("a", 1), Floating("b", 2, 60.0, "limits"), Rate("c", 5, per=0.5, burst=3)),
            max_run=600.0,
        )
        [enqueued] = self.client.enqueue_many([spec])
        self.assertEqual((enqueued.id, enqueued.is_new, enqueued.error), (spec.id, True, None))
        [again] = self.client.enqueue_many([spec])
        self.assertEqual((again.id, again.is_new, again.error), (spec.id, False, None))
        job = self.client.show(self.group, "tester")
        self.assertEqual((job.spec, job.state, job.ended, job.attempts), (spec, State.SCHEDULED, None, ()))
        self.assertEqual(job.waiting, Waiting(WaitsFor.TIME, until=LATER))
        [listed] = self.client.list(tenant="tester", metadata={"user": "4"}, metadata_prefix=True)
        self.assertEqual(listed.id, self.group)

    def test_what_a_handler_does_becomes_of_the_job(self) -> None:
        def handler(job: LeasedJob) -> bytes:
            if job.payload == b"final":
                raise Final("no use", code="Hopeless")
            if job.payload == b"again" and job.attempt < 3:
                raise OSError("try again")
            if job.payload == b"cancelled":
                raise Cancelled
            return b"of " + job.payload

        self.work(handler, concurrency=4)
        retry = Retry(initial=0.01)
        self.assertEqual(self.result(self.enqueue("once")), b"of once")
        again = self.enqueue("again", retry=retry)
        self.assertEqual(self.result(again), b"of again")
        attempts = self.client.show(again).attempts
        self.assertEqual([attempt.end for attempt in attempts], [End.FAILED, End.FAILED, End.SUCCEEDED])
        self.assertEqual((attempts[0].number, attempts[0].worker), (1, "tester"))
        failure = attempts[0].failure
        self.assertEqual(failure and (failure.code, failure.message), ("OSError", "try again"))
        with self.assertRaisesRegex(JobFailed, "Hopeless: no use"):
            self.result(self.enqueue("final"))
        with self.assertRaises(JobCancelled):
            self.result(self.enqueue("cancelled"))

    def test_a_coroutine_reads_json_and_hears_of_a_cancellation(self) -> None:
        begun = threading.Event()

        async def handler(job: LeasedJob) -> Any:
            request = job.json()
            if request == ["wait"]:
                begun.set()
                await asyncio.Event().wait()
            return {"got": request}

        self.work(handler, concurrency=2)
        id = self.client.enqueue({"n": 1}, group=self.group)
        self.assertEqual(self.result(id), b'{"got":{"n":1}}')
        id = self.client.enqueue(["wait"], group=self.group)
        self.assertTrue(begun.wait(PATIENCE))
        self.assertFalse(self.client.cancel(id))
        with self.assertRaises(JobCancelled):
            self.result(id)

    def test_a_result_as_large_as_may_be(self) -> None:
        self.work(lambda job: b"x" * (1 << 20), concurrency=8)
        ids = [self.enqueue("y" * (1 << 20)) for _ in range(8)]
        self.assertEqual({len(self.result(id)) for id in ids}, {1 << 20})

    def test_a_job_is_called_off_while_it_waits_and_while_it_runs(self) -> None:
        waiting = self.enqueue(start_at=LATER)
        self.assertTrue(self.client.cancel(waiting))
        self.assertIs(self.client.show(waiting).state, State.CANCELLED)

        begun = threading.Event()

        def handler(job: LeasedJob) -> None:
            begun.set()
            if job.cancelled.wait(PATIENCE):
                raise Cancelled

        self.work(handler)
        running = self.enqueue()
        self.assertTrue(begun.wait(PATIENCE))
        self.assertFalse(self.client.cancel(running))
        with self.assertRaises(JobCancelled):
            self.result(running)

    def test_a_job_that_waits_or_has_ended_is_changed(self) -> None:
        id = self.enqueue(start_at=LATER)
        self.client.set_priority(id, 3)
        self.assertEqual(self.client.show(id).spec.priority, 3)
        with self.assertRaises(Conflict):
            self.client.restart(id)
        self.client.expedite(id)
        self.work(lambda job: f"attempt {job.attempt}")
        self.assertEqual(self.result(id), b"attempt 1")
        self.client.restart(id)
        self.assertEqual(self.result(id), b"attempt 2")
        self.client.delete(id)
        for call in (self.client.show, self.client.delete, self.client.result):
            with self.assertRaises(NotFound):
                call(id)

    def test_a_task_group_is_paused(self) -> None:
        self.client.pause(self.group)
        self.work(lambda job: None)
        id = self.enqueue()
        [group] = [group for group in self.client.stats().groups if group.group == self.group]
        self.assertEqual((group.is_paused, group.ready, group.running), (True, 1, 0))
        self.client.resume(self.group)
        self.assertEqual(self.result(id), b"")
        self.assertGreater(self.client.stats().succeeded, 0)

    def test_a_listing_of_several_pages(self) -> None:
        ids = [f"{self.group}/{number}" for number in range(25)]
        self.client.enqueue_many([JobSpec(id=id, group=self.group, start_at=LATER) for id in ids])
        self.assertEqual([job.id for job in self.list(page=10)], ids)
        self.assertEqual(self.list(state=State.FAILED), [])

    def test_a_floating_limit_is_what_a_worker_says(self) -> None:
        busy: List[str] = []
        most: List[int] = []

        def handler(job: LeasedJob) -> str:
            if job.id.startswith("~limit/"):
                return "2"
            busy.append(job.id)
            most.append(len(busy))
            job.cancelled.wait(0.02)
            busy.remove(job.id)
            return ""

        limit = Floating(self.group, initial=1, refresh=1.0, group=self.group)
        specs = [JobSpec(id=f"{self.group}/{n}", group=self.group, limits=[limit]) for n in range(20)]
        self.client.enqueue_many(specs)
        self.work(handler, concurrency=8)
        ended = list(self.client.await_jobs([spec.id or "" for spec in specs], timeout=PATIENCE))
        self.assertTrue(all(one.job and one.job.state is State.SUCCEEDED for one in ended))
        self.assertLessEqual(max(most), 2)

    def test_what_is_refused_says_why(self) -> None:
        with self.assertRaisesRegex(Invalid, "priority"):
            self.enqueue(priority=100)
        with self.assertRaises(NotFound):
            self.client.result("nobody", timeout=PATIENCE)
        worker = Worker(self.address, "bad\ngroup", lambda job: None)
        worker.start()
        with self.assertRaisesRegex(Invalid, "control characters"):
            worker.join(PATIENCE)

    def test_a_worker_that_stops_leaves_the_rest_to_others(self) -> None:
        begun: queue.Queue[str] = queue.Queue()
        go_on = threading.Event()

        def first_handler(job: LeasedJob) -> str:
            begun.put(job.id)
            go_on.wait(PATIENCE)
            return "first"

        first = self.work(first_handler)
        ids = [self.enqueue() for _ in range(3)]
        self.assertEqual(begun.get(timeout=PATIENCE), ids[0])
        first.stop()
        self.work(lambda job: "second")
        self.assertEqual([self.result(id) for id in ids[1:]], [b"second"] * 2)
        go_on.set()
        self.assertTrue(first.join(PATIENCE))
        self.assertEqual(self.result(ids[0]), b"first")
        self.assertEqual([len(job.attempts) for job in self.list()], [1, 1, 1])
