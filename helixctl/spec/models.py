"""What the user writes: the model, the cluster and the workload, as frozen pydantic models."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from helixctl.units import Bytes, BytesPerSecond, FlopPerSecond, Seconds

Dtype = Literal["float16", "bfloat16", "float32", "float64"]
DTYPE_NBYTES: dict[str, int] = {"float16": 2, "bfloat16": 2, "float32": 4, "float64": 8}


def accumulator(dtype: Dtype) -> Dtype:
    """The dtype of a partial sum: float32, or float64 where the model is float64."""
    return "float64" if dtype == "float64" else "float32"


# 2**40 bounds every count, so that no product of a few of them leaves what a 64-bit reader of the JSON can hold.
Count = Annotated[int, Field(strict=True, ge=1, le=2**40)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$", max_length=100)]


class Contradiction(ValueError):  # noqa: N818  it is a ValueError for pydantic; loading turns it into HX109
    """Two fields of one spec that cannot both hold; ``field`` is the one to point at."""

    def __init__(self, message: str, field: str) -> None:
        """Keep the field for loading, which knows its line."""
        super().__init__(message)
        self.field = field


class Spec(BaseModel):
    """Base of all that a user writes: immutable, unknown keys refused, numbers never read from text."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class AttentionSpec(Spec):
    """Multi-head attention.

    ``softmax_slices`` is part of the model's function, not of a plan: 1 is the trained transformer (one softmax per
    head, scale 1/sqrt(head_dim)); s > 1 cuts every head's dims in s slices that each normalise alone with scale
    1/sqrt(head_dim/s), which is the function of the paper's m slices (s = 4, head_dim 512: sqrt(128)).
    """

    heads: Count
    head_dim: Count
    softmax_slices: Count = 1
    causal: Annotated[bool, Field(strict=True)] = False

    @model_validator(mode="after")
    def _softmax_slices_divide_the_head(self) -> Self:
        if self.head_dim % self.softmax_slices:
            msg = f"softmax_slices {self.softmax_slices} does not divide head_dim {self.head_dim}"
            raise Contradiction(msg, "softmax_slices")
        return self

    @property
    def softmax_width(self) -> int:
        """Dims of a head that share one softmax."""
        return self.head_dim // self.softmax_slices


class FeedForwardSpec(Spec):
    """Two matrices with an activation between them."""

    intermediate_size: Count
    activation: Literal["gelu", "relu", "silu"] = "gelu"


class NormSpec(Spec):
    """Normalisation ahead of attention and of the feed-forward network (pre-norm)."""

    function: Literal["rms_norm"] = "rms_norm"
    eps: Annotated[float, Field(gt=0, lt=1)] = 1e-5


class ModelSpec(Spec):
    """A pre-norm transformer from hidden states to hidden states."""

    name: Name
    layers: Annotated[int, Field(strict=True, ge=1, le=4096)]
    hidden_size: Count
    attention: AttentionSpec
    feed_forward: FeedForwardSpec
    norm: NormSpec = NormSpec()
    dtype: Dtype = "float16"


class WorkloadSpec(Spec):
    """One step: ``batch`` sequences of ``seq_len`` tokens each."""

    batch: Count = 1
    seq_len: Count = 1

    @property
    def tokens(self) -> int:
        """Tokens per step."""
        return self.batch * self.seq_len


class ModelDocument(ModelSpec):
    """A model file: the model, and the workload it is usually planned for."""

    workload: WorkloadSpec = WorkloadSpec()

    @property
    def model(self) -> ModelSpec:
        """The model alone."""
        return ModelSpec(**{name: getattr(self, name) for name in ModelSpec.model_fields})


class LinkSpec(Spec):
    """What one device can send, in one direction, over one kind of link."""

    bandwidth: BytesPerSecond
    latency: Seconds


class DeviceSpec(Spec):
    """One device. ``peak`` holds the dense matrix-product rate by dtype."""

    kind: Literal["cuda", "cpu"]
    name: Annotated[str, Field(min_length=1, max_length=100)]
    memory: Bytes
    memory_bandwidth: BytesPerSecond
    peak: dict[Dtype, FlopPerSecond]

    @field_validator("peak")
    @classmethod
    def _some_peak(cls, peak: dict[Dtype, FlopPerSecond]) -> dict[Dtype, FlopPerSecond]:
        if not peak:
            msg = "peak names no dtype; give at least the model's"
            raise ValueError(msg)
        return peak


class ClusterSpec(Spec):
    """Hosts of equal devices. Ranks are numbered host by host."""

    name: Name
    hosts: Annotated[int, Field(strict=True, ge=1, le=4096)]
    devices_per_host: Annotated[int, Field(strict=True, ge=1, le=1024)]
    device: DeviceSpec
    within_host: LinkSpec
    between_hosts: LinkSpec | None = None

    @model_validator(mode="after")
    def _hosts_are_linked(self) -> Self:
        if self.hosts > 1 and self.between_hosts is None:
            msg = f"{self.hosts} hosts, but between_hosts is not given"
            raise Contradiction(msg, "hosts")
        return self

    @property
    def devices(self) -> int:
        """Devices of all hosts."""
        return self.hosts * self.devices_per_host

    def host_of(self, rank: int) -> int:
        """The host of a rank."""
        return rank // self.devices_per_host
