"""helixctl simulate: predict a step of plans, side by side or beside what a run measured."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Final

import click

from helixctl.api import Prediction, simulate_step
from helixctl.cli.against import print_comparison
from helixctl.cli.answer import first_line
from helixctl.cli.completion import files
from helixctl.cli.console import answers, table, wrote
from helixctl.cli.documents import load_planned, named, whole_dag
from helixctl.cli.generations import token_times_text
from helixctl.cli.layouts import LAYOUT
from helixctl.cli.outputs import Output, check_outputs, force_option
from helixctl.cli.tables import Cell, Column, Table
from helixctl.cli.watching import watched
from helixctl.cost.links import BETWEEN_HOSTS, in_words
from helixctl.cost.tasks import foundation, sources
from helixctl.dag import Dag
from helixctl.dag.retype import retyped
from helixctl.emit.trace import Trace, traces_json
from helixctl.errors import Diagnostic, HelixError
from helixctl.output import write_output
from helixctl.plan import Plan
from helixctl.plan.size import MANY_TASKS, about
from helixctl.plan.terms import short
from helixctl.simulate import Forecast
from helixctl.simulate.against import MeasuredRun, compare, read_measured
from helixctl.simulate.json_report import path_report, plan_report, simulation_report
from helixctl.solve.candidate import of_steps
from helixctl.solve.token_times import TokenTimes, token_times
from helixctl.spec import StepName
from helixctl.spec.rates import doubts
from helixctl.units import counted, human_bytes, human_rate, human_seconds

if TYPE_CHECKING:
    from rich.console import Console

_MOST_COLUMNS: Final = 4
_PART: Final = (
    "forecast from one rank of every kind, and from models of fewer layers, as helixctl plan does it; "
    "--trace simulates every task"
)
_OVERHEAD: Final = "sync + comm overhead per token (the paper's TPOT)"
# What a narrow table of many plans leaves out, the first first.
_DROPPED: Final = (
    "of it between hosts",
    "communication, hidden by computation",
    _OVERHEAD,
    "received per rank",
    "computing",
    "latency of a sequence, mean",
    "KV cache per rank, largest",
    "communication, exposed",
    "tokens/s",
    "memory per rank, largest",
)
_SHORT: Final = {  # where a name heads a column
    "step time": "step",
    "latency of a sequence, mean": "latency",
    _OVERHEAD: "overhead/token",
    "communication, exposed": "exposed",
    "communication, hidden by computation": "hidden",
    "received per rank": "received",
    "of it between hosts": "between hosts",
    "memory per rank, largest": "memory",
    "KV cache per rank, largest": "cache",
}


@dataclass(frozen=True)
class _Prediction(Prediction):
    """What is predicted of a file."""

    path: str

    @cached_property
    def token_times(self) -> TokenTimes | None:
        """The time per output token, where it is a decode step."""
        return token_times(self.plan) if self.dag.step == "decode" else None

    @property
    def title(self) -> str:
        name = PurePath(self.path).name
        return name if self.dag.step == "pass" else f"{name}, {self.dag.step}"

    @property
    def what(self) -> str:
        plan = self.plan
        work, cluster = plan.workload, plan.cluster
        devices = cluster.devices_text
        return f"{plan.model.name} on {cluster.name} ({devices}), {work}, {plan.model.dtype}"


@click.command(name="simulate", short_help="Predict a step of plans, side by side or beside what a run measured.")
@click.argument("documents", nargs=-1, required=True, metavar="PLAN|DAG...", shell_complete=files)
@click.option(
    "--trace", "trace_path", metavar="FILE", help="Write the timeline, for ui.perfetto.dev or chrome://tracing."
)
@click.option("--against", metavar="REPORT", help="Print the prediction beside the report of a run of this plan.")
@click.option("--json", "json_path", metavar="FILE", help="Write the predictions as JSON; - is standard output.")
@click.option(
    "--critical-path", is_flag=True, help="Also print which tasks determine the step, by kind, and give them in --json."
)
@force_option
@click.option("-v", "--verbose", is_flag=True, help="Also print where the numbers come from, and all kinds of tasks.")
@click.option("-q", "--quiet", is_flag=True, help="Print only errors.")
def command(
    documents: tuple[str, ...],
    *,
    trace_path: str | None,
    against: str | None,
    json_path: str | None,
    critical_path: bool,
    force: bool,
    verbose: bool,
    quiet: bool,
) -> None:
    """Predict the step of every PLAN or DAG on its cluster: nothing runs.

    Ranks issue their tasks as `run` does; communication that computation hides costs nothing. Several plans are
    printed side by side. --against holds one plan beside the report of its run, kind of task by kind.
    """
    if against and len(documents) > 1:
        raise click.UsageError("--against takes one plan")
    outputs = [Output("--trace", trace_path, "trace"), Output("--json", json_path, "prediction")]
    check_outputs(outputs, (*documents, against), force=force)
    measured = read_measured(against) if against else None
    whole = bool(measured or trace_path)
    with watched("reading the plans", quiet=quiet):
        predictions = [p for path in documents for p in _predict(path, measured, against, whole=whole)]
    comparison = compare(predictions[0].forecast, measured) if measured else None
    if trace_path:
        traces = [Trace(p.title, p.dag, p.timeline.spans, simulated=True) for p in predictions if p.timeline]
        write_output(trace_path, traces_json(traces))
    if json_path:
        plans = [_report_of(p, path=critical_path) for p in predictions]
        result = simulation_report(plans, asdict(comparison) if comparison else None)
        write_output(json_path, json.dumps(result, indent=2) + "\n")
    if not quiet:
        out = answers(trace_path, json_path)
        _print(out, predictions, verbose=verbose, paths=critical_path)
        if comparison:
            print_comparison(out, comparison)
        if json_path:
            wrote(json_path, counted(len(predictions), "prediction"))
        if trace_path:
            wrote(trace_path, "a timeline for https://ui.perfetto.dev or chrome://tracing")


def _predict(path: str, measured: MeasuredRun | None, against: str | None, *, whole: bool) -> list[_Prediction]:
    """The prediction for each step of a file; one that is held against a report is that of the dag that ran.

    ``whole`` simulates every task, of however many.

    Raises:
        HelixError: the file's; HX113, the report is of another dag, or the plan has several steps.
    """
    planned = load_planned(path)
    if measured and isinstance(planned, Plan) and len(planned.steps) > 1:
        message = f"{path} has the steps {' and '.join(planned.steps)}, and --against compares one pass"
        raise HelixError(Diagnostic("HX113", message, "compare the figures that simulate and run print", against))
    steps = planned.steps if isinstance(planned, Plan) else (planned.step,)
    return [_predict_step(planned, step, path, measured, against, whole=whole) for step in steps]


def _predict_step(
    planned: Plan | Dag, step: StepName, path: str, measured: MeasuredRun | None, against: str | None, *, whole: bool
) -> _Prediction:
    if isinstance(planned, Plan) and (whole or about(planned) <= MANY_TASKS):
        planned = whole_dag(planned, path, step)
    if measured and isinstance(planned, Dag):
        planned = _as_it_ran(planned, measured, path, against)
    with named(path):
        found = simulate_step(planned, step=step if isinstance(planned, Plan) else None)
    return _Prediction(found.plan, found.dag, found.timeline, found.forecast, path)


def _as_it_ran(dag: Dag, measured: MeasuredRun, path: str, against: str | None) -> Dag:
    """The dag in the dtype of the run that was measured.

    Raises:
        HelixError: HX113, the report is of another dag.
    """
    dag = retyped(dag, measured.dtype)
    if dag.digest != measured.dag_digest:
        message = f"is of the dag {measured.dag_digest[:19]}..., not of {dag.digest[:19]}... ({path})"
        hint = "give the plan or the dag that ran, or run this one: helixctl run PLAN --report FILE"
        raise HelixError(Diagnostic("HX113", message, hint, against))
    return dag


def _report_of(prediction: _Prediction, *, path: bool) -> dict[str, Any]:
    found = {"file": prediction.path} | plan_report(prediction.plan, prediction.dag, prediction.forecast)
    found["time_per_output_token_ms"] = _token_times_report(prediction)
    return found | ({"critical_path": path_report(prediction.kinds_on_path)} if path else {})


def _token_times_report(prediction: _Prediction) -> dict[str, float] | None:
    times = prediction.token_times
    if times is None:
        return None
    each = {"mean": prediction.forecast.step_s, "p50": times.p50_s, "p90": times.p90_s, "p99": times.p99_s}
    return {name: seconds * 1e3 for name, seconds in each.items()}


def _print(out: Console, predictions: list[_Prediction], *, verbose: bool, paths: bool) -> None:
    for line in _first_lines(predictions):
        out.print(line, style="bold")
    subjects: dict[str, list[str]] = {}
    for first, *_ in _files(predictions):  # both steps of a plan have one subject
        subjects.setdefault(first.what, []).append(PurePath(first.path).name)
    for what, names in subjects.items():
        out.print(f"{', '.join(names)}: {what}" if len(subjects) > 1 else what)
    out.print()
    out.print(_side_by_side(predictions))
    out.print()
    for text in _generations(predictions):
        out.print(text)
    for prediction in predictions:
        if prediction.timeline is None:
            out.print(f"{prediction.title}: {_PART}")
    for prediction in predictions if verbose else ():
        if prediction.timeline is None:
            continue
        out.print(f"{prediction.title}, mean over the ranks, except the bytes:")
        out.print(_kinds(prediction.forecast))
        out.print()
    for prediction in predictions if paths else ():
        out.print(f"{prediction.title}, critical path: each of these tasks begins when the one before it has ended:")
        out.print(_path(prediction))
        out.print()
    _print_sources(out, predictions, verbose=verbose)


def _files(predictions: Sequence[_Prediction]) -> list[list[_Prediction]]:
    """The predictions of each file: of a plan with a cache its prefill and its decode step."""
    files: list[list[_Prediction]] = []
    for prediction in predictions:
        if files and prediction.dag.step == "decode" and [p.dag.step for p in files[-1]] == ["prefill"]:
            files[-1].append(prediction)
        else:
            files.append([prediction])
    return files


def _first_lines(predictions: Sequence[_Prediction]) -> Iterator[str]:
    """Of every file what its plan comes to, in a line; of many files the rows of the table say it."""
    files = _files(predictions)
    for steps in files if len(files) <= _MOST_COLUMNS else ():
        name = f"{PurePath(steps[0].path).name}: " if len(files) > 1 else ""
        yield name + first_line(steps[0].plan, _together(steps) or steps[0].forecast)


def _together(steps: Sequence[_Prediction]) -> Forecast | None:
    """The forecast of a generation, of those of its steps; None of one step."""
    plan = steps[0].plan
    return of_steps(plan.workload, plan.layout, [p.forecast for p in steps]) if len(steps) > 1 else None


def _generations(predictions: Sequence[_Prediction]) -> Iterator[str]:
    """What the steps of each plan with a cache come to, a sentence each."""
    for steps in _files(predictions):
        together, decode = _together(steps), steps[-1]
        if together is None or (found := together.generation) is None:
            continue
        name = PurePath(decode.path).name
        yield (
            f"{name}: first token after {human_seconds(found.ttft_s)} "
            f"({_prefills(found.chunks)}), then {human_seconds(found.time_per_output_token_s)} a token, "
            f"{human_rate(found.tokens_per_s_per_user, 1)} tokens/s per user, "
            f"{human_rate(found.output_tokens_per_s)} tokens/s in all: a static batch, without a queue"
        )
        if decode.token_times is not None:
            text = token_times_text(found.time_per_output_token_s, decode.token_times)
            yield f"{name}: time per output token: {text}"


def _prefills(count: int) -> str:
    return "one prefill step" if count == 1 else f"{count:,} prefill steps"


def _print_sources(out: Console, predictions: list[_Prediction], *, verbose: bool) -> None:
    for doubt in dict.fromkeys(doubt for p in predictions for doubt in doubts(p.plan.cluster)):
        out.print(f"note: {doubt}")
    if not verbose:
        for basis in dict.fromkeys(foundation(p.plan.model, p.plan.cluster) for p in predictions):
            out.print(f"predicted from {basis}, not measured (-v: sources)")
        return
    out.print("predicted, not measured, from:")
    for line in dict.fromkeys(line for p in predictions for line in sources(p.dag)):
        out.print(f"  {line}")


def _side_by_side(predictions: list[_Prediction]) -> Table:
    """A column for each of a few plans, a row for each of many."""
    cached = any(p.forecast.cache_nbytes for p in predictions)
    found = [_column(p, cached=cached) for p in predictions]
    names = list(found[0])
    if len(predictions) <= _MOST_COLUMNS:
        head = [Column(p.title, right=True, fold=2, least=9) for p in predictions]
        rows = table(Column("predicted", short=1, fold=3), *head)
        for name in names:
            rows.add_row((name, _SHORT.get(name, name)), *(column[name] for column in found))
        return rows
    rows = table(Column("predicted", fold=6, least=12), *map(_head, names))
    for prediction, column in zip(predictions, found, strict=True):
        rows.add_row(prediction.title, *column.values())
    return rows


def _head(name: str) -> Column:
    """The head of a column, where every plan has a row."""
    if name == "layout":
        return LAYOUT
    return Column(_SHORT.get(name, name), right=True, drop=_DROPPED.index(name) + 2 if name in _DROPPED else None)


def _column(prediction: _Prediction, *, cached: bool) -> dict[str, Cell]:
    """What is said of one plan: a value by name."""
    found, plan = prediction.forecast, prediction.plan
    inside = [its for its in found.link_nbytes if its[0] != BETWEEN_HOSTS]
    return {
        "layout": (str(plan.layout), short(plan.layout)),
        "step time": human_seconds(found.step_s),
        "tokens/s": human_rate(found.tokens_per_s),
        "latency of a sequence, mean": human_seconds(found.latency_s),
        _OVERHEAD: f"{found.sync_overhead_per_token_ms:.3g} ms",
        "communication, exposed": _seconds(found.exposed_s),
        "communication, hidden by computation": _seconds(found.hidden_s),
        "computing": f"{found.busy_share:.1%}",
        "received per rank": human_bytes(found.received_nbytes),
        **{f"of it {in_words(name, plan.cluster)}": human_bytes(nbytes) for name, nbytes in inside},
        "of it between hosts": human_bytes(found.between_hosts_nbytes),
        "memory per rank, largest": human_bytes(found.memory_nbytes),
        **({"KV cache per rank, largest": human_bytes(found.cache_nbytes)} if cached else {}),
    }


def _kinds(found: Forecast) -> Table:
    linked = any(kind.link for kind in found.kinds)
    rows = table(
        "level",
        "kind",
        ">tasks",
        ">busy",
        Column("transfer", right=True, drop=2),
        ">exposed",
        Column("received", right=True, drop=3),
        Column("between hosts", right=True, drop=1),
        *(["goes over"] if linked else []),
    )
    for kind in found.kinds:
        moved = ("-",) * 4
        if kind.lane == "communication":
            moved = (
                _seconds(kind.transfer_s),
                _seconds(kind.exposed_s),
                human_bytes(kind.received_nbytes),
                human_bytes(kind.between_hosts_nbytes),
            )
        over = [kind.link or "-"] if linked else []
        rows.add_row(kind.level, kind.kind, str(kind.tasks), _seconds(kind.busy_s), *moved, *over)
    return rows


def _path(prediction: _Prediction) -> Table:
    """The critical path by kind, with its sum."""
    kinds = prediction.kinds_on_path
    rows = table("level", "kind", ">tasks", ">time", ">share")
    for kind in kinds:
        rows.add_row(kind.level, kind.kind, str(kind.tasks), _seconds(kind.seconds), f"{kind.share:.1%}")
    rows.add_row("all", "", str(len(prediction.critical_path)), _seconds(sum(kind.seconds for kind in kinds)), "100.0%")
    return rows


def _seconds(seconds: float) -> str:
    return human_seconds(seconds) if seconds else "0"
