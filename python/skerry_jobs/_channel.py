"""How a node is reached."""

from __future__ import annotations

import ipaddress
import random

import grpc

from . import errors

#: The most that a client sends in one message, bytes. A node refuses messages of more than 16 MiB; a payload and a
#: result have 1 MiB at most, so what fills a message to this is sent before the next is added.
MESSAGE_BYTES_MAX = 3 << 20

#: How soon a node that does not answer is asked again, seconds: at first, and at last.
BACKOFF_FIRST = 0.1
BACKOFF_LONGEST = 5.0

_OPTIONS = [
    # A page of jobs with large payloads is larger than the 4 MiB that are usual; the node decides how large.
    ("grpc.max_receive_message_length", -1),
    # A node that restarts is away for moments, and the default is to look for it ever less often, up to two minutes.
    ("grpc.initial_reconnect_backoff_ms", int(BACKOFF_FIRST * 1000)),
    ("grpc.max_reconnect_backoff_ms", int(BACKOFF_LONGEST * 1000)),
    # A host that went away without a word is noticed within this.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # Of a Unix socket, some versions send the path as authority, which HTTP/2 servers refuse.
    ("grpc.default_authority", "localhost"),
]


def open_channel(address: str) -> grpc.Channel:
    """Opens a channel to ``unix:PATH``, ``HOST:PORT`` or ``tcp:HOST:PORT``. It connects when it is used."""
    if not isinstance(address, str):
        raise errors.Invalid(f"{address!r} is no address: unix:PATH or HOST:PORT")
    target = address[len("tcp:") :] if address.startswith("tcp:") else address
    # What http_proxy names can't reach this host's own addresses.
    local = [("grpc.enable_http_proxy", 0)] if _is_local(target) else []
    return grpc.insecure_channel(target, options=_OPTIONS + local)


def _is_local(target: str) -> bool:
    """Whether an address is this host's own: a socket file, or on the loopback interface."""
    if target.startswith("unix:"):
        return True
    host = target.rpartition(":")[0].strip("[]")
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Backoff:
    """How long to wait before a node is asked again: ever longer, and each time a random part of that."""

    def __init__(self) -> None:
        self._longest = BACKOFF_FIRST

    @property
    def is_first(self) -> bool:
        """Whether the node has answered since the last wait."""
        return self._longest == BACKOFF_FIRST

    def succeeded(self) -> None:
        """The node answered: the next wait is short again."""
        self._longest = BACKOFF_FIRST

    def next(self) -> float:
        """The next wait, seconds."""
        wait = random.uniform(self._longest / 2, self._longest)
        self._longest = min(self._longest * 2, BACKOFF_LONGEST)
        return wait
