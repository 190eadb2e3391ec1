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
from tests.fuzz import of_bytes, of_sizes, of_values  # noqa: E402
from tests.fuzz.watched import MOST_NBYTES, MOST_S, Ended, run  # noqa: E402
from tests.fuzz.way import PLANS, REPORT, Draw, Way, good  # noqa: E402

WAYS: Final[list[Way]] = [way for file in (of_bytes, of_values, of_sizes) for way in file.way.all]
PAGE: Final = ROOT / "docs/reliability.md"
LARGEST: Final = 70 * 2**20  # bytes: more than is read of any document
_MODEL, _CLUSTER = str(PLANS / "small/dense.model.yaml"), str(PLANS / "paper/h100x16.cluster.yaml")
_PLAN: Final = str(PLANS / "small/dense.4x4.plan.json")
# What may be done with a document of a kind; {} is its file.
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
    """One malformed document, made anew from its number wherever it is needed."""

    way: Way
    seed: int
    number: int
    largest: int

    def document(self) -> tuple[str, bytes]:
        """The kind of the good document, and the bytes of the malformed one."""
        random = Random(f"{self.seed} {self.way.name} {self.number}")
        name = random.choice(sorted(good()))
        return kind_of(name), self.way.make(Draw(random, name, self.largest))

    def command(self, kind: str, file: Path) -> list[str]:
        """What is done with it."""
        chosen = Random(f"{self.seed} {self.number}").choice(COMMANDS[kind])
        return [part.replace("{}", str(file)) for part in chosen]


@dataclass
class Row:
    """What became of the documents malformed in one way."""

    way: Way
    tried: int = 0
    accepted: int = 0
    codes: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0  # the most, of those refused
    nbytes: int = 0
    bad: list[tuple[Case, Ended]] = field(default_factory=list)

    def add(self, case: Case, ended: Ended) -> None:
        """Count one."""
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


def cases(count: int, seed: int, ways: Sequence[Way] = WAYS, largest: int = LARGEST) -> Iterator[Case]:
    """About so many documents, of each way by its weight."""
    each = count / sum(way.weight for way in ways)
    for way in ways:
        for number in range(max(1, round(each * way.weight))):
            yield Case(way, seed, number, largest)


def tried(case: Case) -> tuple[Case, Ended]:
    """Make the document and run the command."""
    with tempfile.TemporaryDirectory() as folder:
        kind, data = case.document()
        file = Path(folder) / f"x.{kind}.{'json' if case.number % 2 else 'yaml'}"
        file.write_bytes(data)
        return case, run(case.command(kind, file))


def fuzz(all_cases: Sequence[Case], processes: int) -> Iterator[tuple[Case, Ended]]:
    """How each ends, in any order."""
    good()  # before the fork
    if processes == 1:
        yield from map(tried, all_cases)
        return
    with multiprocessing.get_context("fork").Pool(processes) as pool:
        yield from pool.imap_unordered(tried, all_cases, chunksize=4)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=20_100, help="about so many in all")
    parser.add_argument("--way", help="only ways whose name holds this")
    parser.add_argument("--number", type=int, help="only the document of this number")
    parser.add_argument("--keep", type=Path, metavar="FOLDER")
    parser.add_argument("--update", action="store_true", help=f"write the table into {PAGE.relative_to(ROOT)}")
    options = parser.parse_args()
    begun = time.monotonic()
    ways = [way for way in WAYS if options.way is None or options.way in way.name]
    chosen = [c for c in cases(options.count, options.seed, ways) if options.number in {None, c.number}]
    rows = {way.name: Row(way) for way in ways}
    for done, (case, ended) in enumerate(fuzz(chosen, os.cpu_count() or 1), 1):
        rows[case.way.name].add(case, ended)
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


def _complain(case: Case, ended: Ended, keep: Path | None) -> None:
    kind, data = case.document()
    command = " ".join(case.command(kind, Path("x")))
    print(f"{case.way.name!r} --number {case.number}, {len(data):,} bytes, {command}: {', '.join(ended.problems)}")
    print(ended.said[-1500:] if "a traceback" in ended.problems else ended.said[:300], flush=True)
    if keep:
        keep.mkdir(parents=True, exist_ok=True)
        (keep / f"{case.way.name}.{case.number}.{kind}".replace(" ", "-")).write_bytes(data)


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
            f"| {row.way.name} | {row.tried} | {row.tried - row.accepted} | {codes} | {row.accepted or ''} "
            f"| {row.seconds:.2f} s | {row.nbytes / 1e6:.0f} MB |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
