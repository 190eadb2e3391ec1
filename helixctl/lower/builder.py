"""The builder: the dag under construction, and what every rank has of each tensor."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Final, Literal, NamedTuple, get_args

from helixctl.dag import Add, AllGather, AllToAll, Broadcast, Dag, Level, Narrow, Op, Packed, SendReceive, Task, Value
from helixctl.dag.formulas import flops, nbytes
from helixctl.dag.function import TOKEN, Equation, entering, function_of
from helixctl.dag.ops import contracted, made_dtype
from helixctl.lower.schedule import interleaved
from helixctl.plan import Interval, Plan
from helixctl.plan.layout import Axis, Microbatch, full_extents
from helixctl.plan.sharding import WHOLE, Region, Sharding, shares_of_blocks
from helixctl.spec import Dtype, StepName

Cut = Mapping[str, Interval]  # of every dim that is not whole
Partial = tuple[tuple[str, Interval], ...]
_WHOLE: Final[Cut] = MappingProxyType({})


class _Known(NamedTuple):
    """What is alike in the tasks of one equation of every layer and of microbatches of one size, on one rank.

    ``end`` is a task's id without its layer and microbatch, ``made`` the outputs of one of them, ``first`` the first
    sequence of its microbatch.
    """

    op: Op
    end: str
    made: tuple[Value, ...]
    first: int
    flops: int
    nbytes: int


class Run(NamedTuple):
    """Equations of one level that follow one another, and what moves after the last of them.

    Attributes:
        equations: each with the tensors that all ranks have from the start, and how these are cut.
        moved: tensors that are read otherwise than they are made.
    """

    equations: tuple[tuple[Equation, tuple[tuple[str, Sharding], ...]], ...]
    moved: tuple[str, ...]


class Moved(NamedTuple):
    """One tensor in a collective.

    Attributes:
        op: how it moves.
        tensor: which one.
        stage: the name of the result: the values are ``tensor:stage@rank``.
        cut: gives the region with which a rank is left.
        partial: the contracted dims over whose shares what it is left with is still a sum, if it is.
    """

    op: Op
    tensor: str
    stage: str
    cut: Callable[[int], Cut] = lambda _: _WHOLE
    partial: Sharding = WHOLE


class Builder:
    """A dag under construction.

    ``held[tensor, rank]`` is the latest value that a rank has of a tensor: a gather replaces the piece by the whole.
    ``enter`` says for which tensor-parallel group of ranks, or for which of several that share experts, and for which
    part of the batch, tasks are added from then on. Of these the builder may be told to lower some ranks only
    (``ranks``): collectives name all ranks, but values and orders are of those alone.
    """

    def __init__(self, plan: Plan, step: StepName | None = None, only: Collection[int] | None = None) -> None:
        """Start with the model's function and no task."""
        self.plan = plan
        self.step = plan.step(step)
        self.layout = plan.layout
        self.model = plan.model
        self.function = function_of(plan.model, self.step)
        self._shares = shares_of_blocks(plan.layout, plan.model, self.step)
        self._cutting = [plan.layout.ways(axis) > 1 for axis in get_args(Axis)]
        self.held: dict[tuple[str, int], Value] = {}
        # In their canonical sequence: as the tasks name them, inputs before outputs.
        self._values: dict[str, Value] = {}
        self._tasks: list[Task] = []
        # By rank, then by turn: one for each microbatch, and one for what comes after all of them.
        self._order: dict[int, dict[int, list[Task]]] = {}
        self._only = None if only is None else sorted(only)
        self._partial_dtype = plan.partial_dtype
        self._known: dict[tuple[object, ...], _Known] = {}
        # By the identity of a sequence of equations, which is kept beside its runs so that no other one gets it.
        self.runs: dict[int, tuple[Sequence[Equation], list[Run]]] = {}
        self.enter(0, range(1), 0)
        self.enter_layer(0)

    def enter(self, stage: int, replicas: range, microbatch: int) -> None:
        """Go to a stage of a replica, or of those that share experts, and to a microbatch."""
        layout = self.layout
        self.stage, self.replicas = stage, replicas
        self.teams = tuple([layout.team(stage, replica) for replica in replicas])
        self.ranks = self._lowered([rank for team in self.teams for rank in team])
        self._parts = [layout.microbatch(replica, microbatch, self.step) for replica in replicas]
        self._turn = microbatch
        # Ids name a microbatch only where there are several.
        self._part = f".b{microbatch}" if layout.microbatches > 1 else ""

    def enter_layer(self, layer: int) -> None:
        """Go to a layer: tensors are cut as its block has it."""
        self._kind = self.model.kind(layer)
        self.shares = self._shares[self._kind]
        # On which the moves of tensors depend, beside the tensor: tables are few and kept.
        self.form = (id(self.shares.table), self.layout.gather_order, *self._cutting)
        self._extents = full_extents(self.shares.model, self.step)

    def enter_the_end(self, replica: int, microbatch: int) -> None:
        """Go to the last stage and its next tokens; what is added comes after all microbatches, in their order."""
        self.enter(self.layout.pipeline - 1, range(replica, replica + 1), microbatch)
        self._turn += self.layout.microbatches
        for rank in self.ranks:
            self._hold(self._values[f"{TOKEN}{self._part}@{rank}"])

    def along(self, axis: Axis) -> Iterable[tuple[str, tuple[int, ...]]]:
        """The sets of ranks that differ along an axis alone, if any of them is lowered, and the end of their ids.

        ``g2``: the slices of head group 2; ``s1``: slice 1 of every head group; ``g2s1``: that partition of every
        replica that shares experts; none: all ranks of a team, or of all these replicas.
        """
        layout, stage = self.layout, self.stage
        match axis:
            case "slices":
                met = sorted({(layout.team_of(rank)[1], layout.group_of(rank)) for rank in self.ranks})
                return ((f"g{g}", layout.ranks_of_group(g, stage, replica)) for replica, g in met)
            case "groups":
                met = sorted({(layout.team_of(rank)[1], layout.slice_of(rank)) for rank in self.ranks})
                return ((f"s{s}", layout.ranks_of_slice(s, stage, replica)) for replica, s in met)
            case "replicas":
                met = sorted({(layout.group_of(rank), layout.slice_of(rank)) for rank in self.ranks})
                every = self.replicas
                return ((f"g{g}s{s}", tuple([layout.rank(g, s, stage, one) for one in every])) for g, s in met)
            case "spread":
                return (("", tuple([rank for team in self.teams for rank in team])),)
            case _:
                return (("", team) for team in self.teams)

    def place(self, rank: int) -> str:
        """The end of a computation's id: ``g2s1``, and the replica and the microbatch where there are several."""
        return f"g{self.layout.group_of(rank)}s{self.layout.slice_of(rank)}{self._replica_of((rank,))}{self._part}"

    def _replica_of(self, ranks: Sequence[int]) -> str:
        """The replica of some ranks where there are several, ``r2``, or those that they are of, ``r0-3``."""
        if self.layout.data == 1:
            return ""
        first, last = (self.layout.team_of(rank)[1] for rank in (ranks[0], ranks[-1]))
        return f"r{first}" if first == last else f"r{first}-{last}"

    def cut(self, sharding: Sharding, rank: int) -> dict[str, Interval]:
        """A rank's share of every dim that a sharding cuts, contracted ones among them."""
        return self.shares.cut(sharding, rank, self._batch_of(rank))

    def evaluate(self, equation: Equation, rank: int) -> None:
        """Add the task that computes, on one rank, its share of what an equation defines, by the table of shardings.

        Layers of a block are alike, and microbatches of one size: what a task is made of is worked out for the first
        of them.
        """
        (start, stop), joined = self._batch_of(rank)
        key = (self._kind, equation.level, equation.name, rank, stop - start, joined[0] - start, joined[1] - start)
        known = self._known.get(key)
        if known is None or (known.op is not equation.op and known.op != equation.op):
            cuts = {tensor: self.cut(self.shares.of(tensor).made, rank) for tensor in equation.outputs}
            first = equation.outputs[0]
            task = self.compute(equation.level, equation.name, rank, first, cuts[first], cuts)
            made = tuple(self.held[tensor, rank] for tensor in equation.outputs)
            end = task.id.partition(".")[2].removesuffix(self._part)
            self._known[key] = _Known(task.op, end, made, start, task.flops, task.nbytes)
            return
        inputs = [self.held[tensor, rank] for tensor in equation.inputs]
        later = start - known.first
        outputs = [
            Value(
                f"{tensor}{self._part}@{rank}",
                tensor,
                rank,
                self._later(like, later) if later else like.region,
                like.dtype,
                like.partial,
            )
            for tensor, like in zip(equation.outputs, known.made, strict=True)
        ]
        ends = self._named(inputs, outputs)
        task_id = f"l{equation.layer}.{known.end}{self._part}"
        layer, level = equation.layer, equation.level
        self._add(Task(task_id, layer, level, equation.op, (rank,), *ends, known.flops, known.nbytes))

    def _later(self, like: Value, sequences: int) -> Region:
        """The region of a value that is like another, of a microbatch some sequences later."""
        dims = self.function.tensors[like.tensor].dims
        return tuple(
            [
                (start + sequences, stop + sequences) if dim == "batch" else (start, stop)
                for dim, (start, stop) in zip(dims, like.region, strict=True)
            ]
        )

    def own(self, tensor: str, rank: int, cut: Cut = _WHOLE) -> None:
        """Give a rank a region of a weight, or its part of the input, from the start; once, if asked for again."""
        if not self.owns(tensor, rank):
            whole = self.function.tensors[tensor]
            part = "" if whole.role == "weight" else self._part
            region = self._region(tensor, rank, cut)
            dtype = whole.given_dtype(self.model.dtype)
            self._hold(Value(f"{tensor}{part}@{rank}", tensor, rank, region, dtype))

    def owns(self, tensor: str, rank: int) -> bool:
        """Whether a rank was given its region of a weight; or of an input, of which every microbatch has its own."""
        if (tensor, rank) not in self.held:
            return False
        return not self._part or self.function.tensors[tensor].role == "weight"

    def compute(
        self,
        level: Level,
        name: str,
        rank: int,
        output: str,
        cut: Cut = _WHOLE,
        each: Mapping[str, Cut] | None = None,
    ) -> Task:
        """Add the task that computes, on one rank, a region of the tensor(s) that ``output``'s equation defines.

        ``cut`` gives the interval of every dim that is not whole (``each``: of outputs that are cut otherwise). A dim
        that the equation contracts makes the output a partial sum, which is kept in float32 unless the layout says
        otherwise (docs/adr/0004-reduction-dtype.md). The sum of two partial sums is partial over the dims of both.
        """
        equation = self.function.defining[output]
        inputs = [self.held[tensor, rank] for tensor in equation.inputs]
        contract = contracted(equation.op)
        partial = tuple((dim, cut[dim]) for dim in contract if dim in cut and cut[dim] != (0, self._extents[dim]))
        if isinstance(equation.op, Add):
            partial = tuple(each for value in inputs for each in value.partial)
        outputs = []
        for place, tensor in enumerate(equation.outputs):
            dtype = made_dtype(equation.op, place, self.model.dtype, self._partial_dtype, partial=bool(partial))
            region = self._region(tensor, rank, (each or {}).get(tensor, cut))
            outputs.append(Value(f"{tensor}{self._part}@{rank}", tensor, rank, region, dtype, partial))
        task_id = ".".join(part for part in (f"l{equation.layer}", level, name, self.place(rank)) if part)
        edges = self._edges(equation.op, 1, inputs, outputs)
        return self._add(Task(task_id, equation.layer, level, equation.op, (rank,), *edges))

    def collective(
        self,
        layer: int,
        level: Level,
        name: str,
        op: Op,
        ranks: Sequence[int],
        tensor: str,
        stage: str,
        cut: Callable[[int], Cut] = lambda _: _WHOLE,
    ) -> None:
        """Add one collective on a tensor: see ``Moved`` and ``exchange``."""
        self.exchange(layer, level, name, ranks, [Moved(op, tensor, stage, cut)])

    def exchange(self, layer: int, level: Level, name: str, ranks: Sequence[int], moved: Sequence[Moved]) -> None:
        """Add one collective of some ranks: what moves a tensor, or a packed exchange of several.

        A collective of one rank is no task, nor is one of ranks that are not lowered.
        """
        if len(ranks) == 1 or not self._lowered(ranks):
            return
        inputs, outputs = list[Value](), list[Value]()
        for op, tensor, stage, cut, partial in moved:
            senders = self._lowered(ranks[:1] if isinstance(op, Broadcast | SendReceive) else ranks)
            receivers = self._lowered(ranks[1:] if isinstance(op, SendReceive) else ranks)
            sent = [self.held[tensor, rank] for rank in senders]
            # Where the sender is not lowered: what is broadcast or sent is never a partial sum.
            dtype = sent[0].dtype if sent else self.function.tensors[tensor].given_dtype(self.model.dtype)
            inputs += sent
            summed = self._summed(partial, ranks)
            outputs += [self._left(tensor, stage, rank, cut(rank), dtype, summed) for rank in receivers]
        ops = [its.op for its in moved]
        packed = tuple([op for op in ops if isinstance(op, AllToAll | AllGather)])
        op = ops[0] if len(ops) == 1 else Packed(packed)
        replica = f".{its}" if (its := self._replica_of(ranks)) else ""
        task_id = f"l{layer}.{level}.{name}{replica}{self._part}"
        edges = self._edges(op, len(ranks), inputs, outputs)
        self._add(Task(task_id, layer, level, op, tuple(ranks), *edges))

    def narrow(
        self, layer: int, level: Level, name: str, op: Narrow, tensor: str, stage: str, cut: Callable[[int], Cut]
    ) -> None:
        """Add, on every rank, the task that keeps, of what it holds of a tensor, the region that ``cut`` gives it."""
        for rank in self.ranks:
            whole = self.held[tensor, rank]
            kept = self._left(tensor, stage, rank, cut(rank), whole.dtype)
            task_id = f"l{layer}.{level}.{name}.{self.place(rank)}"
            self._add(Task(task_id, layer, level, op, (rank,), *self._edges(op, 1, [whole], [kept])))

    def _left(
        self, tensor: str, stage: str, rank: int, cut: Cut, dtype: Dtype | Literal["int64"], summed: Partial = ()
    ) -> Value:
        """What a move leaves a rank with."""
        region = self._region(tensor, rank, cut)
        return Value(f"{tensor}{self._part}:{stage}@{rank}", tensor, rank, region, dtype, summed)

    def _summed(self, partial: Sharding, ranks: Sequence[int]) -> Partial:
        """Over which shares of contracted dims a sum of some ranks' partial sums is still one."""
        found = []
        for cut in partial.partial:
            ends = [self.shares.interval(cut, rank, self._batch_of(rank)) for rank in ranks]
            its = (min(start for start, _ in ends), max(stop for _, stop in ends))
            if its != (0, self._extents[cut.dim]):
                found.append((cut.dim, its))
        return tuple(found)

    def begin(self, layer: int) -> None:
        """Give the ranks what a layer reads of those before it, where these are left out.

        That is the residual stream, and a choice of keys that the layer shares. At the first layer of a stage it is
        with the ranks of the stage before, which send it.
        """
        first = self.layout.layers(self.stage, self.model)[0]
        stage = self.stage - (self.stage > 0 and layer == first)
        for tensor in entering(self.function, self.model, layer):
            read, op = self.shares.of(tensor).read, self.function.defining[tensor].op
            teams = [self.layout.team(stage, replica) for replica in self.replicas]
            for rank in self._lowered([rank for team in teams for rank in team]):
                region = self._region(tensor, rank, self.cut(read, rank))
                dtype = made_dtype(op, 0, self.model.dtype, self._partial_dtype, partial=False)
                self._hold(Value(f"{tensor}{self._part}@{rank}", tensor, rank, region, dtype))

    def build(self, *, part: bool = False) -> Dag:
        """The finished document, or a part of it, which is none."""
        order: list[tuple[str, ...]] = [()] * self.layout.devices
        for rank, parts in self._order.items():
            order[rank] = interleaved(list(parts.values()), self.layout.interleave)
        return Dag(
            plan=self.plan,
            plan_digest="" if part else self.plan.digest,
            tensors=tuple(self.function.tensors.values()),
            values=tuple(self._values.values()),
            tasks=tuple(self._tasks),
            order=tuple(order),
            step=self.step.name,
        )

    def _batch_of(self, rank: int) -> Microbatch:
        """The microbatch of a rank's replica."""
        if len(self._parts) == 1:
            return self._parts[0]
        return self._parts[self.layout.team_of(rank)[1] - self.replicas.start]

    def _lowered(self, ranks: Sequence[int]) -> tuple[int, ...]:
        """Those of some ranks that are lowered, ascending."""
        return tuple(ranks) if self._only is None else tuple([r for r in self._only if r in ranks])

    def _edges(
        self, op: Op, ranks: int, inputs: Sequence[Value], outputs: Sequence[Value]
    ) -> tuple[tuple[str, ...], tuple[str, ...], int, int]:
        """Inputs, outputs, flops and bytes of a task; the outputs are held from now on."""
        work = flops(op, inputs, outputs, self.function.tensors)
        return *self._named(inputs, outputs), work, nbytes(op, ranks, inputs, outputs, self.function.tensors)

    def _named(self, inputs: Sequence[Value], outputs: Sequence[Value]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The ids of a task's inputs and outputs; the outputs are held from now on."""
        values = self._values
        for value in inputs:
            values.setdefault(value.id, value)
        for value in outputs:
            values[value.id] = value
            self._hold(value)
        return tuple([v.id for v in inputs]), tuple([v.id for v in outputs])

    def _add(self, task: Task) -> Task:
        self._tasks.append(task)
        for rank in self._lowered(task.ranks):
            self._order.setdefault(rank, {}).setdefault(self._turn, []).append(task)
        return task

    def _hold(self, value: Value) -> None:
        self.held[value.tensor, value.rank] = value

    def _region(self, tensor: str, rank: int, cut: Cut) -> Region:
        whole = self.function.tensors[tensor]
        cut = {"batch": self._batch_of(rank).own, **cut}
        return tuple([cut.get(dim, (0, size)) for dim, size in zip(whole.dims, whole.shape, strict=True)])
