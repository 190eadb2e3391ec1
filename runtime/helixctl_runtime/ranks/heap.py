"""Memory that a CPU rank has freed stays with it for the next step."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Mapping
from typing import Final

# Numbers of mallopt(3), of malloc.h.
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3

_NEVER: Final = -1
# The most that glibc takes for it by itself, where a program frees blocks as large.
_LARGEST_KEPT: Final = 32 << 20  # bytes


def keep_freed_memory(environ: Mapping[str, str]) -> bool:
    """Let malloc of this process keep what is freed, in blocks of up to 32 MiB.

    By default glibc maps large blocks one by one, and returns freed memory at the end of the heap to the system. Its
    thresholds for both grow as mapped blocks are freed, so that a rank keeps more and more by itself. But a step
    allocates the same intermediate results as the step before it, and the system still finds and clears many of their
    pages again. tests/benchmarks/freed_memory.py measures what is saved: a fifth of the processor time of 16 ranks.

    Args:
        environ: the environment of the process. Where it sets anything of glibc's malloc itself, all stays as it is.

    Returns:
        Whether malloc was told; it cannot be elsewhere than with glibc.
    """
    if sys.platform != "linux" or _is_set(environ):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, _LARGEST_KEPT) and mallopt(_M_TRIM_THRESHOLD, _NEVER))


def _is_set(environ: Mapping[str, str]) -> bool:
    named = any(name in environ for name in ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"))
    return named or "glibc.malloc." in environ.get("GLIBC_TUNABLES", "")
