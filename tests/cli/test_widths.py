"""What commands print fits the terminal: no line is longer than it is wide, none ends in blanks, no word is broken."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

import helixctl.cli.plan
import helixctl.cli.simulate
import helixctl.cli.sweep
from helixctl.cli.main import _status
from helixctl.cli.tables import Column, Table
from tests.documents import PAPER, ROOT, SMALL, SMALL_MOE, TINY, plan_of

WIDTHS = (60, 80, 100, 140, 160)
TWO = tuple(word for text in ("devices_per_host=2", *TINY) for word in ("--set", text))
MANY = ("DENSE", "SLICED", "MIXED", "DENSE", "LONG")
COMMANDS: dict[str, tuple[str, ...]] = {
    "plan": ("plan", *SMALL, *TWO),
    "plan, sources": ("plan", *SMALL, *TWO, "--plain", "-v"),
    "plan, mixture": ("plan", *SMALL_MOE, *TWO),
    "plan, cache": ("plan", "VOCABULARY", SMALL[1], *TWO, "--output-len", "4"),
    "plan, nothing is legal": ("plan", *SMALL, "--layout", "groups=3,slices=5"),
    "plan, nothing fits": ("plan", *SMALL, *TWO, "--plain", "--set", "device.memory=10 B"),
    "plan, no such file": ("plan", "nowhere.yaml", "h100x16.cluster.yaml"),
    "plan --check": ("plan", *SMALL, *TWO, "--plain", "--groups", "2", "--batch", "8", "--check", "DENSE"),
    "validate": ("validate", "tests/invalid/HX406-gather-order.dag.json", "DENSE", "LONG"),
    "diff": ("diff", "DENSE", "LONG"),
    "simulate": ("simulate", "LONG", "-v", "--critical-path"),
    "simulate, two": ("simulate", "DENSE", "LONG"),
    "simulate, many": ("simulate", *MANY),
    "simulate, cache": ("simulate", "CACHE"),
    "run --dry-run": ("run", "LONG", "--dry-run"),
    "clusters": ("clusters",),
    "wrong use": ("sweep", *SMALL, "--max-tpot", "1ms"),
    "sweep": ("sweep", *SMALL, *TWO, "--plain", "--batch", "1,16", "--seq-len", "8,16"),
    "explain": ("explain",),
    "explain, a code": ("explain", "HX202"),
    "visualize": ("visualize", "nowhere.json", "-o", "x.svg"),
    "help": ("plan", "--help"),
}
LATENT = ("--isl", "2048", "--osl", "128", "--batch", "64", "--layout", "tp=8,dp=2,ep=8,combine=reduce,microbatches=1")
# A search of some seconds each.
LARGE: dict[str, tuple[str, ...]] = {
    "dense": ("plan", "Llama-3.1-8B", "h100:1x8", "--batch", "8", "--seq-len", "2048"),
    "dense, cache": (
        "plan",
        "Llama-3.1-70B",
        "h100:2x8",
        "--input-len",
        "4096",
        "--output-len",
        "512",
        "--batch",
        "64",
    ),
    "mixture": ("plan", "Mixtral-8x7B-v0.1", "h100:1x8", "--batch", "64", "--seq-len", "2048", "-v"),
    "paper": ("plan", *PAPER, "--plain"),
    "models": ("models",),
    "the paper's table": ("paper",),
    "latent": ("plan", "DeepSeek-V3", "h200:2x8", *LATENT),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Words of the commands that stand for files: a model with a vocabulary, a plan with a cache."""
    folder = tmp_path_factory.mktemp("widths")
    model = folder / "words.model.yaml"
    model.write_text(Path(SMALL[0]).read_text() + "vocabulary: {size: 64, tied: true}\n")
    its = (str(model), SMALL[1])
    plans = {
        "DENSE": plan_of(SMALL, 2, 1, *TINY),
        "SLICED": plan_of(SMALL, 1, 2, *TINY, slicing="batch"),
        "MIXED": plan_of(SMALL_MOE, 2, 1, *TINY, experts=2),
        "LONG": plan_of(SMALL, 2, 1, *TINY, "workload.batch=4", data=2, microbatches=2, interleave=2, combine="reduce"),
        "CACHE": plan_of(its, 2, 1, *TINY, "workload.output_len=4"),
    }
    for name, plan in plans.items():
        (folder / f"{name.lower()}.plan.json").write_text(plan.to_json())
    return {"VOCABULARY": str(model)} | {name: str(folder / f"{name.lower()}.plan.json") for name in plans}


