"""The document of a sweep: what ``helixctl sweep --json`` writes; its tables and plots are made from it alone.

All times are seconds, all sizes bytes, all rates tokens per second. Nothing in it is measured.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict

from helixctl.solve import Objective

FORMAT_VERSION: Final = "1.1"
State = Literal["planned", "over_limit", "refused"]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Point(_Part):
    """One batch of one length on one number of devices.

    Attributes:
        batch, input_len: sequences, and tokens of each; of a generation those of its prompt.
        devices, hosts: the part of the cluster that it was planned for.
        state: ``planned``; ``over_limit``: planned, and no layout keeps within the limits, so that the figures are
            of the one that comes nearest; ``refused``: there is no plan, and no figure.
        code, reason, hint: why it is not ``planned``: what ``helixctl plan`` says of it.
        layout: every axis of the layout.
        name, terms: the layout as ``plan`` prints it, and in the field's terms, ``TP 8 x DP 2``.
        step_s: the pass, or the whole generation; this and what follows are the figures of every report
            (``report/figures.py``).
        output_tokens_per_s_per_device: of a generation, of all sequences, the prefill included, by device.
        tokens_per_s_per_device: ``tokens_per_s`` by device.
        on_front: no other point of the sweep beats it in both of its ``rates``.
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
    terms: str | None = None
    step_s: float | None = None
    tokens_per_s: float | None = None
    latency_s: float | None = None
    exposed_s: float | None = None
    hidden_s: float | None = None
    busy_share: float | None = None
    received_nbytes: int | None = None
    between_hosts_nbytes: int | None = None
    memory_nbytes: int | None = None
    weight_nbytes: int | None = None
    cache_nbytes: int | None = None
    ttft_s: float | None = None
    time_per_output_token_s: float | None = None
    output_tokens_per_s: float | None = None
    tokens_per_s_per_user: float | None = None
    output_tokens_per_s_per_device: float | None = None
    tokens_per_s_per_device: float | None = None
    on_front: bool = False
    complete: bool | None = None
    plan_digest: str | None = None

    @property
    def rates(self) -> tuple[float, float]:
        """What is weighed against each other, more is better: what a user gets, and what a device gives.

        Returns:
            Of a generation tokens per second of a user and of a device. Of one pass steps per second, and tokens per
            second of a device. Zeros of a point without figures.
        """
        if self.tokens_per_s_per_user and self.output_tokens_per_s_per_device:
            return self.tokens_per_s_per_user, self.output_tokens_per_s_per_device
        if self.step_s and self.tokens_per_s_per_device:
            return 1 / self.step_s, self.tokens_per_s_per_device
        return 0.0, 0.0

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
        model, cluster: as they were given on the command line; their names where they come from no file.
        sets: the ``--set`` texts.
        layout: axes that were fixed, the same in every point.
        plain: whether the other axes but groups and slices keep their defaults.
    """

    helixctl: str
    model: str
    cluster: str
    sets: tuple[str, ...]
    layout: dict[str, int | str]
    plain: bool


class Sweep(_Part):
    """All points of a sweep, by length, devices and batch, and what they have in common.

    Attributes:
        report, format_version, simulated: what the document is; nothing in it is measured.
        model, cluster, output_len: what is planned, for which devices; tokens that are generated after each prompt,
            null where every point is one pass.
        objective, limits: what the layouts were chosen by.
        points: every batch of every length on every number of devices.
        notes: sentences on model and cluster.
        provenance: how it was asked for, and by which version it was made.
        sources: a line for every constant that the predictions rest on.
    """

    report: Literal["helixctl sweep"] = "helixctl sweep"
    format_version: Literal["1.0", "1.1"] = FORMAT_VERSION
    simulated: Literal[True] = True
    model: ModelOfSweep
    cluster: ClusterOfSweep
    output_len: int | None
    objective: Objective
    limits: LimitsOfSweep
    points: tuple[Point, ...]
    notes: tuple[str, ...]
    provenance: Provenance
    sources: tuple[str, ...]

    def of(self, model: str, cluster: str, sets: Iterable[str], notes: Iterable[str]) -> Sweep:
        """The same with how model and cluster were given, and with notes on them ahead of its own."""
        given = {"model": model, "cluster": cluster, "sets": tuple(sets)}
        origin = self.provenance.model_copy(update=given)
        return self.model_copy(update={"provenance": origin, "notes": (*notes, *self.notes)})

    def to_json(self) -> str:
        """The text of its file."""
        return self.model_dump_json(indent=2) + "\n"
