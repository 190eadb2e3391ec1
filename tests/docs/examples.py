"""The commands that README.md, CONTRIBUTING.md, tests/README.md and docs/ show, and what they show of their output.

A block of code, fenced or indented, is one of these:

- a session: ``$ helixctl ...``, then what it prints, up to the next ``$``;
- a script: lines of commands without their output;
- an output, where a comment stands above it: ``<!-- prints: helixctl ... -->`` (all of it, or ``<!-- prints among other
  lines: helixctl ... -->``).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.documents import ROOT

_FENCE = re.compile(r"^(```+)(\w*)$")
_PRINTS = re.compile(r"^<!-- prints( among other lines)?: (.*) -->$")
_TOOLS = ("helixctl ", ".venv/bin/", "python", "make ", "torchrun ", "srun ", "exec torchrun ", "for ", "done")
_SCRIPTS = {"", "bash", "sh", "console"}


@dataclass(frozen=True)
class Step:
    """One command: the line of the page on which it stands, its text on one line, and what is shown of its output.

    ``shown``: the output, None if the page shows none; ``part``: it is only a part of the output.
    """

    line: int
    command: str
    shown: tuple[str, ...] | None = None
    part: bool = False


@dataclass(frozen=True)
class Example:
    """The commands of one block, to be run one after the other in one folder."""

    page: str
    steps: tuple[Step, ...]

    def __str__(self) -> str:
        """``docs/ci.md:145``."""
        return f"{self.page}:{self.steps[0].line}"


@dataclass(frozen=True)
class Block:
    """The lines of a block of code without fence or indentation, the first one's number, and the line above it."""

    first: int
    lines: tuple[str, ...]
    language: str
    above: str


def pages() -> list[Path]:
    """The pages whose commands are tested."""
    others = ("README.md", "CONTRIBUTING.md", "tests/README.md")
    return [*(ROOT / name for name in others), *sorted((ROOT / "docs").rglob("*.md"))]


def examples(page: Path) -> list[Example]:
    """The examples of a page, in its order."""
    name = str(page.relative_to(ROOT))
    found = (steps(block) for block in blocks(page.read_text(encoding="utf-8")))
    return [Example(name, tuple(each)) for each in found if each]


def blocks(text: str) -> Iterator[Block]:
    """The blocks of code of a page: fenced ones, and those indented by four blanks after an empty line."""
    lines = text.splitlines()
    at, above = 0, ""
    while at < len(lines):
        fence = _FENCE.match(lines[at])
        begin = at + bool(fence)
        if fence:
            at = lines.index(fence[1], begin)
            yield Block(begin + 1, tuple(lines[begin:at]), fence[2], above)
        elif lines[at].startswith("    ") and (at == 0 or not lines[at - 1].strip()):
            while at < len(lines) and (lines[at].startswith("    ") or not lines[at].strip()):
                at += 1
            yield Block(begin + 1, tuple(line[4:] for line in lines[begin:at]), "", above)
            continue
        above = lines[at] or above
        at += 1


def steps(block: Block) -> list[Step]:
    """The commands of a block; none of one that holds something else."""
    if prints := _PRINTS.match(block.above):
        return [Step(block.first, prints[2], stripped(block.lines), bool(prints[1]))]
    if block.language not in _SCRIPTS:
        return []
    whole = list(logical(block))
    if any(text.startswith("$ ") for _, text in whole):
        return sessions(block)
    if not any(text.startswith(_TOOLS) and not text.startswith(("for", "done")) for _, text in whole):
        return []
    if any(text.startswith("for ") for _, text in whole):
        return [Step(block.first, "\n".join(text for _, text in whole))]
    return [Step(line, text) for line, text in whole if text.startswith(_TOOLS)]


def sessions(block: Block) -> list[Step]:
    """Every ``$ COMMAND`` with the lines after it."""
    begins = [at for at, line in enumerate(block.lines) if line.startswith("$ ")]
    found = []
    for begin, end in zip(begins, [*begins[1:], len(block.lines)], strict=True):
        after = begin + 1
        while block.lines[after - 1].endswith("\\"):
            after += 1
        command = joined(block.lines[begin:after]).removeprefix("$ ")
        found.append(Step(block.first + begin, command, stripped(block.lines[after:end])))
    return found


def logical(block: Block) -> Iterator[tuple[int, str]]:
    """The lines of a script with those joined that a backslash continues; their first one's number."""
    at = 0
    while at < len(block.lines):
        begin = at
        while block.lines[at].endswith("\\") and at + 1 < len(block.lines):
            at += 1
        at += 1
        if text := joined(block.lines[begin:at]):
            yield block.first + begin, text


def joined(lines: tuple[str, ...]) -> str:
    """One line of several that backslashes continue."""
    return " ".join(line.removesuffix("\\").strip() for line in lines)


def stripped(lines: tuple[str, ...]) -> tuple[str, ...]:
    """Without blanks at the end of lines, and without empty lines around all."""
    return tuple("\n".join(line.rstrip() for line in lines).strip("\n").splitlines())
