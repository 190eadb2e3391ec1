"""How the measurements of a run are printed: one report, or several side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from helixctl.cli.answer import short_name
from helixctl.cli.console import messages, table
from helixctl.cli.predicted import beside, both, prediction
from helixctl.cli.sources import print_sources
from helixctl.cli.tables import Column
from helixctl.cost.tasks import foundation
from helixctl.errors import Diagnostic, HelixError
from helixctl.plan.terms import in_field_terms
from helixctl.units import counted, human_bytes, human_rate, human_seconds

if TYPE_CHECKING:
    from rich.console import Console

    from helixctl.dag import Dag
    from helixctl.plan import Plan
    from helixctl.simulate import Forecast

_FEW = 3  # tensors that a message names
_OVERHEAD = "sync + comm overhead per token (the paper's TPOT)"


def print_report(out: Console, report: dict[str, Any], dag: Dag, device: str) -> None:
    """What one run measured, beside what is predicted for it."""
    predicted = prediction(dag.plan, device)
    out.print(_first_line(report, dag, device, predicted), style="bold")
    _heading(out, report, dag, device)
    out.print()
    out.print(both(_measured(report), _predicted(predicted) if predicted else {}))
    out.print()
    moved = table("level", ">tasks", ">received per rank", ">all ranks")
    for level in report["levels"]:
        moved.add_row(
            level["level"],
            str(level["tasks"]),
            human_bytes(level["received_nbytes_per_rank"]),
            human_bytes(level["received_nbytes"]),
        )
    out.print(moved)
    out.print()
    print_sources(out, report)
    count = counted(report["step_time_ms"]["n"], "step")
    out.print(f"{count} after {report['warmup']} for warm-up; {report['trace_steps']} more traced")
    if predicted:
        out.print(f"predicted from {foundation(dag.plan.model, dag.plan.cluster)}")
    _warn([report], [""])


_RATE: Final = "tokens/s"
_STEP: Final = "step time, mean"
_EXPOSED: Final = "communication per step, exposed"
_HIDDEN: Final = "communication per step, hidden by computing"
_BUSY: Final = "busy share: a rank computes"
_MEMORY: Final = "memory per rank: weights + buffers, largest"


def _measured(report: dict[str, Any]) -> dict[str, str]:
    step, communication = report["step_time_ms"], report["communication"]
    return {
        _RATE: human_rate(report["tokens_per_s"], 1),
        _STEP: f"{step['mean']:.3f} ms",
        "step time, p50 / p90 / p99": f"{step['p50']:.3f} / {step['p90']:.3f} / {step['p99']:.3f} ms",
        _EXPOSED: f"{communication['exposed_ms']:.3f} ms",
        _HIDDEN: f"{communication['hidden_ms']:.3f} ms",
        _OVERHEAD: f"{report['sync_overhead_per_token_ms']:.3f} ms",
        _BUSY: f"{report['busy_share']:.1%} of a step",
        _MEMORY: human_bytes(_largest(report)),
    }


def _predicted(found: Forecast) -> dict[str, str]:
    return {
        _RATE: human_rate(found.tokens_per_s, 1),
        _STEP: f"{found.step_s * 1e3:.3f} ms",
        _EXPOSED: f"{found.exposed_s * 1e3:.3f} ms",
        _HIDDEN: f"{found.hidden_s * 1e3:.3f} ms",
        _OVERHEAD: f"{found.sync_overhead_per_token_ms:.3f} ms",
        _BUSY: f"{found.busy_share:.1%}",
        _MEMORY: human_bytes(found.memory_nbytes),
    }


def _first_line(report: dict[str, Any], dag: Dag, device: str, predicted: Forecast | None) -> str:
    """What was measured, in a line, as ``plan`` says what is predicted."""
    plan, figures = dag.plan, report["figures"]
    terms, step = in_field_terms(plan.layout), f"{human_seconds(figures['step_s'])} a step"
    step = beside(step, human_seconds(predicted.step_s) if predicted else None)
    memory, rate = human_bytes(figures["memory_nbytes"]), f"{human_rate(figures['tokens_per_s'])} tokens/s"
    return f"{terms} on {place(report, plan, device)}, measured: {step}, {rate}, {memory} a device"


def place(report: dict[str, Any], plan: Plan, device: str) -> str:
    """``4 CPU ranks``, ``8 H100``: what a plan ran on."""
    count = plan.layout.devices
    return counted(count, "CPU rank") if device == "cpu" else f"{count} {short_name(report['environment']['gpu'])}"


def print_comparison(out: Console, result: dict[str, Any], dags: Sequence[Dag], device: str) -> None:
    """What runs side by side measured: the paper's table."""
    reports = result["methods"]
    _heading(out, reports[0], dags[0], device, layout=False)
    if different := different_work(dags):
        out.print(f"not the same {different}: the methods do different work")
    out.print()
    rows = table(
        Column("method", fold=3, least=16),
        ">tokens/s (TPS)",
        ">overhead per token (the paper's TPOT)",
        ">step p50",
        Column("p10 - p90", right=True, drop=1),
        Column("against the first", right=True, fold=2, least=11),
    )
    for row in result["comparison"]:
        step = row["step_time_ms"]
        rows.add_row(
            row["method"],
            human_rate(row["tokens_per_s"], 1),
            f"{row['sync_overhead_per_token_ms']:.3f} ms",
            f"{step['p50']:.3f} ms",
            f"{step['p10']:.3f} - {step['p90']:.3f} ms",
            "" if row is result["comparison"][0] else _improvement(row),
        )
    out.print(rows)
    out.print()
    out.print(f"{reports[0]['iters']} steps of each after {reports[0]['warmup']} for warm-up, one of each in turn")
    print_sources(out, reports[0])
    _warn(reports, [f"{row['method']}: " for row in result["comparison"]])


