"""Ports for ranks that meet."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def free_port() -> Iterator[int]:
    """A port at which nobody listens, and which the system gives to nobody else meanwhile.

    It is bound here without listening, and may be shared: a store that listens asks for that, a connection that
    wants any free port does not.
    """
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("", 0))
        yield int(held.getsockname()[1])
