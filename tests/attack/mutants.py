"""Documents that are broken in every way their fields allow: is each refused, and with the right code?

    python tests/attack/mutants.py [--seed N] [--count N] [--kind NAME] [--json FILE] [--update]

``--update`` writes the table into docs/reliability.md.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

ROOT = Path(__file__).parent.parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "runtime")]

from tests.attack import (  # noqa: E402
    bases,
    of_order,
    of_plans,
    of_rows,
    of_steps,
    of_tasks,
    of_tensors,
    of_values,
    of_wholes,
)
from tests.attack.judge import Judgement, judge  # noqa: E402
from tests.attack.kind import Data, InapplicableError, Kind, Victim  # noqa: E402
from tests.benchmarks.tables import updated  # noqa: E402

KINDS: list[Kind] = [
    kind
    for file in (of_plans, of_tensors, of_values, of_tasks, of_order, of_wholes, of_rows, of_steps)
    for kind in file.kind.all
]
PAGE = ROOT / "docs/reliability.md"
_TRIES = 400


@dataclass
class Row:
    """What became of the mutants of a kind."""

    kind: Kind
    verdicts: Counter[str] = field(default_factory=Counter)
    codes: Counter[str] = field(default_factory=Counter)
    bad: list[tuple[str, Judgement]] = field(default_factory=list)


def mutants(kind: Kind, count: int, seed: int, names: Sequence[str] = tuple(bases.PLANS)) -> Iterator[tuple[str, Data]]:
    """So many different mutants of a kind, less where there are not so many; each with the name of its base."""
    random = Random(f"{seed} {kind.name}")
    seen: set[str] = set()
    for _ in range(_TRIES + count):
        if len(seen) == count:
            return
        base = random.choice(names)
        text = bases.text(base, kind.document)
        victim = Victim(json.loads(text), random)
        try:
            kind.breaks(victim)
        except InapplicableError:
            continue
        broken = json.dumps(victim.data)
        if broken not in seen and victim.data != json.loads(text):
            seen.add(broken)
            yield base, victim.data


def attack(kind: Kind, count: int, seed: int, names: Sequence[str] = tuple(bases.PLANS)) -> Row:
    """Judge so many mutants of a kind."""
    row = Row(kind)
    with tempfile.TemporaryDirectory() as folder:
        for base, data in mutants(kind, count, seed, names):
            judged = judge(kind, base, data, Path(folder) / f"x.{kind.document}.json")
            row.verdicts[judged.verdict] += 1
            row.codes.update(judged.codes)
            if judged.verdict not in {"refused", "harmless"}:
                row.bad.append((base, judged))
    return row


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=3000, help="about so many in all")
    parser.add_argument("--kind", help="only kinds whose name holds this")
    parser.add_argument("--update", action="store_true", help=f"write the table into {PAGE.relative_to(ROOT)}")
    options = parser.parse_args()
    begun = time.monotonic()
    kinds = [kind for kind in KINDS if options.kind is None or options.kind in kind.name]
    rows = []
    for i, kind in enumerate(kinds):
        rows.append(attack(kind, -(-options.count // len(kinds)), options.seed))
        if sys.stderr.isatty():
            print(f"\r{i + 1} of {len(kinds)} kinds ", end="", file=sys.stderr, flush=True)
        for base, judged in rows[-1].bad[:3]:
            codes = ", ".join(sorted(judged.codes))
            print(f"{kind.name}, of {base}: {judged.verdict} {codes}\n{judged.text[-1500:]}", file=sys.stderr)
    print(file=sys.stderr)
    text = summary(rows, options.seed) + "\n\n" + table(rows)
    print(text)
    print(f"{time.monotonic() - begun:.0f} s", file=sys.stderr)
    if options.update:
        PAGE.write_text(updated(PAGE.read_text(), {"mutants": text}))
    return 1 if any(row.bad for row in rows) else 0


def summary(rows: Sequence[Row], seed: int) -> str:
    total = sum((row.verdicts for row in rows), Counter[str]())
    good = f"{total['refused']:,} refused with a right code, {total['harmless']} harmless"
    bad = ", ".join(f"{total[name]} {name}" for name in ("wrong code", "survived", "crashed"))
    return f"{total.total():,} mutants of {len(rows)} kinds, seed {seed}: {good}; {bad}."


def table(rows: Sequence[Row]) -> str:
    lines = ["| kind | tried | refused | codes | harmless |", "|---|---|---|---|---|"]
    for row in rows:
        codes = ", ".join(sorted(row.codes)) or "-"
        done = row.verdicts
        lines.append(f"| {row.kind.name} | {done.total()} | {done['refused']} | {codes} | {done['harmless'] or ''} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
