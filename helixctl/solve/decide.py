"""The decision: the fastest layout that is legal and fits, or the one asked for, and a verdict on every other."""

from __future__ import annotations

from dataclasses import dataclass

from helixctl.dag import Dag
from helixctl.errors import Diagnostic, HelixError
from helixctl.plan import Plan
from helixctl.simulate import Forecast
from helixctl.solve.candidates import Candidate, candidates
from helixctl.solve.wish import Wish, wish_text
from helixctl.spec import ClusterSpec, ModelSpec, WorkloadSpec
from helixctl.units import human_bytes, human_seconds


@dataclass(frozen=True, slots=True)
class Row:
    """A candidate and the verdict on it."""

    candidate: Candidate
    chosen: bool
    verdict: str


@dataclass(frozen=True, slots=True)
class Decision:
    """What was chosen, with the reasons."""

    plan: Plan
    dag: Dag
    rows: tuple[Row, ...]


def decide(model: ModelSpec, cluster: ClusterSpec, workload: WorkloadSpec, wish: Wish | None = None) -> Decision:
    """Choose groups and slices; ``wish`` fixes axes of the layout, others stay at their default.

    Raises:
        HelixError: HX201 no layout is legal; HX202 the one asked for is not; HX203 none fits in memory.
    """
    wish = wish or {}
    all_rows = candidates(model, cluster, workload, wish)
    asked = [c for c in all_rows if all(getattr(c.layout, axis) == value for axis, value in wish.items())]
    wanted = wish_text(wish)
    if not asked:
        message = f"{wanted}: does not make {cluster.devices} devices"
        pairs = ", ".join(str(c.layout) for c in all_rows) or "none with these axes"
        hint = f"groups x slices x data x pipeline must be the number of devices: {pairs}"
        raise HelixError(Diagnostic("HX202", message, hint))
    legal = [c for c in asked if c.price]
    if not legal:
        raise HelixError(_none_legal(asked, [c for c in all_rows if c.price], wanted, model))
    fitting = [c for c in legal if not _too_big(c, cluster)]
    if not fitting:
        raise HelixError(
            [Diagnostic("HX203", f"layout {c.layout}: {_too_big(c, cluster)}", _MEMORY_HINT) for c in legal]
        )
    best = min(fitting, key=_rank)
    if best.price is None or best.dag is None:
        raise TypeError  # a fitting candidate has both
    rows = tuple(Row(c, c is best, _verdict(c, best, best.price, wanted, cluster)) for c in all_rows)
    return Decision(best.dag.plan, best.dag, rows)


def _rank(candidate: Candidate) -> tuple[float, int]:
    """Faster first; of equals the one with fewer slices. Sums of the same terms in another order are equal."""
    return (float(f"{candidate.price.step_s:.9g}") if candidate.price else float("inf"), candidate.layout.slices)


_MEMORY_HINT = "use more devices, a smaller --batch or --seq-len, or a smaller dtype"


def _none_legal(asked: list[Candidate], legal: list[Candidate], wanted: str, model: ModelSpec) -> list[Diagnostic]:
    code = "HX202" if wanted else "HX201"
    hint = None
    if legal:
        hint = "legal here: " + ", ".join(str(c.layout) for c in legal)
    elif cut := [c for c in asked if len(c.reasons) == 1 and "softmax" in c.reasons[0]]:
        slices = min(c.layout.slices for c in cut)
        hint = (
            f"--set attention.softmax_slices={slices} would make it legal, but that is another function "
            f"than the model's {model.attention.softmax_slices}"
        )
    return [Diagnostic(code, f"layout {c.layout}: {'; '.join(c.reasons)}", hint) for c in asked]


def _too_big(candidate: Candidate, cluster: ClusterSpec) -> str | None:
    if candidate.price is None or candidate.price.memory_nbytes <= cluster.device.memory:
        return None
    need = human_bytes(candidate.price.memory_nbytes)
    return f"needs {need} a device, {cluster.device.name} has {human_bytes(cluster.device.memory)}"


def _verdict(c: Candidate, best: Candidate, fastest: Forecast, wanted: str, cluster: ClusterSpec) -> str:
    if c.price is None:
        return "; ".join(c.reasons)
    if c is best:
        return f"asked for ({wanted})" if wanted else "chosen: the fastest of the legal ones"
    if too_big := _too_big(c, cluster):
        return too_big
    if _rank(c)[0] == _rank(best)[0]:
        return "as fast, with more slices" if c.layout.slices > best.layout.slices else "as fast"
    ratio = c.price.step_s / fastest.step_s
    if ratio < 1:
        return f"{1 / ratio:.3g} x faster, but not what was asked for ({wanted})"
    slower = {key: c.price.levels.get(key, 0.0) - fastest.levels.get(key, 0.0) for key in c.price.levels}
    (level, lane), _ = max(slower.items(), key=lambda item: item[1])
    have, against = c.price.levels[level, lane], fastest.levels.get((level, lane), 0.0)
    return f"{ratio:.3g} x slower: {lane} of {level} {human_seconds(have)} against {human_seconds(against)}"
