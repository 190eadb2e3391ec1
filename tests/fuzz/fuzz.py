"""Malformed documents: is each refused with a diagnostic, soon, and in little memory?

    python tests/fuzz/fuzz.py [--seed N] [--count N] [--way NAME] [--keep FOLDER] [--update]

``--update`` writes the table into docs/reliability.md; ``--keep`` keeps the documents that something is wrong with.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Final

ROOT = Path(__file__).parent.parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "runtime")]

from tests.benchmarks.tables import updated  # noqa: E402
from tests.fuzz import malformed_bytes, malformed_sizes, malformed_values  # noqa: E402
from tests.fuzz.bounded_run import MOST_NBYTES, MOST_S, CommandEnd, run  # noqa: E402
from tests.fuzz.malformation import PLANS, REPORT, Draw, Malformation, good  # noqa: E402

MALFORMATIONS: Final[list[Malformation]] = [
    malformation
    for file in (malformed_bytes, malformed_values, malformed_sizes)
    for malformation in file.malformation.all
]
PAGE: Final = ROOT / "docs/reliability.md"
LARGEST: Final = 70 * 2**20  # bytes: more than is read of any document
_MODEL, _CLUSTER = str(PLANS / "small/dense.model.yaml"), str(PLANS / "paper/h100x16.cluster.yaml")
_PLAN: Final = str(PLANS / "small/dense.4x4.plan.json")
# The commands that read a document of a kind; {} is its file.
COMMANDS: Final[dict[str, tuple[tuple[str, ...], ...]]] = {
    "model": (("validate", "{}"), ("plan", "{}", _CLUSTER)),
    "cluster": (("validate", "{}"), ("plan", _MODEL, "{}")),
    "plan": (
        ("validate", "{}"),
        ("simulate", "{}"),
        ("visualize", "{}", "-o", "{}.dot"),
        ("diff", "{}", "{}"),
        ("plan", _MODEL, _CLUSTER, "--check", "{}"),
    ),
    "dag": (("validate", "{}"), ("simulate", "{}")),
    "report": (("simulate", _PLAN, "--against", "{}"),),
}


@dataclass(frozen=True)
class Case:
    """One malformed document; it is made from its number wherever it is needed."""

    malformation: Malformation
    seed: int
    number: int
    largest: int

    def document(self) -> tuple[str, bytes]:
        """The kind of the good document, and the bytes of the malformed one."""
        random = Random(f"{self.seed} {self.malformation.name} {self.number}")
        name = random.choice(sorted(good()))
        return kind_of(name), self.malformation.make(Draw(random, name, self.largest))

    def command(self, kind: str, file: Path) -> list[str]:
        """The command that reads it."""
        chosen = Random(f"{self.seed} {self.number}").choice(COMMANDS[kind])
        return [part.replace("{}", str(file)) for part in chosen]


@dataclass
class Row:
    """The results of the documents of one malformation."""

    malformation: Malformation
    tried: int = 0
    accepted: int = 0
    codes: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0  # the most for a refused document
    nbytes: int = 0
    bad: list[tuple[Case, CommandEnd]] = field(default_factory=list)

    def add(self, case: Case, ended: CommandEnd) -> None:
        """Count the result of one document."""
        self.tried += 1
        self.accepted += ended.accepted
        if not ended.accepted:
            self.codes.update(ended.codes)
            self.seconds, self.nbytes = max(self.seconds, ended.seconds), max(self.nbytes, ended.nbytes)
        if ended.problems:
            self.bad.append((case, ended))


def kind_of(name: str) -> str:
    """The kind of a good document."""
    if name == REPORT:
        return name
    return "model" if name.endswith("config.json") else name.split(".")[-2]


def cases(
    count: int, seed: int, malformations: Sequence[Malformation] = MALFORMATIONS, largest: int = LARGEST
) -> Iterator[Case]:
    """About ``count`` documents; a malformation gets as many as its weight says."""
    each = count / sum(malformation.weight for malformation in malformations)
    for malformation in malformations:
        for number in range(max(1, round(each * malformation.weight))):
            yield Case(malformation, seed, number, largest)


def tried(case: Case, *, searched: bool = True) -> tuple[Case, CommandEnd]:
    """Make the document and run its command; where it plans and is not to search, with ``--plain``."""
    with tempfile.TemporaryDirectory() as folder:
        kind, data = case.document()
        file = Path(folder) / f"x.{kind}.{'json' if case.number % 2 else 'yaml'}"
        file.write_bytes(data)
        command = case.command(kind, file)
        plain = [] if searched or command[0] != "plan" else ["--plain"]
        return case, run([*command, *plain])


def fuzz(all_cases: Sequence[Case], processes: int) -> Iterator[tuple[Case, CommandEnd]]:
    """Try all cases; their results come in any order."""
    good()  # before the fork
    if processes == 1:
        yield from map(tried, all_cases)
        return
    with multiprocessing.get_context("fork").Pool(processes) as pool:
        yield from pool.imap_unordered(tried, all_cases, chunksize=4)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=20_100, help="documents in all, about")
    parser.add_argument("--way", help="only malformations whose name holds this")
    parser.add_argument("--number", type=int, help="only the document of this number")
    parser.add_argument("--keep", type=Path, metavar="FOLDER")
    parser.add_argument("--update", action="store_true", help=f"write the table into {PAGE.relative_to(ROOT)}")
    options = parser.parse_args()
    begun = time.monotonic()
    malformations = [each for each in MALFORMATIONS if options.way is None or options.way in each.name]
    chosen = [c for c in cases(options.count, options.seed, malformations) if options.number in {None, c.number}]
    rows = {malformation.name: Row(malformation) for malformation in malformations}
    for done, (case, ended) in enumerate(fuzz(chosen, os.cpu_count() or 1), 1):
        rows[case.malformation.name].add(case, ended)
        if sys.stderr.isatty():
            print(f"\r{done:,} of {len(chosen):,} ", end="", file=sys.stderr, flush=True)
        if ended.problems:
            _complain(case, ended, options.keep)
    made = list(rows.values())
    text = summary(made, options.seed) + "\n\n" + table(made)
    print(text)
    print(f"{time.monotonic() - begun:.0f} s", file=sys.stderr)
    if options.update:
        PAGE.write_text(updated(PAGE.read_text(), {"fuzz": text}))
    return 1 if any(row.bad for row in made) else 0


def _complain(case: Case, ended: CommandEnd, keep: Path | None) -> None:
    kind, data = case.document()
    command = " ".join(case.command(kind, Path("x")))
    name, problems = case.malformation.name, ", ".join(ended.problems)
    print(f"{name!r} --number {case.number}, {len(data):,} bytes, {command}: {problems}")
    print(ended.said[-1500:] if "a traceback" in ended.problems else ended.said[:300], flush=True)
    if keep:
        keep.mkdir(parents=True, exist_ok=True)
        (keep / f"{case.malformation.name}.{case.number}.{kind}".replace(" ", "-")).write_bytes(data)


def summary(rows: Sequence[Row], seed: int) -> str:
    total, accepted, bad = (sum(n) for n in zip(*((r.tried, r.accepted, len(r.bad)) for r in rows), strict=True))
    return (
        f"{total:,} documents malformed in {len(rows)} ways, seed {seed}: {total - accepted:,} refused, "
        f"{accepted:,} still well-formed\nand taken; {bad} with a traceback, another exit status than 1 or 2, or no "
        f"diagnostic, or above {MOST_S:g} s\nor {MOST_NBYTES / 1e6:g} MB. The most was "
        f"{max(r.seconds for r in rows):.1f} s and {max(r.nbytes for r in rows) / 1e6:.0f} MB."
    )


def table(rows: Sequence[Row]) -> str:
    lines = [
        "| malformed | tried | refused | codes | taken | CPU at most | memory at most |",
        "|---|--:|--:|---|--:|--:|--:|",
    ]
    for row in rows:
        codes = ", ".join(sorted(row.codes)) or "-"
        lines.append(
            f"| {row.malformation.name} | {row.tried} | {row.tried - row.accepted} | {codes} | {row.accepted or ''} "
            f"| {row.seconds:.2f} s | {row.nbytes / 1e6:.0f} MB |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
