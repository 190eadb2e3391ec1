"""Experts that replicas share: the same function, each expert held once by all of them, on real ranks as well."""

from __future__ import annotations

import json
from collections import defaultdict
from math import prod
from pathlib import Path
from typing import Any

import pytest
import torch

from helixctl.lower import lower
from helixctl.plan import Plan
from helixctl_runtime.generate import Prompts
from helixctl_runtime.generate.loop import Stage, in_turns, turns
from tests.attack.bases import APART
from tests.cli.command import helixctl
from tests.runtime.models import BIASED, EXPERTS, GROUPED, REAL, merged, plan_for
from tests.runtime.test_interpreter import proved_and_computed

PLAIN: dict[str, Any] = {"feed_forward": EXPERTS}
SHARED: dict[str, Any] = {"feed_forward": GROUPED, "vocabulary": None}
TURNS: dict[str, Any] = {"microbatches": 2, "interleave": 2}


def shared(groups: int, slices: int, changes: dict[str, Any], work: tuple[int, int], **axes: Any) -> Plan:
    model = merged(REAL, {"dtype": "float64", "layers": 1})
    return plan_for(merged(model, changes), work, groups, slices, **axes)


PLANS: dict[str, Plan] = {
    # Sequences and experts that the replicas do not divide; each expert cut over all of them; two sets of replicas.
    "of one device": shared(1, 1, PLAIN, (7, 3), data=3, expert_data=3, experts=3, microbatches=2),
    "cut over replicas": shared(1, 1, SHARED, (5, 3), data=4, expert_data=4),
    "two sets": shared(1, 1, {"feed_forward": BIASED}, (6, 3), data=4, expert_data=2, experts=2),
    # A replica of two and more devices: all hold the stream, or each its rows, or each its sequences.
    "of teams": shared(2, 1, SHARED, (5, 3), data=2, expert_data=2, experts=4, combine="reduce"),
    "of teams, cut": shared(2, 2, SHARED, (5, 3), data=2, expert_data=2, experts=2, slicing="batch"),
    "sharded by rows": shared(2, 1, SHARED, (4, 5), data=2, expert_data=2, experts=2, residual="sharded", **TURNS),
    "sharded by sequences": shared(2, 1, SHARED, (9, 1), data=2, expert_data=2, experts=4, residual="sharded", **TURNS),
    "norms apart": shared(3, 1, APART, (4, 5), data=2, expert_data=2, experts=2, residual="sharded"),
    "stages": shared(
        2, 1, {**PLAIN, "layers": 3}, (9, 3), data=4, expert_data=2, experts=2, pipeline=2, microbatches=2,
        placement="groups-slices-pipeline-data",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PLANS)
def test_the_function_is_the_model_s(name: str) -> None:
    proved_and_computed(PLANS[name])


@pytest.mark.parametrize("name", PLANS)
def test_replicas_that_share_hold_every_expert_once(name: str) -> None:
    plan = PLANS[name]
    dag = lower(plan)
    held: dict[str, int] = defaultdict(int)
    for value in dag.values:
        if value.tensor.endswith((".w_up", ".w_shared_up")):
            held[value.tensor] += value.numel
    sets = plan.layout.data // plan.layout.expert_data
    assert held == {name: sets * prod(dag.tensor[name].shape) for name in held}
    assert len(held) > 0


@pytest.mark.parametrize(("name", "kinds"), [
    ("of one device", ["all_gather", "reduce_scatter"]),
    ("of teams", ["all_gather", "reduce_scatter", "all_reduce"]),
    ("sharded by rows", ["all_gather", "all_gather", "reduce_scatter", "reduce_scatter"]),
    ("sharded by sequences", ["all_gather", "reduce_scatter"]),
])  # fmt: skip
def test_the_tokens_of_all_are_gathered_and_their_results_parted(name: str, kinds: list[str]) -> None:
    """No more moves than that: every device routes all tokens that it has, so that no gates move."""
    dag = lower(PLANS[name])
    rank_0 = [dag.task[task] for task in dag.order[0]]
    moved = [task.kind for task in rank_0 if task.level == "feed_forward" and task.is_collective]
    assert sorted(moved) == sorted(kinds * PLANS[name].layout.microbatches)


def test_real_ranks(tmp_path: Path) -> None:
    """Replicas of two devices each on gloo continue prompts over a KV cache: all logits are checked."""
    path, changes = tmp_path / "x.plan.json", {"feed_forward": GROUPED, "dtype": "float32"}
    axes = {"data": 2, "expert_data": 2, "experts": 4, "residual": "sharded", "combine": "reduce"}
    one = shared(2, 1, changes, (5, 3), key_block=2, **axes)
    work = one.workload.model_copy(update={"output_len": 4, "prefill_tokens": 6})
    path.write_text(Plan.of(one.model, one.cluster, work, one.layout).to_json())
    done = helixctl("run", path, "--warmup", "0", "--check", "--report", tmp_path / "r.json")
    assert done.status == 0, done.err
    report = json.loads((tmp_path / "r.json").read_text())
    assert (report["check"]["passed"], report["output_tokens"]) == (True, 20)


def test_a_replica_goes_on_while_others_do() -> None:
    """Where replicas meet in a step, one whose sequences have all ended takes part in the steps of the others."""

    def walked(*, meets: bool) -> tuple[int, list[int]]:
        steps = [0]

        class Known(Stage):
            def __call__(self, *given: torch.Tensor) -> None:
                steps[0] += 1
                given[3][:1] = 5  # of two sequences this process knows the first

        stage = Known((), lambda: None)
        prompts = Prompts(torch.ones(2, 3, dtype=torch.int64), torch.tensor([3, 3]))
        made = in_turns([turns(stage, stage, prompts, chunk=3, new=4, ends=(5,), meets=meets)])[0]
        return steps[0], made.tokens[0].tolist()

    assert walked(meets=False) == (1, [5, -1, -1, -1])
    assert walked(meets=True) == (4, [5, -1, -1, -1])
