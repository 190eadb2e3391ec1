"""The layout that an engine can run and that is predicted to be the best, beside the plan's own."""

from __future__ import annotations

from helixctl.errors import HelixError
from helixctl.export.engine import Engine, specs_of
from helixctl.plan import Layout, Plan
from helixctl.records import record
from helixctl.solve import Objective, decide
from helixctl.solve.problem import LayoutProblem
from helixctl.solve.verdict import compared


@record
class Nearest:
    """What an engine can run in the place of a plan.

    Attributes:
        plan: of the same model, cluster and workload.
        beside: how it is predicted to be beside the plan: ``1.13 x slower``.
    """

    plan: Plan
    beside: str


def nearest(engine: Engine, plan: Plan, objective: Objective) -> Nearest | None:
    """The best layout of those that an engine can run, found by the search; None where none fits.

    Args:
        engine: whose rules constrain the search.
        plan: what cannot be run as it is.
        objective: what the search makes as small (throughput: as large) as can be.
    """
    specs = specs_of(plan)
    if specs.cluster.differs:
        return None

    def admitted(layout: Layout) -> bool:
        return engine.as_run(layout) == layout and not engine.unmet(layout, specs)

    fixed = {axis: value for axis, value in engine.ways.items() if axis != "combine"}  # free on one device
    try:
        found = decide(*specs, fixed, objective, admitted=admitted).plan
    except HelixError:
        return None
    return Nearest(found, beside(plan, found.layout, objective))


def beside(plan: Plan, layout: Layout, objective: Objective) -> str:
    """How another layout is predicted to be beside a plan's: ``1.13 x slower``."""
    problem = LayoutProblem.of(specs_of(plan), objective)
    mine, its = problem.simulate(layout).forecast, problem.simulate(plan.layout).forecast
    if mine is None or its is None:
        raise TypeError  # both are legal
    return compared(objective, mine, its)
