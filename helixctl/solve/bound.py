"""Lower bounds on a layout's step, from the tasks of one layer: what lets the search leave most layouts unsimulated."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import NamedTuple, get_args

from helixctl.cost.memory import peak_live_nbytes
from helixctl.cost.tasks import TaskCosts
from helixctl.dag import Dag, Level
from helixctl.lower import lower
from helixctl.plan import Layout, Plan
from helixctl.simulate.dedicated import simulate_dedicated
from helixctl.solve.hosts import host_pattern
from helixctl.spec import ClusterSpec, ModelSpec, WorkloadSpec


class Bound(NamedTuple):
    """What a layout takes at least; ``memory_nbytes`` on its fullest device."""

    step_s: float
    latency_s: float
    memory_nbytes: float


class _Work(NamedTuple):
    """Work of one microbatch on one rank: seconds by lane, of both where it is alone, bytes of weights."""

    compute_s: float = 0.0
    communication_s: float = 0.0
    alone_s: float = 0.0
    weight_nbytes: int = 0

    @property
    def silent(self) -> _Work:
        """As if nothing were exchanged."""
        return self._replace(communication_s=0.0, alone_s=self.compute_s)


class _Parts(NamedTuple):
    """Of what the work of a step is made, on the first rank of a team, which has the largest pieces of all.

    ``least_compute_s`` is a layer's on the rank with the smallest, ``live_nbytes`` what is live in a layer beside
    weights, ``output_nbytes`` the output of a microbatch.
    """

    layer: _Work
    embed: _Work
    head: _Work
    least_compute_s: float
    live_nbytes: int
    output_nbytes: int


@dataclass(slots=True)
class Bounds:
    """Lower bounds for the layouts of one problem; what layouts share is worked out once."""

    model: ModelSpec
    cluster: ClusterSpec
    workload: WorkloadSpec
    _parts: dict[object, _Parts] = field(default_factory=dict, init=False)
    _patterns: dict[object, tuple[int, ...]] = field(default_factory=dict, init=False)
    _silent: dict[object, _Parts] = field(default_factory=dict, init=False)

    def __call__(self, layout: Layout) -> Bound:
        """Bounds that no simulation of this layout is below.

        A layer of a microbatch takes what it takes alone: almost every task waits for the one before. Any stage, in
        turn: the first microbatch comes to it through the layers before, then all of them pass it, then the last goes
        through the layers behind. Microbatches that take turns can hide the shorter lane behind the longer, no more.
        Where ranks share cores, these have all the work to do. Of unequal microbatches all are taken to be as small as
        the smallest, of the fullest replica or of all.
        """
        return self._bound(layout, *(self._made(layout, size) for size in self._sizes(layout)))

    def quick(self, layout: Layout) -> Bound:
        """Looser bounds: as if nothing were exchanged. Many more layouts share these."""
        found = []
        for size in self._sizes(layout):
            key = self._shape(layout, size)
            if key not in self._silent:
                parts = self._made(layout, size)
                layer, embed, head = (work.silent for work in (parts.layer, parts.embed, parts.head))
                self._silent[key] = parts._replace(layer=layer, embed=embed, head=head, live_nbytes=0)
            found.append(self._silent[key])
        return self._bound(layout, *found)

    def _bound(self, layout: Layout, full: _Parts, least: _Parts) -> Bound:
        step, _ = self._times(layout, full)
        _, latency = self._times(layout, least)
        first, last = (len(layout.layers(stage, self.model)) for stage in (0, layout.pipeline - 1))
        if self.cluster.cores_per_host is not None:
            parts = layout.microbatches * layout.partitions * layout.data
            cores = min(self.cluster.cores_per_host, self.cluster.devices_per_host) * self.cluster.hosts
            step = max(step, self.model.layers * parts * least.least_compute_s / cores)
        return Bound(step, latency, self._memory(layout, full, first, last))

    def _sizes(self, layout: Layout) -> tuple[int, int]:
        """Sequences of the smallest microbatch of the first replica, which has most, and of the smallest of all."""
        start, stop = layout.batch(0, layout.microbatches - 1, self.workload)
        return stop - start, self.workload.batch // (layout.data * layout.microbatches)

    def _times(self, layout: Layout, work: _Parts) -> tuple[float, float]:
        """Seconds of a step, and until a sequence is done (mean), with microbatches of this work."""
        stages, parts, layers = layout.pipeline, layout.microbatches, self.model.layers
        first, last = (len(layout.layers(stage, self.model)) for stage in (0, stages - 1))
        layer, embed, head = work.layer, work.embed, work.head

        def passing(*works: tuple[int, _Work]) -> float:
            """What a microbatch takes of a stage's time."""
            if layout.interleave == 1:
                return sum(n * w.alone_s for n, w in works)
            return max(sum(n * w.compute_s for n, w in works), sum(n * w.communication_s for n, w in works))

        turn = self._mean_turn(layout)
        whole = embed.alone_s + layers * layer.alone_s + head.alone_s
        if stages == 1:
            slowest = passing((layers, layer), (1, embed), (1, head))
            step, latency = parts * slowest, turn * slowest
        else:
            into, out = passing((first, layer), (1, embed)), passing((last, layer), (1, head))
            behind = (layers - first) * layer.alone_s + head.alone_s
            before = (layers - last) * layer.alone_s + embed.alone_s
            step = max(parts * into + behind, before + parts * out)
            # When the i-th part is done, the first stage has passed i parts.
            latency = turn * into + behind
        return step, max(whole, latency)

    def _mean_turn(self, layout: Layout) -> float:
        """The place of a sequence's microbatch among those of its replica, from 1; mean over the sequences.

        Of unequal microbatches the larger go first; the replica with some of either has the lowest mean.
        """
        parts = layout.microbatches
        size, larger = divmod(self.workload.batch, layout.data * parts)
        larger %= parts
        return (size * parts * (parts + 1) + larger * (larger + 1)) / 2 / (size * parts + larger)

    def _memory(self, layout: Layout, work: _Parts, first: int, last: int) -> float:
        """The first stage holds most layers; the last keeps all of the output, and the input if it is the first."""
        layer, embed, head = (w.weight_nbytes for w in (work.layer, work.embed, work.head))
        kept = (layout.microbatches - 1) * work.output_nbytes
        if layout.pipeline == 1:
            # Tied weights are the embedding's and the head's at once.
            ends = max(embed, head) if self.model.vocabulary and self.model.vocabulary.tied else embed + head
            given = 0 if self.model.vocabulary else layout.microbatches * work.output_nbytes
            return work.live_nbytes + last * layer + ends + kept + given
        return work.live_nbytes + max(first * layer + embed, last * layer + head + kept)

    def _shape(self, layout: Layout, sequences: int) -> tuple[object, ...]:
        """What the computation of a layer depends on: the sizes of the largest pieces."""
        model = self.model
        pieces = (layout.heads(0, model), layout.key_heads(0, model), layout.head_dims(0, model))
        queries, keys, dims = (stop - start for start, stop in pieces)
        shared = layout.shared_dim
        sizes = (queries * dims, keys * dims, sequences, layout.slices if shared != "head_dim" else 0)
        return (layout.partitions, shared, sizes, layout.combine, layout.reduction_dtype, layout.experts)

    def _made(self, layout: Layout, sequences: int) -> _Parts:
        place = (layout.groups, layout.slices, layout.data, layout.pipeline, layout.placement)
        if place not in self._patterns:
            self._patterns[place] = host_pattern(layout, self.cluster, stages=1)
        key = (self._shape(layout, sequences), layout.groups, layout.gather_order, self._patterns[place])
        if key not in self._parts:
            self._parts[key] = self._lowered(layout, sequences)
        return self._parts[key]

    def _lowered(self, layout: Layout, sequences: int) -> _Parts:
        team = layout.team(0, 0)
        body = self._sketch(layout, sequences, team[0], vocabulary=False)
        layer = _work(body, get_args(Level))
        given = sum(v.nbytes for v in body.values if v.id not in body.producer)
        live = peak_live_nbytes(body, team[0]) - given + layer.weight_nbytes
        least = layer.compute_s
        if self.cluster.cores_per_host is not None:
            least = _work(self._sketch(layout, sequences, team[-1], vocabulary=False), get_args(Level)).compute_s
        ends = self._sketch(layout, sequences, team[0], vocabulary=True) if self.model.vocabulary else body
        output = next(v for v in ends.values if ends.tensor[v.tensor].role == "output")
        if not self.model.vocabulary:
            return _Parts(layer, _Work(), _Work(), least, live, output.nbytes)
        embed, head = (_work(ends, [level]) for level in ("embed", "head"))
        return _Parts(layer, embed, head, least, live, output.nbytes)

    def _sketch(self, layout: Layout, sequences: int, rank: int, *, vocabulary: bool) -> Dag:
        """One rank's part of a microbatch of so many sequences, in one layer."""
        model = self.model.model_copy(update={"layers": 1, **({} if vocabulary else {"vocabulary": None})})
        batch = sequences * layout.data * layout.microbatches
        plan = Plan.sketch(model, self.cluster, self.workload.model_copy(update={"batch": batch}), layout)
        return lower(plan, only={rank}, layers=range(1), microbatches=range(1))


def _work(dag: Dag, levels: Collection[str]) -> _Work:
    """The work of a sketch's tasks of some levels, less the broadcast of hidden states, which is not in every layer."""
    costs, lanes = TaskCosts(dag), {"compute": 0.0, "communication": 0.0}
    weights: dict[str, int] = {}
    unlike = 0.0
    for task in dag.tasks:
        if task.level not in levels:
            continue
        if task.kind == "broadcast" and task.level == "distribute":
            unlike += costs.seconds(task)
            continue
        lanes[task.lane] += costs.seconds(task)
        values = (dag.value[v] for v in task.inputs)
        weights |= {v.id: v.nbytes for v in values if dag.tensor[v.tensor].role == "weight"}
    # In a layer values may still be on their way while queries and keys are rotated; the ends are chains of tasks.
    alone_s = sum(lanes.values())
    if "attend" in levels:
        alone_s = min(alone_s, simulate_dedicated(dag).step_s - unlike)
    return _Work(lanes["compute"], lanes["communication"], alone_s, sum(weights.values()))
