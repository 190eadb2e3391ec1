"""The step times in the sentences of docs/why.md are what `helixctl plan` prints for the options beside them."""

from __future__ import annotations

import pytest

from tests.cli.command import helixctl
from tests.documents import PAPER, ROOT

TEXT = " ".join((ROOT / "docs/why.md").read_text(encoding="utf-8").split())
# What stands in the page, the options that give it, and what the chosen row of the table must then have.
FIGURES = [
    ("takes 8 x 1 in 2 replicas, 1.66 ms", "", "8 x 1, data 2, microbatches 2, interleave 2, reduce  1.66 ms"),
    ("microbatches=2,interleave=2` predicts 3.60 ms",
     "--plain --groups 4 --slices 4 --layout microbatches=2,interleave=2",
     "4 x 4, microbatches 2, interleave 2  3.6 ms"),
    ("16 x 1 (`--plain --groups 16`, 3.32 ms)", "--plain --groups 16", "16 x 1  3.32 ms"),
    ("`--plain --groups 4 --slices 4 --layout gather_order=groups_first`, predicts 3.52 ms",
     "--plain --groups 4 --slices 4 --layout gather_order=groups_first", "4 x 4, groups_first  3.52 ms"),
    ("halves the bytes, costs a rounding, and predicts 3.38 ms",
     "--plain --groups 4 --slices 4 --layout reduction_dtype=model", "4 x 4, reduced in the model's dtype  3.38 ms"),
    ("2.92 against 2.98 ms", "--layout groups=4,slices=4", "2.92 ms"),
    ("2.92 against 2.98 ms", "--layout groups=8,slices=1,pipeline=2", "2.98 ms"),
    ("2.15 against 2.70 ms", "--layout groups=4,slices=4,reduction_dtype=model", "2.15 ms"),
    ("2.15 against 2.70 ms", "--layout groups=8,slices=1,pipeline=2,reduction_dtype=model", "2.7 ms"),
    ("are predicted at 2.64 ms a step", "--layout groups=1,slices=1,data=16", "1 x 1, data 16  2.64 ms"),
    ("16 replicas of 7.78 GB, each on a device of 80 GB, exchange nothing", "--seq-len 128", "1 x 1, data 16"),
    ("16 x 2 is, and it is predicted at 3.15 ms", "--set hosts=4 --plain --groups 16", "16 x 2  3.15 ms"),
    ("has 8 x 1 in 4 replicas, 1.22 ms", "--set hosts=4",
     "8 x 1, data 4, microbatches 2, interleave 2, reduce  1.22 ms"),
]  # fmt: skip


@pytest.mark.parametrize(("sentence", "options", "row"), FIGURES, ids=[options or "plan" for _, options, _ in FIGURES])
def test_a_figure_in_a_sentence(sentence: str, options: str, row: str) -> None:
    assert sentence in TEXT
    done = helixctl("plan", *PAPER, *options.split())
    chosen = next(line for line in done.said.splitlines() if line.startswith("*"))
    assert row in "  ".join(cell.strip() for cell in chosen[1:].split("  ") if cell.strip())
