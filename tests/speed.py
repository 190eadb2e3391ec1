"""How slow or busy this machine is, compared with the machine on which the bounds and timeouts were set."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Final

REFERENCE_S: Final = 0.06  # of ``_work`` there: two cores that do nothing else need 0.04
_MOST: Final = 30  # one sample may fall on a pause of the machine; what waits for a timeout shall not wait for ever


def slowness(clock: Callable[[], float] = time.perf_counter) -> int:
    """How many times longer the same work takes here and now, rounded up: 1 on a machine as fast or faster.

    Seconds of a bar are multiplied by it, and so are timeouts that ranks must meet. With ``time.process_time`` as
    ``clock`` other processes do not count.
    """
    begin = clock()
    _work()
    return min(_MOST, max(1, math.ceil((clock() - begin) / REFERENCE_S)))


def _work() -> None:
    """Some Python that neither the compiler nor a cache shortens."""
    found = {}
    for number in range(400_000):
        found[number % 1000] = str(number)
