"""The last word of a rank: its result, or what kind of failure an exception is."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from time import monotonic
from typing import Final, Literal

import torch.distributed as dist

from helixctl.errors import HelixError

# gloo raises plain RuntimeErrors, so only the text tells them from a task's own.
_BACKEND: Final = re.compile(r"gloo|NCCL|ProcessGroup|c10d|TCPStore|FileStore|\bwait timeout\b", re.IGNORECASE)
_PEER_GONE: Final = re.compile(r"connection (?:closed|reset|refused)|broken pipe|remote process", re.IGNORECASE)
_PEER_LATE: Final = re.compile(r"time[d]?[ -]?out", re.IGNORECASE)
# Where in gloo's source an error arose, and its advice.
_GLOO_ASIDES: Final = re.compile(r"^\[[^\]]*\.cc:\d+\] |\. This is typically .*")
_MESSAGE_LENGTH: Final = 300


@dataclass(frozen=True, slots=True)
class Report:
    """The last word of a rank.

    Attributes:
        kind: a result; a HelixError; any other exception; or that a peer was late, or gone.
        value: the result, the diagnostics, or one line about the exception.
        when: the monotonic clock, which all processes of a machine share.
    """

    kind: Literal["result", "helix", "task", "late", "gone"]
    value: object
    when: float = field(default_factory=monotonic)


def describe(error: BaseException) -> Report:
    """The report of a rank whose worker raised this."""
    if isinstance(error, HelixError):
        return Report("helix", error.diagnostics)
    text = str(error)
    from_backend = isinstance(error, RuntimeError) and (isinstance(error, dist.DistError) or _BACKEND.search(text))
    # "enforce fail" is gloo refusing what this rank itself asked of it.
    if from_backend and "enforce fail" not in text:
        if _PEER_GONE.search(text):
            return Report("gone", _one_line(error))
        if _PEER_LATE.search(text):
            return Report("late", _one_line(error))
    return Report("task", _one_line(error))


def _one_line(error: BaseException) -> str:
    lines = [_GLOO_ASIDES.sub("", line.strip()) for line in str(error).splitlines() if line.strip()]
    name = type(error).__name__
    return f"{name}: {lines[0]}"[:_MESSAGE_LENGTH] if lines else name
