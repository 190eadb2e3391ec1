"""The runtime's one entrance: run a proved dag on ranks of this machine, or as one rank of an outer launcher."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from helixctl.dag import Dag
from helixctl_runtime.execute import Options, Work
from helixctl_runtime.files import Numbers
from helixctl_runtime.ranks import run_ranks
from helixctl_runtime.ranks.environment import detect

__all__ = ["Options", "run", "speaks"]


def speaks() -> bool:
    """Whether this process prints for all: it starts the ranks itself, or is rank 0 of an outer launcher."""
    place = detect(os.environ)
    return place is None or place.rank == 0


def run(
    dag: Dag,
    options: Options,
    *,
    device: Literal["cpu", "cuda"],
    timeout: float,
    log_dir: Path | None = None,
    watch: Callable[[str, int], None] | None = None,
) -> dict[str, Any] | None:
    """Run a dag; the report, or None where another process is rank 0.

    ``watch(phase, step)`` is called a few times a second while ranks of this machine run.

    Raises:
        HelixError: HX5xx, with the rank, the task and the log where a rank failed.
    """
    Numbers(options.seed, options.weights, options.inputs).check(dag)
    results = run_ranks(
        Work(dag, options),
        world_size=dag.plan.layout.devices,
        device=device,
        timeout=timeout,
        task_name=lambda rank, place: dag.order[rank][place],
        log_dir=log_dir,
        watch=watch and (lambda at: watch(at.phase.name.lower(), at.step)),
    )
    result: Any = results[0]
    return result
