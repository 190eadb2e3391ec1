"""Why an engine cannot run a layout, and what it can."""

from __future__ import annotations

from collections.abc import Sequence

from helixctl.errors import Diagnostic, HelixError
from helixctl.export.engine import Engine
from helixctl.export.nearest import Nearest
from helixctl.plan import Plan


def cannot_run(engine: Engine, plan: Plan, unmet: Sequence[str], found: Nearest | None, file: str) -> HelixError:
    """HX601, with a line for everything that the engine needs.

    Args:
        engine: what cannot run the plan.
        plan: its layout cannot be run.
        unmet: what the engine needs.
        found: what it can run in its place; None: nothing.
        file: of the plan.
    """
    if found is None:
        devices = plan.cluster.devices
        hint = (
            f"no layout of these {devices} devices that {engine.name} can run fits; helixctl run runs the plan as it is"
        )
    else:
        hint = f"the best that {engine.name} can run here: {found.plan.layout}, {found.beside}; --nearest writes it"
    *first, last = unmet
    texts = [Diagnostic("HX601", f"{engine.name} needs {text}", None, file) for text in first]
    return HelixError([*texts, Diagnostic("HX601", f"{engine.name} needs {last}", hint, file)])
