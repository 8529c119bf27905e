"""What a worker says to a node, and what it makes of what the node says."""

from __future__ import annotations

import logging
import queue
import signal
import subprocess
import sys
import threading
import unittest
from typing import Any, Callable, List
from unittest import mock

import grpc

from skerry_jobs import Cancelled, Final, Invalid, LeasedJob, Worker
from skerry_jobs._proto import jobs_pb2 as pb
from skerry_jobs._wire import ERROR_BYTES_MAX

from .fake_node import PATIENCE, Connection, FakeNode

LEASE_LOST = pb.Failure(kind=pb.FAILURE_KIND_LEASE_LOST, message="somebody else has it")
UNAVAILABLE = pb.Failure(kind=pb.FAILURE_KIND_UNAVAILABLE, message="not now")


class Gate:
    """A handler that the test holds: says which job it has, and goes on when it is told how."""

    def __init__(self) -> None:
        self._begun: queue.Queue[LeasedJob] = queue.Queue()
        self._go_on: queue.Queue[bytes] = queue.Queue()

    def __call__(self, job: LeasedJob) -> bytes:
        self._begun.put(job)
        return self._go_on.get(timeout=PATIENCE)

    def begun(self) -> LeasedJob:
        """Waits until a job has begun."""
        return self._begun.get(timeout=PATIENCE)

    def end(self, result: bytes = b"done") -> None:
        """Lets one job end."""
        self._go_on.put(result)


class WorkerTest(unittest.TestCase):
    def setUp(self) -> None:
        logging.disable(logging.ERROR)
        self.addCleanup(logging.disable, logging.NOTSET)
        self.node = FakeNode()
        self.addCleanup(self.node.close)

    def work(self, handler: Callable[[LeasedJob], Any], concurrency: int = 1) -> Worker:
        worker = Worker(self.node.address, "group", handler, concurrency=concurrency, name="me")
        worker.start()
        self.addCleanup(self.end, worker)
        return worker

    def end(self, worker: Worker) -> None:
        with mock.patch("skerry_jobs._ledger.LAST_WORDS_SECONDS", 0.0):
            worker.stop()
            self.assertTrue(worker.join(PATIENCE))

    def begin(self, handler: Callable[[LeasedJob], Any], concurrency: int = 1) -> Connection:
        self.work(handler, concurrency)
        return self.node.connection()


