"""A dag on a cluster that was calibrated."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from helixctl.dag import Dag
from helixctl.spec.calibration import CalibrationSpec


def calibrated(dag: Dag, **tables: Any) -> Dag:
    """The same dag; ``tables`` are as a cluster file would have them."""
    spec = CalibrationSpec.model_validate({"source": "a test", "task_overhead": "3 us", **tables})
    cluster = dag.plan.cluster.model_copy(update={"calibration": spec})
    return replace(dag, plan=dag.plan.model_copy(update={"cluster": cluster}))