def print_verdicts(out: Console, reports: Sequence[dict[str, Any]], names: Sequence[str] | None = None) -> None:
    """What the check of each output found, where there was one; ``names`` say whose it is.

    Raises:
        HelixError: HX506, of every output that is not the model's.
    """
    wrong = []
    for report, name in zip(reports, names or [""] * len(reports), strict=True):
        wrong += _verdict(out, report, f"{name}: " if name else "")
    if wrong:
        raise HelixError(wrong)


def _warn(reports: Sequence[dict[str, Any]], of: Sequence[str]) -> None:
    """Say where an output is not finite: the times are measured, but whoever takes the numbers should know."""
    for report, name in zip(reports, of, strict=True):
        if not report["output_finite"] and report["check"] is None:
            messages().print(f"{name}warning: the output holds NaN or infinity; --check tells where they come from")


def _verdict(out: Console, report: dict[str, Any], of: str) -> list[Diagnostic]:
    check = report["check"]
    if check is None:
        return []
    error, plain, tolerance = (_error(check[key]) for key in ("error", "unpartitioned_error", "tolerance"))
    numbers = f"relative error {error} against float64; unpartitioned {report['dtype']}: {plain}; tolerated {tolerance}"
    if unlike := check.get("tokens_unlike_float64"):
        numbers += f"; tokens that float64 would choose otherwise: {unlike}"
    if wrong := check.get("wrong_tokens"):
        numbers += f"; tokens that are not those of their logits: {wrong}"
    if check["passed"]:
        out.print(f"{of}check passed: {numbers}")
        return []
    if check["unpartitioned_error"] is None:
        message = f"{of}the model's own output is not finite: {_named(check['not_finite']) or numbers}"
        hint = "correct the file" if check["not_finite"] else "the numbers overflow: try a wider --dtype"
        return [Diagnostic("HX506", message, hint)]
    hint = "the plan was proved: please report this with the plan and the report"
    routed = any(kind["kind"] == "route" for kind in report.get("kinds", ()))
    if routed and report["dtype"] in {"float16", "bfloat16"}:
        hint = "a token whose router logits nearly tie may have gone to another expert: see if --dtype float32 passes"
    return [Diagnostic("HX506", f"{of}{numbers}", hint)]


def _heading(out: Console, report: dict[str, Any], dag: Dag, device: str, *, layout: bool = True) -> None:
    plan = dag.plan
    out.print(what_ran(report, plan, device, layout=layout))
    out.print(f"{plan.workload}")
    out.print(f"attention kernel: {', '.join(report['attention_kernels'])} (torch SDPA)")
    if layers := report.get("experts"):
        counted, law = (sum(max(its[key]) for its in layers) / len(layers) for key in ("tokens", "law"))
        tokens = f"{plan.workload.tokens:,} tokens, mean over layers"
        out.print(f"the fullest expert has {counted:,.0f} of {tokens}; by routing {plan.workload.routing}: {law:,.0f}")
    if report["cuda_graph"]:
        out.print("steps replayed from a CUDA graph, bit for bit what the walk computes")


def what_ran(report: dict[str, Any], plan: Plan, device: str, *, layout: bool = True) -> str:
    """``small-dense, layout 2 x 2, float32: 4 CPU ranks sharing 2 cores (Intel(R) Xeon(R))``."""
    environment, ranks = report["environment"], len(report["ranks"])
    where = environment["gpu" if device == "cuda" else "processor"]
    cpus = "" if device == "cuda" else f" sharing {counted(environment['cpus'], 'core')}"
    what = f"{plan.model.name}, layout {plan.layout}" if layout else plan.model.name
    return f"{what}, {plan.model.dtype}: {counted(ranks, f'{device.upper()} rank')}{cpus} ({where})"


def different_work(dags: Sequence[Dag]) -> str:
    """What of the work differs between the plans: the model, the workload, or both."""
    plan = dags[0].plan
    model = any(dag.plan.model != plan.model for dag in dags)
    workload = any(dag.plan.workload != plan.workload for dag in dags)
    return " and ".join(name for name, differs in (("model", model), ("workload", workload)) if differs)


def _improvement(row: dict[str, Any]) -> str:
    overhead = row["sync_overhead_change"]
    of_overhead = "overhead without measure" if overhead is None else f"{overhead:+.1%} overhead"
    return f"{row['tokens_per_s_change']:+.1%} TPS, {of_overhead}"


def _largest(report: dict[str, Any]) -> int:
    return max(int(r["weight_nbytes"] + r["buffer_nbytes"]) for r in report["ranks"])


def _named(not_finite: Sequence[str]) -> str:
    more = len(not_finite) - _FEW
    return "; ".join(not_finite[:_FEW]) + (f"; and {more} more" if more > 0 else "")


def _error(number: float | None) -> str:
    return "not finite" if number is None else f"{number:.3g}"
