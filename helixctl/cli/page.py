"""What a page of ``helixctl visualize`` shows: the tasks of a plan or of its drawn part, predictions, measurements."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from helixctl.cli.documents import prove_lowered, whole_dag
from helixctl.dag import Dag
from helixctl.dag.span import Span
from helixctl.emit.folds import Folds, drawn_layers, drawn_ranks, folds_of, joined, restricted, sentences
from helixctl.emit.time_data import is_alike, measured_waits
from helixctl.emit.trace import spans_of_traces
from helixctl.emit.traffic import traffic_of
from helixctl.emit.views import Figures, LevelTime, Memory, Timeline, Views
from helixctl.errors import Diagnostic, HelixError
from helixctl.plan import Plan
from helixctl.plan.size import MANY_TASKS, about, too_large
from helixctl.records import record
from helixctl.simulate.against import MeasuredRun, measured_of
from helixctl.spec import StepName
from helixctl.spec.load import read_text
from helixctl.units import human_seconds

if TYPE_CHECKING:
    from helixctl.simulate import Forecast
    from helixctl.simulate import Timeline as Simulated

# Tasks of a dag that a page has whole, and of several microbatches of a part that it has beside the first.
MOST: Final = 2_500
_MOST_OF_SEVERAL: Final = 2_600


@record
class Measured:
    """What a run measured: figures of a step, and the spans of one; either may be missing."""

    report: MeasuredRun | None = None
    traces: Sequence[Sequence[Span]] = ()
    path: str = ""


def read_reports(paths: Sequence[str]) -> Measured:
    """Read what ``helixctl run`` wrote: with --report the figures of its steps, with --trace the spans of one.

    Raises:
        HelixError: HX101 and the like: a file cannot be read; HX110: it is neither.
    """
    found = Measured()
    for path in paths:
        text = read_text(path)
        if (traces := spans_of_traces(text)) is not None:
            found = replace(found, traces=traces, path=path)
        else:
            found = replace(found, report=measured_of(text, path), path=path)
    return found


def page_of(planned: Plan | Dag, step: StepName, source: str, measured: Measured) -> tuple[Dag, Views]:
    """What is drawn, proved, and what is shown beside it.

    Args:
        planned: a plan, or a dag that is proved.
        step: which step of the plan.
        source: the file's name, for findings.
        measured: what is shown beside the predictions.

    Raises:
        HelixError: a proof's; HX113: what was measured is of another dag; HX305: the drawing would be too large.
    """
    plan = planned if isinstance(planned, Plan) else planned.plan
    size = about(plan) if isinstance(planned, Plan) else len(planned.tasks)
    if size <= MOST:
        dag = planned if isinstance(planned, Dag) else whole_dag(planned, source, step)
        return dag, views_of(dag, None, measured)
    folds = folds_of(plan, _MOST_OF_SEVERAL, about)
    if isinstance(planned, Dag) or measured.path:
        every = planned if isinstance(planned, Dag) else whole_dag(planned, source, step)
        _check(every, measured)
        dag = joined(restricted(every, folds))
        return dag, views_of(dag, folds, measured, checked=True)
    layers, ranks = drawn_layers(plan, folds.layers), drawn_ranks(plan)
    drawn = about(plan, ranks, layers, folds.microbatches)
    if large := too_large(drawn, f"what is drawn of layout {plan.layout}", MANY_TASKS):
        raise HelixError(replace(large, hint="--layer N draws a layer alone", file=source))
    prove_lowered(plan, source)
    dag = joined(lower_part(plan, ranks, layers, folds.microbatches, step))
    return dag, views_of(dag, folds, measured)


def lower_part(plan: Plan, ranks: list[int], layers: list[int], microbatches: range, step: StepName) -> Dag:
    """The tasks of some ranks, layers and microbatches."""
    from helixctl.lower import lower

    return lower(plan, ranks, layers, microbatches, step)


def views_of(dag: Dag, folds: Folds | None, measured: Measured, *, checked: bool = False) -> Views:
    """The timelines and the figures of what is drawn.

    Args:
        dag: what is drawn; of a layer alone all of its dag.
        folds: what it stands for.
        measured: what is shown beside the predictions.
        checked: it is known to be of this dag.

    Raises:
        HelixError: HX113: what was measured is of another dag.
    """
    from helixctl.simulate import forecast_from, simulate

    if not checked:
        _check(dag, measured)
    simulated = simulate(dag)
    if folds is None and not dag.plan_digest:  # a layer alone, of a plan that is too large to be simulated whole
        return Views(timelines=(_timeline(simulated, "Predicted, as if nothing came before."),))
    forecast = forecast_from(simulated) if folds is None and dag.plan_digest else _forecast(dag)
    timelines = [_timeline(simulated, _note(dag, folds, forecast))]
    if spans := _spans_of(dag, measured.traces, whole=folds is None):
        timelines.append(Timeline("measured", spans, measured_waits(spans), "Measured: one step of a run."))
    return Views(folds, tuple(timelines), _figures(dag, folds, forecast, measured.report))


def _timeline(simulated: Simulated, note: str) -> Timeline:
    waits = [
        Span(name, rank, "compute", simulated.end_s[name] - seconds, simulated.end_s[name])
        for rank in simulated.ranks
        for name, seconds in simulated.waited_s[rank].items()
    ]
    return Timeline("predicted", simulated.spans, waits, note, list(_copies(simulated)))


def _copies(simulated: Simulated) -> Iterator[Span]:
    """When every rank copies: before it issues a collective, and after all its tasks."""
    for rank in simulated.ranks:
        for name, seconds in simulated.copied_s[rank].items():
            end = simulated.issued_s[rank][name] if name else simulated.rank_end_s[rank]
            yield Span(name or simulated.dag.order[rank][-1], rank, "compute", end - seconds, end)


def _note(dag: Dag, folds: Folds | None, forecast: Forecast) -> str:
    """What the predicted times are of."""
    if folds and (parts := sentences(dag.plan, folds)):
        return f"Predicted, {', '.join(parts)}; the whole step takes {human_seconds(forecast.step_s)}."
    return f"Predicted: a step of {human_seconds(forecast.step_s)}."


def _forecast(dag: Dag) -> Forecast:
    """The forecast of the whole step, of which the dag is a part."""
    from helixctl.solve.candidate import step_forecast

    plan = dag.plan
    return step_forecast(plan.model, plan.cluster, plan.workload, plan.layout, dag.step)


def _figures(dag: Dag, folds: Folds | None, forecast: Forecast, report: MeasuredRun | None) -> Figures:
    times = [LevelTime(level, lane, seconds) for (level, lane), seconds in forecast.levels.items()]
    kinds = report.kinds or () if report else ()
    seconds = [(k, (k.busy_ms if k.lane == "compute" else k.exposed_ms) / 1e3) for k in kinds]
    return Figures(
        step_s=forecast.step_s,
        memory=_memory(dag, forecast),
        predicted=tuple(times),
        traffic=traffic_of(dag, folds),
        measured_s=report.step_time_ms.mean / 1e3 if report else None,
        measured=tuple(LevelTime(kind.level, kind.lane, its) for kind, its in seconds),
    )


def _memory(dag: Dag, forecast: Forecast) -> Memory:
    """What the fullest device holds for all steps of the plan; where hosts differ, that with least to spare."""
    from helixctl.solve.candidate import of_steps, step_forecast

    plan = dag.plan
    if len(plan.steps) > 1:
        at = (plan.model, plan.cluster, plan.workload, plan.layout)
        steps = [forecast if name == dag.step else step_forecast(*at, name) for name in plan.steps]
        forecast = of_steps(plan.workload, plan.layout, steps)
    held = forecast.memory_of_kinds or [forecast.fullest]
    pairs = zip([kind.device for kind in plan.cluster.kinds], held, strict=True)
    device, its = min(pairs, key=lambda pair: pair[0].available - pair[1].nbytes)
    arenas = its.nbytes - its.weight_nbytes - its.cache_nbytes
    free = max(0.0, device.available - its.nbytes)
    return Memory(its.weight_nbytes, its.cache_nbytes, arenas, device.memory - device.available, free)


def _check(dag: Dag, measured: Measured) -> None:
    """That what was measured is of this dag.

    Raises:
        HelixError: HX113, it is not.
    """
    from helixctl.dag.retype import retyped

    report = measured.report
    other = report is not None and retyped(dag, report.dtype).digest != report.dag_digest
    if other or (measured.traces and not _spans_of(dag, measured.traces, whole=True)):
        hint = "give the plan or the dag that ran, or run this one: helixctl run PLAN --report FILE --trace FILE"
        raise HelixError(Diagnostic("HX113", "is of another dag than the one that is drawn", hint, measured.path))


def _spans_of(dag: Dag, traces: Sequence[Sequence[Span]], *, whole: bool) -> list[Span]:
    """The spans of the trace that is of this dag, or has all tasks of this part of one; none where there is none."""
    for spans in traces:
        known = list(spans) if whole else [span for span in spans if span.task in dag.task]
        if is_alike(dag, known):
            return known
    return []
