"""What every check shares: how it reports, and how a fault's neighbourhood is printed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import Protocol

from helixctl.dag import Dag, Op, Task, Tensor
from helixctl.errors import Diagnostic
from helixctl.plan import Interval


class Check(Protocol):
    """One proof: yields what is wrong, and nothing where the proof holds."""

    def __call__(self, dag: Dag, /) -> Iterator[Diagnostic]:
        """Yield what is wrong."""
        ...


def finding(
    code: str, dag: Dag, task: Task, message: str, hint: str | None = None, *, value: str | None = None
) -> Diagnostic:
    """A diagnostic about a task, with the tasks before and after it; or about a value of its, whose place it gets."""
    before = _names(dag.producer[v].id for v in task.inputs if v in dag.producer)
    after = _names(t.id for v in task.outputs for t in dag.consumers.get(v, ()))
    around = f"between {before or 'the start'} and {after or 'the end'}"
    hint = f"{hint}; it stands {around}" if hint else f"it stands {around}"
    return Diagnostic(code, f"task {task.id}: {message}", hint, path=value or task.id)


def region_text(tensor: Tensor, region: tuple[Interval, ...]) -> str:
    """``batch 0:16, seq 0:8, head 4:8``: every dim by name."""
    return ", ".join(f"{d} {a}:{b}" for d, (a, b) in zip(tensor.dims, region, strict=True))


def partial_text(partial: tuple[tuple[str, Interval], ...]) -> str:
    """``summed over ffn 0:128`` or ``whole``."""
    return "summed over " + ", ".join(f"{d} {a}:{b}" for d, (a, b) in partial) if partial else "whole"


def op_text(op: Op) -> str:
    """``activation (function gelu)``."""
    attributes = ", ".join(f"{k} {v}" for k, v in asdict(op).items() if k != "kind" and v is not None)
    return f"{op.kind} ({attributes})" if attributes else op.kind


def _names(ids: Iterable[str], most: int = 3) -> str:
    names = list(dict.fromkeys(ids))
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
