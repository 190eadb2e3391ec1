"""SIGTERM from an outer launcher: what a rank does when it comes a second time, and what rank 0 waits for."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from datetime import timedelta

import pytest

pytest.importorskip("torch")

import torch
from torch.distributed import TCPStore

from helixctl_runtime.ranks.outer import peers as outer_peers
from helixctl_runtime.ranks.outer.ending import Ending
from helixctl_runtime.ranks.outer.peers import Peers
from helixctl_runtime.ranks.outer.run_store import RunStore
from helixctl_runtime.ranks.progress import Progress

# A rank that fails by itself: neither the first nor the second SIGTERM ends it, and Python has nothing to complain of.
FAILING = """
import os, signal, time
from helixctl_runtime.ranks.outer.sigterm import Sigterm

sigterm = Sigterm()
with sigterm.handled(lambda seconds: True):
    os.kill(os.getpid(), signal.SIGTERM)
    while not sigterm.received:
        time.sleep(0.01)
    time.sleep(0.2)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0.2)
print("reported")
"""


def test_a_second_sigterm_of_a_rank_that_fails_by_itself() -> None:
    ended = subprocess.run([sys.executable, "-c", FAILING], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "reported\n", "")


def peers(store: TCPStore, rank: int, world_size: int) -> Peers:
    made = Peers(
        rank, world_size, torch.device("cpu"), "", 5, Progress(), Ending(), lambda: None, host="here", known={}
    )
    made._store = RunStore(store.clone(), "helixctl/0", rank)
    return made


def test_rank_0_keeps_the_store_until_the_others_have_said_that_sigterm_ends_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(outer_peers, "_FAREWELL", 60)
    store = TCPStore("localhost", 0, is_master=True, wait_for_workers=False, timeout=timedelta(seconds=20))
    first, second = (peers(store, rank, 2) for rank in range(2))
    seen: list[int] = []

    def terminate_first() -> None:
        assert not first.ends_within(0)
        seen.append(first._store.count_terminations())

    thread = threading.Thread(target=terminate_first)
    thread.start()
    deadline = time.monotonic() + 20
    while not second._store.terminated([0]) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not second.ends_within(0)
    thread.join()
    assert seen == [2]


def test_rank_0_does_not_wait_for_ever_for_a_rank_that_sigterm_does_not_reach() -> None:
    store = TCPStore("localhost", 0, is_master=True, wait_for_workers=False, timeout=timedelta(seconds=20))
    alone = peers(store, 0, 2)
    assert not alone.ends_within(0)
    assert alone._store.terminated([0, 1]) == {0}
