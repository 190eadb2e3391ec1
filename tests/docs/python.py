"""The Python that a page shows, and what it shows of what that prints.

A block fenced as ``python``; where a block fenced as ``text`` follows it, that is all that it prints. The blocks of a
page are run one after the other in one interpreter, as a reader would type them.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.cli.command import ENVIRONMENT
from tests.docs.examples import blocks
from tests.documents import ROOT

# Runs each source of a list in one namespace and writes what each has printed.
_SCRIPT = """
import io, json, sys
from contextlib import redirect_stdout
printed, names = [], {"__name__": "__main__"}
for source, place in json.loads(sys.stdin.read()):
    with redirect_stdout(io.StringIO()) as out:
        exec(compile(source, place, "exec"), names)
    printed.append(out.getvalue())
print(json.dumps(printed))
"""


@dataclass(frozen=True)
class Shown:
    """A block of Python: where it begins, its source, and the lines that the page shows as its output."""

    place: str
    source: str
    output: tuple[str, ...]


def shown(page: Path) -> list[Shown]:
    """The blocks of Python of a page, in its order."""
    found: list[Shown] = []
    after_python = False
    for block in blocks(page.read_text(encoding="utf-8")):
        if block.language == "python":
            # Empty lines ahead, so that a traceback names the line of the page.
            source = "\n" * (block.first - 1) + "\n".join(block.lines)
            found.append(Shown(f"{page.relative_to(ROOT)}:{block.first}", source, ()))
        elif block.language == "text" and after_python:
            found[-1] = Shown(found[-1].place, found[-1].source, block.lines)
        after_python = block.language == "python"
    return found


def printed(examples: list[Shown], folder: Path) -> list[tuple[str, ...]]:
    """What each of the blocks prints, run among the files of a folder; a failure is an AssertionError."""
    command = [sys.executable, "-W", "error", "-c", _SCRIPT]
    text = json.dumps([(example.source, example.place.rpartition(":")[0]) for example in examples])
    done = subprocess.run(command, input=text, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return [tuple(line.rstrip() for line in out.splitlines()) for out in json.loads(done.stdout)]
