"""What is said of a layout beside the one that was chosen, and of the choice itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from helixctl.simulate import Forecast
from helixctl.solve.candidate import Candidate
from helixctl.solve.objective import Objective, key
from helixctl.spec import ClusterSpec, ModelSpec
from helixctl.units import human_bytes, human_seconds


@dataclass(frozen=True, slots=True)
class Row:
    """A candidate and the verdict on it."""

    candidate: Candidate
    chosen: bool
    verdict: str


_NEAR = 1.1
_MEANT = {
    "throughput": "the fastest of the legal ones",
    "latency": "the soonest done of the legal ones",
    "memory": "the smallest of the legal ones",
}


def too_big(candidate: Candidate, cluster: ClusterSpec) -> str | None:
    """Why a candidate does not fit in its devices' memory, or None."""
    if candidate.forecast is None or candidate.forecast.memory_nbytes <= cluster.device.available:
        return None
    return f"needs {human_bytes(candidate.forecast.memory_nbytes)} a device, {cluster.device.memory_text}"


def verdict(c: Candidate, best: Candidate, wanted: str, objective: Objective, cluster: ClusterSpec) -> str:
    """One clause on a candidate, for a table."""
    if c.forecast is None or best.forecast is None:
        return "; ".join(c.reasons)
    if c is best:
        return f"asked for ({wanted})" if wanted else f"chosen: {_MEANT[objective]}"
    return too_big(c, cluster) or _beside_best(c, c.forecast, best, best.forecast, wanted, objective)


def _beside_best(
    c: Candidate, mine: Forecast, best: Candidate, its: Forecast, wanted: str, objective: Objective
) -> str:
    if key(objective, mine) == key(objective, its):
        return "as good, with more slices" if c.layout.slices > best.layout.slices else "as good"
    ratio = _measure(objective, mine) / _measure(objective, its)
    if objective == "memory":
        return f"{ratio:.3g} x the memory"
    if ratio < 1:
        return f"{1 / ratio:.3g} x faster, but not what was asked for ({wanted})"
    slower = f"{ratio - 1:.1%}" if ratio < _NEAR else f"{ratio:.3g} x"
    return f"{slower} slower: {_slowest(mine, its)}"


def _measure(objective: Objective, forecast: Forecast) -> float:
    measures = {"throughput": forecast.step_s, "latency": forecast.latency_s, "memory": forecast.memory_nbytes}
    return float(measures[objective])


def _slowest(slow: Forecast, fast: Forecast) -> str:
    """The level and lane in which the slower of two loses most."""
    lost = {at: seconds - fast.levels.get(at, 0.0) for at, seconds in slow.levels.items()}
    level, lane = max(lost, key=lambda at: lost[at])
    have, against = slow.levels[level, lane], fast.levels.get((level, lane), 0.0)
    return f"{lane} of {level} {human_seconds(have)} against {human_seconds(against)}"


def reasons(
    best: Candidate, others: Sequence[Candidate], objective: Objective, model: ModelSpec, cluster: ClusterSpec
) -> tuple[str, ...]:
    """Why the layout was chosen, in sentences: above all where it does not cut what could be cut."""
    if best.forecast is None:
        raise TypeError  # what was chosen has been simulated
    layout, legal = best.layout, [c for c in others if c.forecast and c is not best]

    def beside(what: str, some: Sequence[Candidate]) -> str:
        measured = [(_measure(objective, c.forecast), c.layout) for c in some if c.forecast]
        if not measured or best.forecast is None:
            return f"no {what} is legal here"
        least, nearest = min(measured, key=lambda item: item[0])
        ratio = f"{least / _measure(objective, best.forecast):.3g}"
        if ratio == "1":
            return f"the best {what}, {nearest}, is as good"
        return f"the best {what}, {nearest}, takes {ratio} x " + ("the memory" if objective == "memory" else "as long")

    if layout.partitions == layout.pipeline == 1 and layout.data > 1:
        need, have = human_bytes(best.forecast.memory_nbytes), human_bytes(cluster.device.memory)
        fits = f"do not partition: {layout.data} replicas of {need}, each on a device of {have}, exchange nothing"
        return (f"{fits}; {beside('partition', [c for c in legal if c.layout.partitions > 1])}",)
    keys = model.attention.key_heads
    if layout.groups > keys:
        held = f"m = {layout.slices}: each of {keys} KV heads is held by {layout.groups // keys} groups"
        return (f"{held}; {beside('layout that holds each once', [c for c in legal if c.layout.groups <= keys])}",)
    if layout.partitions > keys:
        others = [c for c in legal if c.layout.groups > keys]
        once = f"m = {layout.slices}: each of {keys} KV heads is held once"
        return (f"{once}; {beside('layout that holds them several times', others)}",)
    if layout.partitions > 1 and layout.slices == 1:
        sliced = beside("slicing", [c for c in legal if c.layout.slices > 1])
        return (f"m = 1: there are heads enough for {layout.groups} groups; {sliced}",)
    if layout.slices > 1:
        return (f"m = {layout.slices}: {beside('layout with m = 1', [c for c in legal if c.layout.slices == 1])}",)
    return ()
