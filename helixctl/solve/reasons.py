"""Why a layout was chosen, in sentences, and what is known of the layouts that were not simulated."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from math import inf
from operator import itemgetter
from typing import Final

from helixctl.plan import Layout
from helixctl.plan.size import MOST_TASKS
from helixctl.records import record
from helixctl.simulate import Forecast
from helixctl.solve.candidate import Candidate
from helixctl.solve.families import Layouts, each_of_kind, of_kind
from helixctl.solve.limits import Limits
from helixctl.solve.near import other_orders, where_it_exchanges
from helixctl.solve.objective import Key, Objective, key, simplicity
from helixctl.solve.problem import Bounded, BoundedLayout
from helixctl.solve.space import tried
from helixctl.solve.verdict import unfit
from helixctl.spec import ClusterSpec, ModelSpec
from helixctl.units import human_bytes, human_seconds


def _sorted(layouts: Iterable[Bounded]) -> Iterable[BoundedLayout]:
    """As the bounds are, each of one layout."""
    return sorted([(bound, its) for bound, its in layouts if isinstance(its, Layout)], key=itemgetter(0))


@record
class Evidence:
    """All that the search knows of the layouts beside its choice.

    Attributes:
        simulated: every layout that was.
        legal: every legal layout whose axes but groups and slices are those that are asked for.
        bounds: a first bound of each of them that may be chosen by its size; infinite where one cannot fit in memory.
        fixed: whether any axis but groups and slices is fixed.
        limits: what a layout has to keep within.
        cache_nbytes: the KV cache of a layout's fullest device; None where there is no cache.
        ascending: of layouts with first bounds those with quick ones, the lowest first.
    """

    simulated: Sequence[Candidate]
    legal: Sequence[Layouts]
    bounds: Sequence[Bounded]
    fixed: bool
    limits: Limits = Limits()
    cache_nbytes: Callable[[Layout], int] | None = None
    ascending: Callable[[Iterable[Bounded]], Iterable[BoundedLayout]] = _sorted


def reasons(
    best: Candidate, looked: Evidence, objective: Objective, model: ModelSpec, cluster: ClusterSpec
) -> tuple[str, ...]:
    """Why the layout was chosen: above all where it does not cut what could be cut; and what that does to the cache."""
    cached = _cache(best.layout, looked.cache_nbytes, model) if looked.cache_nbytes else ()
    shared = _shared(best, looked, objective, cluster) if best.layout.expert_data > 1 else ()
    near = _near(best, looked, objective, cluster)
    return (*shared, *_cuts(best, looked, objective, model, cluster), *near, *cached)


def _near(best: Candidate, looked: Evidence, objective: Objective, cluster: ClusterSpec) -> tuple[str, ...]:
    """Where links inside hosts differ: over which of them the axes exchange, beside other orders of the same axes."""
    where = where_it_exchanges(best.layout, cluster)
    if not where:
        return ()
    others = other_orders(best.layout, looked.bounds)
    if not others:
        return (where,)
    what = "other order of the same axes"
    beside = _beside(what, others.__contains__, best, looked, objective, cluster, some=each_of_kind)
    return (f"{where}; {beside}",)


def _shared(best: Candidate, looked: Evidence, objective: Objective, cluster: ClusterSpec) -> tuple[str, ...]:
    """Why replicas share experts."""
    if best.forecast is None:
        raise TypeError  # what was chosen has been simulated
    shared, need = best.layout.expert_data, human_bytes(best.forecast.weight_nbytes)
    own = _beside(
        "layout with all experts in each replica", lambda x: x.expert_data == 1, best, looked, objective, cluster
    )
    return (f"{shared} replicas share experts: {need} of weights a device; {own}",)


def _cache(layout: Layout, nbytes: Callable[[Layout], int], model: ModelSpec) -> tuple[str, ...]:
    """What a device holds of the KV cache, where slices share it or groups hold it several times."""
    keys, partitions = model.attention.key_heads, layout.partitions
    own = human_bytes(nbytes(layout))
    if layout.groups > keys:
        held = f"{layout.groups} groups hold {_kept(model)} {layout.groups // keys} times"
        return (f"{held}: {own} of KV cache a device",)
    if layout.slices == 1:
        return ()
    whole = layout.model_copy(update={"slices": 1, "slicing": "head_dim"})
    text = f"{layout.slices} slices share the KV cache by {layout.slicing}: {own} a device"
    if partitions > keys and partitions % keys == 0 and partitions <= model.attention.heads:
        copies = layout.model_copy(update={"groups": partitions, "slices": 1, "slicing": "head_dim"})
        one = "the latent" if model.attention.latent else "each KV head"
        times = f"{partitions} groups would hold {one} {partitions // keys} times"
        return (f"{text}; {times}, {human_bytes(nbytes(copies))}",)
    return (f"{text} instead of {human_bytes(nbytes(whole))}",)


def _kept(model: ModelSpec) -> str:
    """What the cache holds of a token: a latent is one for all heads."""
    return "the latent" if model.attention.latent else f"each of {model.attention.key_heads} KV heads"


def _cuts(
    best: Candidate, looked: Evidence, objective: Objective, model: ModelSpec, cluster: ClusterSpec
) -> tuple[str, ...]:
    if best.forecast is None:
        raise TypeError  # what was chosen has been simulated
    layout = best.layout
    keys = model.attention.key_heads

    def beside(what: str, belongs: Callable[[Layout], bool]) -> str:
        return _beside(what, belongs, best, looked, objective, cluster)

    if layout.partitions == layout.pipeline == layout.expert_data == 1 and layout.data > 1:
        need, have = human_bytes(best.forecast.memory_nbytes), human_bytes(min(k.device.memory for k in cluster.kinds))
        what = f"{have} or more" if cluster.differs else have
        fits = f"do not partition: {layout.data} replicas of {need}, each on a device of {what}, exchange nothing"
        return (f"{fits}; {beside('partition', lambda x: x.partitions > 1)}",)
    if layout.groups > keys:
        held = f"m = {layout.slices}: {_kept(model)} is held by {layout.groups // keys} groups"
        return (f"{held}; {beside('layout that holds each once', lambda x: x.groups <= keys)}",)
    if layout.partitions > keys:
        once = f"m = {layout.slices}: {_kept(model)} is held once"
        return (f"{once}; {beside('layout that holds them several times', lambda x: x.groups > keys)}",)
    if layout.partitions > 1 and layout.slices == 1:
        sliced = beside("slicing", lambda x: x.slices > 1)
        return (f"m = 1: there are heads enough for {layout.groups} groups; {sliced}",)
    if layout.slices > 1:
        return (f"m = {layout.slices}: {beside('layout with m = 1', lambda x: x.slices == 1)}",)
    return ()


def _beside(
    what: str,
    belongs: Callable[[Layout], bool],
    best: Candidate,
    looked: Evidence,
    objective: Objective,
    cluster: ClusterSpec,
    some: Callable[[Layouts, Callable[[Layout], bool]], Layouts | None] = of_kind,
) -> str:
    """The best of the layouts that belong to a kind, beside the choice; or why there is none to compare.

    ``some`` finds those that do: by default of a family all or none.
    """
    bounds = [(bound, found) for bound, its in looked.bounds if (found := some(its, belongs))]
    tried = [c for c in looked.simulated if belongs(c.layout) and c is not best]
    seen = {best.layout, *(c.layout for c in tried)}
    lowest = next((bound for bound, layout in looked.ascending(bounds) if layout not in seen), None)
    if not tried and lowest is None:
        if not any(some(its, belongs) for its in looked.legal):
            return f"no {what} is legal " + ("with the other axes as they are fixed" if looked.fixed else "here")
        return f"every {what} has more than {MOST_TASKS:,} tasks"
    fitting = [c for c in tried if c.forecast and not unfit(c, cluster, looked.limits)]
    if not fitting:
        within = " and keeps within the limits" if str(looked.limits) else ""
        if lowest is None or lowest[0] == inf:
            return f"no {what} fits in memory{within}"
        none = f"no {what} that was simulated fits in memory{within}" if tried else f"no {what} was simulated"
        return f"{none}; by their bounds {_none_below(objective, lowest[0])}"
    nearest = min(fitting, key=lambda c: (_key(objective, c.forecast), simplicity(c.layout)))
    least = _key(objective, nearest.forecast)
    of = "" if lowest is None or lowest >= least else " (of those simulated)"
    return f"the best {what}, {nearest.layout}, {_takes(objective, nearest.forecast, best.forecast)}{of}"


def _key(objective: Objective, forecast: Forecast | None) -> Key:
    if forecast is None:
        raise TypeError  # it has been simulated
    return key(objective, forecast)


def beside_equal(what: str, its: Candidate | None, best: Candidate, objective: Objective) -> str | None:
    """How the best of equal shares, or of equal devices, is beside the choice; None where there is none."""
    if its is None:
        return None
    return f"{what}, {its.layout}, {_takes(objective, its.forecast, best.forecast)}"


def _takes(objective: Objective, mine: Forecast | None, its: Forecast | None) -> str:
    """``takes 1.08 x as long``."""
    one, other = _key(objective, mine), _key(objective, its)
    if one == other:
        return "is as good"
    noun = _NOUNS[objective]
    verb = "takes" if objective in {"throughput", "memory"} else "has"
    if one[0] != other[0]:
        return f"{verb} {_ratio(one[0] / other[0])} x {noun}"
    return f"{verb} the same {noun.removeprefix('the ')}, and a step {_ratio(one[1] / other[1])} x as long"


_NOUNS: Final[dict[Objective, str]] = {
    "throughput": "as long",
    "latency": "the latency",
    "ttft": "the time to first token",
    "tpot": "the time per output token",
    "memory": "the memory",
}


def _ratio(ratio: float) -> str:
    """Three digits, or as many as tell it from 1."""
    return next(text for n in range(3, 18) if (text := f"{ratio:.{n}g}") != "1")


def _none_below(objective: Objective, least: float) -> str:
    if objective == "memory":
        return f"none takes less than {human_bytes(least)}"
    verb = {"latency": "is done in", "ttft": "has first tokens in", "tpot": "takes for a token"}.get(objective, "takes")
    return f"none {verb} less than {human_seconds(least)}"


def alone(wanted: str) -> str:
    """What is said of a search that had one layout to look at.

    Args:
        wanted: what was asked for, in words; empty where nothing was.
    """
    if not wanted:
        return "one layout of the searched space is legal"
    return "every axis is fixed, so that no other layout was simulated; leave axes out to see others beside it"


def searched(
    best: Candidate,
    legal: int,
    simulated: int,
    left_out: int,
    open_bound: Key | None,
    objective: Objective,
    wanted: str,
) -> str:
    """How much of the space was simulated, and what is known of the rest.

    Args:
        best: what was chosen.
        legal: how many layouts were searched.
        simulated: how many of them were simulated.
        left_out: how many legal ones were not searched, as they have too many tasks.
        open_bound: a key that the others are not below; None where none can be better.
        objective: what was made small.
        wanted: what was asked for, in words.
    """
    left = f"; {left_out:,} more have over {MOST_TASKS:,} tasks and were left out" if left_out else ""
    if legal == 1:
        one = "one layout of the searched space is legal"
        return (f"{one} and has what was asked for" if wanted else one) + left
    asked = " with what was asked for" if wanted else ""
    text = f"searched {legal:,} legal layouts{asked} ({tried(objective)}), {simulated:,} of them simulated: "
    if open_bound is None:
        return text + "no other of these that fits can be better, by their lower bounds" + left
    return (
        text
        + "the search ended at its budget; "
        + _may_be(open_bound, _key(objective, best.forecast), objective)
        + left
    )


_BETTER: Final[dict[Objective, str]] = {
    "throughput": "faster",
    "latency": "sooner done",
    "ttft": "sooner with first tokens",
    "tpot": "faster per token",
    "memory": "smaller",
}


def _may_be(bound: Key, found: Key, objective: Objective) -> str:
    """How much better the best of the layouts that were not simulated may be."""
    if bound[0] >= found[0]:
        return "one that was not simulated may be as good with a shorter step"
    word = _BETTER[objective]
    share = f"{found[0] / bound[0] - 1:.1%}" if objective == "throughput" else f"{1 - bound[0] / found[0]:.1%}"
    amount = "less than 0.1%" if share == "0.0%" else f"up to {share}"
    return f"one that was not simulated may be {amount} {word}: by their bounds {_none_below(objective, bound[0])}"
