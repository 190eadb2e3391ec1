"""One rank's part of a dag, compiled once into a flat list of actions over buffers that are there already."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch.nn.attention import SDPBackend

from helixctl.dag import (
    Activation,
    Add,
    AllGather,
    AllReduce,
    AllToAll,
    Attention,
    Bias,
    Broadcast,
    Dag,
    Embed,
    Experts,
    Linear,
    Multiply,
    Norm,
    Rotate,
    Route,
    SendReceive,
    Task,
    Value,
)
from helixctl.dag.liveness import last_needed
from helixctl.plan import Interval
from helixctl.spec import RotarySpec
from helixctl_runtime import kernels
from helixctl_runtime.axes import Axes, as_sent, axes_of, even, plain
from helixctl_runtime.buffers import Buffer, in_turn, lies_in_turn, refined
from helixctl_runtime.dtypes import HALF, TORCH
from helixctl_runtime.memory import Pool
from helixctl_runtime.rotary import rotations

Load = Callable[[Value], torch.Tensor]
Elementwise = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], kernels.Step]


@dataclass(frozen=True, slots=True)
class Compute:
    """Run a kernel. ``place`` is the task's place in the rank's order; the order's length means after all tasks."""

    place: int
    run: kernels.Step


@dataclass(frozen=True, slots=True, eq=False)
class Exchange:
    """Issue a collective: ``send`` and ``receive`` are contiguous (the same memory for an all-reduce).

    ``leave`` and ``arrive``: how many elements an all-to-all sends to, and receives from, each rank; equally many if
    they are empty.
    """

    place: int
    task: Task
    send: torch.Tensor
    receive: torch.Tensor
    leave: tuple[int, ...] = ()
    arrive: tuple[int, ...] = ()


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


@dataclass(frozen=True, slots=True)
class _Flight:
    """A collective that has been issued: how to unpack what arrives, and the memory that it needs until then."""

    exchange: Exchange
    unpack: kernels.Step | None
    copies: tuple[str, ...]


