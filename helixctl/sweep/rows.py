"""The rows of a sweep's plots: a point's figures as numbers to draw, and as texts to read."""

from __future__ import annotations

from typing import Any, Final

from helixctl.sweep.document import Point, Sweep
from helixctl.units import counted, human_bytes, human_seconds

# What a mark tells when the pointer is on it: the field of a row, and its heading.
TOLD: Final = (
    ("batch_text", "batch"),
    ("input_text", "prompt"),
    ("devices_text", "devices"),
    ("layout", "layout"),
    ("tpot_text", "per token"),
    ("user_text", "tokens/s of a user"),
    ("device_text", "tokens/s of a device"),
    ("total_text", "tokens/s of all"),
    ("ttft_text", "TTFT"),
    ("memory_text", "memory of the fullest device"),
    ("note", "note"),
)


def rows(sweep: Sweep) -> list[dict[str, Any]]:
    """A row for every point; those without a plan have no figures."""
    return [_row(point) for point in sweep.points]


def _row(point: Point) -> dict[str, Any]:
    place = {
        "batch": point.batch,
        "devices": point.devices,
        "input_len": point.input_len,
        "state": point.state,
        "front": point.on_front,
        "batch_text": counted(point.batch, "sequence"),
        "input_text": counted(point.input_len, "token"),
        "devices_text": f"{point.devices:,} on {counted(point.hosts, 'host')}",
        "note": _note(point),
    }
    return place | _figures(point)


def _note(point: Point) -> str:
    if point.state == "over_limit":
        return f"over the limit: {point.reason}"
    if point.state == "refused":
        return f"{point.code} {point.reason}"
    return "on the Pareto front" if point.on_front else "another point has more of one rate and no less of the other"


def _figures(point: Point) -> dict[str, Any]:
    if point.memory_nbytes is None or point.weight_nbytes is None or point.cache_nbytes is None:
        return {}
    arenas = point.memory_nbytes - point.weight_nbytes - point.cache_nbytes
    return {
        "layout": point.name,
        "terms": point.terms,
        "user": point.tokens_per_s_per_user,
        "device": point.output_tokens_per_s_per_device,
        "total": point.output_tokens_per_s,
        "ttft": point.ttft_s,
        "weights": point.weight_nbytes,
        "cache": point.cache_nbytes,
        "arenas": arenas,
        "tpot_text": human_seconds(point.time_per_output_token_s or 0),
        "user_text": f"{point.tokens_per_s_per_user:,.1f}",
        "device_text": f"{point.output_tokens_per_s_per_device:,.1f}",
        "total_text": f"{point.output_tokens_per_s:,.0f}",
        "ttft_text": human_seconds(point.ttft_s or 0),
        "memory_text": f"{human_bytes(point.memory_nbytes)}: weights {human_bytes(point.weight_nbytes)}, "
        f"cache {human_bytes(point.cache_nbytes)}, arenas {human_bytes(arenas)}",
    }
