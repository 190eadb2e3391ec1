"""Layout: how one attention layer is cut over the devices, and the index arithmetic that follows from it.

Partition (i, j) is head group i, slice j. By default it sits on rank ``i * slices + j`` of its team: slices innermost,
so that a group stays inside one host wherever it fits; ``placement`` orders the axes otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property, lru_cache
from itertools import accumulate, pairwise, permutations
from typing import Annotated, Any, Final, Literal, NamedTuple, Self

from pydantic import Field, field_validator

from helixctl.spec import Count, ModelSpec, Spec, Step, WorkloadSpec, added
from helixctl.units import counted

Whole = Annotated[int, Field(strict=True, ge=0)]
Interval = tuple[Whole, Whole]  # half-open
MESH_AXES: Final = ("slices", "groups", "data", "pipeline")
# What cuts a tensor of one layer. A tensor-parallel group has groups x slices ranks; ``tensor`` cuts over all of them.
# ``replicas`` are those that share experts, ``spread`` cuts over all of their ranks, and so do experts x expert_tensor
# together.
Axis = Literal["groups", "slices", "tensor", "experts", "expert_tensor", "replicas", "spread"]


def share(size: int, parts: int, index: int) -> Interval:
    """The ``index``-th of ``parts`` pieces of ``range(size)``, as even as can be: the first ones are one longer."""
    piece, more = divmod(size, parts)
    start = index * piece + min(index, more)
    return (start, start + piece + (index < more))


@lru_cache(maxsize=4096)  # asked for by every rank
def weighted_shares(size: int, weights: tuple[int, ...]) -> tuple[Interval, ...]:
    """Pieces of ``range(size)`` by weights, rounded by the largest remainders, of equals the first.

    Who would get nothing gets one from who has most, of equals the last. With equal weights these are the pieces of
    ``share``.
    """
    total = sum(weights)
    sizes = [size * weight // total for weight in weights]
    remainders = [size * weight % total for weight in weights]
    for i in sorted(range(len(weights)), key=lambda i: -remainders[i])[: size - sum(sizes)]:
        sizes[i] += 1
    while min(sizes) == 0 and size >= len(sizes):
        sizes[len(sizes) - 1 - sizes[::-1].index(max(sizes))] -= 1
        sizes[sizes.index(0)] += 1
    return tuple(pairwise((0, *accumulate(sizes))))


class Microbatch(NamedTuple):
    """The sequences of a microbatch.

    Attributes:
        own: those of one replica.
        joined: those of all replicas that share experts with it, its own among them.
    """

    own: Interval
    joined: Interval


_PLACEMENTS: Final = frozenset("-".join(axes) for axes in permutations(MESH_AXES))
_IN_WORDS: Final = (
    "slicing",
    "data",
    "pipeline",
    "microbatches",
    "interleave",
    "experts",
    "expert_data",
    "residual",
    "key_block",
    "stages",
    "batch_shares",
    "group_shares",
    "latent_prefill",
    "key_prefill",
    "combine",
    "gather_order",
    "reduction_dtype",
    "placement",
)


_MESH: Final = frozenset(MESH_AXES)  # axes from which, with the placement, the strides follow
_set: Final = object.__setattr__  # of what is frozen


class Layout(Spec):
    """One point of the space of plans.

    Attributes:
        groups, slices: the heads in n groups, each group's work in m slices. Up to as many groups as there are heads
            of keys and values these are spread over the groups; of more groups several hold the same one.
        slicing: how a group's work is sliced. head_dim: each slice attends with its own dims of every head, legal where
            no softmax is cut. batch, query: weights, keys and values are cut by head_dim all the same, and an exchange
            gives every slice whole heads, over its share of the sequences or of the query rows (exact for every model).
            key: the same for a KV cache: each slice holds and attends with a share of the positions, and the slices'
            partial softmaxes are merged (exact for every model).
        combine: concat gathers the attention output and projects it by columns; reduce projects the local part by rows
            and sums (Megatron-LM).
        gather_order: of concat: slices_first puts each group together, then the groups (the paper's 1/16 -> 1/4 ->
            full); groups_first crosses the groups with the small pieces.
        reduction_dtype: what partial sums are kept and reduced in: accumulator is float32 (float64 for a float64
            model), model the model's own dtype (half the bytes, as Megatron-LM does it, and one rounding more).
        experts: ways in which the experts of a layer are spread over the devices that share them; every expert is cut
            in ``expert_devices / experts`` pieces of its width. 1: each of them holds an equal share of every expert.
        data: replicas, each with its share of the batch.
        pipeline: stages, each with its share of the layers.
        microbatches: parts in which a replica's share of the batch goes through the layers.
        interleave: microbatches whose tasks take turns on a rank, so that the collectives of one hide behind the
            computation of the others.
        placement: the order in which the axes are laid over the ranks, innermost first.
        residual: what the devices of a tensor-parallel group hold of the residual stream: replicated, all of it each;
            sharded, each its share of the tokens, with a gather before the products and a reduce-scatter behind them
            (sequence parallelism, Korthikanti et al. 2022). The share is of the query rows where there are as many
            rows as devices, else of the sequences.
        key_block: positions of a KV cache that lie with one slice before the next slice has its turn (slicing: key).
        stages: layers of each stage, ``10-11-11``; None: as even as can be, the first stages one more.
        batch_shares: sequences of each replica, ``30-30-4``; None: as even as can be, the first microbatches one more.
        key_prefill: what the slices of a group share in prefill, where they share the cache by positions (slicing key).
            key: positions, as in decoding; query: query rows, each slice attending to the positions of all.
        latent_prefill: how latent attention prefills. absorbed: over the latents of the cache, as it decodes; expanded:
            over keys and values of every head, which each chunk makes of all latents that the cache holds.
        expert_data: replicas, one after the other, that share one set of experts: their tokens are gathered ahead of
            the experts, and each has the results of its own behind them. 1: every replica has all experts.
        group_shares: weights of the groups, ``3-3-1-1``, by which everything that groups cut is dealt to them: KV heads
            with their query heads, columns of feed-forward networks and of projections, experts, the vocabulary. None:
            as even as can be.
    """

    groups: Count
    slices: Count
    slicing: Literal["head_dim", "batch", "query", "key"] = "head_dim"
    combine: Literal["concat", "reduce"] = "concat"
    gather_order: Literal["slices_first", "groups_first"] = "slices_first"
    reduction_dtype: Literal["accumulator", "model"] = "accumulator"
    experts: Count = 1
    data: Count = 1
    pipeline: Count = 1
    microbatches: Count = 1
    interleave: Count = 1
    placement: str = "-".join(MESH_AXES)
    residual: Literal["replicated", "sharded"] = added("replicated")
    key_block: Count = added(16)
    stages: Annotated[str, Field(pattern=r"^[1-9][0-9]*(-[1-9][0-9]*)*$", max_length=1000)] | None = added(None)
    latent_prefill: Literal["absorbed", "expanded"] = added("absorbed")
    key_prefill: Literal["key", "query"] = added("key")
    batch_shares: Annotated[str, Field(pattern=r"^[1-9][0-9]*(-[1-9][0-9]*)*$", max_length=10_000)] | None = added(None)
    expert_data: Count = added(1)
    group_shares: Annotated[str, Field(pattern=r"^[1-9][0-9]{0,5}(-[1-9][0-9]{0,5})*$", max_length=10_000)] | None = (
        added(None)
    )

    @field_validator("placement")
    @classmethod
    def _places_every_axis(cls, placement: str) -> str:
        if placement not in _PLACEMENTS:
            msg = f"the axes {', '.join(MESH_AXES)}, each once, innermost first, joined by hyphens"
            raise ValueError(msg)
        return placement

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:  # noqa: ARG002
        """As pydantic's, without what was worked out for the axes that change.

        A search makes every layout so: one that is copied costs a tenth of one that is validated. All values are
        immutable, so that a deep copy is a shallow one.
        """
        copy = type(self).__new__(type(self))
        values, given = {**self.__dict__, **(update or {})}, self.__pydantic_fields_set__
        # An order of a search names the placement, mostly that which stands.
        if values["placement"] != self.placement or (update and not _MESH.isdisjoint(update)):
            values.pop("strides", None)
        _set(copy, "__dict__", values)
        _set(copy, "__pydantic_fields_set__", given if not update or given.issuperset(update) else given.union(update))
        _set(copy, "__pydantic_extra__", None)
        _set(copy, "__pydantic_private__", None)
        return copy

    def __str__(self) -> str:
        """``8 x 2``: 8 groups of 2 slices; then every axis that is not at its default."""
        whole = self.expert_data == 1 and self.partitions % self.experts == 0
        texts = {
            "experts": f"experts {self.experts}" + (f" x {self.partitions // self.experts}" if whole else ""),
            "key_prefill": f"prefill by {self.key_prefill} rows",
            "latent_prefill": f"{self.latent_prefill} prefill",
            "combine": self.combine,
            "gather_order": self.gather_order,
            "reduction_dtype": f"reduced in the {self.reduction_dtype}'s dtype",
        }
        fields = type(self).model_fields
        apart = [name for name in _IN_WORDS if getattr(self, name) != fields[name].default]
        return ", ".join(
            [
                f"{self.groups} x {self.slices}",
                *(texts.get(name, f"{name} {getattr(self, name)}") for name in apart),
            ]
        )

    @property
    def partitions(self) -> int:
        """Partitions of a layer: m x n, one per device of a team."""
        return self.groups * self.slices

    @property
    def mesh(self) -> tuple[int, int, int, int]:
        """Groups, slices, replicas and stages."""
        return self.groups, self.slices, self.data, self.pipeline

    @property
    def expert_devices(self) -> int:
        """Devices of one stage that together hold its experts: those of a team, or of several replicas."""
        return self.groups * self.slices * self.expert_data

    @property
    def shared_dim(self) -> Literal["head_dim", "batch", "seq", "key"]:
        """The dim along which the slices of a group share the work of attention."""
        if self.slices == 1 or self.slicing == "head_dim":
            return "head_dim"
        return "seq" if self.slicing == "query" else self.slicing

    @property
    def devices(self) -> int:
        """Devices of all stages and replicas."""
        return self.partitions * self.data * self.pipeline

    @cached_property
    def strides(self) -> dict[str, int]:
        """By how many ranks two neighbours along each mesh axis are apart."""
        found, stride = {}, 1
        for axis in self.placement.split("-"):
            found[axis] = stride
            stride *= getattr(self, axis)
        return found

    def rank(self, group: int, slice_: int, stage: int = 0, replica: int = 0) -> int:
        """The rank of a partition of one stage of one replica."""
        at = self.strides
        return slice_ * at["slices"] + group * at["groups"] + replica * at["data"] + stage * at["pipeline"]

    def team(self, stage: int, replica: int) -> tuple[int, ...]:
        """The ranks, ascending, that together hold one stage of one replica."""
        at, first = self.strides, self.rank(0, 0, stage, replica)
        inner, outer = sorted(((at["slices"], self.slices), (at["groups"], self.groups)))
        return tuple([first + i * outer[0] + j * inner[0] for i in range(outer[1]) for j in range(inner[1])])

    def group_of(self, rank: int) -> int:
        """The head group of a rank."""
        return rank // self.strides["groups"] % self.groups

    def slice_of(self, rank: int) -> int:
        """The slice of a rank inside its group."""
        return rank // self.strides["slices"] % self.slices

    def team_of(self, rank: int) -> tuple[int, int]:
        """The stage and the replica of a rank."""
        at = self.strides
        return rank // at["pipeline"] % self.pipeline, rank // at["data"] % self.data

    def position(self, rank: int) -> int:
        """The place of a rank in its team, which ascends."""
        group, slice_ = self.group_of(rank), self.slice_of(rank)
        if self.strides["groups"] < self.strides["slices"]:
            return slice_ * self.groups + group
        return group * self.slices + slice_

    def ranks_of_group(self, group: int, stage: int = 0, replica: int = 0) -> tuple[int, ...]:
        """The ranks of one group, by slice."""
        first, apart = self.rank(group, 0, stage, replica), self.strides["slices"]
        return tuple(range(first, first + self.slices * apart, apart))

    def ranks_of_slice(self, slice_: int, stage: int = 0, replica: int = 0) -> tuple[int, ...]:
        """The ranks of one slice position, by group."""
        first, apart = self.rank(0, slice_, stage, replica), self.strides["groups"]
        return tuple(range(first, first + self.groups * apart, apart))

    def ways(self, axis: Axis) -> int:  # noqa: PLR0911  one an axis
        """Into how many shares an axis cuts."""
        match axis:
            case "groups":
                return self.groups
            case "slices":
                return self.slices
            case "tensor":
                return self.partitions
            case "experts":
                return self.experts
            case "expert_tensor":
                return self.expert_devices // self.experts
            case "replicas":
                return self.expert_data
            case "spread":
                return self.expert_devices

    def index(self, axis: Axis, rank: int) -> int:  # noqa: PLR0911  one an axis
        """Which of an axis' shares is a rank's."""
        match axis:
            case "groups":
                return self.group_of(rank)
            case "slices":
                return self.slice_of(rank)
            case "tensor":
                return self.position(rank)
            case "experts":
                return self._expert_position(rank) * self.experts // self.expert_devices
            case "expert_tensor":
                return self._expert_position(rank) % (self.expert_devices // self.experts)
            case "replicas":
                return self.team_of(rank)[1] % self.expert_data
            case "spread":
                return self._expert_position(rank)

    def share(self, axis: Axis, rank: int, size: int) -> Interval:
        """A rank's share of ``range(size)`` over an axis: as even as can be, or by ``group_shares``."""
        ways, index = self.ways(axis), self.index(axis, rank)
        if self.group_shares is None or axis in {"slices", "replicas"}:
            return share(size, ways, index)
        weights = self.weights_of_groups
        if axis != "groups":
            weights = tuple([weight for weight in weights for _ in range(self.slices)])  # slices lie side by side
            each = self.partitions // self.experts  # ranks that together hold an expert
            of_ways = [weights[first : first + each] for first in range(0, self.partitions, each)]
            if axis == "experts":
                weights = tuple(map(sum, of_ways))
            elif axis == "expert_tensor":
                weights = of_ways[self.index("experts", rank)]
        return weighted_shares(size, weights)[index]

    @property
    def weights_of_groups(self) -> tuple[int, ...]:
        """The weights that ``group_shares`` gives; none where it gives none."""
        return tuple(map(int, self.group_shares.split("-"))) if self.group_shares else ()

    @property
    def unlike_groups(self) -> range:
        """Groups of which one has as much to do, and holds as much, as any: the first, which has most, or all."""
        return range(self.groups if self.group_shares else 1)

    @property
    def heaviest_group(self) -> int:
        """The first of the groups that have most."""
        weights = self.weights_of_groups
        return weights.index(max(weights)) if weights else 0

    def _expert_position(self, rank: int) -> int:
        """The place of a rank among those that hold experts: those whose sums meet first follow each other.

        These are the ranks of a team, where each takes its share of the tokens; else those of all replicas that have
        one place in their teams.
        """
        if self.expert_data == 1:
            return self.position(rank)
        place, replica = self.position(rank), self.index("replicas", rank)
        if self.residual == "sharded":
            return replica * self.partitions + place
        return place * self.expert_data + replica

    def sharing(self, replica: int) -> range:
        """The replicas that share experts with one of them."""
        first = replica - replica % self.expert_data
        return range(first, first + self.expert_data)

    def layers(self, stage: int, model: ModelSpec) -> range:
        """The layers of a stage."""
        return self.layers_of(stage, model.layers)

    def layers_of(self, stage: int, layers: int) -> range:
        """The layers of a stage: as ``stages`` has them, or as even as can be, the first one more."""
        if self.stages is None:
            return range(*share(layers, self.pipeline, stage))
        sizes = self.layers_of_stages
        return range(sum(sizes[:stage]), sum(sizes[: stage + 1]))

    def has_unlike_stages(self, model: ModelSpec) -> bool:
        """Whether stages may differ in more than one layer, or in the kinds of their layers."""
        return self.stages is not None or model.pattern is not None

    @property
    def layers_of_stages(self) -> tuple[int, ...]:
        """The sizes that ``stages`` gives; none where it gives none."""
        return tuple(map(int, self.stages.split("-"))) if self.stages else ()

    @property
    def sequences_of_replicas(self) -> tuple[int, ...]:
        """The sizes that ``batch_shares`` gives; none where it gives none."""
        return tuple(map(int, self.batch_shares.split("-"))) if self.batch_shares else ()

    def most_sequences(self, batch: int) -> int:
        """Sequences of the replica that has most."""
        if self.batch_shares is None:
            return -(-batch // self.data)
        return max(self.sequences_of_replicas)

    def fewest_sequences(self, batch: int) -> int:
        """Sequences of the smallest microbatch."""
        if sizes := self.sequences_of_replicas:
            return min(sizes) // self.microbatches
        return batch // (self.data * self.microbatches)

    def batch(self, replica: int, microbatch: int, workload: WorkloadSpec | Step) -> Interval:
        """The sequences of a microbatch of a replica: as even as can be, the first replicas one more.

        With ``batch_shares`` the replicas have these, and only what a replica has is cut evenly. Replicas that share
        experts have microbatches of equal number beside each other, so that they join to one interval.
        """
        if sizes := self.sequences_of_replicas:
            start = sum(sizes[:replica])
            first, last = share(sizes[replica], self.microbatches, microbatch)
            return (start + first, start + last)
        parts, among = self.data * self.microbatches, replica % self.expert_data
        first = (replica - among) * self.microbatches
        return share(workload.batch, parts, first + microbatch * self.expert_data + among)

    def microbatch(self, replica: int, microbatch: int, workload: WorkloadSpec | Step) -> Microbatch:
        """The sequences of a microbatch of a replica, and of the replicas that share experts with it."""
        own, every = self.batch(replica, microbatch, workload), self.sharing(replica)
        if len(every) == 1:
            return Microbatch(own, own)
        first, last = (self.batch(one, microbatch, workload) for one in (every[0], every[-1]))
        return Microbatch(own, (first[0], last[1]))

    def microbatch_of(self, sequences: int, workload: WorkloadSpec | Step) -> Microbatch:
        """A microbatch of so many sequences of the first replica; of joined ones there may be some more."""
        if self.expert_data == 1:
            return Microbatch((0, sequences), (0, sequences))
        even = workload.batch % (self.data * self.microbatches) == 0
        joined = self.expert_data * sequences if even else self.expert_data * (sequences - 1) + 1
        return Microbatch((0, sequences), (0, joined))


def sequences_needed(layout: Layout, workload: WorkloadSpec) -> int:
    """Sequences that the smallest microbatch must have, so that every device has some of those that are shared."""
    by_sequences = layout.slices if layout.slicing == "batch" else 1
    stream = layout.residual == "sharded" and rows_of(workload) < layout.partitions
    return max(by_sequences, layout.partitions if stream else 1)


def rows_of(workload: WorkloadSpec) -> int:
    """Query rows of a sequence that devices may share: of a generation that of a decode step."""
    return workload.seq_len if workload.output_len is None else 1


def illegalities(
    layout: Layout, model: ModelSpec, workload: WorkloadSpec, devices: int, *, differs: bool = False
) -> list[str]:
    """Why this layout cannot compute this model and workload on this number of devices; empty where it can.

    Sizes that do not divide are cut as evenly as can be; what is refused would leave a device without a piece, or would
    change the function. Each reason is one clause, fit for a table: "8 slices would cut a softmax of 128 dims".

    Args:
        layout: how it is cut.
        model: what is cut.
        workload: the step, or the generation.
        devices: those of the cluster.
        differs: whether their hosts do: then the last devices may have nothing to do, and replicas share no experts.
    """
    reasons = []
    if layout.devices > devices or (layout.devices < devices and not differs):
        reasons.append(f"{layout} takes {layout.devices} devices; there are {devices}")
    blocks = [model.alike(kind) for kind in model.kinds]
    reasons += _each(_ungrouped(layout.groups, block) for block in blocks)
    reasons += _each(unsliced(layout, block, workload) for block in blocks)
    if layout.combine == "concat" and model.hidden_size < layout.partitions:
        reasons.append(f"{layout.partitions} partitions for a hidden size of {model.hidden_size}")
    if model.vocabulary and model.vocabulary.size < layout.partitions:
        reasons.append(f"{layout.partitions} partitions for a vocabulary of {model.vocabulary.size}")
    reasons += _unspread(layout, blocks)
    reasons += _unexpanded(layout, blocks, workload)
    reasons += _without_rows(layout, workload)
    reasons += _unsharded(layout, model, workload)
    reasons += _undealt(layout, model, workload)
    reasons += _unweighted(layout)
    if differs and layout.expert_data > 1:
        reasons.append(f"experts shared by {layout.expert_data} replicas, and hosts differ")
    if layout.microbatches % layout.interleave:
        microbatches = counted(layout.microbatches, "microbatch", "microbatches")
        reasons.append(f"{layout.interleave} interleaved at a time do not divide {microbatches}")
    return reasons


def _undealt(layout: Layout, model: ModelSpec, workload: WorkloadSpec) -> list[str]:
    """Why layers cannot be dealt to the stages so, or sequences to the replicas."""
    reasons = []
    if model.layers < layout.pipeline:
        reasons.append(f"{layout.pipeline} stages for {model.layers} layers")
    if sizes := layout.layers_of_stages:
        if len(sizes) != layout.pipeline:
            reasons.append(f"the sizes of {len(sizes)} stages, {layout.stages}, for {layout.pipeline} stages")
        elif sum(sizes) != model.layers:
            reasons.append(f"stages {layout.stages} have {sum(sizes)} layers; the model has {model.layers}")
    return reasons + _without_sequences(layout, workload)


def _unweighted(layout: Layout) -> list[str]:
    """Why the groups cannot have shares by such weights."""
    weights = layout.weights_of_groups
    if not weights:
        return []
    reasons = []
    if len(weights) != layout.groups:
        reasons.append(f"the weights of {len(weights)} groups, {layout.group_shares}, for {layout.groups} groups")
    if layout.expert_data > 1:
        reasons.append("group_shares of replicas that share experts, which lie across groups")
    if parts_a_group(layout):
        reasons.append(f"group_shares, and the placement {layout.placement} parts the slices of a group")
    return reasons


def parts_a_group(layout: Layout) -> bool:
    """Whether ranks of other groups lie between the slices of one."""
    return min(layout.groups, layout.slices) > 1 and layout.strides["groups"] < layout.strides["slices"]


def _without_sequences(layout: Layout, workload: WorkloadSpec) -> list[str]:
    """Why the replicas cannot have such shares of the batch."""
    reasons = []
    if sizes := layout.sequences_of_replicas:
        if len(sizes) != layout.data:
            reasons.append(f"the shares of {len(sizes)} replicas, {layout.batch_shares}, for {layout.data} replicas")
        elif sum(sizes) != workload.batch:
            reasons.append(
                f"batch_shares {layout.batch_shares} have {sum(sizes)} sequences; the batch {workload.batch}"
            )
        elif min(sizes) < layout.microbatches:
            reasons.append(f"{layout.microbatches} microbatches for a replica's {min(sizes)} sequences")
    if layout.batch_shares and layout.expert_data > 1:
        reasons.append("batch_shares of replicas that share experts, whose microbatches lie side by side")
    elif not layout.batch_shares and workload.batch < layout.data * layout.microbatches:
        parts = f"{layout.data} replicas"
        parts += f" x {layout.microbatches} microbatches" if layout.microbatches > 1 else ""
        reasons.append(f"{parts} for a batch of {workload.batch}")
    return reasons


def _unexpanded(layout: Layout, blocks: Sequence[ModelSpec], workload: WorkloadSpec) -> list[str]:
    """Why a prefill cannot expand latents."""
    if layout.latent_prefill == "absorbed":
        return []
    if not any(block.attention.latent for block in blocks):
        return ["an expanded prefill, and the model has no latents"]
    return ["an expanded prefill of a KV cache, and one pass has none"] if workload.output_len is None else []


def _without_rows(layout: Layout, workload: WorkloadSpec) -> list[str]:
    """Why a prefill cannot share query rows."""
    if layout.key_prefill == "key":
        return []
    if layout.shared_dim != "key":
        return ["a prefill by query rows, and no slices that share a KV cache by key"]
    if workload.output_len is None or (rows := chunk(workload, layout)) >= layout.slices:
        return []
    return [f"{layout.slices} slices of {rows} query {'row' if rows == 1 else 'rows'} of a prefill"]


def chunk(workload: WorkloadSpec, layout: Layout) -> int:
    """Tokens of each sequence in one prefill step: all sequences of a replica go on together.

    A chunk ends with a block of the cache where it holds one.
    """
    sequences = layout.most_sequences(workload.batch)
    most = max(1, workload.prefill_tokens // sequences)
    if most >= workload.seq_len:
        return workload.seq_len
    return most - most % layout.key_block if most >= layout.key_block else most


def _each(reasons: Iterable[list[str]]) -> list[str]:
    """The reasons of several blocks, each once."""
    return list(dict.fromkeys(reason for found in reasons for reason in found))


def _ungrouped(groups: int, model: ModelSpec) -> list[str]:
    """Why the heads cannot be spread over this number of groups."""
    heads, keys = model.attention.heads, model.attention.key_heads
    if groups <= keys:
        return []
    if groups > heads:
        return [f"{groups} groups for {heads} heads"]
    return [f"{groups} groups are more than the {keys} KV heads, and no multiple of them"] if groups % keys else []


def unsliced(  # noqa: PLR0911  one a slicing
    layout: Layout, model: ModelSpec, workload: WorkloadSpec
) -> list[str]:
    """Why a group's work cannot be sliced so."""
    attention, slices = model.attention, layout.slices
    if slices == 1:
        return []
    if (least := min(attention.head_dim, attention.value_dim)) < slices:
        return [f"{slices} slices for a head of {least} dims"]
    match layout.slicing:
        case "batch":
            smallest = layout.fewest_sequences(workload.batch)
            plural = "" if smallest == 1 else "s"
            return [f"{slices} slices of a microbatch of {smallest} sequence{plural}"] if smallest < slices else []
        case "query":
            if workload.output_len is not None:
                return [f"{slices} slices by query rows would cut no KV cache; by key they do"]
            rows = workload.seq_len
            return [f"{slices} slices of {rows} query {'row' if rows == 1 else 'rows'}"] if rows < slices else []
        case "key":
            return [f"{slices} slices of a KV cache, and one pass has none"] if workload.output_len is None else []
        case _:
            return _cut_heads(slices, model)


def _cut_heads(slices: int, model: ModelSpec) -> list[str]:
    """Why the dims of a head cannot be attended with apart from each other."""
    attention = model.attention
    if attention.head_dim % slices:
        return [f"{slices} slices do not divide a head of {attention.head_dim} dims"]
    if attention.softmax_slices % slices:
        return [f"{slices} slices would cut a softmax of {attention.softmax_width} dims"]
    if attention.rotary:
        return [f"{slices} slices by head_dim would part the pairs of the rotary embedding"]
    if attention.qk_norm and attention.qk_norm_over == "head":
        return [f"{slices} slices by head_dim would cut the q/k norm"]
    return [f"{slices} slices by head_dim would cut the norm of values"] if attention.value_norm else []


def _unspread(layout: Layout, blocks: Sequence[ModelSpec]) -> list[str]:
    """Why the feed-forward networks, or their experts, cannot be spread so over a team, or over several."""
    if layout.experts > 1 and not any(block.feed_forward.experts for block in blocks):
        return [f"{layout.experts} ways of experts, and the model has none"]
    if layout.expert_devices % layout.experts:
        return [f"{layout.experts} ways of experts do not divide {_partitions(layout)}"]
    reasons = _unshared(layout, blocks) if layout.expert_data > 1 else []
    return reasons or _each(_too_narrow(layout, block) for block in blocks)


def _partitions(layout: Layout) -> str:
    """The devices that experts are spread over: ``8 partitions of 4 replicas``."""
    return f"{layout.partitions} partitions" + (f" of {layout.expert_data} replicas" if layout.expert_data > 1 else "")


def _unshared(layout: Layout, blocks: Sequence[ModelSpec]) -> list[str]:
    """Why replicas cannot share experts."""
    shared, reasons = layout.expert_data, list[str]()
    mixtures = [block for block in blocks if block.feed_forward.experts]
    if not mixtures:
        reasons.append(f"experts that {shared} replicas share, and the model has none")
    if layout.data % shared:
        reasons.append(f"experts that {shared} replicas share, which do not divide {layout.data} replicas")
    if any(block.side_by_side or not block.norm.before for block in mixtures):
        reasons.append("experts that replicas share, which read what attention reads or the residual stream itself")
    if layout.partitions > 1 and layout.strides["data"] < layout.partitions:
        reasons.append(f"experts that replicas share, which the placement {layout.placement} puts inside a team")
    # Sums meet in two steps; what the first leaves has to be whole experts, or pieces of one.
    first = layout.partitions if layout.residual == "sharded" else shared
    pieces = layout.expert_devices // layout.experts
    if max(first, pieces) % min(first, pieces):
        reasons.append(f"{pieces} pieces of an expert, of which {first} devices sum a part")
    return reasons


def _too_narrow(layout: Layout, block: ModelSpec) -> list[str]:
    """Why there is not a piece of a feed-forward network for every device."""
    width, experts = block.feed_forward.intermediate_size, block.feed_forward.experts
    devices = layout.expert_devices if experts else layout.partitions
    shared = experts.shared.intermediate_size if experts and experts.shared else devices
    if shared < devices:
        return [f"{_partitions(layout)} for a shared expert's width of {shared}"]
    if layout.experts == 1 or experts is None:
        if width >= devices:
            return []
        held = _partitions(layout) if experts else f"{layout.partitions} partitions"
        return [f"{held} for a feed-forward width of {width}"]
    reasons = []
    if experts.count < layout.experts:
        reasons.append(f"{layout.experts} ways for {experts.count} experts")
    if width < (cut := devices // layout.experts):
        reasons.append(f"{cut} pieces of an expert's width of {width}")
    return reasons


def _unsharded(layout: Layout, model: ModelSpec, workload: WorkloadSpec) -> list[str]:
    """Why the residual stream cannot be sharded by tokens."""
    if layout.residual == "sharded" and not model.norm.before:
        return ["a sharded residual stream, which attention itself reads where no norm comes before it"]
    rows, sequences = rows_of(workload), layout.fewest_sequences(workload.batch)
    if layout.residual == "replicated" or max(rows, sequences) >= layout.partitions:
        return []
    return [f"{layout.partitions} shares of a residual stream of {rows} rows in {sequences} sequences"]


def full_extents(model: ModelSpec, step: Step) -> dict[str, int]:
    """The size of every named dim of a model's tensors in a step; of a model whose layers are alike (``alike``).

    A position of the KV cache stands as three dims, position = (key_cycle x lanes + key_lane) x block + key_offset.
    """
    experts, vocabulary = model.feed_forward.experts, model.vocabulary
    extents = {
        "batch": step.batch,
        "seq": step.seq_len,
        "hidden": model.hidden_size,
        "head": model.attention.heads,
        "kv_head": model.attention.key_heads,
        "head_dim": model.attention.head_dim,
        "ffn": model.feed_forward.intermediate_size,
    }
    extents[model.attention.value_dim_name] = model.attention.value_dim
    if latent := model.attention.latent:
        extents |= {
            "nope_dim": model.attention.unrotated_dim,
            "rope_dim": latent.rope_dim,
            "kv_rank": latent.kv_rank,
            "latent": latent.kv_rank + latent.rope_dim,
        }
        if latent.q_rank is not None:
            extents["q_rank"] = latent.q_rank
    if sparse := model.attention.sparse:
        positions = step.seq_len if step.cached is None else step.positions
        extents |= {
            "index_head": sparse.heads,
            "index_dim": sparse.head_dim,
            "choice": min(sparse.top_k, positions),
        }
    if experts:
        extents["expert"] = experts.count
        if experts.shared:
            extents["shared_ffn"] = experts.shared.intermediate_size
    if model.attention.qk_norm and model.attention.qk_norm_over == "projection":
        extents["qk"] = 2  # queries and keys, each with a sum of its own
    if model.layer_scale:
        extents["one"] = 1
    if vocabulary:
        extents["vocab"] = vocabulary.size
    if step.cached is not None:
        extents |= {
            "key_cycle": -(-step.positions // (step.lanes * step.block)),
            "key_lane": step.lanes,
            "key_offset": step.block,
            "softmax": model.attention.softmax_slices,
            "vocab_share": step.vocabulary_shares,
        }
    return extents
