"""The arena: blocks that are needed together do not overlap, and it is nearly as small as it can be."""

from __future__ import annotations

from itertools import accumulate
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helixctl.dag import Dag
from helixctl.lower import lower
from helixctl.program import Arena, Block, Copy, Exchange, Program, arena_of, program_of
from helixctl.program import arena as arena_module
from helixctl.program.arena import ALIGNMENT, largest_sum
from tests.documents import PAPER, dag_of
from tests.liveness import last_needed
from tests.program.models import LARGE, every_plan

BLOCKS = st.lists(
    st.builds(
        lambda nbytes, first, length, label: Block(nbytes, first, first + length, label),
        st.integers(0, 500),
        st.integers(0, 30),
        st.integers(0, 12),
        st.sampled_from(["", "a", "b", "c"]),
    ),
    max_size=40,
)


def holds(blocks: tuple[Block, ...] | list[Block], arena: Arena) -> None:
    ends = [offset + block.nbytes for offset, block in zip(arena.offsets, blocks, strict=True)]
    assert max(ends, default=0) <= arena.nbytes
    assert all(offset % ALIGNMENT == 0 for offset in arena.offsets)
    for i, a in enumerate(blocks):
        for j in range(i):
            b = blocks[j]
            together = a.first <= b.last and b.first <= a.last
            assert not together or ends[j] <= arena.offsets[i] or ends[i] <= arena.offsets[j], (a, b)


@settings(max_examples=200, deadline=None)
@given(BLOCKS)
def test_blocks_that_are_needed_together_do_not_overlap(blocks: list[Block]) -> None:
    arena = arena_of(blocks)
    holds(blocks, arena)
    assert arena.nbytes >= largest_sum(blocks)
    assert arena == arena_of(blocks)


@settings(max_examples=200, deadline=None)
@given(BLOCKS, st.integers(0, 4))
def test_a_search_ends_at_what_is_enough(blocks: list[Block], more: int) -> None:
    tightest = arena_of(blocks)
    enough = tightest.nbytes + more * ALIGNMENT
    arena = arena_of(blocks, enough)
    holds(blocks, arena)
    assert tightest.nbytes <= arena.nbytes <= enough
    assert arena_of(blocks, tightest.nbytes - 1) == tightest


@settings(max_examples=100, deadline=None)
@given(BLOCKS)
def test_a_round_that_keeps_what_did_not_move_places_as_one_from_scratch(blocks: list[Block]) -> None:
    placed = arena_module._placed

    def checked(slots: Any, order: Any, gap: Any, before: Any, same: int, moved: int) -> Any:
        found = placed(slots, order, gap, before, same, moved)
        assert found == placed(slots, order, gap, [], 0, -1)
        return found

    with patch.object(arena_module, "_placed", checked):
        arena_of(blocks)


def test_blocks_follow_one_another_in_the_same_place() -> None:
    blocks = [Block(100, i, i + 1) for i in range(0, 20, 2)]
    assert arena_of(blocks).nbytes == 128


def test_an_empty_program_takes_nothing() -> None:
    assert arena_of([]) == Arena((), 0)


def test_a_deep_model_takes_no_more_than_a_shallow_one() -> None:
    axes: dict[str, Any] = {"microbatches": 4, "interleave": 2, "combine": "reduce"}
    two, nine = (program_of(dag_of(PAPER, 4, 4, f"layers={n}", **axes), 3) for n in (2, 9))
    assert two.arena.nbytes == nine.arena.nbytes


ALWAYS = ("llama", "last")


@pytest.mark.parametrize(
    ("name", "logits"),
    [
        pytest.param(name, logits, marks=[] if (name, logits) == ALWAYS else [pytest.mark.sweep])
        for name in LARGE
        for logits in ("all", "last")
    ],
)
def test_no_more_than_a_twentieth_above_the_live_values(name: str, logits: str) -> None:
    """Compared with the sum of the live values, by the rule of tests/liveness.py, and of the copies that they need."""
    tried = 0
    for plan in every_plan(LARGE[name], (8, 2048, logits), 8, large=True, step=41):
        dag = lower(plan)
        for rank in {0, len(dag.order) - 1}:
            program = program_of(dag, rank)
            assert program.arena.nbytes <= 1.05 * live_values_and_copies(dag, program), (plan.layout, rank)
            tried += 1
    assert tried > 5


def live_values_and_copies(dag: Dag, program: Program) -> int:
    """The largest sum over the rank's order; what is summed in place or written over counts twice here."""
    rank, end = program.rank, program.tasks
    last = last_needed(dag, rank)
    made = {value: place for place, name in enumerate(dag.order[rank]) for value in dag.ends[name][rank][1]}
    changes = [0] * (end + 2)

    def add(nbytes: int, first: int, until: int) -> None:
        changes[first] += nbytes
        changes[until + 1] -= nbytes

    for value, until in last.items():
        if value in made or dag.tensor[dag.value[value].tensor].role == "input":
            add(dag.value[value].nbytes, made.get(value, 0), until)
    place = [action.place for action in program.actions] + [end]
    for block, nbytes in copies_of(dag, program).items():
        its = program.blocks[block]
        add(nbytes, place[its.first], place[its.last])
    return max(accumulate(changes))


def copies_of(dag: Dag, program: Program) -> dict[int, int]:
    """The bytes of every block that is a copy, a constant, or the padding of a piece of a gather."""
    found = {view.block: program.blocks[view.block].nbytes for view in program.constants.values()}
    for action in program.actions:
        if isinstance(action, Copy):
            for target, source in action.pairs:
                block = target.block if action.unpacks is None else source.block
                found[block] = program.blocks[block].nbytes
        if isinstance(action, Exchange) and action.task.kind == "all_gather":
            mine = next(v for v in action.task.inputs if dag.value[v].rank == program.rank)
            padding = program.blocks[action.send.block].nbytes - dag.value[mine].nbytes
            found.setdefault(action.send.block, max(0, padding))
    return found
