"""Every command that README.md and docs/ show runs, and prints what is shown beside it."""

from __future__ import annotations

import difflib
import re
import shutil
from pathlib import Path

import pytest

from tests.cli.command import Done
from tests.docs.examples import Example, Step, examples, pages
from tests.docs.kit import run
from tests.docs.masks import READER, masked
from tests.docs.not_run import LONG, NOT_RUN, STATUS

ALL = [example for page in pages() for example in examples(page)]
RUN = ("helixctl ", ".venv/bin/helixctl ", "small=")


def marked(example: Example) -> object:
    long = any(step.command.startswith(tuple(LONG)) for step in example.steps)
    return pytest.param(example, id=str(example), marks=[pytest.mark.sweep] if long else [])


@pytest.mark.parametrize("example", [marked(e) for e in ALL if any(s.command.startswith(RUN) for s in e.steps)])
def test_what_a_page_shows(example: Example, kit: Path, tmp_path: Path) -> None:
    folder = tmp_path / "here"
    shutil.copytree(kit, folder, symlinks=True)
    for step in example.steps:
        if step.command.startswith(RUN):
            problem = difference(step, run(step, folder), str(folder))
            assert not problem, f"{example.page}:{step.line}: $ {step.command}\n{problem}"


def difference(step: Step, done: Done, folder: str) -> str:
    """What is wrong with what a command printed, or with its exit status; empty where nothing is."""
    out, err = done.out.decode(), done.err
    out, err = out.replace(folder, READER), err.replace(folder, READER)
    printed = out + err
    due = 0 if step.shown is None or not re.search(r"\bHX\d{3} ", "\n".join(step.shown)) else (1, 2)
    if done.status not in (due if isinstance(due, tuple) else (status(step.command), due)):
        return f"exit status {done.status}\n{printed}"
    if step.shown is None:
        return ""
    shown = masked(step.command, step.shown)
    ways = [masked(step.command, lines(text)) for text in (out + err, err + out, *([err] if done.status else []))]
    if any(shown == way or (step.part and within(shown, way)) for way in ways):
        return ""
    return "\n".join(difflib.unified_diff(shown, ways[-1], "expected: the page", "got: the program", lineterm="", n=99))


def status(command: str) -> int:
    return next((number for start, number in STATUS.items() if command.startswith(start)), 0)


def lines(text: str) -> list[str]:
    return "\n".join(line.rstrip() for line in text.splitlines()).strip("\n").splitlines()


def within(part: list[str], whole: list[str]) -> bool:
    return any(whole[at : at + len(part)] == part for at in range(len(whole)))


def test_every_command_is_run_or_listed() -> None:
    commands = [(f"{e.page}:{s.line}", s.command) for e in ALL for s in e.steps]
    left = [(place, command) for place, command in commands if not command.startswith((*RUN, *NOT_RUN))]
    assert not left, "neither run nor in tests/docs/not_run.py"


@pytest.mark.parametrize("page", [page for page in pages() if examples(page)], ids=lambda page: page.stem)
def test_pages_say_where_files_of_the_checkout_are(page: Path) -> None:
    """A reader who has installed helixctl has no plans/ and no tests/."""
    steps = [step for example in examples(page) for step in example.steps if step.command.startswith(RUN)]
    named = [step.line for step in steps if re.search(r"(^|[\s\"=])(plans|tests)/\w", step.command)]
    assert not named or "in a checkout" in page.read_text(encoding="utf-8").lower(), f"lines {named}"


@pytest.mark.parametrize("table", [NOT_RUN, LONG, STATUS], ids=["NOT_RUN", "LONG", "STATUS"])
def test_what_is_listed_is_shown_somewhere(table: dict[str, object]) -> None:
    commands = [step.command for example in ALL for step in example.steps]
    assert not [start for start in table if not any(command.startswith(start) for command in commands)]
