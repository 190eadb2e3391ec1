"""The figures of a point as texts: what tables, pages and plots say of it, of a generation and of one pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from helixctl.sweep.document import Point, Sweep
from helixctl.units import human_bytes, human_rate, human_seconds


class Figure(NamedTuple):
    """A figure of a point that is planned.

    Attributes:
        field: of the rows of the plots.
        short: its heading in a table of 80 columns.
        long: its heading where there is room.
        text: makes its text.
        drop: when a narrow table leaves it out, the lowest first; None: never.
    """

    field: str
    short: str
    long: str
    text: Callable[[Point], str]
    drop: int | None = None


_DEVICE: Final = Figure("device_text", "device/s", "tokens/s of a device", lambda p: _rate(p.rates[1]))
_MEMORY: Final = Figure("memory_text", "memory", "memory", lambda p: human_bytes(p.memory_nbytes or 0), 3)
_OF_A_GENERATION: Final = (
    Figure("tpot_text", "per token", "per token", lambda p: human_seconds(p.time_per_output_token_s or 0)),
    Figure("user_text", "user/s", "tokens/s of a user", lambda p: _rate(p.rates[0])),
    _DEVICE,
    Figure("ttft_text", "TTFT", "TTFT", lambda p: human_seconds(p.ttft_s or 0), 4),
    _MEMORY,
)
_OF_A_PASS: Final = (
    Figure("step_text", "step", "step", lambda p: human_seconds(p.step_s or 0)),
    Figure("total_text", "tokens/s", "tokens/s of all", lambda p: human_rate(p.tokens_per_s or 0), 2),
    _DEVICE,
    Figure("exposed_text", "exposed", "communication exposed", lambda p: _exposed(p.exposed_s), 1),
    _MEMORY,
)


def figures_of(sweep: Sweep) -> tuple[Figure, ...]:
    """The figures that a person is shown of each point, in their order."""
    return _OF_A_PASS if sweep.output_len is None else _OF_A_GENERATION


def tokens_of(sweep: Sweep) -> str:
    """What ``input_len`` counts: tokens of a prompt, or of a sequence."""
    return "prompt" if sweep.output_len else "sequence"


def both_rates(sweep: Sweep) -> str:
    """What the Pareto front weighs against each other."""
    return f"{'step time' if sweep.output_len is None else 'tokens/s of a user'}, tokens/s of a device"


def _exposed(seconds: float | None) -> str:
    return human_seconds(seconds) if seconds else "0"


def _rate(tokens_per_s: float) -> str:
    return human_rate(tokens_per_s, 1)
