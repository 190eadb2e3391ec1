"""Lower bounds on a layout's step, from the tasks of one layer: what lets the search leave most layouts unsimulated."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import NamedTuple, get_args

from helixctl.cost.memory import peak_live_nbytes
from helixctl.cost.tasks import TaskCosts
from helixctl.dag import Dag, Level
from helixctl.lower import lower
from helixctl.plan import Interval, Layout, Plan
from helixctl.solve.hosts import host_pattern
from helixctl.spec import ClusterSpec, ModelSpec, WorkloadSpec


class Bound(NamedTuple):
    """What a layout takes at least; ``memory_nbytes`` on its fullest device."""

    step_s: float
    latency_s: float
    memory_nbytes: float


class _Work(NamedTuple):
    """Work of one microbatch on one rank: seconds by lane, bytes of weights."""

    compute_s: float = 0.0
    communication_s: float = 0.0
    weight_nbytes: int = 0

    @property
    def alone_s(self) -> float:
        """One task after the other."""
        return self.compute_s + self.communication_s


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

        Inside a layer every task of a microbatch waits for the one before, so that a microbatch takes both lanes' time
        one after the other. Any stage, in turn: the first microbatch comes to it through the layers before, then all
        of them pass it, then the last goes through the layers behind. Microbatches that take turns can hide the
        shorter lane behind the longer, no more. Where ranks share cores, these have all the work to do. Of unequal
        microbatches all are taken to be as small as the smallest.
        """
        return self._bound(layout, self._made(layout))

    def quick(self, layout: Layout) -> Bound:
        """Looser bounds: as if nothing were exchanged. Many more layouts share these."""
        key = self._shape(layout)
        if key not in self._silent:
            parts = self._made(layout)
            works = {name: getattr(parts, name)._replace(communication_s=0.0) for name in ("layer", "embed", "head")}
            self._silent[key] = parts._replace(**works, live_nbytes=0)
        return self._bound(layout, self._silent[key])

    def _bound(self, layout: Layout, work: _Parts) -> Bound:
        stages, parts, layers = layout.pipeline, layout.microbatches, self.model.layers
        first, last = (len(layout.layers(stage, self.model)) for stage in (0, stages - 1))
        layer, embed, head = work.layer, work.embed, work.head

        def passing(*works: tuple[int, _Work]) -> float:
            """What a microbatch takes of a stage's time."""
            compute_s = sum(n * w.compute_s for n, w in works)
            communication_s = sum(n * w.communication_s for n, w in works)
            return max(compute_s, communication_s) if layout.interleave > 1 else compute_s + communication_s

        whole = embed.alone_s + layers * layer.alone_s + head.alone_s
        if stages == 1:
            slowest = passing((layers, layer), (1, embed), (1, head))
            step, latency = parts * slowest, (parts + 1) / 2 * slowest
        else:
            into, out = passing((first, layer), (1, embed)), passing((last, layer), (1, head))
            behind = (layers - first) * layer.alone_s + head.alone_s
            before = (layers - last) * layer.alone_s + embed.alone_s
            step = max(parts * into + behind, before + parts * out)
            # When the i-th part is done, the first stage has passed i parts.
            latency = (parts + 1) / 2 * into + behind
        if self.cluster.cores_per_host is not None:
            total = layers * parts * work.least_compute_s * layout.partitions * layout.data
            cores = min(self.cluster.cores_per_host, self.cluster.devices_per_host) * self.cluster.hosts
            step = max(step, total / cores)
        return Bound(step, max(whole, latency), self._memory(layout, work, first, last))

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

    def _shape(self, layout: Layout) -> tuple[object, ...]:
        """What the computation of a layer depends on: the sizes of the largest pieces."""
        model, batch = self.model, layout.batch(0, layout.microbatches - 1, self.workload)
        pieces: list[Interval] = [
            layout.heads(0, model),
            layout.key_heads(0, model),
            layout.head_dims(0, model),
            batch,
        ]
        queries, keys, dims, sequences = (stop - start for start, stop in pieces)
        shared = layout.shared_dim
        sizes = (queries * dims, keys * dims, sequences, layout.slices if shared != "head_dim" else 0)
        return (layout.partitions, shared, sizes, layout.combine, layout.reduction_dtype, layout.experts)

    def _made(self, layout: Layout) -> _Parts:
        place = (layout.groups, layout.slices, layout.data, layout.pipeline, layout.placement)
        if place not in self._patterns:
            self._patterns[place] = host_pattern(layout, self.cluster, stages=1)
        # Ids of values and tasks name what is lowered: nothing else of the layout matters.
        key = (self._shape(layout), layout.groups, layout.gather_order, self._patterns[place])
        if key not in self._parts:
            self._parts[key] = self._lowered(layout)
        return self._parts[key]

    def _lowered(self, layout: Layout) -> _Parts:
        team = layout.team(0, 0)
        body = self._sketch(layout, team[0], vocabulary=False)
        layer = _work(body, get_args(Level))
        given = sum(v.nbytes for v in body.values if v.id not in body.producer)
        live = peak_live_nbytes(body, team[0]) - given + layer.weight_nbytes
        least = layer.compute_s
        if self.cluster.cores_per_host is not None:
            least = _work(self._sketch(layout, team[-1], vocabulary=False), get_args(Level)).compute_s
        ends = self._sketch(layout, team[0], vocabulary=True) if self.model.vocabulary else body
        output = next(v for v in ends.values if ends.tensor[v.tensor].role == "output")
        if not self.model.vocabulary:
            return _Parts(layer, _Work(), _Work(), least, live, output.nbytes)
        embed, head = (_work(ends, [level]) for level in ("embed", "head"))
        return _Parts(layer, embed, head, least, live, output.nbytes)

    def _sketch(self, layout: Layout, rank: int, *, vocabulary: bool) -> Dag:
        """One rank's part of the smallest microbatch, in one layer."""
        model = self.model.model_copy(update={"layers": 1, **({} if vocabulary else {"vocabulary": None})})
        plan = Plan.sketch(model, self.cluster, self.workload, layout)
        part = layout.microbatches - 1
        return lower(plan, only={rank}, layers=range(1), microbatches=range(part, part + 1))


def _work(dag: Dag, levels: Collection[str]) -> _Work:
    """The work of a sketch's tasks of some levels, less the broadcast of hidden states, which is not in every layer."""
    costs, lanes = TaskCosts(dag), {"compute": 0.0, "communication": 0.0}
    weights: dict[str, int] = {}
    for task in dag.tasks:
        if task.level not in levels or (task.kind == "broadcast" and task.level == "distribute"):
            continue
        lanes[task.lane] += costs.seconds(task)
        values = (dag.value[v] for v in task.inputs)
        weights |= {v.id: v.nbytes for v in values if dag.tensor[v.tensor].role == "weight"}
    return _Work(lanes["compute"], lanes["communication"], sum(weights.values()))
