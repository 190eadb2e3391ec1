"""Computations: every kind becomes a kernel over buffers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

import torch

from helixctl.dag import (
    Activation,
    Add,
    Attention,
    Bias,
    Embed,
    Experts,
    LastToken,
    Linear,
    Multiply,
    Narrow,
    Norm,
    Rotate,
    Route,
    Task,
)
from helixctl.plan import Interval
from helixctl.spec import RotarySpec
from helixctl_runtime import kernels
from helixctl_runtime.buffers import Buffer, refined
from helixctl_runtime.compile.workspace import Workspace
from helixctl_runtime.dtypes import HALF, TORCH
from helixctl_runtime.rotary import rotations

Elementwise = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], kernels.Step]


class Computations(Workspace):
    """One method a kind of computation."""

    def _computation(self, task: Task) -> None:  # noqa: C901, PLR0912  one case a kind
        match task.op:
            case Embed():
                self._embed(task)
            case Norm(_, dim, eps):
                self._norm(task, dim, eps)
            case Linear(contract):
                self._linear(task, contract)
            case Bias():
                self._bias(task)
            case Rotate(rotary):
                self._rotate(task, rotary)
            case Attention():
                self._attention(task, task.op)
            case Activation(function):
                x = self._buffer(task.inputs[0])
                self._do(kernels.activation(function, x.data, self._new(task.outputs[0]).data))
            case Multiply():
                self._elementwise(task, kernels.multiply)
            case Route():
                self._route(task, task.op)
            case Experts(function):
                self._experts(task, function)
            case Add():
                self._elementwise(task, kernels.add)
            case LastToken():
                self._last_token(task)
            case Narrow(dim):
                self._narrow(task, dim)

    def _embed(self, task: Task) -> None:
        ids, table = self._plain(task.inputs[0]).data, self._loaded(task.inputs[1])
        place = self.dag.value[task.inputs[1]]
        out = self._new(task.outputs[0]).data.flatten(0, 1)
        whole = place.region[0] == self.dag.tensor[place.tensor].full[0]
        self._do(kernels.embed(ids.flatten(), table, place.region[0][0], out, whole=whole))

    def _last_token(self, task: Task) -> None:
        x, length = (self._plain(v).data for v in task.inputs)
        value = self.dag.value[task.inputs[0]]
        start, whole = value.region[1][0], value.region[1] == self.dag.tensor[value.tensor].full[1]
        self._do(kernels.last_token(x, length, start, self._new(task.outputs[0]).data, whole=whole))

    def _narrow(self, task: Task, dim: str) -> None:
        axis = self._dims(task.inputs[0]).index(dim)
        first = self.dag.value[task.inputs[0]].region[axis][0]
        start, stop = self.dag.value[task.outputs[0]].region[axis]
        part = self._plain(task.inputs[0]).data.narrow(axis, start - first, stop - start)
        self._do(kernels.copy([(self._new(task.outputs[0]).data, part)]))

    def _linear(self, task: Task, contract: Sequence[str]) -> None:
        x, columns = self._matrix(task.inputs[0], contract)
        weight = self._weight(task.inputs[1:], columns)
        values = [self.dag.value[v] for v in task.outputs]
        dims = [self._dims(v) for v in task.outputs]
        rows = [d for d in self._dims(task.inputs[0]) if d not in contract]
        widths = [
            prod(n for d, n in zip(dim, v.shape, strict=True) if d not in rows)
            for dim, v in zip(dims, values, strict=True)
        ]
        memory = self.pool.take(list(task.outputs), x.shape[0] * sum(widths), TORCH[values[0].dtype])
        out = memory.view(x.shape[0], sum(widths))
        for value, dim, columns_of in zip(values, dims, out.split(widths, dim=1), strict=True):
            kept = value.shape[len(rows) :]
            data = columns_of.unflatten(1, kept).unflatten(0, value.shape[: len(rows)])
            self.buffers[value.id] = Buffer.plain(data, dim)
        self._do(kernels.linear(x, weight, out))

    def _bias(self, task: Task) -> None:
        made = len(task.outputs)
        for x_id, bias_id, out_id in zip(task.inputs[:made], task.inputs[made:], task.outputs, strict=True):
            x, bias = self._buffer(x_id), Buffer.plain(self._loaded(bias_id), self._dims(bias_id))
            factors = x.factors()
            cut, bias = self._new(out_id).split(factors), bias.split(factors)
            # A bias has the last dims of x, so that it lacks only leading axes.
            last = bias.in_order([a for a in cut.axes if a in bias.axes])
            self._do(kernels.add(x.in_order(cut.axes), last, cut.data))

    def _rotate(self, task: Task, rotary: RotarySpec) -> None:
        for x_id, out_id in zip(task.inputs, task.outputs, strict=True):
            x = self._plain(x_id).data
            cos, sin = self._rotations(rotary, x.shape[-1], self.dag.value[x_id].region[1], x.dtype)
            self._do(kernels.rotate(x, cos, sin, self._new(out_id).data))

    def _rotations(
        self, rotary: RotarySpec, head_dim: int, positions: Interval, dtype: torch.dtype
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Cosine and sine, (positions, 1, head_dim / 2), made once for all layers."""
        keys = [(name, rotary, head_dim, positions) for name in ("cos", "sin")]
        if keys[0] not in self.constants:
            wide = torch.float32 if dtype in HALF else dtype
            for key, numbers in zip(keys, rotations(rotary, head_dim, positions), strict=True):
                self.constants[key] = numbers.unsqueeze(1).to(self.device, wide)
        return self.constants[keys[0]], self.constants[keys[1]]

    def _attention(self, task: Task, op: Attention) -> None:
        qkv = [self._plain(v).data for v in task.inputs]
        out = self._new(task.outputs[0])
        start, stop = self.dag.value[task.inputs[0]].region[1]
        mask = self._mask(start, stop - start, qkv[0].dtype) if kernels.cut_rows(op, start, stop - start) else None
        backend = kernels.fused_attention(self.device.type, qkv[0].dtype, op.softmax_width, mask=mask is not None)
        self.attention.add(backend)
        dims = self._dims(task.outputs[0])
        self._do(kernels.attention(op, qkv, start, out.in_order([out.parts(d)[0] for d in dims]), mask))

    def _mask(self, start: int, rows: int, dtype: torch.dtype) -> torch.Tensor:
        """The mask of these query rows, made once for all layers."""
        key = ("mask", start, rows)
        if key not in self.constants:
            self.constants[key] = kernels.causal_mask(start, rows, dtype, self.device)
        return self.constants[key]

    def _norm(self, task: Task, dim: str, eps: float) -> None:
        x, weight = self._plain(task.inputs[0]), self._loaded(task.inputs[1])
        out = self._new(task.outputs[0])
        axis = self._dims(task.inputs[0]).index(dim)
        self._do(kernels.norm(x.data.movedim(axis, -1), weight, eps, out.data.movedim(axis, -1)))

    def _route(self, task: Task, op: Route) -> None:
        x, weight = self._rows(task.inputs[0]), self._loaded(task.inputs[1])
        out = self._new(task.outputs[0]).data.flatten(0, 1)
        self._do(kernels.route(x, weight, op.top_k, out, renormalise=op.renormalise))

    def _experts(self, task: Task, function: str) -> None:
        x, gates = self._rows(task.inputs[0]), self._rows(task.inputs[1])
        weights = [self._loaded(v) for v in task.inputs[2:]]
        first, last = self.dag.value[task.inputs[2]].region[0]
        out = self._new(task.outputs[0]).data.flatten(0, 1)
        self._do(kernels.experts(function, x, gates[:, first:last], weights, out))

    def _elementwise(self, task: Task, kernel: Elementwise) -> None:
        a, b = (self._buffer(v) for v in task.inputs)
        out = self._new(task.outputs[0])
        if (factors := refined(a, b)) is None:
            a, b = self._plain(task.inputs[0]), self._plain(task.inputs[1])
            factors = refined(a, b) or {}
        a, b, cut = a.split(factors), b.split(factors), out.split(factors)
        self._do(kernel(a.in_order(cut.axes), b.in_order(cut.axes), cut.data))
