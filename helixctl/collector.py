"""Pauses of Python's garbage collector, for long work that makes no garbage."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

# How many objects others had frozen, once there were any: to count a million takes ten milliseconds.
_found_frozen: list[int] = []


@contextmanager
def paused() -> Iterator[None]:
    """Pause the garbage collector inside the block.

    A dag is hundreds of thousands of objects that all stay alive. While a dag is read, built or proved, the collector
    would visit all of them again and again, which takes a third of the time, and free nothing. A search drops most of
    the objects that it makes, and reference counts free these: none of them refers to itself.

    What was made in the block is old when it ends: the collector does not visit all of it at once as what is new.
    """
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            if not _others_freeze():  # what others have frozen stays so
                gc.freeze()
                gc.unfreeze()  # into the oldest generation
            gc.enable()


def _others_freeze() -> bool:
    if not _found_frozen and (count := gc.get_freeze_count()):
        _found_frozen.append(count)
    return bool(_found_frozen)
