"""A mutation: how it breaks a document, and the codes with which the mutant must be refused."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from random import Random
from typing import Any, Final, Literal, TypeVar

from pydantic import BaseModel, ValidationError

from helixctl.errors import HelixError
from helixctl.plan import Plan
from helixctl.plan import digest as digest_of
from helixctl.spec import ClusterSpec, ModelSpec, WorkloadSpec

_SPECS: Final = {"model": ModelSpec, "cluster": ClusterSpec, "workload": WorkloadSpec}
Data = dict[str, Any]
T = TypeVar("T")
Document = Literal["dag", "plan"]


class InapplicableError(Exception):
    """The document has nothing that this mutation could break."""


@dataclass
class Victim:
    """A good document, to be broken in place, and the random numbers that decide where."""

    data: Data
    random: Random

    def pick(self, items: Sequence[T]) -> T:
        """One of them."""
        if not items:
            raise InapplicableError
        return self.random.choice(items)

    def two(self, items: Sequence[T]) -> tuple[T, T]:
        """Two different ones."""
        if len(items) < 2:
            raise InapplicableError
        a, b = self.random.sample(items, 2)
        return a, b

    @cached_property
    def values(self) -> dict[str, Data]:
        """Values by id, as they were before the mutation."""
        return {value["id"]: value for value in self.data["values"]}

    @cached_property
    def tensors(self) -> dict[str, Data]:
        return {tensor["name"]: tensor for tensor in self.data["tensors"]}

    @cached_property
    def tasks(self) -> dict[str, Data]:
        return {task["id"]: task for task in self.data["tasks"]}

    @cached_property
    def maker(self) -> dict[str, Data]:
        """The task that makes a value."""
        return {name: task for task in self.data["tasks"] for name in task["outputs"]}

    @property
    def computations(self) -> list[Data]:
        return [task for task in self.data["tasks"] if task["op"]["kind"] not in COLLECTIVES]

    @property
    def collectives(self) -> list[Data]:
        return [task for task in self.data["tasks"] if task["op"]["kind"] in COLLECTIVES]

    def task_of_kind(self, *kinds: str) -> Data:
        """A task of one of these kinds."""
        return self.pick([task for task in self.data["tasks"] if task["op"]["kind"] in kinds])

    def readers(self, value: str) -> list[Data]:
        return [task for task in self.data["tasks"] if value in task["inputs"]]

    def dims(self, value: Data) -> list[str]:
        """The names of the dims of a value."""
        found: list[str] = self.tensors[value["tensor"]]["dims"]
        return found

    def given(self, role: str) -> list[Data]:
        """Values of inputs or weights that no task makes."""
        return [v for v in self.data["values"] if v["id"] not in self.maker and self.role(v) == role]

    def role(self, value: Data) -> str:
        return str(self.tensors[value["tensor"]]["role"])


COLLECTIVES = ("broadcast", "all_to_all", "all_gather", "all_reduce", "reduce_scatter", "send_receive", "packed")
Mutate = Callable[[Victim], object]


@dataclass(frozen=True)
class Mutation:
    """One way to break a document.

    Attributes:
        name: its name in the table.
        codes: the only codes with which a mutant may be refused.
        mutate: breaks a victim, or raises InapplicableError.
        document: the kind of document that it breaks.
        harmless: why a mutant may still be a true document; such a mutant must be shown to be one (judge.py).
    """

    name: str
    codes: frozenset[str]
    mutate: Mutate
    document: Document = "dag"
    harmless: str = ""


@dataclass
class MutationRegistry:
    """The mutations that a file declares: ``@mutation("name", codes)``."""

    all: list[Mutation] = field(default_factory=list)

    def __call__(
        self, name: str, *codes: str, document: Document = "dag", harmless: str = ""
    ) -> Callable[[Mutate], Mutate]:
        """Declare a function as a mutation."""

        def declare(mutate: Mutate) -> Mutate:
            self.all.append(Mutation(name, frozenset(codes), mutate, document, harmless))
            return mutate

        return declare


def another(random: Random, value: T, options: Sequence[T]) -> T:
    """One of the options, but not this value."""
    others = [option for option in options if option != value]
    if not others:
        raise InapplicableError
    return random.choice(others)


def copy(data: T) -> T:
    """A deep copy."""
    found: T = json.loads(json.dumps(data))
    return found


def digest(data: object) -> str:
    """The digest of a document's data, as docs/formats.md has it ("Bytes")."""
    return "sha256:" + hashlib.sha256(json.dumps(data, separators=(",", ":")).encode()).hexdigest()


def redigest(dag: Data) -> None:
    """Recompute the digests of a dag's plan, so that they no longer show that it was edited.

    A mutation may set a field to its default, which digests leave out: they are those of what the tool reads.
    """
    plan = dag["plan"]
    for name in plan["digests"]:
        plan["digests"][name] = _digest_as_read(_SPECS[name], plan[name])
    dag["plan_digest"] = _digest_as_read(Plan, plan)


def _digest_as_read(document: type[BaseModel], data: Data) -> str:
    try:
        read = document.model_validate(data)
    except (ValidationError, HelixError):  # refused before any digest is looked at
        return digest(data)
    return read.digest if isinstance(read, Plan) else digest_of(read)


Leaf = tuple[Any, Any]  # what holds it, and its key


def leaves(data: Any) -> Iterator[Leaf]:
    """Every field of a document that holds neither a mapping nor a list."""
    items = data.items() if isinstance(data, dict) else enumerate(data)
    for key, value in items:
        if isinstance(value, dict | list) and value:
            yield from leaves(value)
        else:
            yield data, key
