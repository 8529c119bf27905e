"""What a worker says next, decided without a node."""

from __future__ import annotations

import logging
import unittest
from typing import List

from skerry_jobs import LeasedJob
from skerry_jobs._channel import MESSAGE_BYTES_MAX
from skerry_jobs._ledger import LAST_WORDS_SECONDS, SAY_AGAIN_SECONDS, UNANSWERED_MAX, Ledger
from skerry_jobs._proto import jobs_pb2 as pb

LEASE_LOST = pb.Failure(kind=pb.FAILURE_KIND_LEASE_LOST)


def jobs(*numbers: int, lease_ms: int = 3000) -> pb.WorkResponse:
    """The node gives jobs."""
    return pb.WorkResponse(jobs=[pb.LeasedJob(lease=b"%d" % number, lease_ms=lease_ms) for number in numbers])


class LedgerTest(unittest.TestCase):
    def setUp(self) -> None:
        logging.disable(logging.ERROR)
        self.addCleanup(logging.disable, logging.NOTSET)

    def connected(self, concurrency: int) -> Ledger:
        ledger = Ledger("group", "me", concurrency)
        ledger.connected(0.0)
        request = ledger.next_request(0.0)
        self.assertEqual(request and request.credits, concurrency)
        return ledger

    def begin(self, ledger: Ledger, *numbers: int) -> List[LeasedJob]:
        given = ledger.heard(jobs(*numbers))
        self.assertTrue(all(ledger.begin(job) for job in given))
        return given

    def test_it_says_nothing_twice(self) -> None:
        ledger = self.connected(1)
        self.assertIsNone(ledger.next_request(0.0))
        [job] = self.begin(ledger, 1)
        ledger.end(job, pb.Outcome(succeeded=b""))
        request = ledger.next_request(0.0)
        self.assertEqual(request, pb.WorkRequest(credits=1, outcomes=[pb.Outcome(lease=b"1", succeeded=b"")]))
        self.assertIsNone(ledger.next_request(0.0))

    def test_a_third_of_a_lease_passes_between_signs_of_life(self) -> None:
        ledger = self.connected(2)
        self.begin(ledger, 1, 2)
        self.assertEqual(ledger.next_request(0.0), pb.WorkRequest(beats=[b"1", b"2"]))
        self.assertEqual(ledger.next_at(), 1.0)
        self.assertIsNone(ledger.next_request(0.9))
        self.assertEqual(ledger.next_request(1.0), pb.WorkRequest(beats=[b"1", b"2"]))
        self.assertEqual(ledger.next_at(), 2.0)

    def test_the_first_sign_of_life_says_that_a_job_begins(self) -> None:
        ledger = self.connected(2)
        [first, _] = ledger.heard(jobs(1, 2))
        self.assertIsNone(ledger.next_request(9.0))
        self.assertIsNone(ledger.next_at())
        self.assertTrue(ledger.begin(first))
        self.assertEqual(ledger.next_request(9.0), pb.WorkRequest(beats=[b"1"]))
        self.assertEqual(ledger.next_at(), 10.0)

    def test_it_takes_no_more_while_too_many_outcomes_are_not_answered(self) -> None:
        ledger = self.connected(1)
        for number in range(UNANSWERED_MAX):
            [job] = self.begin(ledger, number)
            ledger.end(job, pb.Outcome(succeeded=b""))
            request = ledger.next_request(0.0)
        self.assertEqual(request and request.credits, 0)
        ledger.heard(pb.WorkResponse(reports=[pb.Reported(lease=b"0", ended=pb.JOB_STATE_SUCCEEDED)]))
        self.assertEqual(ledger.next_request(0.0), pb.WorkRequest(credits=1))

    def test_large_outcomes_are_said_in_several_messages(self) -> None:
        ledger = self.connected(10)
        for job in self.begin(ledger, *range(10)):
            ledger.end(job, pb.Outcome(succeeded=b"x" * (1 << 20)))
        said: List[bytes] = []
        while (request := ledger.next_request(0.0)) is not None:
            self.assertLess(request.ByteSize(), MESSAGE_BYTES_MAX + 1000)
            said.extend(outcome.lease for outcome in request.outcomes)
        self.assertEqual(said, [b"%d" % number for number in range(10)])

    def test_a_lost_lease_holds_its_handler_until_that_returns(self) -> None:
        ledger = self.connected(1)
        [job] = self.begin(ledger, 1)
        ledger.heard(pb.WorkResponse(beats=[pb.Beat(lease=b"1", failure=LEASE_LOST)]))
        self.assertIsNone(ledger.next_request(9.0))
        ledger.end(job, pb.Outcome(succeeded=b""))
        self.assertEqual(ledger.next_request(9.0), pb.WorkRequest(credits=1))

    def test_a_job_whose_lease_is_lost_before_it_begins_is_not_begun(self) -> None:
        ledger = self.connected(1)
        [job] = ledger.heard(jobs(1))
        ledger.heard(pb.WorkResponse(beats=[pb.Beat(lease=b"1", failure=LEASE_LOST)]))
        self.assertFalse(ledger.begin(job))
        self.assertEqual(ledger.next_request(9.0), pb.WorkRequest(credits=1))

    def test_what_the_node_can_not_keep_now_is_said_again_later(self) -> None:
        ledger = self.connected(1)
        [job] = self.begin(ledger, 1)
        outcome = pb.Outcome(lease=b"1", succeeded=b"")
        ledger.end(job, pb.Outcome(succeeded=b""))
        ledger.next_request(0.0)
        ledger.stop()
        self.assertEqual(ledger.next_request(1.0), pb.WorkRequest(stop=True))
        unavailable = pb.Failure(kind=pb.FAILURE_KIND_UNAVAILABLE, message="not now")
        for now in (2.0, 2.0 + SAY_AGAIN_SECONDS):
            ledger.heard(pb.WorkResponse(reports=[pb.Reported(lease=b"1", failure=unavailable)]))
            self.assertIsNone(ledger.next_request(now))
            self.assertEqual(ledger.next_at(), now + SAY_AGAIN_SECONDS)
            self.assertEqual(ledger.next_request(now + SAY_AGAIN_SECONDS), pb.WorkRequest(outcomes=[outcome]))
            self.assertIsNone(ledger.next_at())
        self.assertIsNone(ledger.next_request(99.0))
        ledger.heard(pb.WorkResponse(reports=[pb.Reported(lease=b"1", ended=pb.JOB_STATE_SUCCEEDED)]))
        self.assertTrue(ledger.is_done)

    def test_what_the_node_can_not_keep_now_is_said_again_over_the_next_connection(self) -> None:
        ledger = self.connected(2)
        [job] = self.begin(ledger, 1)
        ledger.end(job, pb.Outcome(succeeded=b""))
        ledger.next_request(0.0)
        unavailable = pb.Failure(kind=pb.FAILURE_KIND_UNAVAILABLE, message="not now")
        response = jobs(2)
        response.reports.append(pb.Reported(lease=b"1", failure=unavailable))
        self.assertEqual(len(ledger.heard(response)), 1)
        self.assertIsNone(ledger.next_request(0.5))
        ledger.connected(1.0)
        request = ledger.next_request(1.0)
        assert request is not None
        self.assertEqual((list(request.beats), request.credits), ([b"2"], 1))
        self.assertEqual([outcome.lease for outcome in request.outcomes], [b"1"])

    def test_a_sign_of_life_that_the_node_can_not_look_at_loses_no_job(self) -> None:
        ledger = self.connected(1)
        [job] = self.begin(ledger, 1)
        ledger.next_request(0.0)
        unavailable = pb.Failure(kind=pb.FAILURE_KIND_UNAVAILABLE, message="not now")
        ledger.heard(pb.WorkResponse(beats=[pb.Beat(lease=b"1", failure=unavailable)]))
        self.assertFalse(job.lost)
        self.assertEqual(ledger.next_request(1.0), pb.WorkRequest(beats=[b"1"]))

    def test_last_words_are_worth_waiting_for_only_when_nothing_runs(self) -> None:
        ledger = self.connected(1)
        [job] = self.begin(ledger, 1)
        ledger.stop()
        self.assertIsNone(ledger.last_words_end(5.0))
        ledger.end(job, pb.Outcome(succeeded=b""))
        self.assertEqual(ledger.last_words_end(7.0), 7.0 + LAST_WORDS_SECONDS)
        self.assertEqual(ledger.last_words_end(8.0), 7.0 + LAST_WORDS_SECONDS)
        self.assertFalse(ledger.is_done)
        ledger.heard(pb.WorkResponse(reports=[pb.Reported(lease=b"1", ended=pb.JOB_STATE_SUCCEEDED)]))
        self.assertTrue(ledger.is_done)
