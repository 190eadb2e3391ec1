"""Mutations of any field of a row: exchanged with another row or document, or of another type."""

from __future__ import annotations

import json

from tests.attack import bases
from tests.attack.mutation import Data, InapplicableError, Leaf, MutationRegistry, Victim, leaves

mutation = MutationRegistry()
TABLES = ("tensors", "values", "tasks", "order")
PROOFS = ("HX401", *(f"HX4{n:02}" for n in range(3, 16)))
SAME = "two fields may mean the same"


def _leaf(v: Victim) -> Leaf:
    table = v.data[v.random.choice(TABLES)]
    return v.pick([*leaves(v.pick(table))])


def _numbers(v: Victim) -> list[Leaf]:
    table = v.data[v.random.choice(TABLES[:3])]
    found = [(held, key) for held, key in leaves(v.pick(table)) if type(held[key]) in {int, float}]
    if not found:
        raise InapplicableError
    return found


@mutation("any number of a row one more or less", *PROOFS)
def _one_more(v: Victim) -> None:
    held, key = v.pick(_numbers(v))
    held[key] += v.random.choice((-1, 1))


@mutation("any number of a row as text", "HX401")
def _as_text(v: Victim) -> None:
    held, key = v.pick(_numbers(v))
    held[key] = json.dumps(held[key])


@mutation("any field of a row of another type", "HX401")
def _type(v: Victim) -> None:
    held, key = _leaf(v)
    others = (None, True, 1.5, "x y", [], {}, -1, [[]], 10**400)
    # A whole number is a number where one with a fraction stands.
    likes = {int, float} if type(held[key]) is float else {type(held[key])}
    held[key] = v.pick([x for x in others if type(x) not in likes])


def _two_that_differ(v: Victim) -> tuple[Data, Data, str]:
    """Two rows of a table, and a field that both have with other content."""
    a, b = v.two(v.data[v.random.choice(TABLES[:3])])
    return a, b, v.pick([key for key in a if key in b and a[key] != b[key]])


@mutation("any field exchanged with that of another row", *PROOFS, harmless=SAME)
def _exchanged(v: Victim) -> None:
    a, b, key = _two_that_differ(v)
    a[key], b[key] = b[key], a[key]


@mutation("any field as in another row", *PROOFS, harmless=SAME)
def _as_other(v: Victim) -> None:
    a, b, key = _two_that_differ(v)
    a[key] = json.loads(json.dumps(b[key]))


@mutation("row as in another dag", *PROOFS, harmless=SAME)
def _row(v: Victim) -> None:
    """The row of the same name."""
    other = json.loads(bases.text(v.random.choice([*bases.PLANS]), "dag"))
    name = v.random.choice(TABLES[:3])
    theirs = {row.get("id", row.get("name")): row for row in other[name]}
    rows = v.data[name]
    places = [i for i, row in enumerate(rows) if theirs.get(row.get("id", row.get("name")), row) != row]
    i = v.pick(places)
    rows[i] = theirs[rows[i].get("id", rows[i].get("name"))]


@mutation("table as in another dag", *PROOFS)
def _table(v: Victim) -> None:
    name = v.random.choice(TABLES)
    v.data[name] = json.loads(bases.text(v.random.choice([*bases.PLANS]), "dag"))[name]


@mutation("plan of another dag, with its digest", *PROOFS, "HX303")
def _plan(v: Victim) -> None:
    other = json.loads(bases.text(v.random.choice([*bases.PLANS]), "dag"))
    v.data["plan"], v.data["plan_digest"] = other["plan"], other["plan_digest"]
