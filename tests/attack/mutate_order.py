"""Mutations of orders: tasks too early, too late, twice, never, on other ranks, or not met by other ranks."""

from __future__ import annotations

import re
from itertools import pairwise

from tests.attack.mutation import COLLECTIVES, InapplicableError, MutationRegistry, Victim

mutation = MutationRegistry()
FREE = "the two may not depend on each other, and belong to one microbatch"


def _microbatch(name: str) -> str:
    """The microbatch that a task's id names; empty where there is one alone."""
    found = re.search(r"\.b(\d+)$", name)
    return found[1] if found else ""


def _order(v: Victim, least: int = 1) -> list[str]:
    """The order of a rank."""
    found: list[str] = v.pick([order for order in v.data["order"] if len(order) >= least])
    return found


@mutation("two neighbours in an order exchanged", "HX405", "HX409", "HX414", harmless=FREE)
def _neighbours(v: Victim) -> None:
    order = _order(v, 2)
    i = v.random.randrange(len(order) - 1)
    order[i], order[i + 1] = order[i + 1], order[i]


@mutation("two tasks in an order exchanged", "HX405", "HX409", "HX414", harmless=FREE)
def _two(v: Victim) -> None:
    order = _order(v, 2)
    i, j = v.two([*range(len(order))])
    order[i], order[j] = order[j], order[i]


@mutation("two collectives of one rank exchanged", "HX405", "HX409", "HX414", harmless=FREE)
def _collectives(v: Victim) -> None:
    order = _order(v, 2)
    places = [i for i, name in enumerate(order) if v.tasks[name]["op"]["kind"] in COLLECTIVES]
    i, j = v.two(places)
    order[i], order[j] = order[j], order[i]


@mutation("a collective issued late on one rank", "HX405", "HX409", "HX414", harmless=FREE)
def _late(v: Victim) -> None:
    order = _order(v, 2)
    places = [i for i, name in enumerate(order) if v.tasks[name]["op"]["kind"] in COLLECTIVES]
    i = v.pick(places)
    order.insert(min(len(order) - 1, i + v.random.randint(1, 6)), order.pop(i))


@mutation("collectives of two microbatches crossed on one rank", "HX409")
def _crossed(v: Victim) -> None:
    """The first is issued after the second; nothing between them reads what it gives."""
    order = _order(v, 2)
    places = [i for i, name in enumerate(order) if v.tasks[name]["op"]["kind"] in COLLECTIVES]
    pairs = [(i, j) for i, j in pairwise(places) if _microbatch(order[i]) != _microbatch(order[j])]
    pairs = [(i, j) for i, j in pairs if v.tasks[order[i]]["ranks"] == v.tasks[order[j]]["ranks"]]
    made = {i: set(v.tasks[order[i]]["outputs"]) for i, _ in pairs}
    free = [(i, j) for i, j in pairs if not any(made[i] & {*v.tasks[name]["inputs"]} for name in order[i + 1 : j])]
    i, j = v.pick(free)
    order.insert(j, order.pop(i))


@mutation("one microbatch before the other on all ranks", "HX405", "HX409", "HX414")
def _microbatches(v: Victim) -> None:
    """All tasks of two microbatches change places: right on every rank, but not the turns of the layout."""
    count = v.data["plan"]["layout"]["microbatches"]
    a, b = v.two([f".b{i}" for i in range(count)])
    names = {n: n.removesuffix(x) + y for n in v.tasks for x, y in ((a, b), (b, a)) if n.endswith(x)}
    if not names:
        raise InapplicableError
    for order in v.data["order"]:
        order[:] = [names.get(name, name) for name in order]


@mutation("an order without turns", "HX405", "HX409", "HX414")
def _without_turns(v: Victim) -> None:
    """Microbatch after microbatch on all ranks, though the layout has them take turns; or the other way round."""
    count = v.data["plan"]["layout"]["microbatches"]
    if count == 1:
        raise InapplicableError
    before = [list(order) for order in v.data["order"]]
    for order in v.data["order"]:
        order.sort(key=lambda name: int(_microbatch(name)))
    if v.data["order"] == before:
        raise InapplicableError


@mutation("a task issued twice", "HX405")
def _twice(v: Victim) -> None:
    order = _order(v)
    order.insert(v.random.randrange(len(order) + 1), v.pick(order))


@mutation("a task never issued on a rank", "HX405")
def _never(v: Victim) -> None:
    order = _order(v)
    order.pop(v.random.randrange(len(order)))


@mutation("a task never issued on any rank", "HX405")
def _nowhere(v: Victim) -> None:
    name = v.pick([*v.tasks])
    for order in v.data["order"]:
        order[:] = [other for other in order if other != name]


@mutation("a task issued by another rank too", "HX405")
def _other_rank(v: Victim) -> None:
    name = v.pick(_order(v))
    order = v.pick([order for order in v.data["order"] if name not in order])
    order.insert(v.random.randrange(len(order) + 1), name)


@mutation("orders of two ranks exchanged", "HX405")
def _ranks(v: Victim) -> None:
    i, j = v.two([*range(len(v.data["order"]))])
    v.data["order"][i], v.data["order"][j] = v.data["order"][j], v.data["order"][i]


@mutation("an order reversed", "HX405", "HX409")
def _reversed(v: Victim) -> None:
    _order(v, 2).reverse()


@mutation("a rank without an order, or one more", "HX401", "HX405")
def _missing(v: Victim) -> None:
    match v.random.randrange(3):
        case 0:
            v.data["order"].pop(v.random.randrange(len(v.data["order"])))
        case 1:
            v.data["order"].append([])
        case _:
            _order(v).clear()


@mutation("an order names what is no task", "HX401", "HX403")
def _unknown(v: Victim) -> None:
    order = _order(v)
    order.insert(v.random.randrange(len(order) + 1), v.random.choice((order[0] + "x", "", v.pick([*v.values]), None)))
