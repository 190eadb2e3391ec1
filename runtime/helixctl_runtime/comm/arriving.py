"""A collective through the sockets between the CPU ranks of a host, from its begin to its wait."""

from __future__ import annotations

from collections.abc import Callable

import torch

from helixctl_runtime.comm.links import Arrival


class Arriving:
    """A collective under way."""

    def __init__(self, arrival: Arrival, then: Callable[[], object] | None = None) -> None:
        """Begin to wait.

        Args:
            arrival: what comes in through the sockets.
            then: what a wait does when all of it is there.
        """
        self._arrival, self._then = arrival, then

    def wait(self) -> None:
        """Return when the result is there.

        Raises:
            torch.distributed.DistError: as ``Arrival.wait``.
        """
        self._arrival.wait()
        if self._then:
            self._then()

    def get_future(self) -> torch.futures.Future[object]:
        """Nothing looks at the sockets between the begin and the wait."""
        msg = "what has arrived is known when it is waited for"
        raise RuntimeError(msg)
