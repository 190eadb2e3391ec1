"""Compare a forecast with the measurements of a run of the same dag."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from helixctl.dag import Lane
from helixctl.errors import Diagnostic, HelixError
from helixctl.records import record
from helixctl.simulate.forecast import Forecast
from helixctl.spec import Dtype
from helixctl.spec.load import parse_mapping, read_text, validate_document

_Number = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _ReportPart(BaseModel):
    """A part of a run's report; keys that are not compared are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class MeasuredKind(_ReportPart):
    """Measured milliseconds per step of the tasks of one kind in one level; means over the ranks (``KindForecast``)."""

    level: str
    kind: str
    lane: Lane
    busy_ms: _Number
    exposed_ms: _Number


class MeasuredStepTime(_ReportPart):
    """Measured milliseconds of a step."""

    mean: _Number


class MeasuredRun(_ReportPart):
    """What a report of ``helixctl run`` and a forecast share; ``kinds`` is None if the report lacks it."""

    dag_digest: str
    dtype: Dtype
    step_time_ms: MeasuredStepTime
    tokens_per_s: _Number
    sync_overhead_per_token_ms: _Number
    kinds: tuple[MeasuredKind, ...] | None = None


def read_measured(path: str) -> MeasuredRun:
    """Read a report of ``helixctl run``.

    Args:
        path: the file.

    Raises:
        HelixError: HX101, HX102, HX104, HX105, HX107: the file cannot be read; HX110: it is not such a report.
    """
    return measured_of(read_text(path), path)


def measured_of(text: str, path: str) -> MeasuredRun:
    """What the text of such a file says.

    Raises:
        HelixError: HX102, HX104, HX105, HX107: the text cannot be read; HX110: it is not such a report.
    """
    data = parse_mapping(text, path)
    if data.get("report") != "helixctl run":
        hint = "make one: helixctl run PLAN --report FILE"
        raise HelixError(Diagnostic("HX110", "is no report of helixctl run", hint, path))
    if data.get("generation"):
        hint = "the run's --trace has a step of each kind: helixctl visualize PLAN -o X.html --report TRACE"
        raise HelixError(Diagnostic("HX110", "is the report of a generation; that of one pass is needed", hint, path))
    return validate_document(MeasuredRun, data, text, path)


@record
class Pair:
    """One quantity, predicted and measured; None on the side that lacks it."""

    predicted: float | None
    measured: float | None

    @property
    def ratio(self) -> float | None:
        """Predicted divided by measured."""
        return self.predicted / self.measured if self.predicted is not None and self.measured else None


@record
class KindComparison:
    """The tasks of one kind in one level; milliseconds per step, means over the ranks (``KindForecast``)."""

    level: str
    kind: str
    lane: Lane
    busy_ms: Pair
    exposed_ms: Pair


@record
class Comparison:
    """A forecast beside a measurement; ``kinds`` is None if the report lacks it."""

    step_time_ms: Pair
    tokens_per_s: Pair
    sync_overhead_per_token_ms: Pair
    kinds: tuple[KindComparison, ...] | None


def compare(found: Forecast, measured: MeasuredRun) -> Comparison:
    """Compare a forecast with a run of the same dag.

    Args:
        found: the forecast.
        measured: the report of the run.
    """
    return Comparison(
        step_time_ms=Pair(found.step_s * 1e3, measured.step_time_ms.mean),
        tokens_per_s=Pair(found.tokens_per_s, measured.tokens_per_s),
        sync_overhead_per_token_ms=Pair(found.sync_overhead_per_token_ms, measured.sync_overhead_per_token_ms),
        kinds=None if measured.kinds is None else _kinds(found, measured.kinds),
    )


def _kinds(found: Forecast, measured: tuple[MeasuredKind, ...]) -> tuple[KindComparison, ...]:
    none: tuple[float | None, float | None] = (None, None)
    predicted: dict[tuple[str, str, Lane], tuple[float | None, float | None]]
    predicted = {(k.level, k.kind, k.lane): (k.busy_s * 1e3, k.exposed_s * 1e3) for k in found.kinds}
    actual = {(k.level, k.kind, k.lane): (k.busy_ms, k.exposed_ms) for k in measured}
    made = []
    for key in dict.fromkeys([*predicted, *actual]):
        busy, exposed = zip(predicted.get(key, none), actual.get(key, none), strict=True)
        made.append(KindComparison(*key, Pair(*busy), Pair(*exposed)))
    return tuple(made)
