"""The tasks of a layer and of a model's ends, priced: layouts whose axes differ in size alone share their outline."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from itertools import compress
from typing import Final

from helixctl.cost.origin import Cost
from helixctl.cost.tasks import TaskCosts
from helixctl.dag import COLLECTIVES, CacheWrite, Dag, Route, Task, Tensor, Value
from helixctl.dag.function import function_of
from helixctl.dag.storage import held_nbytes
from helixctl.lower import OutlinedTask, outline_of, task_of
from helixctl.plan import Interval, Layout, Plan
from helixctl.plan.layout import Microbatch
from helixctl.plan.sharding import Cut, Shares
from helixctl.plan.steps import new_tokens, step_of
from helixctl.solve.axes import LayerAxes, layer_axes
from helixctl.solve.outlined import Communication, Computations, Computed, Form, Lines, Numbered, Priced, RankTasks, Sum
from helixctl.solve.wires import wires
from helixctl.spec import ClusterSpec, ModelSpec, Step, StepName, WorkloadSpec

_ENDS: Final = ("embed", "head")
_EMPTY: Final = Microbatch((0, 0), (0, 0))


@dataclass(slots=True)
class Outlines:
    """The outlines of one problem's layouts; equal tasks of equal sizes are priced once."""

    model: ModelSpec
    cluster: ClusterSpec
    workload: WorkloadSpec
    step: StepName | None = None
    body: ModelSpec = field(init=False)
    axes: LayerAxes = field(init=False)
    _alone: Mapping[str, object] = field(init=False)  # axes on which nothing depends, as of one team by itself
    _forms: dict[object, Form] = field(default_factory=dict, init=False)
    _tasks: dict[OutlinedTask, OutlinedTask] = field(default_factory=dict, init=False)
    _tensors: dict[object, Mapping[str, Tensor]] = field(default_factory=dict, init=False)
    _lines: dict[object, Lines] = field(default_factory=dict, init=False)
    _numbers: dict[object, int] = field(default_factory=dict, init=False)
    _shares: dict[object, Shares] = field(default_factory=dict, init=False)
    _mine: dict[object, RankTasks] = field(default_factory=dict, init=False)
    _known: dict[object, Priced] = field(default_factory=dict, init=False)
    _computed: dict[object, Computed] = field(default_factory=dict, init=False)
    _together: dict[tuple[int, ...], int] = field(default_factory=dict, init=False)
    _sums: dict[object, int] = field(default_factory=dict, init=False)
    _steps: dict[Step, Step] = field(default_factory=dict, init=False)
    _sizes: dict[tuple[int, bool], Step] = field(default_factory=dict, init=False)
    _plans: dict[Step, Plan] = field(default_factory=dict, init=False)
    _costs: dict[object, Cost] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        """Outline nothing yet; ``body`` is one layer of the model, without its ends, and ``axes`` are those it has."""
        self.axes = layer_axes(self.step, experts=self.model.feed_forward.experts is not None)
        others = {name: its for name, its in Layout.model_fields.items() if name not in self.axes.names}
        self._alone = {name: its.default for name, its in others.items()}
        self.body = self.model.model_copy(update={"layers": 1, "vocabulary": None})

    def priced(
        self, layout: Layout, sequences: int, *, exchanged: bool = False, ends: bool = False, rank: int | None = None
    ) -> list[Priced]:
        """The tasks of one rank of the first team in a layer, in the order in which they are lowered.

        Args:
            layout: how they are cut.
            sequences: of a microbatch.
            exchanged: whether collectives are among them.
            ends: embedding and head instead of a layer.
            rank: of those that would be first if the team, and those that share experts with it, were alone; by default
                the one with the largest pieces.
        """
        mine = self._of(layout, rank, ends=ends)
        tasks = mine.lines.tasks
        if not exchanged:
            tasks = tuple([its for its in tasks if not its.communicates])
        batch = layout.microbatch_of(sequences, self.workload)
        return self._priced(layout, mine, tasks, _spans(mine, batch), sequences, batch)

    def computed(self, layout: Layout, sequences: int, *, rank: int | None = None) -> Computed:
        """All computations of one rank of the first team in a layer.

        Those that depend on the same cuts are summed once for all layouts that have these: attention does not depend on
        how experts are spread.

        Args:
            layout: how they are cut.
            sequences: of a microbatch.
            rank: as of ``priced``.
        """
        mine = self._of(layout, rank, ends=False)
        return self._summed_up(layout, mine, mine.sums, sequences)

    def feed_forward(self, layout: Layout) -> tuple[int, ...]:
        """Equal where a rank computes the same of a feed-forward network, for microbatches of equal sequences.

        Whatever attention does: what reads or makes whole rows, such as norms, does not count.
        """
        return tuple([its.number for its in self._of(layout, None, ends=False).feed_forward])

    def feed_forward_s(self, layout: Layout, sequences: int) -> float:
        """Seconds of these computations of a microbatch."""
        mine = self._of(layout, None, ends=False)
        return self._summed_up(layout, mine, mine.feed_forward, sequences).seconds

    def _summed_up(self, layout: Layout, mine: RankTasks, sums: Sequence[Sum], sequences: int) -> Computed:
        """Some computations of a rank."""
        batch = layout.microbatch_of(sequences, self.workload)
        seconds, nbytes = 0.0, 0
        for number, its, joined in sums:
            key = (number, sequences, batch.joined[1] if joined else 0)
            found = self._computed.get(key)
            if found is None:
                tasks = self._priced(layout, mine, its.tasks, _spans(mine, batch), sequences, batch)
                found = Computed(sum([x.seconds for x in tasks]), sum([x.weight_nbytes for x in tasks]))
                self._computed[key] = found
            seconds += found.seconds
            nbytes += found.weight_nbytes
        return Computed(seconds, nbytes)

    def communication(self, layout: Layout, sequences: int) -> Communication:
        """All collectives of the rank with the largest pieces in a layer; arguments as of ``priced``."""
        mine = self._of(layout, None, ends=False)
        batch = layout.microbatch_of(sequences, self.workload)
        spans = _spans(mine, batch)
        both = (mine.lines.collectives, mine.lines.hiding)
        seconds, hidden = (
            sum([its.seconds for its in self._priced(layout, mine, some, spans, sequences, batch)]) for some in both
        )
        return Communication(seconds, max(0.0, seconds - hidden))

    def _priced(
        self,
        layout: Layout,
        mine: RankTasks,
        tasks: Sequence[Numbered],
        spans: Sequence[Interval],
        sequences: int,
        batch: Microbatch,
    ) -> list[Priced]:
        """Some tasks of an outline, on a rank with these shares of its cuts."""
        wire = wires(layout, self.cluster) if any(its.communicates for its in tasks) else None
        found, known, new = [], self._known, []
        for task, number, cuts, communicates in tasks:
            key: tuple[object, ...] = (number, sequences, *[spans[i] for i in cuts])
            if communicates:
                key = (*key, getattr(wire, task.axis))
            if key not in known:
                new.append((key, task))
            found.append(key)
        if new:
            self._price(layout, mine, new, batch)
        return [known[key] for key in found]

    @staticmethod
    def largest(layout: Layout) -> int:
        """The rank with the largest pieces if the team were alone, its slices side by side."""
        return layout.heaviest_group * layout.slices

    def key(self, layout: Layout, sequences: int) -> tuple[object, ...]:
        """Equal for layouts in which the rank with the largest pieces has the same tasks of the same sizes."""
        mine = self._of(layout, None, ends=False)
        return (id(mine.lines), sequences, *_spans(mine, layout.microbatch_of(sequences, self.workload)))

    def _of(self, layout: Layout, rank: int | None, *, ends: bool) -> RankTasks:
        """The work of a rank, by default of the one with the largest pieces."""
        tokens = new_tokens(self.workload, layout, self.step)  # of a prefill they depend on the replicas
        key = (rank, ends, tokens, layout.gather_order, self.axes.of(layout.__dict__))
        found = self._mine.get(key)
        if found is None:
            rank = self.largest(layout) if rank is None else rank
            shares, lines = self._shares_of(layout), self._lines_of(layout, ends=ends)
            spans = [shares.interval(cut, rank, _EMPTY) for cut in lines.cuts]
            sums = tuple([self._sum(shares, lines, its, spans, rank) for its in lines.computations])
            feed_forward = tuple([its for its in sums if its.of.feed_forward])
            found = self._mine[key] = RankTasks(shares, lines, rank, spans, sums, feed_forward)
        return found

    def _sum(self, shares: Shares, lines: Lines, its: Computations, spans: Sequence[Interval], rank: int) -> Sum:
        key, joined = list[object](), False
        for place in its.cuts:
            cut = lines.cuts[place]
            if cut.dim == "batch":
                joined |= cut.rule == "joined"
                key.append((cut.rule, shares.place(cut.axis, rank)))
            else:
                key.append(spans[place])
        return Sum(self._sums.setdefault((its.number, *key), len(self._sums)), its, joined)

    def _shares_of(self, layout: Layout) -> Shares:
        """The shares of a layout's first team, and of those that share experts with it, if alone on the first ranks."""
        axes = self.axes.of(layout.__dict__)
        key = (new_tokens(self.workload, layout, self.step), axes)  # on which the step depends
        if key not in self._shares:
            step = step_of(self.workload, layout, self.step)
            step = self._steps.setdefault(step, step)  # of equal ones one, told apart by its identity
            alone = layout.model_copy(update=self._alone)
            if alone.expert_data > 1:
                alone = alone.model_copy(update={"data": alone.expert_data})
            self._shares[key] = Shares(alone, self.model, step)
        return self._shares[key]

    def _lines_of(self, layout: Layout, *, ends: bool) -> Lines:
        shares = self._shares_of(layout)
        if ends:
            form: tuple[object, ...] = (shares.of("output"), layout.partitions > 1)
        else:
            # How the devices that share experts do so changes what each computes, and no task: all of them have a part
            # of every sum. Of the other axes these follow.
            cutting = (layout.groups > 1, layout.slices > 1, shares.layout.expert_data > 1)
            form = (id(shares.table), layout.gather_order, layout.reduction_dtype, *cutting)
        key = (form, id(self._sizes_of(shares.step, ends=ends)))
        found = self._lines.get(key)
        if found is None:
            if form not in self._forms:
                self._forms[form] = self._form(shares.layout, layout, ends=ends)
            tensors = self._tensors_of(shares.step, ends=ends)
            found = self._lines[key] = self._numbered(self._forms[form], tensors)
        return found

    def _sizes_of(self, step: Step, *, ends: bool) -> Step:
        """The sizes of tensors whatever the sequences; equal ones are one. A layer's know nothing of a vocabulary."""
        key = (id(step), ends)
        if key not in self._sizes:
            sizes = replace(step, batch=0) if ends else replace(step, batch=0, vocabulary_shares=1)
            self._sizes[key] = self._steps.setdefault(sizes, sizes)
        return self._sizes[key]

    def _form(self, alone: Layout, layout: Layout, *, ends: bool) -> Form:
        """The tasks of a layout, which are those of all that are cut along the same axes."""
        one = alone.model_copy(update={"gather_order": layout.gather_order})
        start, stop = layout.batch(0, 0, self.workload)
        step = replace(step_of(self.workload, layout, self.step), batch=(stop - start) * layout.expert_data)
        outline = outline_of(Plan.sketch(self._model(ends=ends), self.cluster, step, one), 0)
        # Equal ones are one: they are told apart by their identity, as each has many parts.
        tasks = [self._tasks.setdefault(task, task) for task in outline.tasks if (task.level in _ENDS) == ends]
        cuts = tuple(dict.fromkeys(cut for task in tasks for cut in task.cuts))
        return Form(tuple([(task, tuple([cuts.index(cut) for cut in task.cuts])) for task in tasks]), cuts)

    def _model(self, *, ends: bool) -> ModelSpec:
        """Of one layer, with embedding and head or without."""
        return self.model.model_copy(update={"layers": 1}) if ends else self.body

    def _tensors_of(self, step: Step, *, ends: bool) -> Mapping[str, Tensor]:
        """The tensors of one layer, or of the ends, in a step with no sequences: a microbatch may have any number."""
        key = (ends, none := self._sizes_of(step, ends=ends))
        if key not in self._tensors:
            self._tensors[key] = function_of(self._model(ends=ends), none).tensors
        return self._tensors[key]

    def _numbered(self, form: Form, tensors: Mapping[str, Tensor]) -> Lines:
        """The tasks on tensors of these sizes: those that are alike, and are about equal tensors, have one number."""
        tasks = []
        for task, places in form.tasks:
            key = (id(task), tuple([tensors[piece.tensor] for piece in task.pieces]))
            number = self._numbers.setdefault(key, len(self._numbers))
            tasks.append(Numbered(task, number, places, isinstance(task.op, COLLECTIVES)))
        of_batch = tuple([place for place, cut in enumerate(form.cuts) if cut.dim == "batch"])
        collectives = tuple([task for task in tasks if task.communicates])
        computations = self._by_cuts(tasks, form.cuts)
        return Lines(tuple(tasks), collectives, computations, _hiding(tasks), tensors, form.cuts, of_batch)

    def _by_cuts(self, tasks: Iterable[Numbered], cuts: Sequence[Cut]) -> tuple[Computations, ...]:
        """The computations among some tasks, those together that depend on the same cuts, or on some of them.

        Those that cut the feed-forward network, and the routing to its experts, are apart from all others: they are the
        same whatever attention does, and however the residual stream lies.
        """
        wide = frozenset([place for place, cut in enumerate(cuts) if cut.dim == "ffn"])
        inside, others = list[Numbered](), list[Numbered]()
        for task in tasks:
            if not task.communicates:
                is_inside = isinstance(task.task.op, Route) or not wide.isdisjoint(task.cuts)
                (inside if is_inside else others).append(task)
        return (*self._together_by_cuts(inside, wide), *self._together_by_cuts(others, wide))

    def _together_by_cuts(self, tasks: Iterable[Numbered], wide: AbstractSet[int]) -> Iterator[Computations]:
        """The same of some computations; ``wide``: the places of the cuts of the feed-forward network."""
        groups: list[tuple[set[int], list[Numbered]]] = []
        for task in sorted(tasks, key=lambda task: -len(task.cuts)):
            mine = next((group for cuts, group in groups if cuts.issuperset(task.cuts)), None)
            if mine is None:
                groups.append((set(task.cuts), [task]))
            else:
                mine.append(task)
        for _, group in groups:
            number = self._together.setdefault(tuple([task.number for task in group]), len(self._together))
            cuts = tuple(dict.fromkeys(place for task in group for place in task.cuts))
            yield Computations(tuple(group), number, cuts, not wide.isdisjoint(cuts))

    def _price(
        self,
        layout: Layout,
        mine: RankTasks,
        new: Sequence[tuple[object, OutlinedTask]],
        batch: Microbatch,
    ) -> None:
        """Price tasks that were not known: as parts of a dag, like all tasks."""
        shares, tensors = mine.shares, mine.lines.tensors
        made = [
            task_of(task, str(n), tensors, shares, mine.rank, batch, _ranks(layout, task))
            for n, (_, task) in enumerate(new)
        ]
        values = tuple([value for _, its in made for value in its])
        plan = self._plans.get(shares.step)  # what a task takes does not depend on the layout but by its sizes
        if plan is None:
            plan = self._plans[shares.step] = Plan.sketch(self.body, self.cluster, shares.step, layout)
        dag = Dag(plan, "", tuple(tensors.values()), values, tuple([task for task, _ in made]), ())
        costs = TaskCosts(dag, self._costs)
        for (key, outlined), (task, its) in zip(new, made, strict=True):
            self._known[key] = _with_price(outlined, task, its, tensors, costs)


