"""Python's garbage collector, kept off long work that makes no garbage."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def paused() -> Iterator[None]:
    """Collect nothing while this is entered.

    A dag is hundreds of thousands of objects that all stay. While it is read, grows, or is proved, the collector walks
    all of them again and again, which takes a third of the time, and finds nothing. A search drops most of what it
    makes, but that goes without the collector, as nothing of it refers to itself.
    """
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()
