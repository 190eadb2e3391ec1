"""One rank's part of a dag, compiled once into a flat list of actions over buffers that are there already."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch.nn.attention import SDPBackend

from helixctl.dag import (
    Activation,
    Add,
    AllGather,
    AllReduce,
    Attention,
    Broadcast,
    Dag,
    Experts,
    Linear,
    Norm,
    Route,
    SendReceive,
    Task,
    Value,
)
from helixctl.dag.liveness import last_needed
from helixctl_runtime import kernels
from helixctl_runtime.axes import Axes, as_sent, axes_of, plain
from helixctl_runtime.buffers import Buffer, refined
from helixctl_runtime.dtypes import TORCH
from helixctl_runtime.memory import Pool

Load = Callable[[Value], torch.Tensor]


@dataclass(frozen=True, slots=True)
class Compute:
    """Run a kernel. ``place`` is the task's place in the rank's order; the order's length means after all tasks."""

    place: int
    run: kernels.Step


@dataclass(frozen=True, slots=True, eq=False)
class Exchange:
    """Issue a collective: ``send`` and ``receive`` are contiguous (the same memory for an all-reduce)."""

    place: int
    task: Task
    send: torch.Tensor
    receive: torch.Tensor


@dataclass(frozen=True, slots=True)
class Wait:
    """Wait for a collective before its output is used. ``place`` is the collective's."""

    place: int
    exchange: Exchange


Action = Compute | Exchange | Wait


@dataclass(frozen=True, slots=True)
class Program:
    """What one rank does in a step.

    Attributes:
        tasks: how many tasks this rank takes part in.
        actions: in the order in which they are issued.
        inputs, outputs: buffers of the model's input and output on this rank, by value.
        attention: the fused kernels that are used.
        weight_nbytes, buffer_nbytes: memory taken for weights and for all other values.
    """

    rank: int
    tasks: int
    actions: tuple[Action, ...]
    inputs: dict[str, Buffer]
    outputs: dict[str, Buffer]
    attention: frozenset[SDPBackend]
    weight_nbytes: int
    buffer_nbytes: int


def compile_rank(dag: Dag, rank: int, device: torch.device, load: Load) -> Program:
    """Compile a rank's tasks.

    Args:
        dag: a proved document.
        rank: whose part.
        device: where it runs.
        load: gives the numbers of a weight's or an input's value, in the tensor's order of dims, on ``device``.

    Raises:
        HelixError: HX508, no fused attention for this device and dtype; whatever ``load`` raises.
    """
    return _Compiler(dag, rank, device, load).compile()


