"""The shapes of the reports that commands write as JSON: schemas/*.report.schema.json are made of these classes.

Layouts, workloads and samplings have the keys of a plan (schemas/plan.schema.json). docs/formats.md says what each key
means, docs/ci.md those of ``validate`` and ``diff``.
"""

from __future__ import annotations

from typing import (
    Any,
    Final,
    Literal,
    NotRequired,  # pydantic asks for these before Python 3.12
)

from pydantic import ConfigDict, with_config
from typing_extensions import TypedDict

from helixctl.report.figures import Figures
from helixctl.report.statistics import Statistics

_closed = with_config(ConfigDict(extra="forbid"))
Axes = dict[str, Any]


# --- helixctl plan ---------------------------------------------------------------------------------------------------


@_closed
class Model(TypedDict):
    """The model that is planned."""

    name: str
    dtype: str
    digest: str


@_closed
class Hosts(TypedDict):
    """Equal hosts of a cluster whose hosts differ."""

    hosts: int
    devices_per_host: int
    device: str
    memory_nbytes: int
    available_nbytes: int


@_closed
class Cluster(TypedDict):
    """The cluster that is planned for; ``available_nbytes`` is the least that a device has without its reserve."""

    name: str
    devices: int
    hosts: int
    device: str
    memory_nbytes: int
    available_nbytes: int
    digest: str
    kinds: NotRequired[list[Hosts]]


@_closed
class Workload(TypedDict):
    """The workload that is planned for."""

    batch: int
    seq_len: int
    logits: str
    output_len: int | None
    prefill_tokens: int | None
    sampling: dict[str, Any] | None
    routing: str
    digest: str


@_closed
class Candidate(Figures):
    """A layout beside the chosen one, or that itself."""

    layout: Axes
    name: str
    chosen: bool
    legal: bool
    fits: bool
    illegal_because: list[str]
    verdict: str | None


@_closed
class TokenTimes(TypedDict):
    """The time per output token over the decode steps."""

    mean_s: float
    p50_s: float
    p90_s: float
    p99_s: float
    contexts: list[int]


@_closed
class Search(TypedDict):
    """How much of the space was searched."""

    legal: int
    simulated: int
    complete: bool
    open_bound: float | None
    text: str


@_closed
class Proved(TypedDict):
    """What was proved."""

    tasks: int
    devices: int
    whole: bool
    part: str | None


@_closed
class PlanReport(TypedDict):
    """``helixctl plan --json``."""

    report: Literal["helixctl plan"]
    format_version: str
    simulated: Literal[True]
    model: Model
    cluster: Cluster
    workload: Workload
    plan_digest: str
    objective: str
    chosen: Candidate
    candidates: list[Candidate]
    decode: TokenTimes | None
    reasons: list[str]
    notes: list[str]
    search: Search
    proved: Proved
    sources: list[str]


# --- helixctl simulate -----------------------------------------------------------------------------------------------


@_closed
class Communication(TypedDict):
    """Of a step, in milliseconds and in seconds."""

    exposed_ms: float
    exposed_s: float
    hidden_ms: float
    hidden_s: float


@_closed
class Percentiles(TypedDict):
    """Milliseconds or seconds, as the key says."""

    mean: float
    p50: float
    p90: float
    p99: float


@_closed
class PredictedKind(TypedDict):
    """The tasks of one kind in one level; ``link``: the widest that they go over, where links inside hosts differ."""

    level: str
    kind: str
    lane: str
    tasks: int
    busy_ms: float
    busy_s: float
    transfer_ms: float
    transfer_s: float
    exposed_ms: float
    exposed_s: float
    received_nbytes_per_rank: int
    between_hosts_nbytes_per_rank: int
    link: NotRequired[str]


@_closed
class KindOnPath(TypedDict):
    """The tasks of one kind on the critical path."""

    level: str
    kind: str
    lane: str
    tasks: int
    time_ms: float
    time_s: float
    share: float


@_closed
class CriticalPath(TypedDict):
    """The chain of tasks that determines the step."""

    tasks: int
    time_ms: float
    time_s: float
    kinds: list[KindOnPath]


@_closed
class PredictedPlan(TypedDict):
    """What is predicted of one step of one plan.

    Where links inside hosts differ, ``received_nbytes_by_link`` has the widest link of the collectives as its key.
    """

    file: str
    plan_digest: str
    model: str
    cluster: str
    layout: Axes
    workload: Axes
    step: Literal["pass", "prefill", "decode"]
    dtype: str
    figures: Figures
    step_time_ms: float
    step_time_s: float
    tokens_per_s: float
    latency_ms: float
    latency_s: float
    communication: Communication
    sync_overhead_per_token_ms: float
    sync_overhead_per_token_s: float
    busy_share: float
    received_nbytes_per_rank: int
    between_hosts_nbytes_per_rank: int
    received_nbytes_by_link: NotRequired[dict[str, int]]
    memory_nbytes: int
    weight_nbytes: int
    cache_nbytes: int
    kinds: list[PredictedKind]
    sources: list[str]
    time_per_output_token_ms: Percentiles | None
    time_per_output_token_s: Percentiles | None
    critical_path: NotRequired[CriticalPath]


