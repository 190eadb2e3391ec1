"""Why nothing could be chosen, and the way out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from helixctl.errors import Diagnostic
from helixctl.plan import Layout, illegalities
from helixctl.plan.size import tasks_of, too_large
from helixctl.solve.bound import Bound
from helixctl.solve.constraints import Request
from helixctl.solve.problem import Specs, available, may_fit
from helixctl.solve.search import SearchResult
from helixctl.solve.space import FEW, combinations, pairs
from helixctl.solve.verdict import too_big
from helixctl.spec import ClusterSpec, ModelSpec, WorkloadSpec
from helixctl.units import human_bytes

_MOST: Final = 5  # layouts in one refusal; more hide the nearest


def none_legal(specs: Specs, request: Request, legal: Sequence[Layout]) -> list[Diagnostic]:
    """No layout that is asked for is legal (HX202), or none at all (HX201).

    Args:
        specs: model, cluster and workload.
        request: what was asked for.
        legal: the legal layouts with the fixed axes other than groups and slices.
    """
    model, cluster, workload = specs
    wanted, fixed = str(request), request.fixed_beside_pairs
    asked = [x for x in pairs(cluster.devices, fixed, workload) if request.admits(x)]
    if not asked:
        asked = [x for x in combinations(*specs, fixed, FEW, "throughput") if request.admits(x)]
    if not asked:
        shapes = {
            (x.groups, x.slices): x for x in reversed(list(pairs(cluster.devices, fixed, workload)))
        }  # each in one slicing
        made = "; ".join(map(str, reversed(shapes.values()))) or "none with these axes"
        hint: str | None = f"groups x slices x data x pipeline must be the number of devices: {made}"
        return [Diagnostic("HX202", f"{wanted}: does not make {cluster.devices} devices", hint)]
    why: dict[tuple[str, ...], Layout] = {}
    for layout in asked:
        why.setdefault(tuple(illegalities(layout, model, workload, cluster.devices, differs=cluster.differs)), layout)
    # What is wrong with fewest things is nearest to being legal.
    nearest = sorted(why.items(), key=lambda item: len(item[0]))[:_MOST]
    code = "HX202" if wanted else "HX201"
    there = ", ".join(dict.fromkeys(f"{x.groups} x {x.slices}" for x in legal))
    found = []
    for reasons, layout in nearest:
        hint = f"legal here: {there}" if there else _slices(reasons, layout, model)
        found.append(Diagnostic(code, f"layout {layout}: {'; '.join(reasons)}", hint))
    return found


def too_many_tasks(smallest: Layout, model: ModelSpec) -> Diagnostic:
    """Every layout that is asked for is lowered to too many tasks (HX305), even the one with fewest."""
    found = too_large(tasks_of(smallest, model.layers), f"the smallest that is legal here, layout {smallest},")
    if found is None:
        raise TypeError  # it is not too large
    hint = "leave axes of --layout to the search, above all microbatches; or use fewer devices or a smaller --batch"
    return replace(found, hint=hint)


def weights_do_not_fit(nbytes: int, cluster: ClusterSpec) -> Diagnostic | None:
    """The model's weights are larger than the memory of all devices (HX203); else None."""
    available = sum(kind.device.available * kind.devices for kind in cluster.kinds)
    if nbytes <= available:
        return None
    hint = "use more devices or a smaller dtype"
    if cluster.differs:
        message = f"weights of {human_bytes(nbytes)} are more than the {human_bytes(available)} of all devices"
        return Diagnostic("HX203", f"{message}; {cluster.memory_text}", hint)
    share = human_bytes(nbytes / cluster.devices)
    message = f"weights of {human_bytes(nbytes)} need {share} a device, however they are cut"
    return Diagnostic("HX203", f"{message}; {cluster.memory_text}", hint)


def _less_memory(model: ModelSpec, workload: WorkloadSpec, *, free: bool) -> str:
    """The way out where nothing fits in memory; ``free``: no axis of the layout was fixed."""
    last = ", --logits last" if model.vocabulary and workload.logits == "all" else ""
    others = "" if free else "leave more axes of the layout to the search, or "
    return f"{others}use more devices, a smaller --batch or --seq-len{last}, or a smaller dtype"


def cannot_fit(smallest: Layout, bound: Bound, specs: Specs, *, free: bool = True) -> Diagnostic | None:
    """Not even the layout with the lowest bound can fit in memory (HX203); None where by its bound it may."""
    model, cluster, workload = specs
    if may_fit(bound, available(cluster)):
        return None
    needs = f"needs at least {human_bytes(bound.memory_nbytes)} a device"
    return Diagnostic(
        "HX203", f"layout {smallest}: {needs}, {cluster.memory_text}", _less_memory(model, workload, free=free)
    )


def none_fits(found: SearchResult, specs: Specs, *, free: bool = True) -> list[Diagnostic]:
    """No layout that was simulated fits in memory (HX203)."""
    model, cluster, workload = specs
    smallest = sorted(found.tried, key=lambda c: c.forecast.memory_nbytes if c.forecast else 0)
    tried = f"of the smallest, {len(found.tried)} were simulated"
    ended = f"the search ended at its budget: {tried}; fix axes with --layout"
    # A layout whose bound is too large stands last in the search: then nothing that is left can fit.
    proved = found.open_bound is None or found.open_bound[0] == float("inf")
    hint = _less_memory(model, workload, free=free) if proved else ended
    return [Diagnostic("HX203", f"layout {c.layout}: {too_big(c, cluster)}", hint) for c in smallest[:3]]


def _slices(reasons: Sequence[str], layout: Layout, model: ModelSpec) -> str | None:
    """The change of the model that would make a layout legal, if its cut of the softmax is all that is wrong."""
    if len(reasons) != 1 or "softmax" not in reasons[0]:
        return None
    return (
        f"--set attention.softmax_slices={layout.slices} would make it legal, but that is another function "
        f"than the model's {model.attention.softmax_slices}"
    )
