"""One rank's part of a dag, turned into actions: its tasks in their order, each after the waits that it needs."""

from __future__ import annotations

from helixctl.dag import Dag
from helixctl.dag.storage import held_nbytes
from helixctl.program.actions import Program
from helixctl.program.axes import plain
from helixctl.program.computations import computation
from helixctl.program.draft import Draft
from helixctl.program.exchanges import collective
from helixctl.program.lifetimes import lifetimes
from helixctl.program.part import Pieces
from helixctl.program.view import Buffer


def program_of(dag: Dag, rank: int, pieces: Pieces | None = None) -> Program:
    """What a rank does in a step, and where each value lies while it is needed.

    Args:
        dag: a dag whose tasks and values are proved to fit; or a part of one that has this rank's tasks.
        rank: whose part. Of other ranks only the values of its own collectives are looked at.
        pieces: what is known of the dag's collectives, where the programs of several ranks are made.
    """
    draft = Draft(dag, rank, pieces or Pieces(dag))
    inputs = _inputs(draft)
    without_kernel = {task.id for task in draft.merged.values()}
    for place, own in enumerate(draft.part.own):
        draft.place = place
        draft.land_for(own.inputs)
        if own.task.is_collective:
            collective(draft, own)
        elif own.task.id not in without_kernel:
            computation(draft, own.task)
    draft.place = end = len(draft.part.own)
    draft.land_for(list(draft.pending))
    if draft.sending is not None:
        draft.land(draft.sending)
    outputs = {v: draft.plain(v) for v in list(draft.buffers) if draft.is_output(v)}
    kept = [buffer.view for buffer in outputs.values()]
    whole = [*draft.constants.values(), *(buffer.view for buffer in inputs.values())]
    return Program(
        rank=rank,
        tasks=end,
        actions=tuple(draft.actions),
        inputs=inputs,
        outputs=outputs,
        states=draft.states,
        state_nbytes=sum(held_nbytes(dag.value[value], dag.tensor) for value in draft.states),
        constants=draft.constants,
        weights=draft.weights,
        blocks=lifetimes(draft.actions, draft.sizes, draft.labels, kept, whole),
    )


def _inputs(draft: Draft) -> dict[str, Buffer]:
    """A block for every value that is given to the rank and that is no weight, or is sent like other values.

    A state has a block of its own, and is no input.
    """
    found = {}
    for own in draft.part.own:
        for value in own.inputs:
            given = value not in draft.part.made and value not in found
            if given and draft.is_state(value):
                draft.state(value)
            elif given and (own.task.is_collective or not draft.is_weight(value)):
                found[value] = draft.new(value, plain(draft.dag, draft.dag.value[value]))
    return found
