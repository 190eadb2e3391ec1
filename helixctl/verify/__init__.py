"""Proofs over a plan and over a dag. Every check yields diagnostics; none means proved."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from helixctl import collector
from helixctl.dag import Dag
from helixctl.errors import Diagnostic
from helixctl.plan import Plan
from helixctl.progress import at
from helixctl.verify.coverage import check_ownership, check_tiling
from helixctl.verify.findings import Check
from helixctl.verify.function import check_function
from helixctl.verify.layout import check_layout
from helixctl.verify.memory import check_memory
from helixctl.verify.plan import check_embedded_plan, check_plan
from helixctl.verify.regions import check_costs, check_regions
from helixctl.verify.schedule import check_collectives, check_issue
from helixctl.verify.state import check_state
from helixctl.verify.steps import check_steps
from helixctl.verify.structure import check_ids, check_producers, check_references, check_shapes

# In stages: a check may rely on what the stages before it have shown.
CHECKS: Final[tuple[tuple[Check, ...], ...]] = (
    (check_embedded_plan,),
    (check_ids, check_references),
    (check_shapes,),
    (check_producers,),
    (check_issue,),
    (check_function,),
    (check_regions, check_collectives),
    (check_tiling, check_ownership, check_state, check_costs, check_memory),
    (check_layout,),
)


def verify_plan(plan: Plan) -> list[Diagnostic]:
    """What is wrong with a plan; empty where it is proved."""
    return list(check_plan(plan))


def verify(dag: Dag) -> list[Diagnostic]:
    """What is wrong with a dag; empty where it is proved to compute its model on its cluster."""
    with collector.paused():
        for number, stage in enumerate(CHECKS):
            at("proving the dag, checks", number, len(CHECKS))
            if found := [diagnostic for check in stage for diagnostic in check(dag)]:
                return found
    return []


def verify_steps(dags: Sequence[Dag]) -> list[Diagnostic]:
    """What is wrong with the dags of one plan; empty where each is proved, and any step can follow any other."""
    if found := [diagnostic for dag in dags for diagnostic in verify(dag)]:
        return found
    return list(check_steps(dags))


__all__ = ["CHECKS", "Check", "check_steps", "verify", "verify_plan", "verify_steps"]
