"""Documents that many tests start from."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

from helixctl.dag import Dag
from helixctl.lower import lower
from helixctl.plan import Layout, Plan
from helixctl.spec import ClusterSpec, ModelSpec
from helixctl.spec.load import load_specs

ROOT = Path(__file__).parent.parent
PAPER = (str(ROOT / "plans/paper/dense.model.yaml"), str(ROOT / "plans/paper/h100x16.cluster.yaml"))
SMALL = (str(ROOT / "plans/small/dense.model.yaml"), str(ROOT / "plans/small/cpu16.cluster.yaml"))
PAPER_MOE = (str(ROOT / "plans/paper/moe.model.yaml"), PAPER[1])
BLOCKS = (str(ROOT / "plans/small/blocks.model.yaml"), SMALL[1])
SMALL_MOE = (str(ROOT / "plans/small/moe.model.yaml"), SMALL[1])
LINKS = ROOT / "plans/links"
TINY = ("layers=1", "hidden_size=8", "attention.heads=2", "attention.head_dim=4", "attention.softmax_slices=2",
        "feed_forward.intermediate_size=16", "workload.batch=2", "workload.seq_len=3")  # fmt: skip


def plan_of(specs: tuple[str, str], groups: int, slices: int, *sets: str, **axes: int | str) -> Plan:
    """A plan of spec files with a given layout, on one host of as many devices where the cluster is small."""
    layout = Layout.model_validate({"groups": groups, "slices": slices, **axes})
    devices = () if specs[1] == PAPER[1] else (f"devices_per_host={layout.devices}",)
    document, cluster = load_specs(*specs, (*devices, *sets))
    return Plan.of(document.model, cluster, document.workload, layout)


def as_shipped(plan: Plan) -> Plan:
    """A plan of the small cluster as the shipped ones are: older than the canonical order of the dtypes in ``peak``."""
    peak = plan.cluster.device.peak
    listed = {name: peak[name] for name in ("float64", "float32", "float16", "bfloat16") if name in peak}
    device = plan.cluster.device.model_copy(update={"peak": listed})
    cluster = plan.cluster.model_copy(update={"device": device})
    return Plan.of(plan.model, cluster, plan.workload, plan.layout)


@lru_cache(maxsize=16)
def dag_of(specs: tuple[str, str], groups: int, slices: int, *sets: str, **axes: int | str) -> Dag:
    """The dag of such a plan; it never changes, so that tests share it."""
    return lower(plan_of(specs, groups, slices, *sets, **axes))


def tiny(groups: int, slices: int, *sets: str) -> Dag:
    """A dag of one layer that fits on a page."""
    return dag_of(SMALL, groups, slices, *TINY, *sets)


def specs(paths: tuple[str, str], *sets: str) -> tuple[ModelSpec, ClusterSpec, Any]:
    """Model, cluster and workload of spec files."""
    document, cluster = load_specs(*paths, sets)
    return document.model, cluster, document.workload
