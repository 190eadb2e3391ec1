"""Computations: the kernel of every kind, over the views that its action names."""

from __future__ import annotations

from math import prod

import torch
from torch.nn.attention import SDPBackend

from helixctl import program
from helixctl.dag import (
    Activation,
    Add,
    Attention,
    Best,
    Bias,
    CachedAttention,
    CachedSelect,
    CacheWrite,
    Choose,
    Dag,
    Embed,
    Expand,
    Experts,
    HeadLinear,
    Join,
    LastToken,
    Linear,
    Merge,
    MergeSelect,
    Multiply,
    Narrow,
    Norm,
    NormBySums,
    PartialAttention,
    PartialSelect,
    Rotate,
    RotateAt,
    Route,
    Sample,
    Scale,
    ScaleBy,
    ScaleQueries,
    Select,
    SquareSums,
    Task,
    TokenGate,
)
from helixctl.dag.formulas import expert_matrices
from helixctl_runtime import kernels
from helixctl_runtime.compile.memory import Memory
from helixctl_runtime.compile.weights import LoadedWeights


class Kernels:
    """What binds actions to kernels.

    Attributes:
        attention: the fused kernels that were chosen.
        on_device: whether all that was bound runs on a CUDA device without the host.
        gates: of each task that routes, by its place: the value that it makes, and where.
    """

    def __init__(self, dag: Dag, made: program.Program, memory: Memory, weights: LoadedWeights) -> None:
        self._dag, self._program, self._memory, self._weights = dag, made, memory, weights
        self.attention: set[SDPBackend] = set()
        self.on_device = memory.device.type == "cuda"
        self.gates: dict[int, tuple[str, torch.Tensor]] = {}

    def bind(self, action: program.Compute) -> kernels.Step:  # noqa: C901, PLR0911, PLR0912  one case a kind
        """The call that runs an action.

        Raises:
            HelixError: HX508, no fused attention for this device and dtype.
        """
        reads = [self._memory.tensor(view) for view in action.reads]
        out = self._memory.tensor(action.writes[0])
        match op := action.task.op:
            case Linear():
                return kernels.linear(reads[0], self._weights.matrix(action.weights[0]), out)
            case Bias():
                return kernels.add(reads[0], self._weights.in_order(action.weights[0]), out)
            case Rotate(rotary):
                cos, sin = (self._memory.tensor(self._program.constants[c]) for c in action.constants)
                return kernels.rotate(reads[0], cos, sin, out, op.last, interleaved=rotary.interleaved)
            case ScaleBy():
                return kernels.multiply_by(reads[0], self._weights.raw(action.weights[0]), out)
            case ScaleQueries():
                (scales,) = (self._memory.tensor(self._program.constants[c]) for c in action.constants)
                start = self._dag.value[action.task.inputs[0]].region[1][0]
                return kernels.scale_queries(reads[0], scales, out, reads[1] if reads[1:] else None, start)
            case Join():
                return kernels.join(reads[0], reads[1], out)
            case Attention():
                return self._attention(action, op, reads, out)
            case Activation(function):
                return kernels.activation(function, reads[0], out)
            case Scale():
                return kernels.scale(op, reads[0], out)
            case SquareSums():
                return kernels.square_sums(reads[0], reads[1], self._key_share(action), out)
            case NormBySums():
                return self._norm_by_sums(action, op, reads, out)
            case Multiply():
                if action.merged is None:
                    return kernels.multiply(reads[0], reads[1], out)
                return self._gated(action.merged, reads, out)
            case Add(multiplier):
                return kernels.add(reads[0], reads[1], out, multiplier)
            case LastToken():
                value = self._dag.value[action.task.inputs[0]]
                start, whole = value.region[1][0], value.region[1] == self._dag.tensor[value.tensor].full[1]
                whole &= self._dag.work.cached is None  # a sequence may bring no token
                return kernels.last_token(reads[0], reads[1], start, out, whole=whole)
            case Narrow():
                return kernels.copy([(out, reads[0])])
            case Sample(sampling):
                (first, _), _ = self._dag.value[action.task.inputs[0]].region
                seed, length, count = reads[1:]
                return kernels.sample(sampling, reads[0], (seed, length, count), first, out)
            case Select():
                q, k, factor = reads
                start = self._dag.value[action.task.inputs[0]].region[1][0]
                return kernels.select(op, (q, k, factor), start, out)
            case MergeSelect():
                return kernels.merge_select(reads[0], reads[1], out)
            case (
                RotateAt()
                | CacheWrite()
                | Expand()
                | CachedAttention()
                | PartialAttention()
                | Merge()
                | Best()
                | Choose()
            ):
                return self._of_a_cache(action, reads, [self._memory.tensor(view) for view in action.writes])
            case CachedSelect() | PartialSelect():
                return self._of_a_cache(action, reads, [self._memory.tensor(view) for view in action.writes])
        return self._with_weights(action, reads, out)

    def _gated(self, activation: Task, reads: list[torch.Tensor], out: torch.Tensor) -> kernels.Step:
        if not isinstance(activation.op, Activation):
            raise TypeError(activation.kind)
        return kernels.gated(activation.op.function, reads[0], reads[1], out)

    def _of_a_cache(  # noqa: PLR0911  one a kind
        self, action: program.Compute, reads: list[torch.Tensor], writes: list[torch.Tensor]
    ) -> kernels.Step:
        constants = [self._memory.tensor(self._program.constants[c]) for c in action.constants]
        first = self._dag.value[action.task.inputs[action.operand]]
        match op := action.task.op:
            case RotateAt(rotary):
                (x, length), (cos, sin) = reads, constants
                start, interleaved = first.region[1][0], rotary.interleaved
                return kernels.rotate_at(x, length, start, (cos, sin), writes[0], op.last, interleaved=interleaved)
            case CacheWrite():
                *news, length, count = reads
                caches = [_keys(t) for t in writes]
                return kernels.cache_write(news, length, count, self._lane(action, constants[0]), caches)
            case Expand():
                x, length, count = reads
                weights = tuple(self._weights.raw(each) for each in action.weights)
                lane, (k, v) = self._lane(action, constants[0]), (_keys(t) for t in writes)
                return kernels.expand(_keys(x), (weights[0], weights[1]), (length, count), lane, k, v)
            case CachedAttention() | PartialAttention():
                q, k, v, length, count, *chosen = reads
                selected = chosen[0] if chosen else None
                sinks = self._weights.raw(action.weights[0]) if action.weights else None
                lane, start = self._lane(action, constants[0]), first.region[1][0]
                both, counts = (_keys(k), _keys(v)), (length, count)
                if len(writes) == 1:
                    return kernels.cached_attention(op, q, both, counts, lane, start, writes[0], None, sinks, selected)
                part, lse = (t.squeeze(1) for t in writes)
                return kernels.cached_attention(op, q, both, counts, lane, start, part, lse, None, selected)
            case CachedSelect() | PartialSelect():
                q, k, factor, length, count = reads
                lane, start = self._lane(action, constants[0]), first.region[1][0]
                *best, keys = (t.squeeze(1) if len(writes) > 1 else t for t in writes)
                indexed = (q, _keys(k), factor)
                return kernels.cached_select(op, indexed, (length, count), lane, start, keys, *best)
            case Merge(width):
                sinks = self._weights.raw(action.weights[0]) if action.weights else None
                return kernels.merge(reads[0], reads[1], width, first.region[4][0], writes[0], sinks)
            case Best():
                return kernels.best(reads[0], first.region[1][0], writes[0], writes[1])
        return kernels.choose(reads[0], reads[1], writes[0])

    def _lane(self, action: program.Compute, positions: torch.Tensor) -> kernels.Lane:
        (constant,) = action.constants
        if not isinstance(constant, program.KeyPositions):
            raise TypeError(constant)
        return kernels.Lane(positions, constant.lanes, constant.lane, constant.block)

    def _with_weights(self, action: program.Compute, reads: list[torch.Tensor], out: torch.Tensor) -> kernels.Step:
        weights = [self._weights.raw(each) for each in action.weights]
        held = self._dag.value[action.weights[0].values[0]] if weights else None
        match op := action.task.op:
            case Norm(_, dim):
                axis = self._dims(action.task.inputs[0]).index(dim)
                return kernels.norm(op, reads[0].movedim(axis, -1), weights, out.movedim(axis, -1))
            case _ if held is None:
                raise TypeError(action.task.kind)
            case HeadLinear(contract):
                dims = self._dims(action.task.inputs[1])
                places = [dims.index("head"), dims.index(contract)]
                third = next(i for i in range(3) if i not in places)
                return kernels.head_linear(reads[0], weights[0].permute(*places, third), out)
            case Embed(multiplier, in_dtype):
                if in_dtype:
                    multiplier = float(torch.tensor(multiplier, dtype=out.dtype))
                first, whole = held.region[0][0], held.region[0] == self._dag.tensor[held.tensor].full[0]
                return kernels.embed(reads[0].flatten(), weights[0], first, out.flatten(0, 1), multiplier, whole=whole)
            case Route(top_k, renormalise, router):
                x, gates = reads[0].flatten(0, 1), out.flatten(0, 1)
                matrix, *biases = weights
                self.gates[action.place] = action.task.outputs[0], gates
                return kernels.route(x, matrix, top_k, gates, renormalise=renormalise, router=router, biases=biases)
            case TokenGate():
                x, t = (each.flatten(0, 1) for each in reads)
                return kernels.token_gate(x, t, weights[0], out.flatten(0, 1))
            case Experts():
                x, gates = (t.flatten(0, 1) for t in reads)
                gates = gates[:, slice(*held.region[0])]
                matrices = weights[: len(expert_matrices([self._dag.value[v] for v in action.task.inputs]))]
                self.on_device &= kernels.on_device(x, matrices)
                of_products = None
                if len(weights) > len(matrices):
                    up, down, *gate = weights[len(matrices) :]
                    # Of the parts of the width the first alone counts the bias of what they make together.
                    of_products = kernels.ExpertBiases(up, down if held.region[2][0] == 0 else None, *gate)
                return kernels.experts(op, x, gates, matrices, out.flatten(0, 1), of_products)
        raise TypeError(action.task.kind)  # a collective

    def _key_share(self, action: program.Compute) -> float:
        """How many of the heads of queries that attend with its heads of keys a rank has: 1, or less than 1."""
        q, k = (self._dag.value[v] for v in action.task.inputs)
        heads, keys = (self._dag.tensor[x.tensor].shape[2] for x in (q, k))
        return q.shape[2] * keys / (k.shape[2] * heads)

    def _norm_by_sums(
        self, action: program.Compute, op: NormBySums, reads: list[torch.Tensor], out: torch.Tensor
    ) -> kernels.Step:
        weight = self._dag.value[action.weights[0].values[0]]
        tensor = self._dag.tensor[weight.tensor]
        sums = reads[1][..., 0 if tensor.dims[0] == "head" else 1]
        return kernels.norm_by_sums(op, reads[0], sums, prod(tensor.shape), self._weights.raw(action.weights[0]), out)

    def _attention(
        self, action: program.Compute, op: Attention, qkv: list[torch.Tensor], out: torch.Tensor
    ) -> kernels.Step:
        start = self._dag.value[action.task.inputs[0]].region[1][0]
        if op.top_k is not None:
            return kernels.sparse_attention(op, qkv[:3], qkv[3], start, out)
        masks = [(c, self._memory.tensor(self._program.constants[c])) for c in action.constants]
        mask = next(((c, numbers) for c, numbers in masks if isinstance(c, program.CausalMask)), None)
        sinks = self._weights.raw(action.weights[0]) if action.weights else None
        backend = kernels.backend_of(op, qkv, start, sinks=sinks is not None)
        if backend is not None:
            self.attention.add(backend)
        return kernels.attention(op, qkv, start, out, mask, sinks)

    def _dims(self, value_id: str) -> tuple[str, ...]:
        return self._dag.tensor[self._dag.value[value_id].tensor].dims


def _keys(cache: torch.Tensor) -> torch.Tensor:
    """One lane of a cache, or all, (batch, cycle, lane, offset, head, head_dim), as (batch, keys, head, head_dim)."""
    batch, cycles, lanes, block, *rest = cache.shape
    return cache.view(batch, cycles * lanes * block, *rest)
