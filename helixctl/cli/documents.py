"""Documents for the commands: which kind each takes, findings with the file's name, a note on what takes long."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from helixctl.api import lower_plan
from helixctl.cli.console import tell
from helixctl.dag import Dag
from helixctl.documents import load_document
from helixctl.errors import Diagnostic, HelixError
from helixctl.plan import Plan
from helixctl.plan.size import MANY_TASKS, NBYTES_OF_A_TASK, SECONDS_OF_A_TASK, about
from helixctl.progress import at
from helixctl.spec import ModelDocument, StepName
from helixctl.units import human_bytes, human_seconds

if TYPE_CHECKING:
    from helixctl.solve.proof import Proof


def load_planned(path: str) -> Plan | Dag:
    """Read a plan or a dag, proved as ``load_document`` does: of a plan no dag is lowered.

    Raises:
        HelixError: as ``load_document``; HX110 for a model or a cluster.
    """
    document = load_document(path)
    if isinstance(document, Plan | Dag):
        return document
    noun = "model" if isinstance(document, ModelDocument) else "cluster"
    hint = "make a plan of it: helixctl plan MODEL CLUSTER -o X.plan.json"
    raise HelixError(Diagnostic("HX110", f"is a {noun}; a plan or a dag is needed", hint, path))


def step_of(planned: Plan | Dag, step: StepName | None, path: str) -> StepName:
    """The step that --step asks for; where it does not, the last of a plan, or that of a dag.

    Raises:
        click.BadParameter: it is not there.
    """
    steps = (planned.step,) if isinstance(planned, Dag) else planned.steps
    if step is None or step in steps:
        return step or steps[-1]
    have = "is of one pass, without steps" if steps == ("pass",) else f"has no {step} step, but {' and '.join(steps)}"
    raise click.BadParameter(f"{path} {have}", param_hint="--step")


def load_dag(path: str) -> Dag:
    """Read a dag, or a plan and lower all of it; either way proved.

    Raises:
        HelixError: as ``load_planned``.
    """
    document = load_planned(path)
    return document if isinstance(document, Dag) else whole_dag(document, path)


def whole_dag(plan: Plan, path: str, step: StepName | None = None) -> Dag:
    """The dag of a plan's step, by default the first, proved; of very many tasks it says how long it takes.

    Raises:
        HelixError: a proof's, with the path.
    """
    tasks = about(plan)
    if tasks > MANY_TASKS:
        memory = human_bytes(tasks * NBYTES_OF_A_TASK)
        text = (
            f"lowering about {tasks:,} tasks: {human_seconds(tasks * SECONDS_OF_A_TASK)}, and {memory} in each process"
        )
        tell(f"note: {path}: {text}")
    at(f"lowering and proving {path}")
    with named(path):
        return lower_plan(plan, step)


def prove_lowered(plan: Plan, path: str) -> Proof:
    """Prove what a plan is lowered to, in a part that all else is a copy of where that is large.

    Raises:
        HelixError: a proof's, with the path.
    """
    from helixctl.solve import proof

    with named(path):
        proved = proof(plan)
        if proved.findings:
            raise HelixError(proved.findings)
    return proved


@contextmanager
def named(path: str) -> Iterator[None]:
    """Findings in what is done here are about this file."""
    try:
        yield
    except HelixError as error:
        raise HelixError([replace(d, file=d.file or path) for d in error.diagnostics]) from None
