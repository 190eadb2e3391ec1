"""Forecasts of large plans from smaller ones: a step grows by the same amount for every layer and every microbatch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final, NamedTuple, Protocol

from helixctl.lower import lower
from helixctl.plan import Layout, Plan
from helixctl.plan.size import TASKS_OF_A_LAYER
from helixctl.simulate import Forecast, KindMemory
from helixctl.simulate.forecast import line_of_links
from helixctl.spec import ModelSpec, Step, WorkloadSpec

# Layers, in the stage that has fewest, of the two models that are simulated: from two on a layer follows one like it.
_SHALLOW: Final = (1, 2)
# Layers of that stage up to which the model itself is simulated: once is no more work than the two shallow ones.
_FEW: Final = 4
# Tasks of a simulation that is made deeper than that: about a quarter of a second's work.
_MOST_TASKS: Final = 4_000
# Rounds of microbatches (as many as take turns are one) of the two steps that are simulated where there are more: from
# two on a round follows one like it.
_ROUNDS: Final = (2, 3)

Work = WorkloadSpec | Step


class Forecaster(Protocol):
    """Simulates a model in a layout on a workload; without ``arenas`` its memory is that of weights and cache alone."""

    def __call__(self, model: ModelSpec, layout: Layout, workload: Work, /, *, arenas: bool = True) -> Forecast:
        """The forecast."""


def shallow(model: ModelSpec, layout: Layout, layers: int) -> tuple[ModelSpec, Layout]:
    """The model with ``layers`` layers in the stage that has fewest, and all stages cut by the same number; its layout.

    Of layers of several kinds every stage has this number of each kind, one after the other. Stages of chosen sizes are
    as even as can be in the smaller model; a model with no more layers than that is left as it is.
    """
    fewer = model.layers - layout.pipeline * max(0, model.layers // layout.pipeline - layers)
    update: dict[str, object] = {}
    if model.pattern:
        pattern = tuple([kind for kind in model.kinds for _ in range(layers)])
        fewer, update = len(pattern) * layout.pipeline, {"pattern": pattern}
    if fewer >= model.layers:
        return model, layout
    return model.model_copy(update={"layers": fewer, **update}), layout.model_copy(update={"stages": None})


def depths(
    model: ModelSpec, layout: Layout, workload: Work, *, replica: int = 0, whole: bool = False
) -> tuple[int, ...]:
    """Layers, in the stage that has fewest, of the models that are simulated for a forecast: one if it is the model.

    Microbatches of different sizes in several stages need deep ones: see ``extrapolated``. A model with layers of
    several kinds is simulated itself: it is on no line. So is, with ``whole``, one whose stages take different times.
    """
    fewest, deeper = model.layers // layout.pipeline, _SHALLOW[1]
    if layout.pipeline > 1 and _unequal(layout, workload, replica):
        a_layer = TASKS_OF_A_LAYER * layout.microbatches * layout.pipeline
        deeper = max(deeper, _MOST_TASKS // a_layer)
    return (
        (fewest,) if whole or layout.has_unlike_stages(model) or fewest <= max(deeper, _FEW) else (deeper - 1, deeper)
    )


def rounds(layout: Layout, workload: Work, *, replicas: bool, replica: int = 0) -> tuple[int, ...]:
    """Rounds of microbatches of the steps that are simulated for a forecast: one if it is the step itself.

    Args:
        layout: how the batch is cut.
        workload: its size.
        replicas: whether all replicas are simulated; else one alone.
        replica: that one.
    """
    every = layout.microbatches // layout.interleave
    unequal = workload.batch % (layout.data * layout.microbatches) if replicas else _unequal(layout, workload, replica)
    return (every,) if unequal or every <= sum(_ROUNDS) else _ROUNDS


def work_simulated(
    model: ModelSpec, layout: Layout, workload: Work, *, replicas: bool, replica: int = 0, whole: bool = False
) -> int:
    """Layers times microbatches that are simulated for a forecast."""
    simulated = depths(model, layout, workload, replica=replica, whole=whole)
    layers = model.layers if len(simulated) == 1 else sum(shallow(model, layout, few)[0].layers for few in simulated)
    return layers * layout.interleave * sum(rounds(layout, workload, replicas=replicas, replica=replica))


def extrapolated(
    forecast: Forecaster,
    model: ModelSpec,
    layout: Layout,
    workload: Work,
    *,
    replicas: bool,
    replica: int = 0,
    whole: bool = False,
) -> Forecast:
    """The forecast of a plan, from those of plans with fewer layers and fewer microbatches, on lines through them.

    Equal microbatches pass the stages one after the other, so that each one more takes as long as the slowest stage.
    The step, latency and bytes are on that line exactly, as far as tests/solve/test_deep.py tried; so is the memory if
    arenas have no gaps. Gaps that come with more rounds are not in it. Exposed and hidden communication come near it
    only when every stage waits as it does in the long run, which may take longer than the steps that are simulated.

    Args:
        forecast: simulates a model in a layout on a workload.
        model: the model.
        layout: how it is cut.
        workload: the step.
        replicas: whether all replicas are simulated; else one alone.
        replica: that one.
        whole: its stages take different times, so that all layers are simulated.
    """
    few = rounds(layout, workload, replicas=replicas, replica=replica)
    its = (replica, whole)
    if len(few) == 1:
        return _deep(forecast, model, layout, workload, *its)
    a, b = (_deep(forecast, model, *_fewer_rounds(layout, workload, number, replica), *its) for number in few)
    more = (layout.microbatches // layout.interleave - few[1]) / (few[1] - few[0])
    # A gap in an arena is that of one step alone: on the line it would count as often as there are rounds.
    memory = round(b.memory_nbytes + (b.least_nbytes - a.least_nbytes) * more)
    kinds = _kinds_on_line(a, b, more, lambda held: held.least_nbytes)
    return replace(_line(a, b, more), tokens=workload.tokens, memory_nbytes=memory, memory_of_kinds=kinds)


def _kinds_on_line(
    a: Forecast, b: Forecast, more: float, growing: Callable[[KindMemory], int]
) -> tuple[KindMemory, ...]:
    """The memory of every kind of hosts as many times the difference of two forecasts beyond the second.

    Args:
        a: the one.
        b: the other.
        more: how many times.
        growing: bytes that grow from one to the other, of those that are held.
    """

    def beyond(last: int, grown: int) -> int:
        return round(last + grown * more)

    return tuple(
        [
            KindMemory(
                nbytes=beyond(y.nbytes, growing(y) - growing(x)),
                weight_nbytes=beyond(y.weight_nbytes, y.weight_nbytes - x.weight_nbytes),
                cache_nbytes=beyond(y.cache_nbytes, y.cache_nbytes - x.cache_nbytes),
                least_nbytes=beyond(y.least_nbytes, growing(y) - growing(x)),
            )
            for x, y in zip(a.memory_of_kinds, b.memory_of_kinds, strict=True)
        ]
    )


def _fewer_rounds(layout: Layout, workload: Work, number: int, replica: int) -> tuple[Layout, Work]:
    """So many rounds of microbatches as large as those of a replica, which are of one size."""
    start, stop = layout.batch(replica, 0, workload)
    fewer = layout.model_copy(update={"microbatches": number * layout.interleave, "batch_shares": None})
    batch = (stop - start) * fewer.data * fewer.microbatches
    smaller = replace(workload, batch=batch) if isinstance(workload, Step) else with_batch(workload, batch)
    return fewer, smaller


def with_batch(workload: WorkloadSpec, batch: int) -> WorkloadSpec:
    """The workload with another number of sequences."""
    return workload.model_copy(update={"batch": batch})


def _deep(
    forecast: Forecaster,
    model: ModelSpec,
    layout: Layout,
    workload: Work,
    replica: int,
    whole: bool,  # noqa: FBT001
) -> Forecast:
    """A model's forecast, from those of two models of fewer layers, on a line through both.

    The layers of a stage follow one another and all take the same time, and every way through microbatches and stages
    passes equally many stages: so whichever is the longest in a shallow model is it in a deep one, and the line is
    exact. It is so for microbatches that take turns as well, as far as tests/solve/test_deep.py tried.

    Of microbatches that differ in size the larger takes longer at each layer, and the way that passes most of the
    larger ones becomes the longest only in deep models. There the models that are simulated are deeper, mostly the
    whole model. Where that is too much work the line is not quite exact (too low), and so it is for stages that lie on
    the hosts in different ways. Where ranks share cores the model is simulated whole.
    """
    few = depths(model, layout, workload, replica=replica, whole=whole)
    if len(few) == 1:
        return forecast(model, layout, workload)
    # Of the shallower no more is asked than what it keeps.
    a, b = (forecast(*shallow(model, layout, layers), workload, arenas=layers == few[1]) for layers in few)
    more = model.layers // layout.pipeline - few[1]
    # What is live beside weights and the cache is the same from two layers on; the gaps of an arena nearly so.
    kinds = _kinds_on_line(a, b, more, _held)
    grown = (_held(b) - _held(a)) * more
    memory, least = b.memory_nbytes + grown, b.least_nbytes + grown
    return replace(_line(a, b, more), memory_nbytes=memory, least_nbytes=least, memory_of_kinds=kinds)


def _held(its: Forecast | KindMemory) -> int:
    """Bytes of weights and of the cache."""
    return its.weight_nbytes + its.cache_nbytes


def _line(a: Forecast, b: Forecast, more: float) -> Forecast:
    """The forecast as many times the difference of two beyond the second; but not its tokens and memory."""

    def line(x: float, y: float) -> float:
        return y + (y - x) * more

    return replace(
        b,
        step_s=(step_s := line(a.step_s, b.step_s)),
        latency_s=line(a.latency_s, b.latency_s),
        exposed_s=max(0.0, line(a.exposed_s, b.exposed_s)),
        hidden_s=max(0.0, line(a.hidden_s, b.hidden_s)),
        busy_share=line(a.busy_share * a.step_s, b.busy_share * b.step_s) / step_s,
        levels={at: line(a.levels.get(at, 0.0), seconds) for at, seconds in b.levels.items()},
        kinds=(),
        received_nbytes=round(line(a.received_nbytes, b.received_nbytes)),
        between_hosts_nbytes=round(line(a.between_hosts_nbytes, b.between_hosts_nbytes)),
        link_nbytes=line_of_links(line, a, b),
        weight_nbytes=round(line(a.weight_nbytes, b.weight_nbytes)),
        cache_nbytes=round(line(a.cache_nbytes, b.cache_nbytes)),
    )


def _unequal(layout: Layout, workload: Work, replica: int) -> bool:
    """Whether the microbatches of a replica, or of those that it meets, differ in size.

    Without ``batch_shares`` the first has most.
    """
    if layout.expert_data > 1:
        return workload.batch % (layout.data * layout.microbatches) > 0
    first, last = (layout.batch(replica, part, workload) for part in (0, layout.microbatches - 1))
    return first[1] - first[0] != last[1] - last[0]


def extrapolated_memory(peak: Callable[[ModelSpec], tuple[int, int]], model: ModelSpec, layout: Layout) -> int:
    """The peak of a model's fullest device, from those of two models of fewer layers.

    Args:
        peak: gives a model's peak, and the weights of the device that has most.
        model: the model.
        layout: how it is cut.
    """
    fewest = model.layers // layout.pipeline
    if layout.has_unlike_stages(model) or fewest <= _SHALLOW[1]:
        return peak(model)[0]
    (_, weights), (memory, more) = (peak(shallow(model, layout, layers)[0]) for layers in _SHALLOW)
    return memory + (more - weights) * (fewest - _SHALLOW[1])


class Size(NamedTuple):
    """How large a dag is: its tasks, those of rank 0 in a step, and the groups of ranks that meet in collectives."""

    tasks: int
    of_rank_0: int
    groups: int


def counted(plan: Plan) -> Size:
    """The size of a plan's dag, counted for every kind of layer on two dags of one microbatch and of few layers."""
    model = plan.model
    stage_0 = plan.layout.layers(0, model)
    layout = plan.layout.model_copy(update={"stages": None})

    def of(kind: str, layers: int) -> Size:
        its = model.alike(kind).model_copy(update={"layers": layers * layout.pipeline})
        dag = lower(Plan.sketch(its, plan.cluster, plan.workload, layout), microbatches=range(1))
        return Size(len(dag.tasks), len(dag.order[0]), len({t.ranks for t in dag.tasks if t.is_collective}))

    pairs = {kind: (of(kind, 1), of(kind, 2)) for kind in model.kinds}
    first = pairs[model.kinds[0]]
    tasks = first[0].tasks - (first[1].tasks - first[0].tasks)  # of the ends alone, and of the transfers
    of_rank_0 = first[0].of_rank_0 - (first[1].of_rank_0 - first[0].of_rank_0)
    for layer in range(model.layers):
        one, two = pairs[model.kind(layer)]
        tasks += (two.tasks - one.tasks) // layout.pipeline
        of_rank_0 += (two.of_rank_0 - one.of_rank_0) if layer in stage_0 else 0
    groups = max(two.groups for _, two in pairs.values())
    return Size(tasks * layout.microbatches, of_rank_0 * layout.microbatches, groups)
