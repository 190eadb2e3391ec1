"""A program under construction: the blocks so far, where values lie in them, and the actions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import prod

from helixctl.dag import AllGather, Dag, Packed, Task
from helixctl.dag.function import function_of
from helixctl.program.actions import Action, Copy, Exchange, Wait, Weights
from helixctl.program.axes import Axes, plain, wire_order
from helixctl.program.constants import Constant
from helixctl.program.merged import merged
from helixctl.program.part import Part, Pieces
from helixctl.program.view import Buffer, View, row_major
from helixctl.records import record
from helixctl.spec import DTYPE_NBYTES


@record
class Flight:
    """A collective that has been issued, and how what arrives is put into its place."""

    place: int
    unpack: tuple[tuple[View, View], ...] = ()


class Draft:
    """The state of one rank's program under construction, and how its values come to lie in memory."""

    def __init__(self, dag: Dag, rank: int, pieces: Pieces) -> None:
        """Begin at the first place."""
        self.dag, self.rank, self.part, self.pieces = dag, rank, Part(dag, rank), pieces
        self.place = 0
        self.merged = merged(dag, rank)
        self.actions: list[Action] = []
        self.sizes: list[int] = []  # bytes of every block
        self.labels: list[str] = []  # of every block: the task that has asked for it, whatever its layer
        self.buffers: dict[str, Buffer] = {}
        self.in_block: dict[int, list[str]] = {}  # the values of each block
        self.constants: dict[Constant, View] = {}
        self.weights: dict[Weights, int] = {}
        self.states: dict[str, Buffer] = {}
        self.pending: dict[str, Flight] = {}
        self.sending: Flight | None = None
        self._contracted = function_of(dag.plan.model, dag.work).contracted

    # --- blocks ------------------------------------------------------------------------------------------------------

    def block(self, sizes: tuple[int, ...], dtype: str, numel: int | None = None) -> View:
        """A new block for elements of these sizes, or for more of them."""
        self.sizes.append((prod(sizes) if numel is None else numel) * DTYPE_NBYTES[dtype])
        self.labels.append(self._label())
        return View(len(self.sizes) - 1, dtype, 0, sizes, row_major(sizes))

    def _label(self) -> str:
        if self.place == len(self.part.own):
            return ""
        task = self.part.own[self.place].task
        return task.id.removeprefix(f"l{task.layer}.")

    def flat(self, numel: int, dtype: str) -> View:
        """A new block with one axis."""
        return self.block((numel,), dtype)

    def new(self, value_id: str, axes: Axes | None = None, *, room: int = 0) -> Buffer:
        """A block for a value, with one axis per dim in the tensor's order or with other axes.

        The block has room for this number of elements, if it is more than the value's.
        """
        value = self.dag.value[value_id]
        in_order = plain(self.dag, value)
        axes = in_order if axes is None else axes
        numel = max(value.numel, room, self._padded(value_id) if axes == in_order else 0)
        view = self.block(tuple([a.size for a in axes]), value.dtype, numel)
        return self.hold(value_id, Buffer(view, axes))

    def hold(self, value_id: str, buffer: Buffer) -> Buffer:
        """Say where a value lies, which may be where another lies as well."""
        self.buffers[value_id] = buffer
        self.in_block.setdefault(buffer.view.block, []).append(value_id)
        return buffer

    def state(self, value_id: str) -> Buffer:
        """Where a state lies: in a block of its own outside the arena, where it is from step to step."""
        if value_id not in self.states:
            value = self.dag.value[value_id]
            view = self.block(value.shape, value.dtype, 0)
            self.states[value_id] = self.hold(value_id, Buffer(view, plain(self.dag, value)))
        return self.states[value_id]

    def constant(self, constant: Constant) -> Constant:
        """A constant, which has one block for all tasks that read it."""
        if constant not in self.constants:
            self.constants[constant] = self.block(constant.shape, constant.dtype)
        return constant

    def spare(self, value_id: str) -> bool:
        """Whether the task at hand may write over a value: nobody else needs it, or another value that lies there."""
        view = self.buffers[value_id].view
        there = [v for v in self.in_block[view.block] if self.buffers[v].view.start == view.start]
        if any(v not in self.part.made or self.is_output(v) for v in there):
            return False
        others = [p for v in there for p in self.part.readers.get(v, ()) if (v, p) != (value_id, self.place)]
        return all(self.part.done(place) <= self.place for place in others)

    def over(self, value_id: str, operands: Sequence[str], *, columns: bool = True) -> Buffer:
        """Where an elementwise task puts its result: over an operand that nobody else needs, or in a new block.

        What is sent by itself afterwards needs memory without holes. ``columns``: whether an operand may be columns of
        a matrix, all of which is kept for the result: worth it where the other columns are needed as well.
        """
        value = self.dag.value[value_id]
        axes = plain(self.dag, value)
        readers = [self.part.own[place].task for place in self.part.readers.get(value_id, ())]
        sent = any(task.is_collective and not isinstance(task.op, Packed) for task in readers)
        for operand in operands:
            view, its = self.buffers[operand]
            fits = its == axes and view.dtype == value.dtype and (view.contiguous or (columns and not sent))
            if fits and not self._padded(value_id) and self.spare(operand):
                return self.hold(value_id, self.buffers[operand])
        return self.new(value_id)

    def numel_of_block(self, view: View) -> int:
        """How many elements of a view's dtype its block has room for."""
        return self.sizes[view.block] // DTYPE_NBYTES[view.dtype]

    def is_weight(self, value_id: str) -> bool:
        """Whether a value is a piece of a weight."""
        return self.dag.tensor[self.dag.value[value_id].tensor].role == "weight"

    def is_state(self, value_id: str) -> bool:
        """Whether a value is a piece of what lives between steps, as the step is given it."""
        return self.dag.tensor[self.dag.value[value_id].tensor].role == "state"

    def is_output(self, value_id: str) -> bool:
        """Whether a value is a piece of the model's output, which is kept to the end of the step."""
        return self.dag.tensor[self.dag.value[value_id].tensor].role == "output"

    # --- how values lie ----------------------------------------------------------------------------------------------

    def dims(self, value_id: str) -> tuple[str, ...]:
        """The dims of a value's tensor."""
        return self.dag.tensor[self.dag.value[value_id].tensor].dims

    def plain(self, value_id: str) -> Buffer:
        """A value with one axis per dim in the tensor's order: as it is, or copied there in every step."""
        buffer, axes = self.buffers[value_id], plain(self.dag, self.dag.value[value_id])
        return buffer if buffer.axes == axes else self.copied(value_id, axes)

    def packed(self, value_id: str, axes: Axes | None = None) -> Buffer:
        """A value without holes, with one axis per dim in the tensor's order or with other axes."""
        buffer = self.buffers[value_id]
        axes = plain(self.dag, self.dag.value[value_id]) if axes is None else axes
        return buffer if buffer.axes == axes and buffer.view.contiguous else self.copied(value_id, axes)

    def copied(self, value_id: str, axes: Axes, numel: int | None = None) -> Buffer:
        """A copy of a value, without holes; in memory of more elements where ``numel`` says so."""
        source = self.buffers[value_id]
        view = self.block(tuple([a.size for a in axes]), source.view.dtype, numel)
        target = Buffer(view, axes)
        cut = target.split(source.factors())
        self.copy([(cut.view, source.in_order(cut.axes))])
        return target

    def copy(self, pairs: Iterable[tuple[View, View]], unpacks: int | None = None) -> None:
        """Copy in every step."""
        self.actions.append(Copy(self.place, tuple(pairs), unpacks))

    def matrix(self, value_id: str, columns: Sequence[str]) -> tuple[View, Axes]:
        """A value as a matrix, with its columns in the order in which they lie in memory; copied if need be."""
        dims = self.dims(value_id)
        found = self.buffers[value_id].matrix(columns, dims) or self.plain(value_id).matrix(columns, dims)
        if found is None:
            raise ValueError(f"{value_id} is no matrix with columns {columns}")  # its dims are in another order
        return found

    def made_for_a_gather(self, value_id: str) -> Axes | None:
        """The axes in which the first task that reads a value gathers it; None where no gather asks for any."""
        places = self.part.readers.get(value_id)
        own = self.part.own[places[0]] if places else None
        if own is None or not (leading := self.leading(own.task)):
            return None
        return plain(self.dag, self.dag.value[value_id], leading)

    def leading(self, task: Task) -> tuple[str, ...]:
        """The dims that stand outermost in what a collective sends."""
        return wire_order(self.dag, task, self._contracted, even=self.pieces.even(task))

    def _padded(self, value_id: str) -> int:
        """The elements that an uneven gather sends for a value: as many as the largest piece has."""
        value, dims = self.dag.value[value_id], self.dims(value_id)
        found = 0
        for place in self.part.readers.get(value_id, ()):
            task = self.part.own[place].task
            if isinstance(task.op, AllGather) and not self.pieces.even(task):
                own = value.shape[dims.index(task.op.dim)]
                found = max(found, value.numel // own * max(self.pieces.gathered(task, task.op.dim)))
        return found

    # --- collectives -------------------------------------------------------------------------------------------------

    def issue(self, exchange: Exchange, unpack: Sequence[tuple[View, View]] = ()) -> Flight:
        """Begin a collective."""
        self.actions.append(exchange)
        return Flight(self.place, tuple(unpack))

    def land(self, flight: Flight) -> None:
        """Wait for a collective; what unpacks is a computation of the task that needs it."""
        self.pending = {value: other for value, other in self.pending.items() if other.place != flight.place}
        self.actions.append(Wait(flight.place))
        if flight.unpack:
            self.copy(flight.unpack, flight.place)

    def land_for(self, values: Iterable[str]) -> None:
        """Wait for the collectives that bring these values."""
        for value_id in values:
            if (flight := self.pending.get(value_id)) is not None:
                self.land(flight)
