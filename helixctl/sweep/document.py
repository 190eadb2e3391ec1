"""The document of a sweep: what ``helixctl sweep --json`` writes; its tables and plots are made from it alone.

All times are seconds, all sizes bytes, all rates tokens per second. Nothing in it is measured.
"""

from __future__ import annotations

from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict

from helixctl.solve import Objective

FORMAT_VERSION: Final = "1.0"
State = Literal["planned", "over_limit", "refused"]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Point(_Part):
    """One batch of one prompt length on one number of devices.

    Attributes:
        batch, input_len: sequences, and tokens of the prompt of each.
        devices, hosts: the part of the cluster that it was planned for.
        state: ``planned``; ``over_limit``: planned, and no layout keeps within the limits, so that the figures are
            of the one that comes nearest; ``refused``: there is no plan, and no figure.
        code, reason, hint: why it is not ``planned``: what ``helixctl plan`` says of it.
        layout: every axis of the layout.
        name, short: the layout as ``plan`` prints it, and in a few words.
        ttft_s: until every sequence has its first token.
        time_per_output_token_s: of a decode step, the mean.
        tokens_per_s_per_user: what one sequence gets while it is decoded.
        output_tokens_per_s: of all sequences, the time of the prefill included.
        output_tokens_per_s_per_device: the same by device.
        total_s: until all tokens are there.
        decode_exposed_s: communication of a decode step that no computation hides, mean over the ranks.
        memory_nbytes: of the fullest device: weights, cache and arenas.
        weight_nbytes, cache_nbytes: of the same.
        on_front: no other point of the sweep beats it in both rates, by user and by device.
        complete: no layout that was not simulated can be better.
        plan_digest: of the plan that ``helixctl plan`` writes of this point.
    """

    batch: int
    input_len: int
    devices: int
    hosts: int
    state: State
    code: str | None = None
    reason: str | None = None
    hint: str | None = None
    layout: dict[str, Any] | None = None
    name: str | None = None
    short: str | None = None
    ttft_s: float | None = None
    time_per_output_token_s: float | None = None
    tokens_per_s_per_user: float | None = None
    output_tokens_per_s: float | None = None
    output_tokens_per_s_per_device: float | None = None
    total_s: float | None = None
    decode_exposed_s: float | None = None
    memory_nbytes: int | None = None
    weight_nbytes: int | None = None
    cache_nbytes: int | None = None
    on_front: bool = False
    complete: bool | None = None
    plan_digest: str | None = None

    def __hash__(self) -> int:
        """By what was asked for."""
        return hash((self.batch, self.input_len, self.devices))


class ModelOfSweep(_Part):
    """The model: ``digest`` is that of its spec in every plan."""

    name: str
    dtype: str
    digest: str


class ClusterOfSweep(_Part):
    """The whole cluster. ``available_nbytes``: of a device, without its reserve."""

    name: str
    devices: int
    hosts: int
    device: str
    memory_nbytes: float
    available_nbytes: float
    digest: str


class LimitsOfSweep(_Part):
    """The most seconds that a layout may take to be chosen; null: no limit."""

    max_ttft_s: float | None = None
    max_tpot_s: float | None = None


class Provenance(_Part):
    """Where the figures come from.

    Attributes:
        helixctl: the version that made them.
        model, cluster: as they were given on the command line.
        sets: the ``--set`` texts.
        layout: axes that were fixed, the same in every point.
        plain: whether the other axes but groups and slices keep their defaults.
        sources: a line for every constant that the predictions rest on.
    """

    helixctl: str
    model: str
    cluster: str
    sets: tuple[str, ...]
    layout: dict[str, int | str]
    plain: bool
    sources: tuple[str, ...]


class Sweep(_Part):
    """All points of a sweep, by prompt length, devices and batch, and what they have in common."""

    report: Literal["helixctl sweep"] = "helixctl sweep"
    format_version: Literal["1.0"] = FORMAT_VERSION
    simulated: Literal[True] = True
    model: ModelOfSweep
    cluster: ClusterOfSweep
    output_len: int
    objective: Objective
    limits: LimitsOfSweep
    points: tuple[Point, ...]
    notes: tuple[str, ...]
    provenance: Provenance

    def to_json(self) -> str:
        """The text of its file."""
        return self.model_dump_json(indent=2) + "\n"
