"""What was measured of a cluster: it replaces the default constants of the cost model (helixctl calibrate)."""

from __future__ import annotations

from math import prod
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from helixctl.spec.base import Contradiction, Count, Dtype, Spec, in_order
from helixctl.units import BytesPerSecond, FlopPerSecond, Seconds

Elementwise = Literal["norm", "activation", "add"]
Grid = Annotated[tuple[Count, ...], Field(min_length=1, max_length=32)]


class _Table(Spec):
    @property
    def grid(self) -> tuple[tuple[int, ...], ...]:
        """The axes, outermost first."""
        return tuple(getattr(self, name) for name in type(self).model_fields if name != "rates")

    @model_validator(mode="after")
    def _one_rate_for_every_point(self) -> Self:
        for axis in self.grid:
            if list(axis) != sorted(set(axis)):
                raise Contradiction("the sizes of a table must ascend, each once", "rates")
        want, have = prod(len(axis) for axis in self.grid), len(getattr(self, "rates", ()))
        if have != want:
            raise Contradiction(f"{have} rates for a table of {want} points", "rates")
        return self


class MatmulTable(_Table):
    """Rates of (rows, depth) x (depth, columns) on one device, or on one core where devices share cores.

    ``rates`` runs over rows, then columns, then depth, the last fastest.
    """

    rows: Grid
    columns: Grid
    depth: Grid
    rates: tuple[FlopPerSecond, ...]


class AttentionTable(_Table):
    """Rates of fused causal attention, by tokens of a sequence and by width of a softmax; the last runs fastest."""

    seq_len: Grid
    width: Grid
    rates: tuple[FlopPerSecond, ...]


class CollectiveTable(Spec):
    """Seconds of a collective of so many ranks by the bytes that one rank receives (a task's ``nbytes``).

    All groups of that many ranks ran at the same time, as they do in a step.
    """

    kind: Literal["broadcast", "all_to_all", "all_gather", "all_reduce", "reduce_scatter", "send_receive"]
    ranks: Annotated[int, Field(strict=True, ge=2, le=4096)]
    nbytes: Grid
    seconds: tuple[Seconds, ...]

    @model_validator(mode="after")
    def _one_time_for_every_size(self) -> Self:
        if list(self.nbytes) != sorted(set(self.nbytes)):
            raise Contradiction("the sizes of a table must ascend, each once", "nbytes")
        if len(self.seconds) != len(self.nbytes):
            raise Contradiction(f"{len(self.seconds)} times for {len(self.nbytes)} sizes", "seconds")
        return self


class CalibrationSpec(Spec):
    """Measured constants, and what measured them.

    Attributes:
        source: when, on what, with what: printed wherever one of these numbers is used.
        task_overhead: what starting one task takes.
        matmul, attention: rates by dtype and shape.
        elementwise: bytes read and written per second, by kind of task.
        collectives: times by kind, ranks and size.
        collective_load: share of a core that a rank keeps busy inside a collective (devices that share cores).
    """

    source: Annotated[str, Field(min_length=1, max_length=300)]
    task_overhead: Seconds
    matmul: Annotated[dict[Dtype, MatmulTable], in_order(Dtype)] = Field(default_factory=dict)
    attention: Annotated[dict[Dtype, AttentionTable], in_order(Dtype)] = Field(default_factory=dict)
    elementwise: Annotated[dict[Elementwise, BytesPerSecond], in_order(Elementwise)] = Field(default_factory=dict)
    collectives: tuple[CollectiveTable, ...] = ()
    collective_load: Annotated[float, Field(strict=True, ge=0, le=1)] = 0.0