# What is worked out before a command prints, and what tells the calls of one command apart.
WORKED_OUT: tuple[tuple[ModuleType, str, Callable[..., object]], ...] = (
    (helixctl.cli.plan, "make_plan", lambda *_: None),
    (helixctl.cli.sweep, "make_sweep", lambda *_: None),
    (helixctl.cli.simulate, "_predict", lambda path, *_: path),
)


@pytest.fixture
def worked_out_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A search or a simulation is done for the first width, and its answer printed at all."""
    for module, name, key in WORKED_OUT:
        monkeypatch.setattr(module, name, once(getattr(module, name), key))


def once(make: Callable[..., object], key: Callable[..., object]) -> Callable[..., object]:
    known: dict[object, object] = {}

    @functools.wraps(make)
    def made(*args: object, **options: object) -> object:
        if key(*args) not in known:
            known[key(*args)] = make(*args, **options)
        return known[key(*args)]

    return made


def words(text: str) -> list[str]:
    return [word.strip(",:;") for word in text.split()]


def overlong(text: str, width: int) -> Iterator[str]:
    """Lines that are too long, though they have several words; commands to be copied stay whole."""
    lines = (line for line in text.splitlines() if not line.startswith("  helixctl "))
    yield from (line for line in lines if len(line) > width and len(line.split()) > 1)


def check(arguments: tuple[str, ...], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    _status(list(arguments))
    known = set(words("".join(capfd.readouterr())))
    assert known
    for width in WIDTHS:
        monkeypatch.setenv("COLUMNS", str(width))
        _status(list(arguments))
        for text in capfd.readouterr():
            assert not list(overlong(text, width)), width
            assert not [line for line in text.splitlines() if line != line.rstrip()], width
            assert "\x1b" not in text
            # Short forms have words of their own.
            broken = [w for w in words(text) if w not in known and w not in SHORT and not LETTERS.fullmatch(w)]
            assert not broken or arguments[-1] == "--help", width


# Of columns whose names or cells are said shorter, and of the key to letters.
SHORT = {
    *("step", "latency", "overhead/token", "exposed", "hidden", "received", "between", "hosts", "memory", "cache"),
    *(
        "replicas",
        "pipeline",
        "stages",
        "ways",
        "that",
        "experts",
        "are",
        "spread",
        "share",
        "microbatches",
        "in",
        "turn",
    ),
}
LETTERS = re.compile(r"(DP|PP|EP|sh|mb|il)\d*|(layers|prefill-by|sums-in|blocks-of)-.*")


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.usefixtures("worked_out_once")
def test_lines_fit(
    name: str, files: dict[str, str], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    check(tuple(files.get(word, word) for word in COMMANDS[name]), capfd, monkeypatch)


@pytest.mark.sweep
@pytest.mark.parametrize("name", LARGE)
@pytest.mark.usefixtures("worked_out_once")
def test_lines_of_large_models_fit(
    name: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    check(LARGE[name], capfd, monkeypatch)


def made() -> Table:
    table = Table([
        Column("layout", short=1, fold=4, least=6, key=lambda cells: "DP replicas" if "DP2" in " ".join(cells) else ""),
        Column("step", right=True),
        Column("memory", right=True, drop=2),
        Column("verdict", fold=3, least=10),
    ])  # fmt: skip
    table.add_row(("2 x 1, data 2", "2 x 1 DP2"), "3.1 ms", "12 GB", "chosen: the fastest", style="bold")
    table.add_row(("4 x 1", "4 x 1"), "13.1 ms", "6 GB", "slower by its communication")
    return table


def lines(width: int | None) -> list[str]:
    return [line.text for line in made().lines(width)]


def test_a_table_gives_up_what_it_is_told_in_its_order() -> None:
    assert lines(None) == [
        "layout            step  memory  verdict",
        "2 x 1, data 2   3.1 ms   12 GB  chosen: the fastest",
        "4 x 1          13.1 ms    6 GB  slower by its communication",
    ]
    assert lines(57) == [
        "layout        step  memory  verdict",
        "2 x 1 DP2   3.1 ms   12 GB  chosen: the fastest",
        "4 x 1      13.1 ms    6 GB  slower by its communication",
        "DP replicas",
    ]
    assert lines(50)[0] == "layout        step  verdict"
    assert lines(36) == [
        "layout        step  verdict",
        "2 x 1 DP2   3.1 ms  chosen: the",
        "                    fastest",
        "4 x 1      13.1 ms  slower by its",
        "                    communication",
        "DP replicas",
    ]
    assert [line.bold for line in made().lines(57)] == [True, True, False, False]


def test_a_row_has_a_cell_for_every_column() -> None:
    with pytest.raises(ValueError, match="1 cells for 4 columns"):
        made().add_row("x")