class _Compiler:
    def __init__(self, dag: Dag, rank: int, device: torch.device, load: Load) -> None:
        self.dag, self.rank, self.device, self.load = dag, rank, device, load
        self.axes = axes_of(dag)
        self.pool = Pool(device)
        self.buffers: dict[str, Buffer] = {}
        self.actions: list[Action] = []
        self.pending: dict[str, _Flight] = {}
        self.sending: _Flight | None = None
        self.attention: set[SDPBackend] = set()
        self.weights: dict[object, torch.Tensor] = {}
        self.constants: dict[object, torch.Tensor] = {}
        self.copies: list[str] = []  # that the task at hand needs
        self.place = 0

    def compile(self) -> Program:
        last = last_needed(self.dag, self.rank)
        inputs = {v: self._buffer(v) for v in self._given("input")}
        for place, name in enumerate(self.dag.order[self.rank]):
            self.place = place
            task = self.dag.task[name]
            self._await(task.inputs)
            self._task(task)
            self._release(self._copies())
            for value_id in [v for v in self.buffers if last.get(v, -1) == self.place]:
                self.pool.release(value_id)
        self.place = len(self.dag.order[self.rank])  # after every task
        self._await(list(self.pending))
        self._await_send()
        outputs = {v: self._plain(v) for v in list(self.buffers) if self._role(v) == "output"}
        return Program(
            rank=self.rank,
            tasks=len(self.dag.order[self.rank]),
            actions=tuple(self.actions),
            inputs=inputs,
            outputs=outputs,
            attention=frozenset(self.attention),
            weight_nbytes=_nbytes(self.weights.values()),
            buffer_nbytes=self.pool.nbytes
            + _nbytes(self.constants.values())
            + _nbytes(b.data for b in inputs.values()),
        )

    # --- tasks -------------------------------------------------------------------------------------------------------

    def _task(self, task: Task) -> None:
        if task.is_collective:
            self._collective(task)
        else:
            self._computation(task)

    def _computation(self, task: Task) -> None:  # noqa: C901  one case a kind
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

    def _collective(self, task: Task) -> None:
        match task.op:
            case AllToAll(split, gather):
                self._all_to_all(task, split, gather)
            case AllGather() if even(self.dag, task):
                self._all_gather(task)
            case AllGather(dim):
                self._uneven_gather(task, dim)
            case AllReduce():
                self._all_reduce(task)
            case Broadcast():
                self._broadcast(task)
            case SendReceive():
                self._send_receive(task)

    def _embed(self, task: Task) -> None:
        ids, table = self._plain(task.inputs[0]).data, self._loaded(task.inputs[1])
        place = self.dag.value[task.inputs[1]]
        out = self._new(task.outputs[0]).data.flatten(0, 1)
        whole = place.region[0] == self.dag.tensor[place.tensor].full[0]
        self._do(kernels.embed(ids.flatten(), table, place.region[0][0], out, whole=whole))

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

    # --- collectives -------------------------------------------------------------------------------------------------

    def _all_to_all(self, task: Task, split: str, gather: str) -> None:
        """Pack the parts for each rank in turn, and unpack those of each rank, unless they lie so anyway."""
        in_id, out_id = self._mine(task)
        x, out, dims = self._plain(in_id).data, self._new(out_id).data, self._dims(in_id)
        leaving, arriving = dims.index(split), dims.index(gather)
        shares = [self.dag.value[v].shape[leaving] for v in task.outputs]
        pieces = [self.dag.value[v].shape[arriving] for v in task.inputs]
        if lies_in_turn(x, leaving) and x.is_contiguous():
            send = x.view(-1)
        else:
            send = self._copy(x.numel(), x.dtype)
            self._do(kernels.copy([(place, part) for part, place in in_turn(x, leaving, shares, send)]))
        receive, unpack = out.view(-1), None
        if not lies_in_turn(out, arriving):
            receive = self._copy(out.numel(), out.dtype)
            unpack = kernels.copy(in_turn(out, arriving, pieces, receive))
        leave = tuple(x.numel() // x.shape[leaving] * n for n in shares)
        arrive = tuple(out.numel() // out.shape[arriving] * n for n in pieces)
        self._exchange(Exchange(self.place, task, send, receive, leave, arrive), out_id, unpack)

    def _all_gather(self, task: Task) -> None:
        in_id, out_id = self._mine(task)
        piece = self._sent(task, in_id, self._name())
        self._exchange(Exchange(self.place, task, piece.data, self._new(out_id).data.view(-1)), out_id)

    def _uneven_gather(self, task: Task, dim: str) -> None:
        """Pieces padded to the largest, which is what torch.distributed gathers; unpacked when they are there."""
        in_id, out_id = self._mine(task)
        piece, out = self._buffer(in_id), self._new(out_id).data
        values = [self.dag.value[v] for v in task.inputs]
        largest, axis = max(v.numel for v in values), self._dims(in_id).index(dim)
        if piece.axes == plain(self.dag, in_id) and piece.data.is_contiguous() and piece.data.numel() == largest:
            send = piece.data.view(-1)
        else:
            send = self._copy(largest, out.dtype)
            self._fill(send[: piece.data.numel()], in_id)
        receive = self._copy(largest * len(values), out.dtype)
        parts = out.split([v.shape[axis] for v in values], axis)
        places = [
            place[: part.numel()].view(part.shape) for part, place in zip(parts, receive.split(largest), strict=True)
        ]
        unpack = kernels.copy(list(zip(parts, places, strict=True)))
        self._exchange(Exchange(self.place, task, send, receive), out_id, unpack)

    def _all_reduce(self, task: Task) -> None:
        in_id, out_id = self._mine(task)
        piece = self._sent(task, in_id, out_id)
        if piece is self._buffer(in_id):
            if self.dag.consumers[in_id] != (task,) or not self.pool.alone(in_id):
                source, piece = piece.data, self._new(out_id)
                self._do(kernels.copy([(piece.data, source)]))
            else:
                self.pool.share(out_id, in_id)  # summed in place
        self.buffers[out_id] = piece
        self._exchange(Exchange(self.place, task, piece.data, piece.data), out_id)

    def _broadcast(self, task: Task) -> None:
        out_id = task.outputs[task.ranks.index(self.rank)]
        if self.rank == task.ranks[0]:
            source = self._sent(task, task.inputs[0], out_id)
            if source is self._buffer(task.inputs[0]):
                self.pool.share(out_id, task.inputs[0])
            self.buffers[out_id] = source
        else:
            source = self._new(out_id)
        self._exchange(Exchange(self.place, task, source.data, source.data), out_id)

    def _send_receive(self, task: Task) -> None:
        if self.rank == task.ranks[1]:
            target = self._new(task.outputs[0])
            self._exchange(Exchange(self.place, task, target.data, target.data), task.outputs[0])
            return
        source = self._sent(task, task.inputs[0], self._name())
        # The sender has no output whose use would be waited for: it goes on until its next send, or the step's end.
        self._await_send()
        self.sending = self._issue(Exchange(self.place, task, source.data, source.data))

    def _mine(self, task: Task) -> tuple[str, str]:
        """This rank's input and output of a collective."""
        mine = task.ranks.index(self.rank)
        return task.inputs[mine], task.outputs[mine]

    # --- actions -----------------------------------------------------------------------------------------------------

    def _do(self, run: kernels.Step) -> None:
        self.actions.append(Compute(self.place, run))

    def _exchange(self, exchange: Exchange, out_id: str, unpack: kernels.Step | None = None) -> None:
        self.pending[out_id] = self._issue(exchange, unpack)

    def _issue(self, exchange: Exchange, unpack: kernels.Step | None = None) -> _Flight:
        self.actions.append(exchange)
        return _Flight(exchange, unpack, self._copies())

    def _await(self, values: Iterable[str]) -> None:
        for value_id in values:
            if (flight := self.pending.pop(value_id, None)) is not None:
                self._land(flight)

    def _await_send(self) -> None:
        if self.sending is not None:
            self._land(self.sending)
            self.sending = None

    def _land(self, flight: _Flight) -> None:
        """Wait for a collective; what unpacks is a computation of the task that needs it."""
        self.actions.append(Wait(flight.exchange.place, flight.exchange))
        if flight.unpack is not None:
            self._do(flight.unpack)
        self._release(flight.copies)

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
        buffer = self._buffer(value_id)
        if buffer.axes == plain(self.dag, value_id):
            return buffer
        return self._fill(self._copy(buffer.data.numel(), buffer.data.dtype), value_id)

    def _fill(self, memory: torch.Tensor, value_id: str) -> Buffer:
        """Copy a value, with one axis per dim, into flat memory in every step."""
        buffer, value = self._buffer(value_id), self.dag.value[value_id]
        copy = Buffer.plain(memory.view(value.shape), self._dims(value_id))
        cut = copy.split(buffer.factors())
        self._do(kernels.copy([(cut.data, buffer.in_order(cut.axes))]))
        return copy

    def _name(self) -> str:
        """The name of a copy that is needed until the task at hand is done, or what it sends has been exchanged."""
        self.copies.append(f"copy {self.place}.{len(self.copies)}")
        return self.copies[-1]

    def _copy(self, numel: int, dtype: torch.dtype) -> torch.Tensor:
        """Flat memory for such a copy."""
        return self.pool.take([self._name()], numel, dtype)

    def _copies(self) -> tuple[str, ...]:
        """The copies made so far for the task at hand, which somebody else now releases."""
        copies, self.copies = tuple(self.copies), []
        return copies

    def _release(self, copies: Iterable[str]) -> None:
        for name in copies:
            self.pool.release(name)

    def _rows(self, value_id: str) -> torch.Tensor:
        """A value (batch, seq, n) as (batch * seq, n)."""
        return self._plain(value_id).data.flatten(0, 1)

    def _sent(self, task: Task, value_id: str, name: str) -> Buffer:
        """What this rank sends, without holes and laid out as the other ranks of the collective lay it out.

        Where that needs a copy, its memory is taken in this name.
        """
        buffer = self._buffer(value_id)
        alike = buffer.axes == as_sent(self.dag, self.axes, task.inputs)
        if alike and buffer.data.is_contiguous():
            return buffer
        memory = self.pool.take([name], buffer.data.numel(), buffer.data.dtype)
        if not alike:
            return self._fill(memory, value_id)
        copy = Buffer(memory.view(buffer.data.shape), buffer.axes)
        self._do(kernels.copy([(copy.data, buffer.data)]))
        return copy

    def _matrix(self, value_id: str, columns: Sequence[str]) -> tuple[torch.Tensor, Axes]:
        try:
            return self._buffer(value_id).matrix(columns, self._dims(value_id))
        except ValueError:
            return self._plain(value_id).matrix(columns, self._dims(value_id))

    def _weight(self, values: Sequence[str], rows: Axes) -> torch.Tensor:
        """The weights of a linear task side by side, (K, N), with rows in the order of the input's columns."""
        key = (tuple(values), rows)
        if key not in self.weights:
            if len(values) == 1 and values[0] in self.weights:  # a table that embeds as well: once in memory
                self.weights[key] = self._laid_out(self.weights[values[0]], values[0], rows)
            else:
                parts = [self._laid_out(self.load(self.dag.value[v]), v, rows) for v in values]
                self.weights[key] = parts[0].contiguous() if len(parts) == 1 else torch.cat(parts, dim=1)
        return self.weights[key]

    def _laid_out(self, weight: torch.Tensor, value_id: str, rows: Axes) -> torch.Tensor:
        """A weight as a matrix, a view where it can be."""
        dims = self._dims(value_id)
        contract = {a.dim for a in rows}
        sizes = {
            d: tuple(a.size for a in sorted((a for a in rows if a.dim == d), key=lambda a: a.part)) for d in contract
        }
        loaded = Buffer.plain(weight, dims).split(sizes)
        kept = [a for a in loaded.axes if a.dim not in contract]
        by_row = {(a.dim, a.part): a for a in loaded.axes}
        data = loaded.in_order([*(by_row[a.dim, a.part] for a in rows), *kept])
        return data.reshape(prod(a.size for a in rows), -1)


def _nbytes(tensors: Iterable[torch.Tensor]) -> int:
    """Bytes that tensors take, of views of one memory once."""
    return sum({t.data_ptr(): t.nbytes for t in tensors}.values())