@_closed
class SimulateReport(TypedDict):
    """``helixctl simulate --json``; ``against`` with ``--against``."""

    report: Literal["helixctl simulate"]
    format_version: str
    simulated: Literal[True]
    plans: list[PredictedPlan]
    against: NotRequired[dict[str, Any]]


# --- helixctl diff ---------------------------------------------------------------------------------------------------


@_closed
class Side(TypedDict):
    """One of two plans."""

    file: str
    kind: Literal["plan", "dag"]
    plan_digest: str
    model: str
    cluster: str
    workload: Axes
    layout: Axes
    figures: Figures
    sources: list[str]


@_closed
class OtherAxis(TypedDict):
    """An axis that two layouts have with different values."""

    axis: str
    a: Any
    b: Any


@_closed
class OtherField(TypedDict):
    """A field of a spec that two plans have with different values."""

    field: str
    a: Any
    b: Any


@_closed
class Predicted(TypedDict):
    """A number of both plans, and B / A."""

    a: float
    b: float
    ratio: float | None


@_closed
class Condition(TypedDict):
    """A condition of ``--fail-if``, and whether it holds."""

    condition: str
    holds: bool


@_closed
class DiffReport(TypedDict):
    """``helixctl diff --json``."""

    report: Literal["helixctl diff"]
    format_version: str
    equal: bool
    simulated: Literal[True]
    a: Side
    b: Side
    layout: list[OtherAxis]
    specs: list[OtherField]
    predicted: dict[str, Predicted]
    fail_if: list[Condition]


# --- helixctl validate -----------------------------------------------------------------------------------------------


@_closed
class File(TypedDict):
    """A document that was checked."""

    file: str
    kind: str | None
    valid: bool
    verdict: Literal["valid", "refused", "malformed"]
    digest: str | None
    summary: str
    warnings: list[str]


@_closed
class Position(TypedDict):
    """A line and a column, from 1."""

    line: int
    column: int | None


@_closed
class Range(TypedDict):
    """Where a finding is."""

    filename: str | None
    start: Position | None


@_closed
class Finding(TypedDict):
    """What is wrong with a document."""

    severity: Literal["error"]
    code: str
    title: str
    summary: str
    hint: str | None
    path: str | None
    range: Range


@_closed
class ValidateReport(TypedDict):
    """``helixctl validate --json``."""

    report: Literal["helixctl validate"]
    format_version: str
    valid: bool
    exit_status: int
    error_count: int
    files: list[File]
    skipped: list[str]
    diagnostics: list[Finding]


# --- helixctl run ----------------------------------------------------------------------------------------------------


class Run(TypedDict):
    """What every report of one plan has; ``generation`` where it is one."""

    report: Literal["helixctl run"]
    format_version: str
    simulated: Literal[False]
    plan_digest: str
    model: str
    layout: Axes
    workload: Axes
    dtype: str
    seed: int
    figures: Figures
    cuda_graph: bool
    weights: dict[str, Any] | None
    input: dict[str, Any] | None
    memory: dict[str, int]
    ranks: list[dict[str, Any]]
    check: dict[str, Any] | None
    environment: dict[str, Any]
    started_at: str


@_closed
class Pass(Run):
    """``helixctl run --json`` of a pass."""

    dag_digest: str
    warmup: int
    iters: int
    trace_steps: int
    tokens_per_s: float
    step_time_ms: Statistics
    step_time_s: Statistics
    communication: Communication
    sync_overhead_per_token_ms: float
    sync_overhead_per_token_s: float
    busy_share: float
    levels: list[dict[str, Any]]
    kinds: list[dict[str, Any]]
    attention_kernels: list[str]
    experts: NotRequired[list[dict[str, Any]]]
    output_finite: bool


@_closed
class Generation(Run):
    """``helixctl run --json`` of a plan with a prefill and a decode step."""

    generation: Literal[True]
    dag_digests: dict[str, str]
    sequences: int
    prompt_tokens: list[int]
    output_tokens: int
    ttft_ms: float
    ttft_s: float
    time_per_output_token_ms: Statistics | None
    time_per_output_token_s: Statistics | None
    output_tokens_per_s: float
    output_tokens_per_s_per_user: float | None
    communication: dict[str, float | None]
    cache: dict[str, int]
    tokens: list[list[int]]
    text: NotRequired[list[str]]


@_closed
class PassesCompared(TypedDict):
    """``helixctl run --compare --json`` of passes."""

    report: Literal["helixctl run --compare"]
    format_version: str
    simulated: Literal[False]
    comparison: list[dict[str, Any]]
    methods: list[Pass]


@_closed
class GenerationsCompared(TypedDict):
    """``helixctl run --compare --json`` of generations."""

    report: Literal["helixctl run --compare"]
    generation: Literal[True]
    format_version: str
    simulated: Literal[False]
    comparison: list[dict[str, Any]]
    methods: list[Generation]


RunReport = Pass | Generation | PassesCompared | GenerationsCompared

# By the command that writes them.
REPORTS: Final[dict[str, Any]] = {
    "plan": PlanReport,
    "simulate": SimulateReport,
    "diff": DiffReport,
    "validate": ValidateReport,
    "run": RunReport,
}
