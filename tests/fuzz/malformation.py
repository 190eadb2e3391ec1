"""A malformation of a document, and the good documents to malform."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random
from typing import Any, Final, TypeVar

import yaml

from helixctl.cli.documents import load_dag
from tests.attack import bases

T = TypeVar("T")
ROOT: Final = Path(__file__).parent.parent.parent
PLANS: Final = ROOT / "plans"
REPORT: Final = "report"  # the name of the one report
_SIMULATED: Final = PLANS / "small/dense.4x4.plan.json"


@cache
def good() -> dict[str, str]:
    """The texts of good documents by name: every kind, in YAML and in JSON, with every key that there is."""
    files = [*PLANS.glob("paper/*.yaml"), *PLANS.glob("small/*.yaml"), *PLANS.glob("models/*/config.json")]
    files += [*PLANS.glob("*/*.plan.json"), PLANS / "paper/dense.4x4.dag.json"]
    found = {str(file.relative_to(PLANS)): file.read_text(encoding="utf-8") for file in sorted(files)}
    found["calibrated.cluster.yaml"] = (ROOT / "tests/fuzz/calibrated.cluster.yaml").read_text(encoding="utf-8")
    for name in ("paper", "real, by query", "real experts"):
        found[f"{name}.dag.json"] = bases.text(name, "dag")
    found[REPORT] = json.dumps(_report())
    return found


@cache
def read() -> dict[str, Any]:
    """The content of the good documents, by name."""
    return {name: yaml.safe_load(text) if name.endswith("yaml") else json.loads(text) for name, text in good().items()}


def _report() -> dict[str, Any]:
    """The part of a run's report that helixctl reads."""
    kind = {"level": "concat", "kind": "all_gather", "lane": "communication", "busy_ms": 1.5, "exposed_ms": 0.5}
    return {
        "report": "helixctl run",
        "dag_digest": load_dag(str(_SIMULATED)).digest,
        "dtype": "float32",
        "step_time_ms": {"mean": 400.5},
        "tokens_per_s": 1000.0,
        "sync_overhead_per_token_ms": 0.25,
        "kinds": [kind],
    }


@dataclass
class Draw:
    """A good document to malform, and the random numbers that decide how.

    Attributes:
        random: the random numbers.
        name: the name of the good document.
        most: the largest number of bytes of the malformed document.
    """

    random: Random
    name: str
    most: int

    @property
    def text(self) -> str:
        """The good text."""
        return good()[self.name]

    def fresh(self) -> dict[str, Any]:
        """A copy of the document's content, to be changed in place."""
        found: dict[str, Any] = json.loads(json.dumps(read()[self.name]))
        return found

    def pick(self, items: Sequence[T]) -> T:
        """One of them."""
        return self.random.choice(items)

    def size(self, least: int = 1, most: int | None = None) -> int:
        """A random number on a logarithmic scale, so that small ones are as frequent as large ones."""
        top = min(most or self.most, self.most)
        return min(top, int(least * (top / least) ** self.random.random()))

    def written(self, data: Any) -> bytes:
        """Data as a careless program writes it: YAML, or JSON with values that JSON lacks."""
        if self.random.random() < 0.3:
            return yaml.dump(data, allow_unicode=True, sort_keys=False).encode("utf-8", "surrogatepass")
        text = json.dumps(data, ensure_ascii=self.random.random() < 0.5, indent=self.pick((None, 1)))
        return text.encode("utf-8", "surrogatepass")


@dataclass(frozen=True)
class Malformation:
    """A malformation of documents.

    Attributes:
        name: its row in the table.
        make: makes the bytes of a malformed document.
        weight: the number of documents that are made with it, relative to the others.
    """

    name: str
    make: Callable[[Draw], bytes]
    weight: int = 1


class MalformationRegistry:
    """The malformations that a file declares: ``@malformation("name")``."""

    def __init__(self) -> None:
        self.all: list[Malformation] = []

    def __call__(self, name: str, weight: int = 1) -> Callable[[Callable[[Draw], bytes]], Callable[[Draw], bytes]]:
        def keep(make: Callable[[Draw], bytes]) -> Callable[[Draw], bytes]:
            self.all.append(Malformation(name, make, weight))
            return make

        return keep
