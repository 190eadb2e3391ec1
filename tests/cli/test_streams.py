"""Answers go to standard output, everything else to standard error; a reader that closes the stream does no harm."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.cli.command import ENVIRONMENT, helixctl
from tests.documents import ROOT, SMALL

PLAN = "plans/small/dense.4x4.plan.json"
WRONG = "tests/invalid/HX406-region-moved.dag.json"
PLAIN = ("--plain", "--groups", "4", "--slices", "4")
ANSWERS = {
    "plan": (("plan", *SMALL, "--plain", "--groups", "4"), 0, "verdict"),
    "plan --check": (("plan", *SMALL, *PLAIN, "--check", PLAN), 0, "is what the specs give"),
    "validate": (("validate", PLAN), 0, "valid plan"),
    "validate, refused": (("validate", WRONG), 1, "HX406"),
    "validate, malformed": (("validate", "nowhere.json"), 2, "HX101"),
    "diff": (("diff", PLAN, "plans/small/moe.4x4.plan.json"), 1, "predicted"),
    "simulate": (("simulate", PLAN), 0, "step time"),
    "run --dry-run": (("run", PLAN, "--dry-run"), 0, "nothing was started"),
    "run": (("run", "PLAN2", "--warmup", "1", "--iters", "1", "--check"), 0, "check passed"),
}


@pytest.fixture
def two_ranks(tmp_path: Path) -> str:
    path = tmp_path / "two.plan.json"
    sizes = ("--set", "devices_per_host=2", "--set", "layers=1")
    assert helixctl("plan", *SMALL, *sizes, "--layout", "groups=2", "-q", "-o", path).status == 0
    return str(path)


@pytest.mark.parametrize("name", ANSWERS)
def test_the_answer_goes_to_standard_output(name: str, two_ranks: str) -> None:
    arguments, status, text = ANSWERS[name]
    done = helixctl(*(two_ranks if a == "PLAN2" else a for a in arguments))
    assert done.status == status
    assert text in done.said
    assert done.err == ("running: 2 CPU ranks, 1 + 1 steps\n" if name == "run" else "")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("plan", *SMALL, "--plain", "--groups", "4", "-o", "-"), "verdict"),
        (("plan", *SMALL, "--plain", "--groups", "4", "--dag", "-"), "verdict"),
        (("simulate", PLAN, "--json", "-"), "step time"),
        (("simulate", PLAN, "--trace", "-"), "step time"),
        (("validate", PLAN, "-f", "json"), "valid plan"),
        (("run", "PLAN2", "--warmup", "1", "--iters", "1", "--check", "--report", "-"), "check passed"),
    ],
)
def test_where_an_artifact_takes_standard_output_the_answer_moves(
    arguments: tuple[str, ...], text: str, two_ranks: str
) -> None:
    done = helixctl(*(two_ranks if a == "PLAN2" else a for a in arguments))
    assert done.status == 0
    json.loads(done.out)
    assert text in done.err


@pytest.mark.parametrize(
    "arguments",
    [
        ("plan", "nowhere.yaml", SMALL[1]),
        ("plan", *SMALL, "--layout", "groups=3,slices=5"),
        ("diff", PLAN, "nowhere.json"),
        ("simulate", "nowhere.json"),
        ("run", WRONG, "--dry-run"),
        ("visualize", "nowhere.json", "-o", "-", "-f", "svg"),
        ("plan", *SMALL, "--no-such-option"),
    ],
)
def test_errors_go_to_standard_error(arguments: tuple[str, ...]) -> None:
    done = helixctl(*arguments)
    assert done.status in {1, 2}
    assert done.out == b""
    assert done.err


def test_what_was_written_is_said_on_standard_error(tmp_path: Path) -> None:
    for arguments in (
        ("plan", *SMALL, "--plain", "--groups", "4", "-o"),
        ("visualize", PLAN, "-o"),
        ("simulate", PLAN, "--trace"),
    ):
        path = tmp_path / f"{arguments[0]}.{'html' if arguments[0] == 'visualize' else 'plan.json'}"
        done = helixctl(*arguments, path)
        assert done.err.startswith(f"wrote {path}: ")
        assert "wrote" not in done.said


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (("plan", *SMALL, "--plain", "--groups", "4", "-o", "OUT"), 0),
        (("validate", WRONG, PLAN), 1),
        (("validate", "plans", "-o", "OUT", "-f", "json"), 0),
        (("diff", PLAN, "plans/small/moe.4x4.plan.json"), 1),
        (("simulate", PLAN, "--json", "OUT"), 0),
    ],
)
def test_a_reader_who_goes_away_costs_nothing(arguments: tuple[str, ...], status: int, tmp_path: Path) -> None:
    """``| head -1``, ``| less`` and q: files are written, the status is that of the work, and nothing is said."""
    output = tmp_path / "x.json"
    command = [sys.executable, "-m", "helixctl", *(str(output) if a == "OUT" else a for a in arguments)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT, env=ENVIRONMENT)
    process.stdout.close()
    err = process.stderr.read().decode()
    process.stderr.close()
    assert process.wait(60) == status
    assert all(line.startswith("wrote ") for line in err.splitlines()), err
    assert output.exists() == ("OUT" in arguments)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
@pytest.mark.parametrize("arguments", [("explain", "HX401"), ("clusters",), ("validate", PLAN)], ids=lambda it: it[0])
def test_an_answer_that_has_no_room(arguments: tuple[str, ...]) -> None:
    """A full disk under ``> plan.txt`` is no bug, and the status says that the answer is not there."""
    with Path("/dev/full").open("wb") as full:
        done = _run(arguments, stdout=full, stderr=subprocess.PIPE)
        assert done.returncode == 2
        assert done.stderr.decode() == "HX511 cannot write standard output: No space left on device\n"
        done = _run(arguments, stdout=subprocess.PIPE, stderr=full)
        assert done.returncode == 0
        assert done.stdout


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_message_that_has_no_room_keeps_the_status() -> None:
    with Path("/dev/full").open("wb") as full:
        assert _run(("plan", "nowhere.yaml", SMALL[1]), stdout=subprocess.PIPE, stderr=full).returncode == 2


def _run(arguments: tuple[str, ...], **streams: Any) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "helixctl", *arguments]
    return subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, check=False, **streams)


def test_a_profiler_sees_the_end() -> None:
    """Commands end without freeing their objects, unless somebody measures the process."""
    command = [sys.executable, "-m", "cProfile", "-m", "helixctl", "explain", "HX401"]
    done = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=True)
    assert "function calls" in done.stdout
