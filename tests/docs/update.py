"""Write into README.md and docs/ what their commands print now, where that is not what they show. Read the diff.

    python tests/docs/update.py [PAGE ...]

If a page shows a part of an output, the new lines are those most similar to the old ones.
"""

from __future__ import annotations

import difflib
import shutil
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent.parent))

from tests.docs.examples import Example, Step, examples, pages
from tests.docs.kit import make_kit, run
from tests.docs.masks import READER, masked
from tests.docs.test_commands import RUN, difference, lines
from tests.documents import ROOT


def update(page: Path, kit: Path) -> None:
    """Run every example of a page, and mend what it shows."""
    text, moved = page.read_text(encoding="utf-8").splitlines(), 0
    for example in examples(page):
        for step, now in printed(example, kit):
            at = step.line - 1 + moved
            command = text[at].lstrip().startswith("$ ")
            begin = at + 1 if command else at
            # An output alone may begin with blanks of its own.
            indent = text[at].removesuffix(text[at].lstrip() if command else (step.shown or ("",))[0])
            while begin > at and text[begin - 1].endswith("\\"):
                begin += 1
            while not text[begin].strip():
                begin += 1
            shown = step.shown or ()
            new = [f"{indent}{line}".rstrip() for line in merged_output(step, now)]
            text[begin : begin + len(shown)] = new
            moved += len(new) - len(shown)
            print(f"{example.page}:{step.line}: $ {step.command}")
    page.write_text("\n".join(text) + "\n", encoding="utf-8")


def printed(example: Example, kit: Path) -> list[tuple[Step, list[str]]]:
    """The steps that show something else than they print, with what they print."""
    found: list[tuple[Step, list[str]]] = []
    if not any(step.command.startswith(RUN) for step in example.steps):
        return found
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "here"
        shutil.copytree(kit, folder, symlinks=True)
        for step in example.steps:
            if not step.command.startswith(RUN):
                continue
            done = run(step, folder)
            if step.shown is not None and difference(step, done, str(folder)):
                out, err = (part.replace(str(folder), READER) for part in (done.out.decode(), done.err))
                ways = [lines(out + err), lines(err + out), *([lines(err)] if done.status else [])]
                if step.part:
                    ways = [way[i : i + len(step.shown)] for way in ways for i in range(len(way) - len(step.shown) + 1)]
                found.append((step, max(ways, key=lambda way: likeness(step.shown or (), way), default=[])))
    return found


def merged_output(step: Step, now: list[str]) -> list[str]:
    """The new output; lines that differ from the page only in masked numbers (times of runs) stay as they are."""
    shown, found = list(step.shown or ()), list[str]()
    match = difflib.SequenceMatcher(None, masked(step.command, shown), masked(step.command, now), autojunk=False)
    for tag, a, b, c, d in match.get_opcodes():
        found += shown[a:b] if tag == "equal" else now[c:d]
    return found


def likeness(shown: tuple[str, ...], way: list[str]) -> float:
    """How much of what is shown is in some lines."""
    return difflib.SequenceMatcher(None, "\n".join(shown), "\n".join(way), autojunk=False).ratio()


def main() -> None:
    with tempfile.TemporaryDirectory() as place:
        kit = Path(place)
        make_kit(kit)
        for page in [ROOT / name for name in sys.argv[1:]] or pages():
            update(page, kit)


if __name__ == "__main__":
    main()
