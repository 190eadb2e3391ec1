"""What compiling one rank works on: its buffers, weights, memory, and the actions so far."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import prod

import torch
from torch.nn.attention import SDPBackend

from helixctl.dag import Dag, Task
from helixctl_runtime import kernels
from helixctl_runtime.axes import Axes, as_sent, axes_of, plain
from helixctl_runtime.buffers import Buffer
from helixctl_runtime.dtypes import TORCH
from helixctl_runtime.memory import Pool
from helixctl_runtime.program import Action, Compute, Load


class Workspace:
    """The state of a rank under compilation, and how values come to lie in memory."""

    def __init__(self, dag: Dag, rank: int, device: torch.device, load: Load) -> None:
        self.dag, self.rank, self.device, self.load = dag, rank, device, load
        self.axes = axes_of(dag)
        self.pool = Pool(device)
        self.buffers: dict[str, Buffer] = {}
        self.actions: list[Action] = []
        self.attention: set[SDPBackend] = set()
        self.weights: dict[object, torch.Tensor] = {}
        self.constants: dict[object, torch.Tensor] = {}
        self.copies: list[str] = []  # that the task at hand needs
        self.place = 0

    def _do(self, run: kernels.Step) -> None:
        self.actions.append(Compute(self.place, run))

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
