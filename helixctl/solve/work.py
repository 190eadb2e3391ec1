"""Of what the work of a step is made: one layer, and the ends of a model, priced for one rank."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import NamedTuple

from helixctl.cost.memory import peak_live_nbytes
from helixctl.lower import lower
from helixctl.plan import Layout, Plan
from helixctl.plan.layout import Microbatch
from helixctl.plan.sharding import Shares
from helixctl.plan.steps import new_tokens, step_of
from helixctl.solve.axes import LayerAxes, layer_axes, of_the_feed_forward
from helixctl.solve.outlined import Communication, Priced
from helixctl.solve.outlines import Outlines
from helixctl.solve.turns import Part, part_of, rank_seconds
from helixctl.solve.wires import Wires, wires
from helixctl.spec import DTYPE_NBYTES, ClusterSpec, ModelSpec, StepName, WorkloadSpec


class LaneCosts(NamedTuple):
    """Costs of one microbatch on one rank: seconds by lane, of both where it is alone, bytes of weights.

    Alone, a collective takes its time beside the computations that read nothing of it.
    """

    compute_s: float = 0.0
    communication_s: float = 0.0
    alone_s: float = 0.0
    weight_nbytes: int = 0


class LayerCosts(NamedTuple):
    """The work of one microbatch on the rank of a team with the largest pieces of all: the first, with equal shares.

    Attributes:
        layers: of one layer of every kind that the model has, in the order of ``ModelSpec.kinds``.
        embed, head: of the ends of the model.
        least_compute_s: of one layer of every kind, on the rank with the smallest pieces.
        values_nbytes: all values of a layer, whenever they are live; of the kind that has most.
        made_nbytes: what one task of a layer makes, at most: as much is live.
        output_nbytes: the output of a microbatch.
    """

    layers: tuple[LaneCosts, ...]
    embed: LaneCosts
    head: LaneCosts
    least_compute_s: tuple[float, ...]
    values_nbytes: int
    made_nbytes: int
    output_nbytes: int


class Parts(NamedTuple):
    """What a microbatch goes through on the first rank of a team, task by task; ``layers``: by the kind of layer."""

    embed: Part
    layers: tuple[Part, ...]
    head: Part


class _LayerCosts(NamedTuple):
    """As ``LayerCosts``, of one kind of layer."""

    layer: LaneCosts
    embed: LaneCosts
    head: LaneCosts
    least_compute_s: float
    values_nbytes: int
    made_nbytes: int
    output_nbytes: int


class _Ends(NamedTuple):
    embed: LaneCosts
    head: LaneCosts
    output_nbytes: int


@dataclass(slots=True)
class LayoutCosts:
    """The work of the layouts of one problem in one step, by default the first; what layouts share is priced once."""

    model: ModelSpec
    cluster: ClusterSpec
    workload: WorkloadSpec
    step: StepName | None = None
    axes: LayerAxes = field(init=False)
    _kinds: tuple[_KindCosts, ...] = field(init=False)
    _feed_forward: dict[object, tuple[tuple[int, ...], ...]] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        """Price nothing yet; ``axes`` are those on which the layers depend."""
        specs = (self.cluster, self.workload, self.step)
        kinds = [self.model.alike(kind) for kind in self.model.kinds]
        self.axes = layer_axes(self.step, experts=any(its.feed_forward.experts for its in kinds))
        self._kinds = tuple([_KindCosts(its, *specs) for its in kinds])

    def with_communication(self, layout: Layout, sequences: int) -> LayerCosts:
        """The work of a microbatch, by its number of sequences."""
        return _together([kind.with_communication(layout, sequences) for kind in self._kinds])

    def communication(self, layout: Layout, sequences: int) -> tuple[Communication, ...]:
        """All collectives of a microbatch in a layer of every kind."""
        return tuple([kind.communication(layout, sequences) for kind in self._kinds])

    def compute_only(self, layout: Layout, sequences: int) -> LayerCosts:
        """The same as if nothing were exchanged, and nothing live."""
        return _together([kind.compute_only(layout, sequences) for kind in self._kinds])

    def feed_forward(self, layout: Layout) -> tuple[tuple[int, ...], ...]:
        """Equal where the feed-forward networks of all kinds of layers are cut alike."""
        key = (self.new_tokens(layout), of_the_feed_forward(layout))
        found = self._feed_forward.get(key)
        if found is None:
            found = self._feed_forward[key] = tuple([kind.outlines.feed_forward(layout) for kind in self._kinds])
        return found

    def feed_forward_only(self, layout: Layout, sequences: int) -> LayerCosts:
        """The work of a microbatch as if nothing but feed-forward networks were computed, and nothing held."""
        seconds = [kind.outlines.feed_forward_s(layout, sequences) for kind in self._kinds]
        layers = tuple([LaneCosts(its, 0.0, its) for its in seconds])
        return LayerCosts(layers, LaneCosts(), LaneCosts(), (0.0,) * len(layers), 0, 0, 0)

    def on_any_rank(self, layout: Layout, sequences: int, group: int | None = None) -> tuple[float, ...]:
        """Seconds in which any rank of a team, or of a group of it, computes a layer of every kind, at least."""
        return tuple([kind.on_any_rank(layout, sequences, group) for kind in self._kinds])

    def parts(self, layout: Layout, sequences: int) -> Parts:
        """The same as ``with_communication``, task by task."""
        found = [kind.parts(layout, sequences) for kind in self._kinds]
        return Parts(found[0].embed, tuple([layer for its in found for layer in its.layers]), found[0].head)

    def new_tokens(self, layout: Layout) -> int:
        """Tokens of a sequence in the step: those of a prefill depend on how many sequences a replica has."""
        return self._kinds[0].new_tokens(layout)

    def live_nbytes(self, layout: Layout, sequences: int) -> int:
        """What is live in a layer beside weights, at its fullest."""
        return max(kind.live_nbytes(layout, sequences) for kind in self._kinds)

    def weights_nbytes(self) -> int:
        """Bytes of all weights of the model, each once."""
        whole = self.compute_only(Layout(groups=1, slices=1), 1)
        counts = self.counts(range(self.model.layers))
        layers = sum(n * its.weight_nbytes for n, its in zip(counts, whole.layers, strict=True))
        return layers + self.ends_nbytes(whole)

    def ends_nbytes(self, parts: LayerCosts) -> int:
        """Bytes of weights of a rank that has both ends of the model: tied ones are the embedding's and the head's."""
        ends = (parts.embed.weight_nbytes, parts.head.weight_nbytes)
        return max(ends) if self.model.vocabulary and self.model.vocabulary.tied else sum(ends)

    def counts(self, layers: range) -> tuple[int, ...]:
        """How many of some layers there are of every kind."""
        if not self.model.pattern:
            return (len(layers),)
        found = Counter(self.model.kind(layer) for layer in layers)
        return tuple([found[kind] for kind in self.model.kinds])


def _together(found: Sequence[_LayerCosts]) -> LayerCosts:
    """The costs of all kinds of layers; the ends of the model are alike in all."""
    first = found[0]
    return LayerCosts(
        tuple([its.layer for its in found]),
        first.embed,
        first.head,
        tuple([its.least_compute_s for its in found]),
        max([its.values_nbytes for its in found]),
        max([its.made_nbytes for its in found]),
        first.output_nbytes,
    )


@dataclass(slots=True)
class _KindCosts:
    """As ``LayoutCosts``, of a model whose layers are all alike."""

    model: ModelSpec
    cluster: ClusterSpec
    workload: WorkloadSpec
    step: StepName | None = None
    outlines: Outlines = field(init=False)
    _shares_cores: bool = field(init=False)  # asked for with every layout
    _layers: dict[object, _LayerCosts] = field(default_factory=dict, init=False)
    _communicating: dict[object, Communication] = field(default_factory=dict, init=False)
    _ends: dict[object, _Ends] = field(default_factory=dict, init=False)
    _live: dict[object, int] = field(default_factory=dict, init=False)
    _parts: dict[object, Parts] = field(default_factory=dict, init=False)
    _turns: dict[object, Part] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        """Price nothing yet."""
        self.outlines = Outlines(self.model, self.cluster, self.workload, self.step)
        self._shares_cores = self.cluster.only.cores_per_host is not None

    def with_communication(self, layout: Layout, sequences: int) -> _LayerCosts:
        """The work of a microbatch, by its number of sequences."""
        key = self._key(layout, sequences)
        if key not in self._layers:
            tasks = self.outlines.priced(layout, sequences, exchanged=True)
            # No chain: keys may still be on their way while queries are normalised, rotated, or projected.
            self._turns[key] = part_of(tasks)
            layer = _work(tasks)._replace(alone_s=rank_seconds([(self._turns[key], 1)], 1, 1))
            ends = self._its_ends(layout, sequences, exchanged=True)
            least = self._least_compute_s(layout, sequences, layer)
            live = (sum(its.values_nbytes for its in tasks), max(its.made_nbytes for its in tasks))
            self._layers[key] = _LayerCosts(layer, ends.embed, ends.head, least, *live, ends.output_nbytes)
        return self._layers[key]

    def communication(self, layout: Layout, sequences: int) -> Communication:
        """All collectives of a microbatch in a layer."""
        key = self._key(layout, sequences)
        if key not in self._communicating:
            self._communicating[key] = self.outlines.communication(layout, sequences)
        return self._communicating[key]

    def parts(self, layout: Layout, sequences: int) -> Parts:
        """The same, task by task."""
        key = self._key(layout, sequences)
        if key not in self._parts:
            ends = []
            if self.model.vocabulary:
                ends = self.outlines.priced(layout, sequences, exchanged=True, ends=True)
            embed, head = (part_of(its for its in ends if its.task.level == level) for level in ("embed", "head"))
            self.with_communication(layout, sequences)  # which looks at the turns of a layer
            self._parts[key] = Parts(embed, (self._turns[key],), head)
        return self._parts[key]

    def _key(self, layout: Layout, sequences: int) -> object:
        """Equal where a microbatch of ``batch`` sequences is the same work, with what is exchanged."""
        return (self._own(layout, sequences), layout.gather_order, self._wires(layout))

    def _own(self, layout: Layout, sequences: int) -> object:
        """Equal where a microbatch of ``batch`` sequences is the same computation."""
        joins = layout.expert_data > 1 and self.model.feed_forward.experts is not None
        joined = layout.microbatch_of(sequences, self.workload).joined[1] if joins else 0
        return (sequences, joined, self.new_tokens(layout), self.outlines.axes.of(layout.__dict__))

    def _wires(self, layout: Layout) -> Wires:
        """Those on which a layer depends."""
        found = wires(layout, self.cluster)
        return found if self.model.feed_forward.experts else found._replace(replicas="", spread="")

    def new_tokens(self, layout: Layout) -> int:
        """Tokens of a sequence in the step: those of a prefill depend on how many sequences a replica has."""
        return new_tokens(self.workload, layout, self.step)

    def live_nbytes(self, layout: Layout, sequences: int) -> int:
        """What is live in a layer beside weights, at its fullest."""
        key = (layout.gather_order, self.outlines.key(layout, sequences))
        if key not in self._live:
            rank = layout.rank(layout.heaviest_group, 0)
            parts, joined = layout.data * layout.microbatches, layout.microbatch_of(sequences, self.workload).joined[1]
            # Where it is not known how many others have, they have as few as can be.
            batch = parts * sequences - (parts - 1 if joined < layout.expert_data * sequences else 0)
            step = replace(step_of(self.workload, layout, self.step), batch=batch)
            even = layout.model_copy(update={"batch_shares": None}) if layout.batch_shares else layout
            plan = Plan.sketch(self.outlines.body, self.cluster, step, even)
            body = lower(plan, only={rank}, layers=range(1), microbatches=range(1))
            weights = {tensor.name for tensor in body.tensors if tensor.role in {"weight", "state"}}
            given = sum(v.nbytes for v in body.values if v.id not in body.producer and v.tensor not in weights)
            self._live[key] = peak_live_nbytes(body, rank) - given
        return self._live[key]

    def compute_only(self, layout: Layout, sequences: int) -> _LayerCosts:
        """The same as if nothing were exchanged, and nothing live."""
        seconds, nbytes = self.outlines.computed(layout, sequences)
        layer = LaneCosts(seconds, 0.0, seconds, nbytes)
        ends = self._its_ends(layout, sequences, exchanged=False)
        least = self._least_compute_s(layout, sequences, layer)
        return _LayerCosts(layer, ends.embed, ends.head, least, 0, 0, ends.output_nbytes)

    def _least_compute_s(self, layout: Layout, sequences: int, layer: LaneCosts) -> float:
        """A layer's computation on the rank with the smallest pieces: of interest where ranks share cores."""
        if not self._shares_cores:
            return layer.compute_s
        ranks = [layout.expert_devices - 1]
        if layout.group_shares:
            ranks = [(group + 1) * layout.slices - 1 for group in range(layout.groups)]
        return min(self.outlines.computed(layout, sequences, rank=rank).seconds for rank in ranks)

    def on_any_rank(self, layout: Layout, sequences: int, group: int | None = None) -> float:
        """Seconds in which any rank of a group computes a layer, at least: its last, unless its slices share rows.

        Without a group it is any rank of a team: of the last group, or of any where they have shares of their own.
        """
        if group is None and layout.group_shares:
            return min(self.on_any_rank(layout, sequences, one) for one in range(layout.groups))
        end = layout.partitions if group is None else (group + 1) * layout.slices
        by_rows = layout.shared_dim == "seq" or layout.key_prefill == "query"
        ranks = range(end - layout.slices, end) if by_rows else (end - 1,)
        return min(self.outlines.computed(layout, sequences, rank=rank).seconds for rank in ranks)

    def _its_ends(self, layout: Layout, sequences: int, *, exchanged: bool) -> _Ends:
        """Embedding and head; unless ``exchanged`` as if nothing were."""
        wire = wires(layout, self.cluster).tensor if exchanged else None
        weighed = (layout.groups, layout.group_shares) if layout.group_shares else None
        key = (layout.partitions, weighed, layout.residual, self.new_tokens(layout), sequences, wire)
        if key not in self._ends and self.model.vocabulary is None:
            shares = Shares(layout, self.model, step_of(self.workload, layout, self.step))
            region = shares.region(
                ("batch", "seq", "hidden"), shares.of("output").made, 0, Microbatch((0, sequences), (0, sequences))
            )
            nbytes = prod(stop - start for start, stop in region) * DTYPE_NBYTES[self.model.dtype]
            self._ends[key] = _Ends(LaneCosts(), LaneCosts(), nbytes)
        elif key not in self._ends:
            tasks = self.outlines.priced(layout, sequences, exchanged=exchanged, ends=True)
            embed, head = (_work(its for its in tasks if its.task.level == level) for level in ("embed", "head"))
            self._ends[key] = _Ends(embed, head, next(filter(None, (its.output_nbytes for its in tasks))))
        return self._ends[key]


def _work(tasks: Iterable[Priced]) -> LaneCosts:
    """The work of some tasks, one after the other."""
    compute = communication = 0.0
    weights = 0
    for its in tasks:
        if its.communicates:
            communication += its.seconds
        else:
            compute += its.seconds
        weights += its.weight_nbytes
    return LaneCosts(compute, communication, compute + communication, weights)