def _hiding(tasks: Sequence[Numbered]) -> tuple[Numbered, ...]:
    """The computations between a collective and the first task that reads what it brings; without such all behind it.

    Whatever is behind that task in the rank's order begins when the collective has ended.
    """
    found = set[int]()
    for place, its in enumerate(tasks):
        if its.communicates:
            brought = {piece.tensor for piece in its.task.outputs}
            behind = range(place + 1, len(tasks))
            reads = (n for n in behind if any(piece.tensor in brought for piece in tasks[n].task.inputs))
            found.update(range(place + 1, next(reads, len(tasks))))
    return tuple([its for place, its in enumerate(tasks) if place in found and not its.communicates])


def _spans(mine: RankTasks, batch: Microbatch) -> Sequence[Interval]:
    """A rank's share of every cut, those of a microbatch among them."""
    if not mine.lines.of_batch:
        return mine.spans
    spans = mine.spans.copy()
    for i in mine.lines.of_batch:
        spans[i] = mine.shares.interval(mine.lines.cuts[i], mine.rank, batch)
    return spans


def _with_price(
    outlined: OutlinedTask, task: Task, values: Sequence[Value], tensors: Mapping[str, Tensor], costs: TaskCosts
) -> Priced:
    roles = [tensors[value.tensor].role for value in values]
    weights = [role == "weight" and new for role, new in zip(roles, outlined.new_at_level, strict=True)]
    outputs = [i >= len(task.inputs) and role == "output" for i, role in enumerate(roles)]
    nbytes = [held_nbytes(value, tensors) for value in values]
    brings_input = task.moves and roles[-1] == "input"
    seconds = 0.0 if brings_input else costs.cost_with(task, outlined.kernel).seconds
    writes = isinstance(task.op, CacheWrite)  # into the memory of what it reads
    made = [new and i >= len(task.inputs) and not writes for i, new in enumerate(outlined.fresh)]
    its = (sum(compress(nbytes, chosen)) for chosen in (weights, outlined.fresh, made, outputs))
    return Priced(outlined, task.is_collective, seconds, *its)


def _ranks(layout: Layout, task: OutlinedTask) -> tuple[int, ...]:
    """The ranks of the first team that meet the first of them."""
    match task.axis:
        case "tensor":
            return layout.team(0, 0)
        case "groups":
            return layout.ranks_of_slice(0)
        case "slices":
            return layout.ranks_of_group(0)
        case "replicas":
            return tuple([layout.rank(0, 0, 0, replica) for replica in layout.sharing(0)])
        case "spread":
            return tuple([rank for replica in layout.sharing(0) for rank in layout.team(0, replica)])
        case _:
            return (0,)
