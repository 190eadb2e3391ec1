"""Under which layer and level the moves of a tensor are filed."""

from __future__ import annotations

from helixctl.dag.document import Level
from helixctl.dag.function import TOKEN, Function
from helixctl.dag.ops import (
    AllToAll,
    CacheWrite,
    HeadLinear,
    Op,
    PartialAttention,
    PartialSelect,
    SendReceive,
    SquareSums,
)


def level_moved(function: Function, tensor: str, op: Op, to: int = 0) -> tuple[int, Level]:
    """The layer and the level of a task that moves a tensor; ``to``: the first layer of the stage that it goes to.

    What is made at one level moves at it, or at a level of its own: between ``distribute`` and ``attend`` lies
    ``exchange`` (the statistics of a norm stay at ``distribute``); after ``attend`` comes ``concat``, or, where heads
    are given back their dims, ``project``. What is given moves at the level of its first reader. Between stages it is
    ``transfer``, of the layer that it goes to. What one lane attends to moves at ``attend``, which ends with the merge,
    and so does what the lanes of a cache hold.
    """
    maker = function.defining.get(tensor)
    if maker is None:
        reader = next(eq for eq in function.equations if tensor in eq.inputs)
        return reader.layer, reader.level
    if isinstance(op, SendReceive) and tensor != TOKEN:
        return to, "transfer"
    match maker.level:
        case "attend" if isinstance(maker.op, PartialAttention | PartialSelect | CacheWrite) or (
            isinstance(maker.op, HeadLinear) and maker.op.parts
        ):
            return maker.layer, "attend"
        case "distribute" if maker.name != "norm" and not isinstance(maker.op, SquareSums):
            return maker.layer, "exchange"
        case "attend":
            return maker.layer, "project" if isinstance(op, AllToAll) else "concat"
        case level:
            return maker.layer, level
