"""What is said of a layout beside the one that was chosen, in one clause of a table."""

from __future__ import annotations

from typing import Final

from helixctl.records import record
from helixctl.simulate import Forecast
from helixctl.solve.candidate import Candidate
from helixctl.solve.limits import Limits
from helixctl.solve.objective import Objective, key
from helixctl.spec import ClusterSpec, DeviceSpec
from helixctl.units import human_bytes, human_seconds


@record
class Row:
    """A candidate and the verdict on it; ``fits`` says whether it could be chosen at all."""

    candidate: Candidate
    chosen: bool
    verdict: str
    fits: bool


_NEAR: Final = 1.1
_LEAST: Final = 1.0005  # a smaller ratio is 0.0 %
_BEST: Final[dict[Objective, str]] = {
    "throughput": "fastest",
    "latency": "soonest done",
    "ttft": "first with its first tokens",
    "tpot": "fastest per token",
    "memory": "smallest",
}
# What a ratio of the measure above 1, and below, is called.
_WORDS: Final[dict[Objective, tuple[str, str]]] = {
    "throughput": ("slower", "faster"),
    "latency": ("later done", "sooner done"),
    "ttft": ("later with first tokens", "sooner with first tokens"),
    "tpot": ("slower per token", "faster per token"),
    "memory": ("more memory", "less memory"),
}


_ALIKE: Final[dict[Objective, str]] = {
    "throughput": "as fast",
    "latency": "as soon done",
    "ttft": "as soon with first tokens",
    "tpot": "as fast per token",
    "memory": "the same memory",
}


def too_big(candidate: Candidate, cluster: ClusterSpec) -> str | None:
    """Why a candidate does not fit in the memory of its devices, each of its own; or None."""
    if candidate.forecast is None:
        return None
    for device, nbytes in held_by(candidate.forecast, cluster):
        if nbytes > device.available:
            return f"needs {human_bytes(nbytes)} a device, {device.memory_text}"
    return None


def held_by(forecast: Forecast, cluster: ClusterSpec) -> list[tuple[DeviceSpec, int]]:
    """Every kind of device, and the bytes that its fullest holds."""
    if not cluster.differs:
        return [(cluster.kinds[0].device, forecast.memory_nbytes)]
    return [(kind.device, its.nbytes) for kind, its in zip(cluster.kinds, forecast.memory_of_kinds, strict=True)]


def unfit(candidate: Candidate, cluster: ClusterSpec, limits: Limits) -> str | None:
    """Why a candidate may not be chosen: its memory, or a limit; None where it may."""
    if candidate.forecast is None:
        return None
    return too_big(candidate, cluster) or limits.exceeded(candidate.forecast)


def row(
    c: Candidate,
    best: Candidate,
    wanted: str,
    objective: Objective,
    cluster: ClusterSpec,
    *,
    proved: bool,
    limits: Limits = Limits(),  # noqa: B008  it cannot be changed
) -> Row:
    """A candidate beside the best.

    Args:
        c: the candidate.
        best: what was chosen.
        wanted: what was asked for, in words; empty where nothing was.
        objective: what the search made small.
        cluster: whose memory it has to fit.
        proved: whether no other layout that was asked for can be better than the best.
        limits: what it has to keep within.
    """
    if c.forecast is None or best.forecast is None:
        return Row(c, chosen=False, verdict="; ".join(c.reasons), fits=False)
    if c is best:
        found = "searched" if proved else "found"
        said = f"asked for ({wanted})" if wanted else f"chosen: the {_BEST[objective]} {found} that fits"
        return Row(c, chosen=True, verdict=said, fits=True)
    if big := too_big(c, cluster):
        return Row(c, chosen=False, verdict=f"does not fit: {big}", fits=False)
    if over := limits.exceeded(c.forecast):
        return Row(c, chosen=False, verdict=f"over the limit: {over}", fits=True)
    return Row(c, chosen=False, verdict=_beside_best(c, c.forecast, best, best.forecast, wanted, objective), fits=True)


def _beside_best(
    c: Candidate, mine: Forecast, best: Candidate, its: Forecast, wanted: str, objective: Objective
) -> str:
    one, other = key(objective, mine), key(objective, its)
    if one == other:
        return "as good, with more slices" if c.layout.slices > best.layout.slices else "as good"
    said = compared(objective, mine, its)
    if one < other:
        return f"{said}, but not what was asked for ({wanted})" if wanted else said
    cause = _slowest(mine, its) if objective != "memory" else None
    return f"{said}: {cause}" if cause else said


def compared(objective: Objective, mine: Forecast, its: Forecast) -> str:
    """How one forecast is beside another, by the objective; by the step where they are equal by that."""
    a, b = key(objective, mine)[0], key(objective, its)[0]
    if a != b:
        return _amount(a / b, objective)
    alike = _ALIKE[objective]
    if key(objective, mine) == key(objective, its):
        return alike
    return f"{alike}, {_amount(mine.step_s / its.step_s, 'throughput')}"


def _amount(ratio: float, objective: Objective) -> str:
    """``7.8% slower``, ``1.18 x slower``, ``1.15 x faster``, ``1.2 x the memory``."""
    word = _WORDS[objective][ratio < 1]
    away = max(ratio, 1 / ratio)
    if away < _LEAST:
        return f"less than 0.1% {word}"
    if objective == "memory" and away >= _NEAR:
        return f"{ratio:.3g} x the memory"
    # A third of the time is 3 x faster; a percentage is of the best.
    share = f"{abs(ratio - 1):.1%}" if objective == "memory" else f"{away - 1:.1%}"
    return f"{share} {word}" if away < _NEAR else f"{away:.3g} x {word}"


def _slowest(slow: Forecast, fast: Forecast) -> str | None:
    """The level and lane in which the slower of two loses most of its step; None where it loses nothing."""
    if slow.step_s <= fast.step_s:
        return None
    lost = {at: max(0.0, seconds) - max(0.0, fast.levels.get(at, 0.0)) for at, seconds in slow.levels.items()}
    level, lane = max(lost, key=lambda at: lost[at])
    if lost[level, lane] <= 0:
        return None
    have, against = (human_seconds(max(0.0, f.levels.get((level, lane), 0.0))) for f in (slow, fast))
    if have == against:
        return None  # too little to be seen
    exposed = " exposed" if lane == "communication" else ""
    return f"{lane} of {level} {have}{exposed} against {against}"
