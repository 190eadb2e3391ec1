"""Mutants: good documents with one mistake in any field. Is each refused, and with the right code?

    python tests/attack/mutants.py [--seed N] [--count N] [--kind NAME] [--update]

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
    mutate_attention,
    mutate_documents,
    mutate_draws,
    mutate_experts,
    mutate_latent,
    mutate_order,
    mutate_packed,
    mutate_plans,
    mutate_rows,
    mutate_sparse,
    mutate_steps,
    mutate_tasks,
    mutate_tensors,
    mutate_values,
)
from tests.attack.judge import Judgement, judge  # noqa: E402
from tests.attack.mutation import Data, InapplicableError, Mutation, Victim  # noqa: E402
from tests.benchmarks.tables import updated  # noqa: E402

_FILES = (
    mutate_plans,
    mutate_tensors,
    mutate_values,
    mutate_tasks,
    mutate_order,
    mutate_documents,
    mutate_rows,
    mutate_steps,
    mutate_draws,
    mutate_latent,
    mutate_packed,
    mutate_attention,
    mutate_sparse,
    mutate_experts,
)
MUTATIONS: list[Mutation] = [mutation for file in _FILES for mutation in file.mutation.all]
PAGE = ROOT / "docs/reliability.md"
_TRIES = 1_600  # some kinds break one base alone


@dataclass
class Row:
    """The verdicts on the mutants of one mutation."""

    mutation: Mutation
    verdicts: Counter[str] = field(default_factory=Counter)
    codes: Counter[str] = field(default_factory=Counter)
    bad: list[tuple[str, Judgement]] = field(default_factory=list)


def mutants(
    mutation: Mutation, count: int, seed: int, names: Sequence[str] = tuple(bases.PLANS)
) -> Iterator[tuple[str, Data]]:
    """Up to ``count`` different mutants of one mutation, each with the name of the document that it is made from."""
    random = Random(f"{seed} {mutation.name}")
    seen: set[str] = set()
    for _ in range(_TRIES + count):
        if len(seen) == count:
            return
        base = random.choice(names)
        text = bases.text(base, mutation.document)
        victim = Victim(json.loads(text), random)
        try:
            mutation.mutate(victim)
        except InapplicableError:
            continue
        broken = json.dumps(victim.data)
        if broken not in seen and victim.data != json.loads(text):
            seen.add(broken)
            yield base, victim.data


def attack(mutation: Mutation, count: int, seed: int, names: Sequence[str] = tuple(bases.PLANS)) -> Row:
    """Judge up to ``count`` mutants of one mutation."""
    row = Row(mutation)
    with tempfile.TemporaryDirectory() as folder:
        for base, data in mutants(mutation, count, seed, names):
            judged = judge(mutation, base, data, Path(folder) / f"x.{mutation.document}.json")
            row.verdicts[judged.verdict] += 1
            row.codes.update(judged.codes)
            if judged.verdict not in {"refused", "harmless"}:
                row.bad.append((base, judged))
    return row


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=3000, help="mutants in all, about")
    parser.add_argument("--kind", help="only kinds whose name holds this")
    parser.add_argument("--update", action="store_true", help=f"write the table into {PAGE.relative_to(ROOT)}")
    options = parser.parse_args()
    begun = time.monotonic()
    chosen = [mutation for mutation in MUTATIONS if options.kind is None or options.kind in mutation.name]
    rows = []
    for i, mutation in enumerate(chosen):
        rows.append(attack(mutation, -(-options.count // len(chosen)), options.seed))
        if sys.stderr.isatty():
            print(f"\r{i + 1} of {len(chosen)} kinds ", end="", file=sys.stderr, flush=True)
        for base, judged in rows[-1].bad[:3]:
            codes = ", ".join(sorted(judged.codes))
            print(f"{mutation.name}, of {base}: {judged.verdict} {codes}\n{judged.text[-1500:]}", file=sys.stderr)
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
        lines.append(
            f"| {row.mutation.name} | {done.total()} | {done['refused']} | {codes} | {done['harmless'] or ''} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
