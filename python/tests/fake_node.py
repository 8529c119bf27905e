"""A node that says what a test tells it to, over a real socket: for what the client and the worker make of it."""

from __future__ import annotations

import os
import queue
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Callable, Dict, Iterator, List, Optional

import grpc

from skerry_jobs._proto import jobs_pb2 as pb
from skerry_jobs._proto import jobs_pb2_grpc

#: How long a test waits for what normally takes moments, seconds; only a defect reaches it.
PATIENCE = 30.0


class Connection:
    """A worker's connection, from the node's side: what was said on it, and what the node answers."""

    def __init__(self, context: grpc.ServicerContext) -> None:
        self._context = context
        self._changed = threading.Condition()
        self._answers: queue.Queue[Optional[pb.WorkResponse]] = queue.Queue()
        self.first: Optional[pb.WorkRequest] = None
        self.credits = 0
        self.beats: List[bytes] = []
        self.outcomes: List[pb.Outcome] = []
        self.stopped = False
        self.ended = False
        self.refusal: Optional[grpc.StatusCode] = None
        #: It closes the connection when the worker has nothing left to say.
        self.closes = True

    def say(self, **fields: Any) -> None:
        """Says something to the worker: the fields of a `WorkResponse`."""
        self._answers.put(pb.WorkResponse(**fields))

    def give(self, lease: bytes, payload: bytes = b"", **fields: Any) -> None:
        """Gives the worker a job."""
        job = pb.LeasedJob(lease=lease, payload=payload, id=f"job-{lease.decode()}", attempt=1, **fields)
        job.lease_ms = job.lease_ms or 30_000
        self.say(jobs=[job])

    def acknowledge(self, *leases: bytes) -> None:
        """Answers outcomes."""
        self.say(reports=[pb.Reported(lease=lease, ended=pb.JOB_STATE_SUCCEEDED) for lease in leases])

    def close(self) -> None:
        """Ends the connection in order."""
        self._answers.put(None)

    def refuse(self, code: grpc.StatusCode) -> None:
        """Breaks the connection."""
        self.refusal = code
        self._answers.put(None)

    def wait(self, condition: Callable[[Connection], bool]) -> None:
        """Waits until what was said fulfils a condition."""
        with self._changed:
            if not self._changed.wait_for(lambda: condition(self), PATIENCE):
                raise AssertionError(f"the worker said {vars(self)}")

    def outcome(self, lease: bytes) -> pb.Outcome:
        """Waits for the outcome of a job."""
        self.wait(lambda said: any(outcome.lease == lease for outcome in said.outcomes))
        return [outcome for outcome in self.outcomes if outcome.lease == lease][-1]

    def read(self, requests: Iterator[pb.WorkRequest]) -> None:
        """Notes all that the worker says."""
        try:
            for request in requests:
                with self._changed:
                    self._note(request)
                    self._changed.notify_all()
        except grpc.RpcError:
            pass
        with self._changed:
            self.ended = True
            self._changed.notify_all()

    def _note(self, request: pb.WorkRequest) -> None:
        self.first = self.first or request
        self.credits += request.credits
        self.beats.extend(request.beats)
        self.outcomes.extend(request.outcomes)
        self.stopped |= request.stop

    def answers(self) -> Iterator[pb.WorkResponse]:
        """What the node says, until it closes the connection or breaks it."""
        while self._context.is_active():
            try:
                answer = self._answers.get(timeout=0.1)
            except queue.Empty:
                if self.ended and self.closes:
                    break
                continue
            if answer is None:
                break
            yield answer
        if self.refusal:
            self._context.abort(self.refusal, "refused by the test")


class FakeNode(jobs_pb2_grpc.JobsServicer):
    """The node. `on` maps a method's name to what answers it. On a socket file, unless it is told an address."""

    def __init__(self, address: Optional[str] = None) -> None:
        self._dir = tempfile.TemporaryDirectory(prefix="skerry-")
        self.address = address or f"unix:{os.path.join(self._dir.name, 'api.sock')}"
        self.on: Dict[str, Callable[[Any, grpc.ServicerContext], Any]] = {}
        self.requests: Dict[str, List[Any]] = {}
        self._connections: queue.Queue[Connection] = queue.Queue()
        self.start()

    def start(self) -> None:
        """Serves, also again after `stop`."""
        self._pool = ThreadPoolExecutor(16)
        self._server = grpc.server(self._pool, options=[("grpc.max_receive_message_length", 4 << 20)])
        jobs_pb2_grpc.add_JobsServicer_to_server(self, self._server)
        port = self._server.add_insecure_port(self.address)
        if self.address.endswith(":0"):
            self.address = f"{self.address[:-1]}{port}"
        self._server.start()

    def stop(self) -> None:
        """Is gone, as if killed."""
        self._server.stop(None).wait()
        self._pool.shutdown()

    def close(self) -> None:
        """Is gone for good."""
        self.stop()
        self._dir.cleanup()

    def connection(self) -> Connection:
        """Waits for a worker."""
        connection = self._connections.get(timeout=PATIENCE)
        connection.wait(lambda said: said.first is not None)
        return connection

    def Work(self, request_iterator: Any, context: grpc.ServicerContext) -> Iterator[pb.WorkResponse]:
        connection = Connection(context)
        reader = threading.Thread(target=connection.read, args=(request_iterator,), daemon=True)
        reader.start()
        self._connections.put(connection)
        yield from connection.answers()


def _answer(name: str) -> Callable[[FakeNode, Any, grpc.ServicerContext], Any]:
    def answer(self: FakeNode, request: Any, context: grpc.ServicerContext) -> Any:
        # A copy: a client may go on with the object.
        self.requests.setdefault(name, []).append(type(request).FromString(request.SerializeToString()))
        answer = self.on[name](request, context)
        return iter(answer) if isinstance(answer, list) else answer

    return answer


for _method in pb.DESCRIPTOR.services_by_name["Jobs"].methods:
    if _method.name != "Work":
        setattr(FakeNode, _method.name, _answer(_method.name))
