"""Best-first search: the layout with the lowest bound is simulated next, until no bound is below the best found."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from typing import Final

from helixctl.plan import Layout
from helixctl.solve.candidate import Candidate
from helixctl.solve.objective import Key

# Tasks that a search may simulate before it settles for the best so far: about a second.
BUDGET: Final = 12_000


@dataclass(frozen=True, slots=True)
class Found:
    """The outcome of a search.

    Attributes:
        best: the best that fits; None where nothing does.
        tried: all that were simulated, in that order.
        legal: how many layouts there were.
        open_bound: the lowest key that a layout which was not simulated could have; None where none can be better.
    """

    best: Candidate | None
    tried: tuple[Candidate, ...]
    legal: int
    open_bound: Key | None


def search(
    layouts: Iterable[tuple[Key, Layout]],
    narrowed: Callable[[Layout], Key],
    simulate: Callable[[Layout], Candidate],
    key: Callable[[Candidate], Key],
    fits: Callable[[Candidate], bool],
    size: Callable[[Layout], int],
    budget: int,
    hopeless: Callable[[Key], bool] = lambda _: False,
) -> Found:
    """Find the layout with the least key.

    Args:
        layouts: each with a key that its own is not below; equals in the order in which they are preferred.
        narrowed: a narrower such key, worked out for those layouts only that may be the best by the first.
        simulate: gives a layout's forecast.
        key: what to compare by.
        fits: whether a candidate may be chosen.
        size: about how many tasks the simulation of a layout takes.
        budget: tasks to simulate at most; at least one candidate is simulated.
        hopeless: whether no layout with this key, or with a later one, may be chosen: the search ends there.
    """
    # (bound, place, whether it is the narrower one, layout); no two have one place, so layouts are never compared.
    queue = [(bound, place, False, layout) for place, (bound, layout) in enumerate(layouts)]
    legal = len(queue)
    heapify(queue)
    tried: list[Candidate] = []
    best: Candidate | None = None
    best_key: Key = ()
    best_place = spent = 0
    while queue:
        bound, place, narrow, layout = heappop(queue)
        if best and bound > best_key:
            break
        if not narrow:
            heappush(queue, (max(bound, narrowed(layout)), place, True, layout))
            continue
        if hopeless(bound):
            break
        if tried and spent + size(layout) > budget:
            return Found(best, tuple(tried), legal, bound)
        candidate = simulate(layout)
        spent += size(layout)
        tried.append(candidate)
        its_key = key(candidate)
        if fits(candidate) and (best is None or (its_key, place) < (best_key, best_place)):
            best, best_key, best_place = candidate, its_key, place
    return Found(best, tuple(tried), legal, None)