class _Compiler:
    def __init__(self, dag: Dag, rank: int, device: torch.device, load: Load) -> None:
        self.dag, self.rank, self.device, self.load = dag, rank, device, load
        self.axes = axes_of(dag)
        self.pool = Pool(device)
        self.buffers: dict[str, Buffer] = {}
        self.actions: list[Action] = []
        self.pending: dict[str, Exchange] = {}
        self.sending: Exchange | None = None
        self.attention: set[SDPBackend] = set()
        self.weights: dict[object, torch.Tensor] = {}
        self.place = 0

    def compile(self) -> Program:
        last = last_needed(self.dag, self.rank)
        inputs = {v: self._buffer(v) for v in self._given("input")}
        for place, name in enumerate(self.dag.order[self.rank]):
            self.place = place
            task = self.dag.task[name]
            self._await(task)
            self._task(task)
            for value_id in [v for v in self.buffers if last.get(v, -1) == self.place]:
                self.pool.release(value_id)
        for exchange in dict.fromkeys(self.pending.values()):
            self.actions.append(Wait(exchange.place, exchange))
        self._await_send()
        self.place = len(self.dag.order[self.rank])  # after every task
        outputs = {v: self._plain(v) for v in list(self.buffers) if self._role(v) == "output"}
        return Program(
            rank=self.rank,
            tasks=len(self.dag.order[self.rank]),
            actions=tuple(self.actions),
            inputs=inputs,
            outputs=outputs,
            attention=frozenset(self.attention),
            weight_nbytes=sum(w.nbytes for w in self.weights.values()),
            buffer_nbytes=self.pool.nbytes + sum(b.data.nbytes for b in inputs.values()),
        )

    # --- tasks -------------------------------------------------------------------------------------------------------

    def _task(self, task: Task) -> None:
        if task.is_collective:
            self._collective(task)
        else:
            self._computation(task)

    def _computation(self, task: Task) -> None:
        match task.op:
            case Linear(contract):
                self._linear(task, contract)
            case Attention():
                self._attention(task, task.op)
            case Norm(_, dim, eps):
                self._norm(task, dim, eps)
            case Activation(function):
                x = self._buffer(task.inputs[0])
                self._do(kernels.activation(function, x.data, self._new(task.outputs[0]).data))
            case Route(top_k):
                self._route(task, top_k)
            case Experts(function):
                self._experts(task, function)
            case Add():
                self._add(task)

    def _collective(self, task: Task) -> None:
        match task.op:
            case AllGather():
                self._all_gather(task)
            case AllReduce():
                self._all_reduce(task)
            case Broadcast():
                self._broadcast(task)
            case SendReceive():
                self._send_receive(task)

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

    def _attention(self, task: Task, op: Attention) -> None:
        qkv = [self._plain(v).data for v in task.inputs]
        out = self._new(task.outputs[0])
        start = self.dag.value[task.inputs[0]].region[1][0]
        mask = kernels.cut_rows(op, qkv[0].shape[1], qkv[1].shape[1])
        self.attention.add(kernels.fused_attention(self.device.type, qkv[0].dtype, op.softmax_width, mask=mask))
        dims = self._dims(task.outputs[0])
        self._do(kernels.attention(op, qkv, start, out.in_order([out.parts(d)[0] for d in dims])))

    def _norm(self, task: Task, dim: str, eps: float) -> None:
        x, weight = self._plain(task.inputs[0]), self._loaded(task.inputs[1])
        out = self._new(task.outputs[0])
        axis = self._dims(task.inputs[0]).index(dim)
        self._do(kernels.norm(x.data.movedim(axis, -1), weight, eps, out.data.movedim(axis, -1)))

    def _route(self, task: Task, top_k: int) -> None:
        x, weight = self._rows(task.inputs[0]), self._loaded(task.inputs[1])
        self._do(kernels.route(x, weight, top_k, self._new(task.outputs[0]).data.flatten(0, 1)))

    def _experts(self, task: Task, function: str) -> None:
        x, gates = self._rows(task.inputs[0]), self._rows(task.inputs[1])
        w_up, w_down = self._loaded(task.inputs[2]), self._loaded(task.inputs[3])
        first, last = self.dag.value[task.inputs[2]].region[0]
        out = self._new(task.outputs[0]).data.flatten(0, 1)
        self._do(kernels.experts(function, x, gates[:, first:last], (w_up, w_down), out))

    def _add(self, task: Task) -> None:
        a, b = (self._buffer(v) for v in task.inputs)
        out = self._new(task.outputs[0])
        if (factors := refined(a, b)) is None:
            a, b = self._plain(task.inputs[0]), self._plain(task.inputs[1])
            factors = refined(a, b) or {}
        a, b, cut = a.split(factors), b.split(factors), out.split(factors)
        self._do(kernels.add(a.in_order(cut.axes), b.in_order(cut.axes), cut.data))

    def _all_gather(self, task: Task) -> None:
        mine = task.ranks.index(self.rank)
        piece, out_id = self._sent(task, task.inputs[mine]), task.outputs[mine]
        self._exchange(task, piece.data, self._new(out_id).data.view(-1), out_id)

    def _all_reduce(self, task: Task) -> None:
        mine = task.ranks.index(self.rank)
        in_id, out_id = task.inputs[mine], task.outputs[mine]
        piece = self._sent(task, in_id)
        if self.dag.consumers[in_id] != (task,) or not self.pool.alone(in_id):
            source, piece = piece.data, self._new(out_id)
            target = piece.data
            self._do(lambda: target.copy_(source))
        else:
            self.pool.share(out_id, in_id)  # summed in place
        self.buffers[out_id] = piece
        self._exchange(task, piece.data, piece.data, out_id)

    def _broadcast(self, task: Task) -> None:
        mine = task.ranks.index(self.rank)
        out_id = task.outputs[mine]
        if mine == 0:
            source = self._sent(task, task.inputs[0])
            self.buffers[out_id] = source
            self.pool.share(out_id, task.inputs[0])
        else:
            source = self._new(out_id)
        self._exchange(task, source.data, source.data, out_id)

    def _send_receive(self, task: Task) -> None:
        if self.rank == task.ranks[1]:
            target = self._new(task.outputs[0])
            self._exchange(task, target.data, target.data, task.outputs[0])
            return
        source = self._sent(task, task.inputs[0])
        # The sender has no output whose use would be waited for: it goes on until its next send, or the step's end.
        self._await_send()
        self.sending = Exchange(self.place, task, source.data, source.data)
        self.actions.append(self.sending)

    # --- actions -----------------------------------------------------------------------------------------------------

    def _do(self, run: kernels.Step) -> None:
        self.actions.append(Compute(self.place, run))

    def _exchange(self, task: Task, send: torch.Tensor, receive: torch.Tensor, out_id: str) -> None:
        exchange = Exchange(self.place, task, send, receive)
        self.actions.append(exchange)
        self.pending[out_id] = exchange

    def _await(self, task: Task) -> None:
        for value_id in task.inputs:
            if (exchange := self.pending.pop(value_id, None)) is not None:
                self.actions.append(Wait(exchange.place, exchange))

    def _await_send(self) -> None:
        if self.sending is not None:
            self.actions.append(Wait(self.sending.place, self.sending))
            self.sending = None

    # --- buffers -----------------------------------------------------------------------------------------------------

    def _given(self, role: str) -> list[str]:
        return [
            v.id
            for v in self.dag.values
            if v.rank == self.rank and v.id not in self.dag.producer and self._role(v.id) == role
        ]

    def _role(self, value_id: str) -> str:
        return self.dag.tensor[self.dag.value[value_id].tensor].role

    def _dims(self, value_id: str) -> tuple[str, ...]:
        return self.dag.tensor[self.dag.value[value_id].tensor].dims

    def _buffer(self, value_id: str) -> Buffer:
        if value_id not in self.buffers:
            self.buffers[value_id] = Buffer.plain(self.load(self.dag.value[value_id]), self._dims(value_id))
        return self.buffers[value_id]

    def _loaded(self, value_id: str) -> torch.Tensor:
        if value_id not in self.weights:
            self.weights[value_id] = self.load(self.dag.value[value_id])
        return self.weights[value_id]

    def _new(self, value_id: str) -> Buffer:
        """Memory for a value, with the axes that all ranks give it."""
        value, axes = self.dag.value[value_id], self.axes[value_id]
        memory = self.pool.take([value_id], value.numel, TORCH[value.dtype])
        self.buffers[value_id] = Buffer(memory.view([a.size for a in axes]), axes)
        return self.buffers[value_id]

    def _plain(self, value_id: str) -> Buffer:
        """A value with one axis per dim, in the tensor's order: as it is, or copied there in every step."""
        buffer, dims = self._buffer(value_id), self._dims(value_id)
        if buffer.axes == plain(self.dag, value_id):
            return buffer
        value = self.dag.value[value_id]
        copy = Buffer.plain(self.pool.keep(value.shape, buffer.data.dtype), dims)
        cut = copy.split(buffer.factors())
        source, target = buffer.in_order(cut.axes), cut.data
        self._do(lambda: target.copy_(source))
        return copy

    def _rows(self, value_id: str) -> torch.Tensor:
        """A value (batch, seq, n) as (batch * seq, n)."""
        return self._plain(value_id).data.flatten(0, 1)

    def _sent(self, task: Task, value_id: str) -> Buffer:
        """What this rank sends, without holes and laid out as the other ranks of the collective lay it out."""
        buffer = self._buffer(value_id)
        if buffer.axes != as_sent(self.dag, self.axes, task.inputs):
            buffer = self._plain(value_id)
        if buffer.data.is_contiguous():
            return buffer
        data, source = self.pool.keep(buffer.data.shape, buffer.data.dtype), buffer.data
        self._do(lambda: data.copy_(source))
        return Buffer(data, buffer.axes)

    def _matrix(self, value_id: str, columns: Sequence[str]) -> tuple[torch.Tensor, Axes]:
        try:
            return self._buffer(value_id).matrix(columns, self._dims(value_id))
        except ValueError:
            return self._plain(value_id).matrix(columns, self._dims(value_id))

    def _weight(self, values: Sequence[str], rows: Axes) -> torch.Tensor:
        """The weights of a linear task side by side, (K, N), with rows in the order of the input's columns."""
        key = (tuple(values), rows)
        if key not in self.weights:
            self.weights[key] = torch.cat([self._laid_out(v, rows) for v in values], dim=1)
        return self.weights[key]

    def _laid_out(self, value_id: str, rows: Axes) -> torch.Tensor:
        dims = self._dims(value_id)
        contract = {a.dim for a in rows}
        sizes = {
            d: tuple(a.size for a in sorted((a for a in rows if a.dim == d), key=lambda a: a.part)) for d in contract
        }
        loaded = Buffer.plain(self.load(self.dag.value[value_id]), dims).split(sizes)
        kept = [a for a in loaded.axes if a.dim not in contract]
        by_row = {(a.dim, a.part): a for a in loaded.axes}
        data = loaded.in_order([*(by_row[a.dim, a.part] for a in rows), *kept])
        return data.reshape(prod(a.size for a in rows), -1).contiguous()
