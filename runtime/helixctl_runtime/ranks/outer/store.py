"""The store through which ranks of an outer launcher meet: torchrun's own, or one that rank 0 opens."""

from __future__ import annotations

import os
import socket
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import torch.distributed as dist

from helixctl.errors import fail

if TYPE_CHECKING:  # torch.distributed exports it at run time, but its stubs do not
    from torch._C._distributed_c10d import TCPStore
else:
    from torch.distributed import TCPStore

__all__ = ["TCPStore", "address", "connect"]

_RETRY: Final = 0.05  # seconds


def address(rendezvous: str) -> str:
    """Host and port of the store, as ``host:port``."""
    parts = urlsplit(rendezvous)
    return parts.netloc or f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"


def connect(rendezvous: str, rank: int, timeout: float) -> TCPStore:
    """Connect to the store; rank 0 opens it, unless torchrun has opened one.

    torch's own rendezvous blocks rank 0 until all ranks have joined, so that no rank can report which ones are missing.

    Args:
        rendezvous: ``tcp://host:port``, or ``env://`` for MASTER_ADDR and MASTER_PORT.
        rank: the rank that this process is.
        timeout: seconds to wait for the store.

    Raises:
        HelixError: HX513, rank 0 cannot open the store.
        RuntimeError: no store answers within the timeout.
    """
    host, _, port = address(rendezvous).rpartition(":")
    if not port.isdecimal() or not 0 < int(port) < 1 << 16:
        raise fail("HX513", f"MASTER_PORT is {port!r}, not a port", "set it to a number from 1024 to 65535")
    opens = rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != str(True)
    deadline = time.monotonic() + timeout
    if not opens:
        _await(host.strip("[]"), int(port), deadline)
    try:
        return TCPStore(
            host,
            int(port),
            is_master=opens,
            timeout=timedelta(seconds=max(1.0, deadline - time.monotonic())),
            wait_for_workers=False,
            multi_tenant=True,
        )
    except RuntimeError as error:
        if opens and "EADDRINUSE" in str(error):
            hint = "another run, or the last one, has it: set MASTER_PORT to another on all hosts"
            raise fail("HX513", f"port {port} of this host is in use", hint) from error
        raise


def _await(host: str, port: int, deadline: float) -> None:
    """Wait until the port answers; TCPStore would wait too, but in steps of seconds, and print a C++ stack."""
    while True:
        try:
            with socket.create_connection((host, port), max(0.1, deadline - time.monotonic())):
                return
        except OSError as error:
            if time.monotonic() + _RETRY > deadline:
                message = f"timed out: {error.strerror or error}"
                raise dist.DistNetworkError(message) from error
            time.sleep(_RETRY)
