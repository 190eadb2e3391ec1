"""What a rank reports when its worker is done: its result, or the kind of its failure."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from time import monotonic
from typing import Final, Literal

import torch.distributed as dist

from helixctl.errors import HelixError

# gloo raises plain RuntimeErrors, so only the text distinguishes them from an error of the task itself.
_BACKEND: Final = re.compile(r"gloo|NCCL|ProcessGroup|c10d|TCPStore|FileStore|\bwait timeout\b", re.IGNORECASE)
_PEER_GONE: Final = re.compile(r"connection (?:closed|reset|refused)|broken pipe|remote process", re.IGNORECASE)
_PEER_LATE: Final = re.compile(r"time[d]?[ -]?out", re.IGNORECASE)
# The line of gloo's source that raised an error, and gloo's advice: both are left out of messages.
_GLOO_DETAILS: Final = re.compile(r"^\[[^\]]*\.cc:\d+\] |\. This is typically .*")
_MESSAGE_LENGTH: Final = 300


@dataclass(frozen=True, slots=True)
class RankReport:
    """What a rank reports when its worker is done.

    Attributes:
        kind: result; helix, a HelixError; task, any other exception; late or gone, what happened to a peer.
        value: the result, the diagnostics, or one line about the exception.
        when: the time of the report, by the monotonic clock that all processes of a machine share.
    """

    kind: Literal["result", "helix", "task", "late", "gone"]
    value: object
    when: float = field(default_factory=monotonic)


def describe(error: BaseException) -> RankReport:
    """The report of a rank if its worker raised this error."""
    if isinstance(error, HelixError):
        return RankReport("helix", error.diagnostics)
    text = str(error)
    from_backend = isinstance(error, RuntimeError) and (isinstance(error, dist.DistError) or _BACKEND.search(text))
    # "enforce fail" is an error of this rank's own call of gloo, not of a peer.
    if from_backend and "enforce fail" not in text:
        if _PEER_GONE.search(text):
            return RankReport("gone", _one_line(error))
        if _PEER_LATE.search(text):
            return RankReport("late", _one_line(error))
    return RankReport("task", _one_line(error))


def _one_line(error: BaseException) -> str:
    lines = [_GLOO_DETAILS.sub("", line.strip()) for line in str(error).splitlines() if line.strip()]
    name = type(error).__name__
    return f"{name}: {lines[0]}"[:_MESSAGE_LENGTH] if lines else name
