"""What a run read of its files, and what of them it did not: printed, so that nothing is passed over in silence."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from helixctl.cli.console import messages
from helixctl.units import counted, human_bytes

if TYPE_CHECKING:
    from rich.console import Console

_FEW = 4  # files and parts that a line names


def print_sources(out: Console, report: dict[str, Any]) -> None:
    """The files, the tensors and the prefix of the weights, what was left out, and notes on the input."""
    source = report["input"] or {}
    if weights := report["weights"]:
        for line in _weights(weights, source.get("path")):
            out.print(line)
    for note in source.get("notes", ()):
        out.print(f"input: {note}")
    for name, value in report["environment"]["less_precise"].items():
        messages().print(f"warning: {name}={value} in the environment: float32 is computed with less")


def _weights(weights: dict[str, Any], source: str | None) -> list[str]:
    tensors, files = weights["tensors"], weights["files"]
    prefix = f" with the prefix {weights['prefix']!r}" if weights["prefix"] is not None else ""
    rank, ranks = human_bytes(weights["read_nbytes_per_rank"]), human_bytes(weights["read_nbytes"])
    of = f"of {human_bytes(weights['nbytes'])} in {weights['path']}"
    lines = [
        f"weights: {rank} read a rank at most, {ranks} in all, {of}",
        f"weights: {counted(tensors, 'tensor')}{prefix} in {_few(files)}",
    ]
    left_out = weights["left_out"]
    if left_out["tensors"]:
        parts = _few([f"{name} ({count})" for name, count in left_out["parts"].items()])
        size = human_bytes(left_out["nbytes"])
        lines.append(f"weights: not read: {counted(left_out['tensors'], 'tensor')}, {size}: {parts}")
    others = [n for n in weights["other_files"] if source is None or Path(weights["path"]) / n != Path(source)]
    if others:
        lines.append(f"weights: files not read: {_few(others)}")
    return lines


def _few(names: Sequence[str]) -> str:
    more = len(names) - _FEW
    return ", ".join(names[:_FEW]) + (f" and {more} more" if more > 0 else "")
