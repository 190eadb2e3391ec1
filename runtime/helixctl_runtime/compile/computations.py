"""Computations: the kernel of every kind, over the views that its action names."""

from __future__ import annotations

import torch
from torch.nn.attention import SDPBackend

from helixctl import program
from helixctl.dag import (
    Activation,
    Add,
    Attention,
    Bias,
    Dag,
    Embed,
    Experts,
    LastToken,
    Linear,
    Multiply,
    Narrow,
    Norm,
    Rotate,
    Route,
)
from helixctl_runtime import kernels
from helixctl_runtime.compile.memory import Memory
from helixctl_runtime.compile.weights import LoadedWeights


class Kernels:
    """What binds actions to kernels.

    Attributes:
        attention: the fused kernels that were chosen.
        on_device: whether all that was bound runs on a CUDA device without the host.
    """

    def __init__(self, dag: Dag, made: program.Program, memory: Memory, weights: LoadedWeights) -> None:
        self._dag, self._program, self._memory, self._weights = dag, made, memory, weights
        self.attention: set[SDPBackend] = set()
        self.on_device = memory.device.type == "cuda"

    def bind(self, action: program.Compute) -> kernels.Step:  # noqa: PLR0911  one case a kind
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
            case Rotate():
                cos, sin = (self._memory.tensor(self._program.constants[c]) for c in action.constants)
                return kernels.rotate(reads[0], cos, sin, out)
            case Attention():
                return self._attention(action, op, reads, out)
            case Activation(function):
                return kernels.activation(function, reads[0], out)
            case Multiply():
                return kernels.multiply(reads[0], reads[1], out)
            case Add():
                return kernels.add(reads[0], reads[1], out)
            case LastToken():
                value = self._dag.value[action.task.inputs[0]]
                start, whole = value.region[1][0], value.region[1] == self._dag.tensor[value.tensor].full[1]
                return kernels.last_token(reads[0], reads[1], start, out, whole=whole)
            case Narrow():
                return kernels.copy([(out, reads[0])])
        return self._with_weights(action, reads, out)

    def _with_weights(self, action: program.Compute, reads: list[torch.Tensor], out: torch.Tensor) -> kernels.Step:
        weights = [self._weights.raw(each) for each in action.weights]
        held = self._dag.value[action.weights[0].values[0]]
        match action.task.op:
            case Embed():
                first, whole = held.region[0][0], held.region[0] == self._dag.tensor[held.tensor].full[0]
                return kernels.embed(reads[0].flatten(), weights[0], first, out.flatten(0, 1), whole=whole)
            case Norm(_, dim, eps):
                axis = self._dims(action.task.inputs[0]).index(dim)
                return kernels.norm(reads[0].movedim(axis, -1), weights[0], eps, out.movedim(axis, -1))
            case Route(top_k, renormalise):
                x, gates = reads[0].flatten(0, 1), out.flatten(0, 1)
                return kernels.route(x, weights[0], top_k, gates, renormalise=renormalise)
            case Experts(function, top_k):
                x, gates = (t.flatten(0, 1) for t in reads)
                gates = gates[:, slice(*held.region[0])]
                self.on_device &= kernels.on_device(x, weights)
                return kernels.experts(function, x, gates, weights, out.flatten(0, 1), top_k)
        raise TypeError(action.task.kind)  # a collective

    def _attention(
        self, action: program.Compute, op: Attention, qkv: list[torch.Tensor], out: torch.Tensor
    ) -> kernels.Step:
        mask = self._memory.tensor(self._program.constants[action.constants[0]]) if action.constants else None
        self.attention.add(kernels.backend_of(op, qkv[1], out, mask=mask is not None))
        start = self._dag.value[action.task.inputs[0]].region[1][0]
        return kernels.attention(op, qkv, start, out, mask)

    def _dims(self, value_id: str) -> tuple[str, ...]:
        return self._dag.tensor[self._dag.value[value_id].tensor].dims
