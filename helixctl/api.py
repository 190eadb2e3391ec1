"""The public API: what the commands do, as functions with typed results. Nothing is printed, nothing is written.

``import helixctl`` gives these names; they are loaded when they are used. docs/api.md has an example of each.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from typing import TYPE_CHECKING, Final

from helixctl import collector
from helixctl.dag import Dag, Task
from helixctl.documents import Document, load_document, too_long
from helixctl.errors import Diagnostic, HelixError
from helixctl.plan import Plan
from helixctl.plan.size import MANY_TASKS, about
from helixctl.spec import ClusterSpec, ModelDocument, StepName
from helixctl.spec.load import for_planning

if TYPE_CHECKING:
    from helixctl.paper import Comparison
    from helixctl.simulate import Forecast, KindOnPath, Timeline
    from helixctl.solve import Decision, Objective, Proof
    from helixctl.sweep import Point, Sweep
    from helixctl.sweep.points import Place

__all__ = [
    "ClusterSpec",
    "Comparison",
    "Dag",
    "Diagnostic",
    "HelixError",
    "ModelDocument",
    "Plan",
    "Planned",
    "Point",
    "Prediction",
    "Sweep",
    "load",
    "lower_plan",
    "make_plan",
    "make_sweep",
    "predict_paper",
    "simulate_step",
    "validate",
]


# Results whose modules take time to load.
_LATER: Final = {"Comparison": "helixctl.paper", "Point": "helixctl.sweep", "Sweep": "helixctl.sweep"}


def __getattr__(name: str) -> object:
    """The class of a result, loaded at its first use."""
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found: object = getattr(import_module(_LATER[name]), name)
    return found


@dataclass(frozen=True)
class Planned:
    """What ``make_plan`` chose.

    Attributes:
        decision: the choice with its reasons: ``plan``, ``rows`` (the layouts beside it, each with a verdict),
            ``reasons`` and ``searched`` (sentences), ``legal`` and ``simulated`` (how many layouts).
        proof: what was lowered and proved: ``dag``, and ``part``, a text that says how much of the plan that is where
            it is not all.
    """

    decision: Decision
    proof: Proof

    @property
    def plan(self) -> Plan:
        """The plan; ``to_json()`` is the text of its file."""
        return self.decision.plan


@dataclass(frozen=True)
class Prediction:
    """A step that was simulated: a prediction, never a measurement.

    Attributes:
        plan: whose step it is.
        dag: what was simulated; without a timeline a part of the plan's dag that has tasks of every kind.
        timeline: when every task begins and ends, in seconds; None of a large plan, whose forecast
            is that of a part.
        forecast: step time and latency in seconds, tokens per second, bytes received and held, by rank.
    """

    plan: Plan
    dag: Dag
    timeline: Timeline | None
    forecast: Forecast

    @cached_property
    def critical_path(self) -> tuple[Task, ...]:
        """The chain of tasks that determines the step; their durations add up to it.

        Without a timeline it is found among one rank of every kind, which the others are like.
        """
        from helixctl.simulate import critical_path

        return critical_path(self._simulated.dag, self._simulated.seconds)

    @property
    def kinds_on_path(self) -> tuple[KindOnPath, ...]:
        """The critical path summed by level and kind, with seconds and share."""
        from helixctl.simulate import kinds_on_path

        return kinds_on_path(self.critical_path, self._simulated.seconds)

    @cached_property
    def _simulated(self) -> Timeline:
        if self.timeline:
            return self.timeline
        from helixctl.lower import lower
        from helixctl.simulate import simulate
        from helixctl.solve.candidate import representatives

        plan = self.plan
        ranks = representatives(plan.layout, plan.model, plan.cluster, plan.workload)
        return simulate(lower(plan, ranks, step=self.dag.step))


def load(path: str | os.PathLike[str], sets: Sequence[str] = ()) -> Document:
    """Read a document and prove it: a model, a cluster, a plan or a dag, told apart by content.

    Args:
        path: a YAML or JSON file, ``-`` for standard input, the folder of a Hugging Face model, or the name of a
            model or a cluster, ``Llama-3.1-8B`` or ``h100:2x8``.
        sets: texts that override fields of a model or a cluster, as ``--set`` does: ``workload.batch=8``.

    Returns:
        A ``ModelDocument`` (``model`` and ``workload``), a ``ClusterSpec``, a ``Plan`` or a ``Dag``.

    Raises:
        HelixError: the file cannot be read, is malformed (all that is wrong, with lines), or is refused by a proof.
    """
    return load_document(os.fspath(path), sets)


def make_plan(
    model: ModelDocument,
    cluster: ClusterSpec,
    *,
    layout: str | Mapping[str, int | str] | None = None,
    objective: Objective = "throughput",
    plain: bool = False,
    whole: bool = False,
    max_ttft_s: float | None = None,
    max_tpot_s: float | None = None,
) -> Planned:
    """Choose a layout for a model on a cluster, and prove its plan.

    Args:
        model: the model and its workload: ``batch`` sequences of ``seq_len`` tokens.
        cluster: the devices.
        layout: axes that are fixed; the search has the others. A mapping such as ``{"groups": 4, "slices": 4}``, or a
            text as ``--layout`` takes it, ``"tp=8,pp=2"``.
        objective: ``throughput`` (tokens per second), ``latency`` (seconds until a sequence is done) or ``memory``
            (bytes on the fullest device); of a generation also ``ttft`` (seconds until its first tokens) and ``tpot``
            (seconds a token of a sequence takes after that).
        plain: leave every axis that is not fixed, groups and slices apart, at its default: the space of the paper.
        whole: lower and prove all of the dag, however large, so that ``proof.dag`` is the plan's.
        max_ttft_s: of a generation, the most seconds until every sequence has its first token.
        max_tpot_s: of a generation, the most seconds from one token of a sequence to its next.

    Raises:
        HelixError: HX111, HX114: the model cannot be planned for its workload, or not on these devices. HX2xx: no
            layout is legal, or fits. HX305: too many tasks. HX4xx: a proof refuses the plan.
        TypeError: model or cluster is none, such as a name: ``load`` gives them.
        ValueError: there is no such objective, or it is of a generation, and this is one pass.
    """
    from helixctl.solve import constraints_of, decide, proof
    from helixctl.solve.limits import Limits

    _check_arguments(model, cluster, objective)
    model = for_planning(model, cluster)
    limits, axes = Limits(max_ttft_s, max_tpot_s), constraints_of(layout)
    with collector.paused():
        decision = decide(model.model, cluster, model.workload, axes, objective, plain=plain, limits=limits)
        if whole and (tasks := about(decision.plan)) > MANY_TASKS:
            raise HelixError(too_long(decision.plan, f"has about {tasks:,} tasks"))
        proved = proof(decision.plan, whole=whole)
    _refuse(proved.findings)
    return Planned(decision, proved)


def make_sweep(
    model: ModelDocument,
    cluster: ClusterSpec,
    *,
    batches: Sequence[int] | None = None,
    lengths: Sequence[int] | None = None,
    devices: Sequence[int] | None = None,
    layout: str | Mapping[str, int | str] | None = None,
    objective: Objective = "throughput",
    plain: bool = False,
    max_ttft_s: float | None = None,
    max_tpot_s: float | None = None,
    watch: Callable[[int, Place], None] | None = None,
) -> Sweep:
    """Plan a model for every batch of every length on every number of devices, each as ``make_plan`` does.

    Args:
        model: the model and its workload. With an ``output_len`` each point is a generation, without one pass.
        cluster: the devices.
        batches: sequences; by default the workload's.
        lengths: tokens of a sequence, or of its prompt; by default the workload's.
        devices: parts of the cluster: some devices of one host, or whole hosts; by default all.
        layout: as of ``make_plan``, of every point.
        objective: as of ``make_plan``.
        plain: as of ``make_plan``.
        max_ttft_s: as of ``make_plan``; where no layout keeps within it, a point is of the layout that comes nearest.
        max_tpot_s: the same.
        watch: is called before each point with the number of points done, and the point.

    Returns:
        Every point, those that do not fit with the reason. ``to_json()`` is the text that ``helixctl sweep --json``
        writes.

    Raises:
        TypeError: as of ``make_plan``.
        ValueError: the cluster has no such part, or there is no such objective; or of one pass something is asked for
            that only a generation has.
        HelixError: what is wrong with model or cluster; a proof refuses a plan.
    """
    from helixctl.solve import constraints_of
    from helixctl.solve.limits import Limits
    from helixctl.sweep.points import Wanted, grid_of, sweep

    _check_arguments(model, cluster, objective)
    wanted = Wanted(objective, constraints_of(layout), plain, Limits(max_ttft_s, max_tpot_s))
    return sweep(model, cluster, grid_of(model, cluster, batches, lengths, devices), wanted, watch)


def predict_paper(cluster: str | None = None) -> tuple[Comparison, ...]:
    """The table of the paper (docs/paper.md): both of its methods for each of its models on 16 H100, predicted.

    Args:
        cluster: another cluster than the paper's, by datasheet: a file, or a name such as ``h100:2x8``.

    Returns:
        Of each model what the paper reports, and what is predicted for it; none of it is fitted to the paper.
    """
    from helixctl.paper import comparisons

    return tuple(comparisons(cluster))


def lower_plan(plan: Plan, step: StepName | None = None) -> Dag:
    """The dag of a plan's step, by default the first, proved.

    Up to 200,000 tasks all of it is proved, above that a part that all else is a copy of, as ``make_plan`` does.

    Raises:
        HelixError: a proof refuses the plan; HX305: it has too many tasks.
    """
    from helixctl.lower import lower

    if about(plan) > MANY_TASKS:
        _refuse(validate(plan))
        return lower(plan, step=step)
    dag = lower(plan, step=step)
    _refuse(validate(dag))
    return dag


def validate(document: Plan | Dag) -> tuple[Diagnostic, ...]:
    """Prove a plan or a dag that did not come from ``load``, ``make_plan`` or ``lower_plan``, which prove theirs.

    Returns:
        What is wrong; nothing where it is proved. Of a plan that holds by itself what it is lowered to is proved.

    Raises:
        HelixError: HX305: a plan has too many tasks to be proved.
    """
    from helixctl.verify import verify, verify_plan

    if isinstance(document, Dag):
        return tuple(verify(document))
    if findings := verify_plan(document):
        return tuple(findings)
    from helixctl.solve import proof

    return proof(document).findings


def simulate_step(document: Plan | Dag, *, whole: bool = False, step: StepName | None = None) -> Prediction:
    """Predict a step on the cluster of the plan. Nothing runs.

    Args:
        document: a plan, which is lowered and proved; or a dag, which is taken as proved.
        whole: simulate every task, of however many. By default the forecast of a plan of more than 200,000 tasks is
            that of a part, as ``make_plan`` makes it.
        step: of a plan that has several, by default the first.

    Raises:
        HelixError: as ``lower_plan``.
    """
    from helixctl.simulate import forecast_from, simulate

    if isinstance(document, Plan) and about(document) > MANY_TASKS and not whole:
        return _of_a_part(document, step)
    dag = lower_plan(document, step) if isinstance(document, Plan) else document
    timeline = simulate(dag)
    return Prediction(dag.plan, dag, timeline, forecast_from(timeline))


def _of_a_part(plan: Plan, step: StepName | None) -> Prediction:
    """The prediction for a plan of very many tasks, as the search makes it: without its whole dag."""
    from helixctl.solve.candidate import priced, step_forecast

    _refuse(validate(plan))
    found = step_forecast(plan.model, plan.cluster, plan.workload, plan.layout, step or plan.steps[0])
    return Prediction(plan, priced(plan, step), None, found)


def _check_arguments(model: object, cluster: object, objective: str) -> None:
    """Refuse what is no model, no cluster or no objective, before it fails in the middle of a search."""
    from helixctl.solve import OBJECTIVES

    for name, its, kind in (("model", model, ModelDocument), ("cluster", cluster, ClusterSpec)):
        if not isinstance(its, kind):
            raise TypeError(f"{name} is a {type(its).__name__}, not a {kind.__name__}: helixctl.load gives one")
    if objective not in OBJECTIVES:
        raise ValueError(f"no objective {objective!r}: there are {', '.join(OBJECTIVES)}")


def _refuse(findings: Sequence[Diagnostic]) -> None:
    if findings:
        raise HelixError(findings)
