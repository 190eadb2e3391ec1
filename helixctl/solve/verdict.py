"""What is said of a layout beside the one that was chosen, and of the choice itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from helixctl.simulate import Forecast
from helixctl.solve.candidate import Candidate
from helixctl.solve.objective import Objective, key
from helixctl.spec import ClusterSpec
from helixctl.units import human_bytes, human_seconds


@dataclass(frozen=True, slots=True)
class Row:
    """A candidate and the verdict on it."""

    candidate: Candidate
    chosen: bool
    verdict: str


_MEANT = {
    "throughput": "the fastest of the legal ones",
    "latency": "the soonest done of the legal ones",
    "memory": "the smallest of the legal ones",
}


def too_big(candidate: Candidate, cluster: ClusterSpec) -> str | None:
    """Why a candidate does not fit in its devices' memory, or None."""
    if candidate.forecast is None or candidate.forecast.memory_nbytes <= cluster.device.memory:
        return None
    need = human_bytes(candidate.forecast.memory_nbytes)
    return f"needs {need} a device, {cluster.device.name} has {human_bytes(cluster.device.memory)}"


def verdict(c: Candidate, best: Candidate, wanted: str, objective: Objective, cluster: ClusterSpec) -> str:
    """One clause on a candidate, for a table."""
    if c.forecast is None or best.forecast is None:
        return "; ".join(c.reasons)
    if c is best:
        return f"asked for ({wanted})" if wanted else f"chosen: {_MEANT[objective]}"
    if big := too_big(c, cluster):
        return big
    mine, its = key(objective, c.forecast), key(objective, best.forecast)
    if mine == its:
        return "as good, with more slices" if c.layout.slices > best.layout.slices else "as good"
    if objective == "memory":
        ratio = c.forecast.memory_nbytes / best.forecast.memory_nbytes
        return f"{ratio:.3g} x the memory"
    have = c.forecast.latency_s if objective == "latency" else c.forecast.step_s
    least = best.forecast.latency_s if objective == "latency" else best.forecast.step_s
    if mine < its:
        return f"{least / have:.3g} x faster, but not what was asked for ({wanted})"
    return f"{have / least:.3g} x slower: {_slowest(c.forecast, best.forecast)}"


def _slowest(slow: Forecast, fast: Forecast) -> str:
    """The level and lane in which the slower of two loses most."""
    lost = {at: seconds - fast.levels.get(at, 0.0) for at, seconds in slow.levels.items()}
    level, lane = max(lost, key=lambda at: lost[at])
    have, against = slow.levels[level, lane], fast.levels.get((level, lane), 0.0)
    return f"{lane} of {level} {human_seconds(have)} against {human_seconds(against)}"


def reasons(best: Candidate, others: Sequence[Candidate], cluster: ClusterSpec) -> tuple[str, ...]:
    """Why the layout was chosen, in sentences: above all where it does not cut what could be cut."""
    if best.forecast is None:
        raise TypeError  # what was chosen has been simulated
    layout, legal = best.layout, [c for c in others if c.forecast and c is not best]
    if layout.partitions == layout.pipeline == 1 and layout.data > 1:
        need, have = human_bytes(best.forecast.memory_nbytes), human_bytes(cluster.device.memory)
        return (
            f"do not partition: {layout.data} replicas. The model needs {need} of {have} on one device, and replicas "
            f"exchange nothing; {_beside(best, [c for c in legal if c.layout.partitions > 1], 'partition')}",
        )
    if layout.partitions > 1 and layout.slices == 1:
        sliced = [c for c in legal if c.layout.slices > 1]
        return (f"m = 1: there are heads enough for {layout.groups} groups; {_beside(best, sliced, 'slicing')}",)
    if layout.slices > 1:
        whole = [c for c in legal if c.layout.slices == 1]
        return (f"m = {layout.slices}: {_beside(best, whole, 'layout with m = 1')}",)
    return ()


def _beside(best: Candidate, others: Sequence[Candidate], what: str) -> str:
    """``the best slicing, 8 x 2, takes 1.2 x as long``."""
    if best.forecast is None or not others:
        return f"no {what} is legal here"
    nearest = min((c for c in others if c.forecast), key=lambda c: c.forecast.step_s if c.forecast else 0.0)
    took = nearest.forecast.step_s if nearest.forecast else 0.0
    return f"the best {what} in the table, {nearest.layout}, takes {took / best.forecast.step_s:.3g} x as long"
