"""A decision as JSON-ready data: what the table of ``helixctl plan`` says, of all layouts that were priced."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Final

from helixctl.plan import Plan
from helixctl.report.figures import no_figures
from helixctl.simulate.figures import figures
from helixctl.solve.candidate import Candidate
from helixctl.solve.decide import Decision
from helixctl.solve.proof import Proof
from helixctl.solve.token_times import token_times
from helixctl.solve.verdict import Row, too_big
from helixctl.spec import EqualHosts

FORMAT_VERSION: Final = "1.0"


def report(decision: Decision, proof: Proof, notes: Sequence[str], sources: Sequence[str]) -> dict[str, Any]:
    """What was chosen, beside what, and why; docs/formats.md, "Report of a plan", has every key.

    Args:
        decision: of the solver.
        proof: what was proved of the plan.
        notes: sentences on the plan.
        sources: a line for every constant that the predictions rest on.

    Returns:
        A mapping of plain values: seconds, bytes, tokens per second; no unit needs a prefix.
    """
    plan = decision.plan
    rows = {row.candidate.layout: row for row in decision.rows}
    legal = [_candidate(c, plan, rows.get(c.layout)) for c in decision.priced]
    illegal = [_candidate(row.candidate, plan, row) for row in decision.rows if row.candidate.forecast is None]
    return {
        "report": "helixctl plan",
        "format_version": FORMAT_VERSION,
        "simulated": True,
        "model": {"name": plan.model.name, "dtype": plan.model.dtype, "digest": plan.digests.model},
        "cluster": _cluster(plan),
        "workload": {
            "batch": plan.workload.batch,
            "seq_len": plan.workload.seq_len,
            "logits": plan.workload.logits,
            "output_len": plan.workload.output_len,
            "prefill_tokens": plan.workload.prefill_tokens,
            "sampling": plan.workload.sampling and plan.workload.sampling.model_dump(),
            "routing": plan.workload.routing,
            "digest": plan.digests.workload,
        },
        "plan_digest": plan.digest,
        "objective": decision.objective,
        "chosen": next(candidate for candidate in legal if candidate["chosen"]),
        "candidates": [*legal, *illegal],
        "decode": _decode(decision),
        "reasons": list(decision.reasons),
        "notes": list(notes),
        "search": {
            "legal": decision.legal,
            "simulated": decision.simulated,
            "complete": decision.open_bound is None,
            "open_bound": None if decision.open_bound is None else decision.open_bound[0],
            "text": decision.searched,
        },
        "proved": {
            "tasks": len(proof.dag.tasks),
            "devices": proof.dag.plan.layout.devices,
            "whole": not proof.part,
            "part": proof.part or None,
        },
        "sources": list(sources),
    }


def _decode(decision: Decision) -> dict[str, Any] | None:
    """The time per output token of the choice: mean and percentiles; None where there is no decode step."""
    plan, its = decision.plan, decision.forecast.generation
    times = token_times(plan) if its else None
    return {"mean_s": its.time_per_output_token_s, **asdict(times)} if its and times else None


def _cluster(plan: Plan) -> dict[str, Any]:
    cluster = plan.cluster
    return {
        "name": cluster.name,
        "devices": cluster.devices,
        "hosts": cluster.host_count,
        "device": cluster.device_names,
        "memory_nbytes": min(kind.device.memory for kind in cluster.kinds),
        "available_nbytes": min(kind.device.available for kind in cluster.kinds),
        "digest": plan.digests.cluster,
        **({"kinds": list(map(_hosts, cluster.kinds))} if cluster.differs else {}),
    }


def _hosts(kind: EqualHosts) -> dict[str, Any]:
    """Of a cluster whose hosts differ, those of one kind."""
    return {
        "hosts": kind.hosts,
        "devices_per_host": kind.devices_per_host,
        "device": kind.device.name,
        "memory_nbytes": kind.device.memory,
        "available_nbytes": kind.device.available,
    }


def _candidate(candidate: Candidate, plan: Plan, row: Row | None) -> dict[str, Any]:
    """One layout: legal or why not, whether it fits, its verdict if it has a row, and its figures if it is legal."""
    found = candidate.forecast
    layout = candidate.layout
    return {
        "layout": layout.model_dump(),
        "name": str(layout),
        "chosen": layout == plan.layout,
        "legal": found is not None,
        "fits": found is not None and too_big(candidate, plan.cluster) is None,
        "illegal_because": list(candidate.reasons),
        "verdict": row.verdict if row else None,
        **(figures(found) if found else no_figures()),
    }
