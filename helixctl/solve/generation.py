"""Lower bounds on a generation: those of its steps, as often as they run, and the cache beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from helixctl.dag import Value
from helixctl.dag.function import function_of
from helixctl.dag.storage import held_nbytes
from helixctl.plan import Layout
from helixctl.plan.layout import Microbatch, chunk
from helixctl.plan.sharding import Shares
from helixctl.plan.steps import step_of
from helixctl.solve.axes import Order
from helixctl.solve.bound import Bound, Bounds
from helixctl.solve.work import LayoutCosts
from helixctl.spec import ClusterSpec, ModelSpec, Step, WorkloadSpec


class _Count(NamedTuple):
    """How often each kind of step runs."""

    prefill: int
    decode: int


@dataclass(slots=True)
class GenerationBounds:
    """Lower bounds for the layouts of one generation, as ``Bounds`` has them for one step.

    Attributes:
        prefill, decode: the bounds of the steps.
        costs: of the decode step, whose weights are those of all steps.
    """

    prefill: Bounds
    decode: Bounds
    _cache: dict[object, int] = field(default_factory=dict, init=False)
    _counts: dict[object, _Count] = field(default_factory=dict, init=False)

    @classmethod
    def of(
        cls, model: ModelSpec, cluster: ClusterSpec, workload: WorkloadSpec, *, exact_memory: bool
    ) -> GenerationBounds:
        """The bounds of a workload with ``output_len``."""
        return cls(
            Bounds(LayoutCosts(model, cluster, workload, "prefill"), exact_memory),
            Bounds(LayoutCosts(model, cluster, workload, "decode"), exact_memory),
        )

    @property
    def costs(self) -> LayoutCosts:
        """What the weights are known from."""
        return self.decode.costs

    def __call__(self, layout: Layout) -> Bound:
        """Bounds that no simulation of this layout is below."""
        return self._together(layout, self.prefill(layout), self.decode(layout))

    def with_turns(self, layout: Layout) -> Bound:
        """The same, and where microbatches take turns what the tasks of a rank take in their order."""
        return self._together(layout, self.prefill.with_turns(layout), self.decode.with_turns(layout))

    def quick(self, layout: Layout, parts: int | None = None) -> Bound:
        """Looser bounds: as if nothing were exchanged; ``parts`` is the number of microbatches, if not the layout's."""
        return self._together(layout, self.prefill.quick(layout, parts), self.decode.quick(layout, parts))

    def loose(self, layout: Layout, sizes: Sequence[int]) -> list[Bound]:
        """Still looser ones of a layout in each of these numbers of microbatches."""
        both = zip(self.prefill.loose(layout, sizes), self.decode.loose(layout, sizes), strict=True)
        return [self._together(layout, prefill, decode) for prefill, decode in both]

    def in_any_order(self, layout: Layout, parts: int, orders: Sequence[Order]) -> Bound:
        """Looser bounds, which those in none of these orders are below; arguments as of ``Bounds``."""
        steps = (self.prefill.in_any_order(layout, parts, orders), self.decode.in_any_order(layout, parts, orders))
        return self._together(layout, *steps)

    def in_orders(self, layout: Layout, orders: Sequence[Order]) -> list[Bound]:
        """Bounds of a layout in several orders of work and of ranks, all in one number of microbatches."""
        both = zip(self.prefill.in_orders(layout, orders), self.decode.in_orders(layout, orders), strict=True)
        return [self._together(layout, prefill, decode) for prefill, decode in both]

    def _together(self, layout: Layout, prefill: Bound, decode: Bound) -> Bound:
        count = self.count(layout)
        ttft_s = count.prefill * prefill.step_s
        total_s = ttft_s + count.decode * decode.step_s
        memory = max(prefill.memory_nbytes, decode.memory_nbytes) + self.cache_nbytes(layout)
        return Bound(total_s, total_s, memory, ttft_s, decode.step_s)

    def count(self, layout: Layout) -> _Count:
        """How often each kind of step runs."""
        key = (layout.data, layout.batch_shares, layout.key_block)
        if key not in self._counts:
            work = self.costs.workload
            self._counts[key] = _Count(-(-work.seq_len // chunk(work, layout)), (work.output_len or 1) - 1)
        return self._counts[key]

    def cache_nbytes(self, layout: Layout) -> int:
        """The KV cache of the fullest stage's first rank, which holds most sequences and heads."""
        model, work = self.costs.model, self.costs.workload
        stages = (layout.pipeline, layout.stages)
        key = (layout.groups, layout.slices, layout.slicing, layout.key_block, layout.data, *stages)
        if key not in self._cache:
            step = step_of(work, layout, "decode")
            parts = [layout.batch(0, part, step) for part in range(layout.microbatches)]
            sequences = sum(stop - start for start, stop in parts)
            each = {kind: self.of_a_layer(layout, model.alike(kind), step, sequences) for kind in model.kinds}
            several = range(layout.pipeline if layout.has_unlike_stages(model) else 1)
            held = [layout.layers(stage, model) for stage in several]
            self._cache[key] = max(sum(each[model.kind(layer)] for layer in layers) for layers in held)
        return self._cache[key]

    def seconds(self, layout: Layout) -> tuple[list[float], float, float]:
        """Of every layer, of the embedding and of the head, in all steps of the generation."""
        count = self.count(layout)
        (layers, embed, head), (more, embed_more, head_more) = self.prefill.seconds(layout), self.decode.seconds(layout)

        def both(prefill: float, decode: float) -> float:
            return count.prefill * prefill + count.decode * decode

        return list(map(both, layers, more)), both(embed, embed_more), both(head, head_more)

    def of_a_layer(self, layout: Layout, model: ModelSpec, step: Step, sequences: int) -> int:
        """Bytes of the cache of one layer, of so many sequences, on the first rank of a team."""
        shares = Shares(layout, model, step)
        layer = function_of(model.model_copy(update={"layers": 1, "vocabulary": None}), step)
        rank, nbytes = layout.team(0, 0)[0], 0
        for state in [tensor for tensor in layer.tensors.values() if tensor.role == "state"]:
            region = shares.region(
                state.dims, shares.of(state.name).made, rank, Microbatch((0, sequences), (0, sequences))
            )
            nbytes += held_nbytes(Value(state.name, state.name, rank, region, model.dtype), layer.tensors)
        return nbytes
