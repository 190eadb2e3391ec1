"""Proofs over a plan: its specs are those of its digests, and its layout is legal for them."""

from __future__ import annotations

from collections.abc import Iterator

from helixctl.dag import Dag
from helixctl.errors import Diagnostic
from helixctl.plan import Plan, digest, illegalities
from helixctl.plan.document import FORMAT_VERSION
from helixctl.plan.size import about, too_large
from helixctl.plan.steps import steps_of
from helixctl.spec.model import no_logits


def check_plan(plan: Plan) -> Iterator[Diagnostic]:
    """Format version (HX304), digests (HX302), layout (HX303), size (HX305) and logits (HX109)."""
    if plan.format_version != FORMAT_VERSION:
        yield Diagnostic("HX304", f"the plan's format_version {plan.format_version} is not {FORMAT_VERSION}")
    for name in ("model", "cluster", "workload"):
        have, want = digest(getattr(plan, name)), getattr(plan.digests, name)
        if have != want:
            hint = "the spec was edited inside the plan; plan again from the spec files"
            yield Diagnostic("HX302", f"the {name} has digest {have[:19]}..., the plan says {want[:19]}...", hint)
    for reason in illegalities(
        plan.layout, plan.model, plan.workload, plan.cluster.devices, differs=plan.cluster.differs
    ):
        yield Diagnostic("HX303", f"layout {plan.layout}: {reason}")
    if large := too_large(about(plan), f"layout {plan.layout}"):
        yield large
    if message := no_logits(plan.model, plan.workload):
        yield Diagnostic("HX109", message)


def check_embedded_plan(dag: Dag) -> Iterator[Diagnostic]:
    """The plan inside a dag is the one of its digest (HX402), holds by itself, and has the dag's step (HX401)."""
    if dag.plan.digest != dag.plan_digest:
        hint = "the plan was edited inside the dag; make the dag anew with helixctl plan --dag"
        have, want = dag.plan.digest[:19], dag.plan_digest[:19]
        yield Diagnostic("HX402", f"the plan has digest {have}..., the dag says {want}...", hint)
    yield from check_plan(dag.plan)
    if dag.step not in (steps := steps_of(dag.plan.workload)):
        hint = f"its plan has {' and '.join(steps)}"
        yield Diagnostic("HX401", f"the dag is said to be the step {dag.step}, which its plan has not", hint)