class Outcomes(WorkerTest):
    def outcome_of(self, handler: Callable[[LeasedJob], Any]) -> pb.Outcome:
        connection = self.begin(handler)
        connection.give(b"1")
        outcome = connection.outcome(b"1")
        connection.acknowledge(b"1")
        return outcome

    def test_the_first_message_says_who_it_is_and_what_it_would_take(self) -> None:
        first = self.begin(lambda job: None, concurrency=7).first
        begin = pb.WorkBegin(group="group", worker="me", begins_with_beat=True)
        self.assertEqual(first, pb.WorkRequest(begin=begin, credits=7))

    def test_what_a_handler_sees(self) -> None:
        seen: List[LeasedJob] = []
        connection = self.begin(seen.append)
        job = pb.LeasedJob(
            lease=b"1", tenant="t", id="i", group="g", attempt=3, payload=b"p", metadata={"k": "v"}, lease_ms=2500
        )
        connection.say(jobs=[job])
        connection.outcome(b"1")
        [job] = seen
        self.assertEqual((job.tenant, job.id, job.group, job.attempt), ("t", "i", "g", 3))
        self.assertEqual((job.payload, job.metadata, job.lease), (b"p", {"k": "v"}, 2.5))
        self.assertFalse(job.cancelled.is_set() or job.lost)

    def test_bytes_text_and_nothing_are_results(self) -> None:
        for returned, result in [(b"\0x", b"\0x"), ("ä", "ä".encode()), (None, b"")]:
            self.assertEqual(self.outcome_of(lambda job: returned), pb.Outcome(lease=b"1", succeeded=result))

    def test_an_exception_is_a_failure_with_its_class_as_code(self) -> None:
        def handler(job: LeasedJob) -> None:
            raise KeyError("where")

        failed = pb.JobError(code="KeyError", message="'where'")
        self.assertEqual(self.outcome_of(handler), pb.Outcome(lease=b"1", failed=failed))

    def test_even_an_exit_is_only_a_failure(self) -> None:
        self.assertEqual(self.outcome_of(lambda job: sys.exit(3)).failed.code, "SystemExit")

    def test_final_is_not_tried_again(self) -> None:
        def handler(job: LeasedJob) -> None:
            raise Final("no such address", code="Bounced")

        failed = pb.JobError(code="Bounced", message="no such address", final=True)
        self.assertEqual(self.outcome_of(handler).failed, failed)

    def test_cancelled_is_said(self) -> None:
        def handler(job: LeasedJob) -> None:
            raise Cancelled

        self.assertTrue(self.outcome_of(handler).cancelled)

    def test_whatever_an_exception_is_like_the_job_fails_and_the_next_one_is_taken(self) -> None:
        class NoText(Exception):
            def __str__(self) -> str:
                raise RuntimeError("no text")

        class BadName(Exception):
            pass

        BadName.__name__ = "é" * 10_000
        final = Final("caf\udce9", code="caf\udce9")
        final_number = Final(7, code=8)  # type: ignore[arg-type]
        raised = [
            (ValueError("caf\udce9.csv is damaged"), "ValueError", "caf\\udce9.csv is damaged"),
            (NoText(), "NoText", "RuntimeError"),
            (ValueError("x" * (20 << 20)), "ValueError", "x" * ERROR_BYTES_MAX),
            (ValueError("é" * ERROR_BYTES_MAX), "ValueError", "é" * (ERROR_BYTES_MAX // 2)),
            (ValueError("a\0b"), "ValueError", "a\0b"),
            (BadName("x"), "é" * (ERROR_BYTES_MAX // 2), "x"),
            (final, "caf\\udce9", "caf\\udce9"),
            (final_number, "8", "7"),
        ]
        errors = iter([error for error, _, _ in raised])

        def handler(job: LeasedJob) -> None:
            raise next(errors)

        connection = self.begin(handler)
        for number, (error, code, message) in enumerate(raised):
            lease = str(number).encode()
            connection.give(lease)
            failed = connection.outcome(lease).failed
            connection.acknowledge(lease)
            self.assertIn(code, failed.code)
            self.assertIn(message, failed.message)
            self.assertLessEqual(max(len(failed.code.encode()), len(failed.message.encode())), ERROR_BYTES_MAX)
            self.assertEqual(failed.final, isinstance(error, Final))

    def test_what_is_no_result_is_a_failure(self) -> None:
        self.assertEqual(self.outcome_of(lambda job: 7).failed.code, "TypeError")
        self.assertEqual(self.outcome_of(lambda job: b"x" * ((1 << 20) + 1)).failed.code, "ValueError")

    def test_a_result_that_the_node_refuses_is_a_failure(self) -> None:
        connection = self.begin(lambda job: "many")
        connection.give(b"1")
        connection.outcome(b"1")
        refused = pb.Failure(kind=pb.FAILURE_KIND_INVALID, message="no number")
        connection.say(reports=[pb.Reported(lease=b"1", failure=refused)])
        connection.wait(lambda said: len(said.outcomes) == 2)
        self.assertEqual(connection.outcomes[1].failed, pb.JobError(code="InvalidResult", message="no number"))
        connection.acknowledge(b"1")


class Credits(WorkerTest):
    def test_each_job_that_ends_makes_room_for_one(self) -> None:
        gate = Gate()
        connection = self.begin(gate, concurrency=2)
        for lease in (b"1", b"2"):
            connection.give(lease)
            gate.begun()
        self.assertEqual(connection.credits, 2)
        gate.end()
        connection.wait(lambda said: len(said.outcomes) == 1 and said.credits == 3)
        gate.end()
        connection.wait(lambda said: len(said.outcomes) == 2 and said.credits == 4)

    def test_a_sign_of_life_says_that_a_handler_begins(self) -> None:
        gate = Gate()
        connection = self.begin(gate)
        connection.give(b"1")
        connection.wait(lambda said: said.beats == [b"1"])
        gate.begun()
        gate.end()
        connection.outcome(b"1")

    def test_signs_of_life_are_given_three_times_in_a_lease(self) -> None:
        gate = Gate()
        connection = self.begin(gate)
        connection.give(b"1", lease_ms=300)
        gate.begun()
        connection.wait(lambda said: said.beats[:3] == [b"1"] * 3)
        gate.end()
        connection.outcome(b"1")


class Cancelling(WorkerTest):
    def test_a_handler_is_told_by_a_cancel_or_by_the_answer_to_a_sign_of_life(self) -> None:
        gate = Gate()
        connection = self.begin(gate)
        for lease, said in [
            (b"1", {"cancels": [b"1"]}),
            (b"2", {"beats": [pb.Beat(lease=b"2", cancel_asked=True)]}),
        ]:
            connection.give(lease)
            job = gate.begun()
            connection.say(**said)
            self.assertTrue(job.cancelled.wait(PATIENCE))
            self.assertFalse(job.lost)
            gate.end(b"done all the same")
            self.assertEqual(connection.outcome(lease).succeeded, b"done all the same")

    def test_a_job_that_was_called_off_before_it_came_is_not_begun(self) -> None:
        connection = self.begin(lambda job: self.fail("it was begun"))
        connection.give(b"1", cancel_asked=True)
        self.assertTrue(connection.outcome(b"1").cancelled)

    def test_when_a_lease_is_lost_the_handler_is_told_and_its_outcome_dropped(self) -> None:
        gate = Gate()
        connection = self.begin(gate)
        connection.give(b"1", lease_ms=300)
        job = gate.begun()
        connection.say(beats=[pb.Beat(lease=b"1", failure=LEASE_LOST)])
        self.assertTrue(job.cancelled.wait(PATIENCE))
        self.assertTrue(job.lost)
        self.assertEqual(connection.credits, 1)
        gate.end(b"too late")
        connection.wait(lambda said: said.credits == 2)
        # What follows shows that nothing was said of the first.
        connection.give(b"2")
        gate.begun()
        gate.end()
        connection.outcome(b"2")
        self.assertEqual([outcome.lease for outcome in connection.outcomes], [b"2"])


class Reconnecting(WorkerTest):
    def test_outcomes_that_were_not_answered_are_said_again_byte_for_byte(self) -> None:
        connection = self.begin(lambda job: job.payload, concurrency=3)
        for lease in (b"1", b"2", b"3"):
            connection.give(lease, payload=b"of " + lease)
            connection.outcome(lease)
        connection.acknowledge(b"2")
        connection.refuse(grpc.StatusCode.UNAVAILABLE)
        again = self.node.connection()
        again.outcome(b"3")
        self.assertEqual(again.outcomes, [connection.outcome(b"1"), connection.outcome(b"3")])
        again.acknowledge(b"1", b"3")
        again.refuse(grpc.StatusCode.UNAVAILABLE)
        third = self.node.connection()
        self.assertEqual((third.outcomes, third.credits), ([], 3))

    def test_a_node_that_restarts_finds_the_work_going_on(self) -> None:
        gate = Gate()
        connection = self.begin(gate, concurrency=2)
        connection.give(b"1")
        job = gate.begun()
        self.node.stop()
        self.node.start()
        again = self.node.connection()
        again.wait(lambda said: said.beats == [b"1"])
        self.assertEqual(again.credits, 1)
        self.assertFalse(job.cancelled.is_set())
        gate.end(b"over the restart")
        self.assertEqual(again.outcome(b"1").succeeded, b"over the restart")

    def test_work_that_ends_while_the_node_is_away_is_said_when_it_is_back(self) -> None:
        gate = Gate()
        connection = self.begin(gate)
        connection.give(b"1")
        gate.begun()
        self.node.stop()
        gate.end(b"in the dark")
        self.node.start()
        self.assertEqual(self.node.connection().outcome(b"1").succeeded, b"in the dark")

    def test_a_report_that_can_not_be_taken_now_is_made_again(self) -> None:
        connection = self.begin(lambda job: "result")
        connection.give(b"1")
        connection.outcome(b"1")
        connection.say(reports=[pb.Reported(lease=b"1", failure=UNAVAILABLE)])
        # One shard of several is away: the jobs of the others go on over this connection.
        connection.give(b"2")
        connection.outcome(b"2")
        connection.acknowledge(b"2")
        connection.refuse(grpc.StatusCode.UNAVAILABLE)
        self.assertEqual(self.node.connection().outcome(b"1").succeeded, b"result")

    def test_a_report_of_a_lease_that_was_lost_is_not_made_again(self) -> None:
        connection = self.begin(lambda job: "result")
        connection.give(b"1")
        connection.outcome(b"1")
        connection.say(reports=[pb.Reported(lease=b"1", failure=LEASE_LOST)])
        connection.refuse(grpc.StatusCode.UNAVAILABLE)
        again = self.node.connection()
        again.give(b"2")
        again.outcome(b"2")
        self.assertEqual([outcome.lease for outcome in again.outcomes], [b"2"])

    def test_a_worker_that_the_node_refuses_ends_with_the_reason(self) -> None:
        worker = Worker(self.node.address, "", lambda job: None)
        worker.start()
        self.node.connection().refuse(grpc.StatusCode.INVALID_ARGUMENT)
        with self.assertRaisesRegex(Invalid, "refused by the test"):
            worker.join(PATIENCE)


class Stopping(WorkerTest):
    def test_it_takes_no_more_gives_back_what_was_not_begun_and_finishes_what_runs(self) -> None:
        gate = Gate()
        worker = self.work(gate, concurrency=2)
        connection = self.node.connection()
        connection.give(b"1")
        gate.begun()
        worker.stop()
        connection.wait(lambda said: said.stopped)
        connection.give(b"2")  # It was on its way.
        self.assertTrue(connection.outcome(b"2").returned)
        gate.end(b"finished")
        self.assertEqual(connection.outcome(b"1").succeeded, b"finished")
        connection.acknowledge(b"2")
        self.assertFalse(connection.ended)
        connection.acknowledge(b"1")
        self.assertTrue(worker.join(PATIENCE))
        self.assertEqual(connection.credits, 2)

    def test_what_comes_after_its_last_word_is_given_back_on_another_connection(self) -> None:
        worker = self.work(lambda job: self.fail("it was begun"))
        connection = self.node.connection()
        connection.closes = False
        worker.stop()
        connection.wait(lambda said: said.ended)
        connection.give(b"1")
        connection.close()
        last = self.node.connection()
        self.assertTrue(last.outcome(b"1").returned)
        self.assertEqual((last.credits, last.stopped), (0, True))
        last.acknowledge(b"1")
        self.assertTrue(worker.join(PATIENCE))

    def test_it_does_not_wait_for_ever_for_a_node_that_is_away(self) -> None:
        worker = self.work(lambda job: None)
        connection = self.node.connection()
        connection.give(b"1")
        connection.outcome(b"1")
        self.node.stop()
        with mock.patch("skerry_jobs._ledger.LAST_WORDS_SECONDS", 0.2):
            worker.stop()
            self.assertTrue(worker.join(PATIENCE))
        self.node.start()

    def test_it_does_not_wait_for_ever_for_a_node_that_does_not_answer(self) -> None:
        worker = self.work(lambda job: None)
        connection = self.node.connection()
        connection.give(b"1")
        connection.outcome(b"1")
        with mock.patch("skerry_jobs._ledger.LAST_WORDS_SECONDS", 0.2):
            worker.stop()
            self.assertTrue(worker.join(PATIENCE))

    def test_it_does_not_wait_for_ever_for_a_node_that_does_not_close(self) -> None:
        worker = self.work(lambda job: None)
        connection = self.node.connection()
        connection.closes = False
        with mock.patch("skerry_jobs.worker.CLOSE_SECONDS", 0.2):
            worker.stop()
            self.assertTrue(worker.join(PATIENCE))

    def test_sigterm_stops_it_in_order(self) -> None:
        script = (
            "import sys, skerry_jobs\n"
            "def handler(job):\n"
            "    print('begun', flush=True)\n"
            "    return sys.stdin.readline()\n"
            "skerry_jobs.Worker(sys.argv[1], 'group', handler).run()\n"
            "print('ended', flush=True)\n"
        )
        command = [sys.executable, "-c", script, self.node.address]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            self.addCleanup(process.kill)
            connection = self.node.connection()
            connection.give(b"1")
            self.assertEqual(process.stdout.readline(), "begun\n")
            process.send_signal(signal.SIGTERM)
            connection.wait(lambda said: said.stopped)
            process.stdin.write("finished\n")
            process.stdin.flush()
            self.assertEqual(connection.outcome(b"1").succeeded, b"finished\n")
            connection.acknowledge(b"1")
            self.assertEqual(process.communicate(timeout=PATIENCE)[0], "ended\n")
            self.assertEqual(process.returncode, 0)


class Threads(WorkerTest):
    def test_handlers_run_side_by_side(self) -> None:
        together = threading.Barrier(3)
        connection = self.begin(lambda job: str(together.wait(PATIENCE) >= 0), concurrency=3)
        for lease in (b"1", b"2", b"3"):
            connection.give(lease)
        for lease in (b"1", b"2", b"3"):
            self.assertEqual(connection.outcome(lease).succeeded, b"True")
