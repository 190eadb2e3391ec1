"""A CPU rank keeps the memory that it has freed, and leaves alone what the environment says of malloc."""

from __future__ import annotations

import ctypes
import os
import resource
import sys

import pytest
import torch

from helixctl_runtime.ranks import Rank, run_ranks
from helixctl_runtime.ranks.heap import _M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD, keep_freed_memory
from tests.fork import fork

STEPS = 20
NBYTES = 1 << 20  # of a block
BLOCKS = 8
PAGES = BLOCKS * NBYTES // resource.getpagesize()
USUAL = 128 << 10  # glibc's thresholds of a process that has freed nothing yet


def faults_of_steps(rank: Rank) -> int:
    """Pages that the system had to find for steps that allocate the same, one after another."""

    def steps() -> None:
        for _ in range(STEPS):
            _ = [torch.ones(NBYTES // 4) for _ in range(BLOCKS)]

    steps()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    steps()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def print_faults() -> None:
    """In a process of its own, whose ranks begin with malloc as it usually is."""
    libc = ctypes.CDLL(None)
    assert libc.mallopt(_M_MMAP_THRESHOLD, USUAL)
    assert libc.mallopt(_M_TRIM_THRESHOLD, USUAL)
    print(*run_ranks(faults_of_steps, world_size=1, device="cpu", timeout=60, task_name=lambda r, p: str(p)))
    sys.exit(0)


@pytest.mark.skipif(sys.platform != "linux", reason="malloc of glibc is told")
@pytest.mark.parametrize(("environ", "keeps"), [({}, True), ({"MALLOC_TRIM_THRESHOLD_": str(USUAL)}, False)])
def test_a_step_is_given_the_memory_of_the_step_before(environ: dict[str, str], keeps: bool) -> None:
    source = "from tests.runtime.test_heap import print_faults; print_faults()"
    done = fork([], before=source, env={**os.environ, **environ}, torch=True)
    assert done.status == 0, done.err.decode()
    faults = int(done.out)
    assert faults < PAGES if keeps else faults > STEPS // 2 * PAGES


@pytest.mark.parametrize(
    "environ",
    [
        {"MALLOC_TRIM_THRESHOLD_": "131072"},
        {"MALLOC_MMAP_THRESHOLD_": "131072"},
        {"GLIBC_TUNABLES": "glibc.rtld.nns=4:glibc.malloc.trim_threshold=131072"},
    ],
    ids=str,
)
def test_what_the_environment_says_stays(environ: dict[str, str]) -> None:
    assert not keep_freed_memory(environ)
