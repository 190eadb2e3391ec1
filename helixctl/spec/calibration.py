"""What was measured of a cluster: it replaces the default constants of the cost model (helixctl calibrate)."""

from __future__ import annotations

from math import prod
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from helixctl.spec.base import Contradiction, Count, Dtype, Spec, added, in_order
from helixctl.spec.stored import Arithmetic
from helixctl.units import BytesPerSecond, FlopPerSecond, Seconds

Elementwise = Literal["norm", "activation", "add"]
Factor = Annotated[float, Field(gt=0, le=1000)]
Grid = Annotated[tuple[Count, ...], Field(min_length=1, max_length=32)]


class _Table(Spec):
    @property
    def grid(self) -> tuple[tuple[int, ...], ...]:
        """The axes that the table has, outermost first."""
        axes = (getattr(self, name) for name in type(self).model_fields if name != "rates")
        return tuple(axis for axis in axes if axis is not None)

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
    """Rates of fused causal attention on one device; the last axis runs fastest.

    Attributes:
        softmaxes: at work together: heads of a device by sequences. None: measured for a number at which all of the
            device is busy.
        seq_len: tokens of a sequence.
        width: elements of a softmax.
        rates: one for every point.
    """

    softmaxes: Grid | None = added(None)
    seq_len: Grid
    width: Grid
    rates: tuple[FlopPerSecond, ...]


class DecodeTable(_Table):
    """Rates at which attention of one new token reads its cache on one device; the last axis runs fastest.

    Attributes:
        caches: heads of keys and values, each with its cache, at work together: those of a device by sequences.
        keys: positions of the cache that the token attends to.
        width: elements of a softmax.
        query_heads: that share a head of keys. None: measured for some number of them.
        rates: bytes of keys and values per second, one for every point.
    """

    caches: Grid
    keys: Grid
    width: Grid
    query_heads: Grid | None = added(None)
    rates: tuple[BytesPerSecond, ...]


class LatentDecodeTable(_Table):
    """Rates at which latent attention of one new token reads its cache on one device; the last axis runs fastest.

    Attributes:
        sequences: each with a cache of latents, which are keys and values of all heads.
        keys: positions of the cache that the token attends to.
        query_heads: of the device.
        rates: bytes of latents per second, one for every point.
    """

    sequences: Grid
    keys: Grid
    query_heads: Grid
    rates: tuple[BytesPerSecond, ...]


class ExpertsTable(_Table):
    """Rates of gated experts on one device, all that is around their products included; the last axis runs fastest.

    Attributes:
        used: experts of the device that have rows.
        rows: of one of them: a row is a token that it is chosen for.
        hidden, width: of each matrix; the width is that of the device's part of an expert.
        ranks: over which experts are spread: each is given the tokens of all, and passes over those of others' experts.
        rates: of the three products alone, one for every point.
    """

    used: Grid
    rows: Grid
    hidden: Grid
    width: Grid
    ranks: Grid
    rates: tuple[FlopPerSecond, ...]


class ProductFactors(_Table):
    """How many times the dtype's rate a product of quantised numbers has; the axes are those of ``MatmulTable``."""

    rows: Grid
    columns: Grid
    depth: Grid
    rates: tuple[Factor, ...]


class ExpertsFactors(_Table):
    """The same of experts: by the rows of one that has any, and the width of the device's part of it."""

    rows: Grid
    width: Grid
    rates: tuple[Factor, ...]


class QuantisedTables(Spec):
    """What products of quantised numbers take.

    Attributes:
        products: rates by shape. None: not measured.
        matmul, experts: how many times the rate of those of the dtype that have the same shape; of products where they
            have no rates of their own. None: not measured.
    """

    products: MatmulTable | None = added(None)
    matmul: ProductFactors | None = None
    experts: ExpertsFactors | None = None


class CollectiveTable(Spec):
    """Seconds of a collective of ``ranks`` ranks by the bytes that one rank receives (a task's ``nbytes``).

    All groups of that many ranks ran at the same time, as they do in a step.

    Attributes:
        kind, ranks: which collective, of how many ranks.
        hosts: over which a group's ranks were spread. None: inside one host, or, where a host has fewer devices than
            ``ranks``, over as many hosts as hold them.
        nbytes, seconds: ascending sizes, and a time for each.
    """

    kind: Literal["broadcast", "all_to_all", "all_gather", "all_reduce", "reduce_scatter", "send_receive"]
    ranks: Annotated[int, Field(strict=True, ge=2, le=4096)]
    hosts: Annotated[int, Field(strict=True, ge=1, le=4096)] | None = added(None)
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
        decode: rates of reading the cache, by dtype and shape.
        latent_decode: the same of caches of latents.
        experts: rates of mixtures of experts, by dtype and shape.
        quantised: what products take whose factors are quantised both, by what they are of.
        elementwise: bytes read and written per second, by kind of task.
        collectives: times by kind, ranks and size.
        collective_load: share of a core that a rank keeps busy inside a collective (devices that share cores).
    """

    source: Annotated[str, Field(min_length=1, max_length=300)]
    task_overhead: Seconds
    matmul: Annotated[dict[Dtype, MatmulTable], in_order(Dtype)] = Field(default_factory=dict)
    attention: Annotated[dict[Dtype, AttentionTable], in_order(Dtype)] = Field(default_factory=dict)
    decode: Annotated[dict[Dtype, DecodeTable], in_order(Dtype)] = added({})
    latent_decode: Annotated[dict[Dtype, LatentDecodeTable], in_order(Dtype)] = added({})
    experts: Annotated[dict[Dtype, ExpertsTable], in_order(Dtype)] = added({})
    quantised: Annotated[dict[Arithmetic, QuantisedTables], in_order(Arithmetic)] = added({})
    elementwise: Annotated[dict[Elementwise, BytesPerSecond], in_order(Elementwise)] = Field(default_factory=dict)
    collectives: tuple[CollectiveTable, ...] = ()
    collective_load: Annotated[float, Field(strict=True, ge=0, le=1)] = 0.0
