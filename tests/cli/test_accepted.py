"""Every command accepts what ``plan`` writes, in a time and a memory that do not grow with the dag."""

from __future__ import annotations

from pathlib import Path

import pytest

from helixctl.documents import read_document, read_plan
from helixctl.plan.size import MANY_TASKS, MOST_TASKS, about
from tests.cli.command import Done, helixctl
from tests.documents import PAPER, PAPER_MOE, ROOT
from tests.fork import replacing

MODELS = {name: str(ROOT / f"plans/models/{name}") for name in
          ("Llama-3.1-405B", "Llama-3.1-8B", "Mixtral-8x7B-v0.1", "Qwen2.5-7B", "Qwen3-30B-A3B")}  # fmt: skip
MODELS |= {"dense": PAPER[0], "moe": PAPER_MOE[0]}
COMMANDS = (("validate",), ("simulate",), ("simulate", "-v"), ("run", "--dry-run"), ("diff",), ("visualize",))


def said(done: Done) -> str:
    return done.out.decode() + done.err


def planned(file: Path, model: str, hosts: int, batch: int, seq_len: int, *more: str, before: str = "") -> Done:
    sizes = ("--set", f"hosts={hosts}", "--batch", str(batch), "--seq-len", str(seq_len))
    return helixctl("plan", MODELS[model], PAPER[1], *sizes, *more, "-o", file, before=before)


def refused(file: Path) -> dict[str, str]:
    """What each command that does not accept a plan says of it."""
    found = {}
    for name, *flags in COMMANDS:
        rest = {"diff": (file,), "visualize": ("--layer", "0", "-o", file.parent / "x.html")}.get(name, ())
        done = helixctl(name, *flags, file, *rest)
        if done.status:
            found[name] = said(done)
    return found


@pytest.mark.parametrize(
    ("model", "hosts", "batch", "seq_len"),
    [
        pytest.param("Llama-3.1-405B", 8, 1024, 2048, marks=pytest.mark.sweep),
        pytest.param("Qwen2.5-7B", 4, 512, 512, marks=pytest.mark.sweep),
        ("moe", 2, 512, 1),
        pytest.param("moe", 16, 4096, 1, marks=pytest.mark.sweep),
        pytest.param("dense", 3, 1000, 7, marks=pytest.mark.sweep),
    ],
)
def test_what_plan_writes_every_command_accepts(
    tmp_path: Path, model: str, hosts: int, batch: int, seq_len: int
) -> None:
    done = planned(file := tmp_path / "x.plan.json", model, hosts, batch, seq_len)
    assert done.status == 0, said(done)
    assert not refused(file)


@pytest.mark.sweep
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    ("model", "hosts"),
    [
        *(("Llama-3.1-8B", 1), ("Llama-3.1-8B", 128), ("Mixtral-8x7B-v0.1", 2)),
        *(("Qwen2.5-7B", 3), ("Qwen3-30B-A3B", 8), ("dense", 32), ("moe", 3)),
    ],
)
def test_a_wide_grid(tmp_path: Path, model: str, hosts: int) -> None:
    for batch, seq_len in ((1, 1), (1000, 2048), (8, 131072)):
        done = planned(file := tmp_path / "x.plan.json", model, hosts, batch, seq_len)
        if done.status == 0:
            assert not refused(file), (batch, seq_len)
        else:
            assert {"HX201", "HX203"} & set(said(done).split()), (batch, seq_len)


@pytest.mark.parametrize(
    ("hosts", "fixed"),
    [
        (1, ()),
        pytest.param(
            32,
            ("--layout", "groups=8,slices=1,data=4,pipeline=8,microbatches=32,interleave=1"),
            marks=pytest.mark.sweep,
        ),
        *(pytest.param(hosts, (), marks=pytest.mark.sweep) for hosts in (8, 32, 128)),
    ],
)
def test_405b_is_planned_and_validated(tmp_path: Path, hosts: int, fixed: tuple[str, ...]) -> None:
    """On 8 devices it does not fit; the dag of 1,024 would have 13 million tasks."""
    done = planned(file := tmp_path / "x.plan.json", "Llama-3.1-405B", hosts, 1024, 2048, *fixed)
    if hosts == 1:
        assert "HX203" in said(done)
        return
    assert MANY_TASKS < about(read_plan(read_document(str(file)))) <= MOST_TASKS
    valid = helixctl("validate", file)
    assert valid.status == 0
    for text in (said(done), said(valid)):
        assert "of 126 layers" in text
        assert "the others are copies of these" in text


def test_a_layout_beyond_the_limit_is_not_chosen_and_not_written(tmp_path: Path) -> None:
    file = tmp_path / "x.plan.json"
    assert planned(file, "dense", 2, 1024, 1).status == 0
    size = about(read_plan(read_document(str(file))))
    less = replacing("helixctl.plan.size.MOST_TASKS", size - 1)
    assert "HX305" in said(helixctl("validate", file, before=less))
    assert planned(file, "dense", 2, 1024, 1, before=less).status == 0
    assert about(read_plan(read_document(str(file)))) < size
    file.unlink()
    done = planned(file, "dense", 2, 1024, 1, "--layout", "microbatches=64", before=less)
    assert done.status == 1
    assert "HX305 the smallest that is legal here, layout " in said(done)
    assert "leave axes of --layout to the search" in said(done)
    assert not file.exists()
