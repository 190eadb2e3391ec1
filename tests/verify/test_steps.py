"""The steps of one plan: every legal one is proved, and the two leave and take the same states."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings

from helixctl.dag import Dag
from helixctl.lower import lower
from helixctl.plan import Plan
from helixctl.plan.steps import steps_of
from helixctl.verify import verify
from tests.runtime.step_plans import step_plans

TRIALS = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)


def states(dag: Dag) -> list[tuple[object, ...]]:
    """Of every state that is given: whose, where, and as what it lies in memory."""
    role = {tensor.name: tensor.role for tensor in dag.tensors}
    given = [value for value in dag.values if role[value.tensor] == "state"]
    return sorted((value.tensor, value.rank, value.region, value.dtype, value.id) for value in given)


@settings(TRIALS, max_examples=6)
@given(step_plans())
def test_every_legal_plan_of_a_generation_is_proved(plan: Plan) -> None:
    both_steps_are_proved(plan)


@pytest.mark.sweep
@settings(TRIALS, max_examples=40)
@given(step_plans())
def test_more_legal_plans_of_a_generation_are_proved(plan: Plan) -> None:
    both_steps_are_proved(plan)


def both_steps_are_proved(plan: Plan) -> None:
    """Spec -> plan -> lower -> verify is clean, of both steps, and one can follow the other."""
    dags = [lower(plan, step=name) for name in steps_of(plan.workload)]
    assert [dag.step for dag in dags] == ["prefill", "decode"]
    assert [verify(dag) for dag in dags] == [[], []]
    prefill, decode = (states(dag) for dag in dags)
    assert prefill == decode
    assert prefill
