"""How long each block is needed: from the first action that touches it to the last."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from helixctl.program.actions import Action, Compute, Copy, Exchange, Wait
from helixctl.program.arena import Block
from helixctl.program.view import View


def lifetimes(
    actions: Sequence[Action],
    sizes: Sequence[int],
    labels: Sequence[str],
    kept: Iterable[View],
    whole: Iterable[View],
) -> tuple[Block, ...]:
    """The blocks of a program with their lifetimes, in places of the list of actions.

    A collective reads and writes from its issue until it has been waited for.

    Args:
        actions: of the program.
        sizes: the bytes of every block.
        labels: the label of every block.
        kept: views of blocks that are needed to the end of the step, such as the output.
        whole: views of blocks whose numbers are there before the first step and stay.
    """
    end = len(actions)
    waited = {action.place: at for at, action in enumerate(actions) if isinstance(action, Wait)}
    first, last = [end] * len(sizes), [0] * len(sizes)
    for at, action in enumerate(actions):
        done = waited[action.place] if isinstance(action, Exchange) else at
        for block in _blocks(action):
            first[block] = min(first[block], at)
            last[block] = max(last[block], done)
    for view in kept:
        last[view.block] = end
    for view in whole:
        first[view.block], last[view.block] = 0, end
    return tuple([Block(*each) for each in zip(sizes, first, last, labels, strict=True)])


def _blocks(action: Action) -> list[int]:
    match action:
        case Compute():
            return [view.block for view in (*action.reads, *action.writes)]
        case Copy():
            return [view.block for pair in action.pairs for view in pair]
        case Exchange():
            return [action.send.block, action.receive.block]
        case Wait():
            return []
