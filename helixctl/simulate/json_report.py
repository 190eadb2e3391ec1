"""The report of ``helixctl simulate`` as JSON-ready data; keys that a report of a run has too mean the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from helixctl.cost.tasks import sources
from helixctl.dag import Dag
from helixctl.plan import Plan
from helixctl.report.seconds import with_seconds
from helixctl.simulate.critical_path import KindOnPath
from helixctl.simulate.figures import figures
from helixctl.simulate.forecast import Forecast, KindForecast

FORMAT_VERSION = "1.2"


def simulation_report(plans: list[dict[str, Any]], against: dict[str, Any] | None = None) -> dict[str, Any]:
    """The report of ``helixctl simulate``.

    Args:
        plans: of each step of each plan what is predicted.
        against: the comparison with a run; None: there is none.
    """
    head = {"report": "helixctl simulate", "format_version": FORMAT_VERSION, "simulated": True}
    return with_seconds(head | {"plans": plans} | ({"against": against} if against else {}))


def plan_report(plan: Plan, dag: Dag, found: Forecast) -> dict[str, Any]:
    """The forecast of one plan, and its sources. Times are milliseconds per step, means over the ranks.

    Args:
        plan: the plan.
        dag: its dag, or a part of it that has tasks of every kind.
        found: its forecast.
    """
    return {
        "plan_digest": plan.digest,
        "model": plan.model.name,
        "cluster": plan.cluster.name,
        "layout": plan.layout.model_dump(),
        "workload": plan.workload.model_dump(),
        "step": dag.step,
        "dtype": plan.model.dtype,
        "figures": figures(found),
        "step_time_ms": found.step_s * 1e3,
        "tokens_per_s": found.tokens_per_s,
        "latency_ms": found.latency_s * 1e3,
        "communication": {"exposed_ms": found.exposed_s * 1e3, "hidden_ms": found.hidden_s * 1e3},
        "sync_overhead_per_token_ms": found.sync_overhead_per_token_ms,
        "busy_share": found.busy_share,
        "received_nbytes_per_rank": found.received_nbytes,
        "between_hosts_nbytes_per_rank": found.between_hosts_nbytes,
        **({"received_nbytes_by_link": dict(found.link_nbytes)} if found.link_nbytes else {}),
        "memory_nbytes": found.memory_nbytes,
        "weight_nbytes": found.weight_nbytes,
        "cache_nbytes": found.cache_nbytes,
        "kinds": [_kind(kind) for kind in found.kinds],
        "sources": list(sources(dag)),
    }


def path_report(path: Sequence[KindOnPath]) -> dict[str, Any]:
    """The critical path of one plan, for the key ``critical_path``. Times are milliseconds."""
    return {
        "tasks": sum(kind.tasks for kind in path),
        "time_ms": sum(kind.seconds for kind in path) * 1e3,
        "kinds": [
            {
                "level": kind.level,
                "kind": kind.kind,
                "lane": kind.lane,
                "tasks": kind.tasks,
                "time_ms": kind.seconds * 1e3,
                "share": kind.share,
            }
            for kind in path
        ],
    }


def _kind(found: KindForecast) -> dict[str, Any]:
    return {
        "level": found.level,
        "kind": found.kind,
        "lane": found.lane,
        "tasks": found.tasks,
        "busy_ms": found.busy_s * 1e3,
        "transfer_ms": found.transfer_s * 1e3,
        "exposed_ms": found.exposed_s * 1e3,
        "received_nbytes_per_rank": found.received_nbytes,
        "between_hosts_nbytes_per_rank": found.between_hosts_nbytes,
        **({"link": found.link} if found.link else {}),
    }
