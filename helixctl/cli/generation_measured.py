"""How the measurements of a generation are printed, beside what is predicted for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from helixctl.cli.measurements import place, what_ran
from helixctl.cli.predicted import beside, both, prediction
from helixctl.cli.sampling import choice
from helixctl.cost.tasks import foundation
from helixctl.plan.terms import in_field_terms
from helixctl.units import counted, human_bytes, human_rate, human_seconds

if TYPE_CHECKING:
    from rich.console import Console

    from helixctl.plan import Plan
    from helixctl.simulate import Forecast


def print_generation(out: Console, report: dict[str, Any], plan: Plan, device: str) -> None:
    """What one plan measured.

    Args:
        out: where the answer goes.
        report: of the generation.
        plan: as it ran.
        device: cpu or cuda.
    """
    predicted = prediction(plan, device)
    out.print(_first_line(report, plan, device, predicted), style="bold")
    out.print(what_ran(report, plan, device))
    planned = "" if _as_planned(report, plan) else "planned for "
    out.print(f"{planned}{plan.workload}; a static batch, without a queue")
    if report["cuda_graph"]:
        out.print("decode steps replayed from a CUDA graph, the first of them bit for bit what the walk computes")
    out.print()
    out.print(both(_measured(report), _predicted(predicted) if predicted else {}))
    out.print()
    made = counted(report["output_tokens"], "token")
    how = choice(plan.workload.sampling, report["seed"])
    out.print(f"{made} of {counted(report['sequences'], 'sequence')}, {how}")
    if predicted:
        work = plan.workload
        lengths = f"prompts of {counted(work.seq_len, 'token')} and {work.output_len or 1:,} after each"
        out.print(f"predicted for {lengths}, from {foundation(plan.model, plan.cluster)}")


def _first_line(report: dict[str, Any], plan: Plan, device: str, predicted: Forecast | None) -> str:
    """What was measured, in a line, as ``plan`` says what is predicted.

    A prediction for the same lengths stands beside it.
    """
    figures, its = report["figures"], predicted.generation if predicted and _as_planned(report, plan) else None
    first = f"first token {human_seconds(figures['ttft_s'])}"
    parts = [beside(first, human_seconds(its.ttft_s) if its else None)]
    if figures["time_per_output_token_s"] is not None:
        each = f"{human_seconds(figures['time_per_output_token_s'])} a token"
        parts.append(beside(each, human_seconds(its.time_per_output_token_s) if its else None))
    lengths = {sum(token >= 0 for token in tokens) for tokens in report["tokens"]}
    most = f"{'up to ' if len(lengths) > 1 else ''}{counted(max(lengths), 'token')} a sequence"
    parts += [most, f"{human_bytes(figures['memory_nbytes'])} a device"]
    return f"{in_field_terms(plan.layout)} on {place(report, plan, device)}, measured: {', '.join(parts)}"


def _as_planned(report: dict[str, Any], plan: Plan) -> bool:
    """Whether every prompt had as many tokens as the plan says, and as many came after it."""
    work = plan.workload
    made = report["output_tokens"] == work.batch * (work.output_len or 1)
    return made and set(report["prompt_tokens"]) == {work.seq_len}


_TTFT: Final = "time to first token (the last of the batch)"
_EACH: Final = "time per output token, mean"
_USER: Final = "tokens/s per user, decoding"
_TOTAL: Final = "output tokens/s, prefill included"
_PREFILL: Final = "communication, exposed: prefill"
_DECODE: Final = "communication, exposed: a decode step"
_CACHE: Final = "KV cache per rank, largest"
_MEMORY: Final = "memory per rank, largest"


def _measured(report: dict[str, Any]) -> dict[str, str]:
    each, communication, cache = report["time_per_output_token_ms"], report["communication"], report["cache"]
    found = {_TTFT: f"{report['ttft_ms']:.1f} ms"}
    if each:
        percentiles = f"{each['p50']:.3f} / {each['p90']:.3f} / {each['p99']:.3f} ms"
        found |= {_EACH: f"{each['mean']:.3f} ms", "time per output token, p50 / p90 / p99": percentiles}
        found |= {_USER: human_rate(report["output_tokens_per_s_per_user"], 1)}
    found |= {_TOTAL: human_rate(report["output_tokens_per_s"], 1)}
    found |= {_PREFILL: f"{communication['prefill_exposed_ms']:.1f} ms"}
    if each:
        found |= {_DECODE: f"{communication['decode_exposed_ms']:.3f} ms"}
    found |= {_CACHE: human_bytes(cache["cache_nbytes_per_rank"])}
    found |= {"KV cache, all ranks": human_bytes(cache["cache_nbytes"])}
    return found | {_MEMORY: human_bytes(report["memory"]["allocated_nbytes"])}


def _predicted(found: Forecast) -> dict[str, str]:
    its = found.generation
    if its is None:
        return {}
    return {
        _TTFT: f"{its.ttft_s * 1e3:.1f} ms",
        _EACH: f"{its.time_per_output_token_s * 1e3:.3f} ms",
        _USER: human_rate(its.tokens_per_s_per_user, 1),
        _TOTAL: human_rate(its.output_tokens_per_s, 1),
        _PREFILL: f"{its.chunks * its.prefill.exposed_s * 1e3:.1f} ms",
        _DECODE: f"{its.decode.exposed_s * 1e3:.3f} ms",
        _CACHE: human_bytes(found.cache_nbytes),
        _MEMORY: human_bytes(found.memory_nbytes),
    }
