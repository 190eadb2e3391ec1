"""What a rank does in a step: a flat list of actions over views of blocks, and where every block lies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache

from helixctl.dag import Task
from helixctl.program.arena import Arena, Block, arena_of, largest_sum
from helixctl.program.axes import Axes
from helixctl.program.constants import Constant
from helixctl.program.view import Buffer, View
from helixctl.records import record
from helixctl.spec import DTYPE_NBYTES


@record
class Weights:
    """Weights as a kernel takes them.

    Attributes:
        values: their ids; several lie side by side in one matrix.
        leading: the axes that stand first, in their order: the rows of a matrix. Empty for a weight as it is loaded.
    """

    values: tuple[str, ...]
    leading: Axes = ()


@record
class Compute:
    """Run the kernel of a task.

    Attributes:
        place: of the task in the rank's order.
        task: which one.
        reads: the operands that are not weights, laid out as the kernel takes them.
        writes: the results.
        weights: the operands that are.
        constants: numbers that follow from the task alone.
        operand: of a task with a kernel for each of its operands, whose this is.
        merged: the task before it, if the same kernel computes it (``merged.py``): its operands are read instead of
            what it makes.
    """

    place: int
    task: Task
    reads: tuple[View, ...]
    writes: tuple[View, ...]
    weights: tuple[Weights, ...] = ()
    constants: tuple[Constant, ...] = ()
    operand: int = 0
    merged: Task | None = None


@record
class Copy:
    """Copy the second of each pair of views onto the first.

    Attributes:
        place: of the task that needs the copy; the order's length means after all tasks.
        pairs: targets and sources.
        unpacks: the place of the collective that has brought what is copied; None where a task's operand is.
    """

    place: int
    pairs: tuple[tuple[View, View], ...]
    unpacks: int | None = None

    @property
    def moved(self) -> list[tuple[str, int]]:
        """Dtype, and bytes read and written, of each pair."""
        return [(t.dtype, 2 * t.numel * DTYPE_NBYTES[t.dtype]) for t, _ in self.pairs]


@record
class Exchange:
    """Begin a collective.

    Attributes:
        place: of the task in the rank's order.
        task: the collective.
        send, receive: contiguous; the same elements where the collective works in place. Of a packed exchange words
            of 8 bytes, whatever is in them.
        leave, arrive: how many elements an all-to-all sends to, and receives from, each rank.
    """

    place: int
    task: Task
    send: View
    receive: View
    leave: tuple[int, ...] = ()
    arrive: tuple[int, ...] = ()


@record
class Wait:
    """Wait for a collective, whose place is given: ahead of what reads its result, or of the next send."""

    place: int


Action = Compute | Copy | Exchange | Wait


# The proof, the forecast and the executor ask for the same arena, each of a program of its own.
_arena_of = lru_cache(maxsize=64)(arena_of)


@dataclass(frozen=True)
class Program:
    """One rank's part of a dag, as it is proved and priced; to run it, the executor makes a ``BoundProgram`` of it.

    Attributes:
        rank: whose part.
        tasks: how many tasks the rank takes part in.
        actions: in the order in which they are issued.
        inputs, outputs: where the model's input and output lie on this rank, by value.
        states: what lives between steps, by value: each in a block of its own, which is no part of the arena.
        state_nbytes: bytes of all of them.
        constants: where each constant lies.
        weights: every form in which weights are held, with its bytes; 0 for a view of another.
        blocks: the pieces of the arena.
    """

    rank: int
    tasks: int
    actions: tuple[Action, ...]
    inputs: Mapping[str, Buffer]
    outputs: Mapping[str, Buffer]
    states: Mapping[str, Buffer]
    state_nbytes: int
    constants: Mapping[Constant, View]
    weights: Mapping[Weights, int]
    blocks: tuple[Block, ...]

    @cached_property
    def arena(self) -> Arena:
        """Where every block lies in one piece of memory."""
        return _arena_of(self.blocks, 0)

    @cached_property
    def live_nbytes(self) -> int:
        """The largest sum of blocks that are needed at the same time."""
        return largest_sum(self.blocks)

    @property
    def weight_nbytes(self) -> int:
        """Bytes of weights."""
        return sum(self.weights.values())

    @property
    def nbytes(self) -> int:
        """Bytes of all that the rank allocates for a step: weights, state and the arena."""
        return self._kept_nbytes + self.arena.nbytes

    @property
    def least_nbytes(self) -> int:
        """Bytes that the rank allocates at least: an arena may have gaps."""
        return self._kept_nbytes + self.live_nbytes

    def nbytes_above(self, enough: int) -> int:
        """Bytes of all that the rank allocates; any number up to ``enough`` where they are not more.

        To see that they are not more takes much less time than to find how many they are.
        """
        if "arena" in self.__dict__:  # it is known
            return self.nbytes
        return self._kept_nbytes + _arena_of(self.blocks, max(0, enough - self._kept_nbytes)).nbytes

    @property
    def _kept_nbytes(self) -> int:
        return self.weight_nbytes + self.state_nbytes
