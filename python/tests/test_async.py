"""Handlers that are coroutines, and payloads and results of JSON."""

from __future__ import annotations

import asyncio
import functools
import threading
from typing import Any, Dict, List

from skerry_jobs import Client, Invalid, JobSpec, LeasedJob
from skerry_jobs._proto import jobs_pb2 as pb

from .fake_node import PATIENCE, Connection
from .test_worker import LEASE_LOST, WorkerTest


class Coroutines(WorkerTest):
    def test_as_many_run_at_once_as_the_worker_takes_and_in_one_thread(self) -> None:
        begun: List[asyncio.Event] = []
        threads = set()

        async def handler(job: LeasedJob) -> str:
            threads.add(threading.current_thread())
            begun.append(asyncio.Event())
            if len(begun) == 3:
                for event in begun:
                    event.set()
            # Ends only if all three run at once.
            await asyncio.wait_for(begun[-1].wait() if len(begun) < 3 else begun[0].wait(), PATIENCE)
            return f"{job.id} is done"

        connection = self.begin(handler, concurrency=3)
        self.assertEqual(connection.credits, 3)
        for lease in (b"1", b"2", b"3"):
            connection.give(lease)
        for lease in (b"1", b"2", b"3"):
            self.assertEqual(connection.outcome(lease).succeeded, b"job-%s is done" % lease)
        self.assertEqual(len(threads), 1)
        connection.acknowledge(b"1", b"2", b"3")

    def test_a_coroutine_is_known_in_a_partial_and_as_an_object(self) -> None:
        async def handler(said: str, job: LeasedJob) -> str:
            return said

        class Object:
            async def __call__(self, job: LeasedJob) -> str:
                return "object"

        for one, said in [(functools.partial(handler, "partial"), b"partial"), (Object(), b"object")]:
            connection = self.begin(one)
            connection.give(b"1")
            self.assertEqual(connection.outcome(b"1").succeeded, said)
            connection.acknowledge(b"1")

    def hanging(self, ended: threading.Event, result: Any = None) -> Connection:
        """A worker whose handler waits until it is cancelled, and then returns a result if there is one."""
        begun = threading.Event()

        async def handler(job: LeasedJob) -> Any:
            begun.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                if result is None:
                    raise
                return result
            finally:
                ended.set()

        connection = self.begin(handler)
        connection.give(b"1")
        self.assertTrue(begun.wait(PATIENCE))
        return connection

    def test_a_cancellation_is_raised_where_the_handler_waits(self) -> None:
        connection = self.hanging(threading.Event())
        connection.say(cancels=[b"1"])
        self.assertTrue(connection.outcome(b"1").cancelled)
        connection.acknowledge(b"1")

    def test_a_handler_that_is_cancelled_may_still_have_done_its_work(self) -> None:
        connection = self.hanging(threading.Event(), "just in time")
        connection.say(cancels=[b"1"])
        self.assertEqual(connection.outcome(b"1").succeeded, b"just in time")
        connection.acknowledge(b"1")

    def test_a_lost_lease_ends_the_handler_and_drops_its_outcome(self) -> None:
        ended = threading.Event()
        connection = self.hanging(ended)
        connection.say(beats=[pb.Beat(lease=b"1", failure=LEASE_LOST)])
        self.assertTrue(ended.wait(PATIENCE))
        connection.wait(lambda said: said.credits == 2)
        self.assertEqual(connection.outcomes, [])

    def test_an_error_of_a_task_of_its_own_is_a_failure(self) -> None:
        async def handler(job: LeasedJob) -> None:
            raise asyncio.CancelledError

        connection = self.begin(handler)
        connection.give(b"1")
        self.assertEqual(connection.outcome(b"1").failed.code, "CancelledError")
        connection.acknowledge(b"1")

    def test_a_worker_that_stops_finishes_what_runs(self) -> None:
        begun, may_end = threading.Event(), threading.Event()

        async def handler(job: LeasedJob) -> str:
            begun.set()
            await asyncio.get_running_loop().run_in_executor(None, may_end.wait, PATIENCE)
            return "whole"

        worker = self.work(handler)
        connection = self.node.connection()
        connection.give(b"1")
        self.assertTrue(begun.wait(PATIENCE))
        worker.stop()
        connection.wait(lambda said: said.stopped)
        may_end.set()
        self.assertEqual(connection.outcome(b"1").succeeded, b"whole")
        connection.acknowledge(b"1")


class Json(WorkerTest):
    def outcome_of(self, payload: bytes) -> pb.Outcome:
        def handler(job: LeasedJob) -> Dict[str, Any]:
            return {"got": job.json()}

        connection = self.begin(handler)
        connection.give(b"1", payload)
        outcome = connection.outcome(b"1")
        connection.acknowledge(b"1")
        return outcome

    def test_a_handler_reads_json_and_returns_it(self) -> None:
        self.assertEqual(self.outcome_of('{"ä": [1, null]}'.encode()).succeeded, '{"got":{"ä":[1,null]}}'.encode())

    def test_a_payload_that_is_no_json_is_not_tried_again(self) -> None:
        for payload in (b"{", b"", b"\xff"):
            failed = self.outcome_of(payload).failed
            self.assertEqual((failed.code, failed.final), ("InvalidPayload", True))

    def test_dicts_and_lists_are_sent_as_json(self) -> None:
        def enqueue(request: Any, context: Any) -> pb.EnqueueJobsResponse:
            return pb.EnqueueJobsResponse(jobs=[pb.EnqueuedJob(id="i", is_new=True) for _ in request.jobs])

        self.node.on["EnqueueJobs"] = enqueue
        with Client(self.node.address) as client:
            client.enqueue({"to": "Ä", "n": 1})
            client.enqueue([1, "x", None])
            sent = [request.jobs[0].payload for request in self.node.requests["EnqueueJobs"]]
            self.assertEqual(sent, ['{"to":"Ä","n":1}'.encode(), b'[1,"x",null]'])
            for wrong in ({"x": object()}, [float("nan")], {"x": "\udce9"}):
                [refused] = client.enqueue_many([JobSpec(wrong)])
                self.assertIsInstance(refused.error, Invalid)
