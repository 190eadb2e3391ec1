"""What the user writes: the model, the cluster and the workload, as frozen pydantic models."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from helixctl.spec.base import Contradiction, Count, Dtype, Name, Spec
from helixctl.spec.calibration import CalibrationSpec
from helixctl.units import Bytes, BytesPerSecond, FlopPerSecond, Seconds


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


class ExpertsSpec(Spec):
    """A mixture of experts: a router gives every token the ``top_k`` best of ``count`` experts."""

    count: Annotated[int, Field(strict=True, ge=2, le=4096)]
    top_k: Count = 2

    @model_validator(mode="after")
    def _top_k_are_there(self) -> Self:
        if self.top_k > self.count:
            raise Contradiction(f"top_k {self.top_k} of {self.count} experts", "top_k")
        return self


class FeedForwardSpec(Spec):
    """Two matrices with an activation between them; with ``experts``, so many of such networks and a router."""

    intermediate_size: Count
    activation: Literal["gelu", "relu", "silu"] = "gelu"
    experts: ExpertsSpec | None = None


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
    """Hosts of equal devices. Ranks are numbered host by host.

    Attributes:
        nics_per_host: network cards that the devices of a host share; None: each device has its own.
        cores_per_host: CPU cores that the devices of a host share; None: each device computes by itself.
        calibration: measured constants, which replace the cost model's defaults.
    """

    name: Name
    hosts: Annotated[int, Field(strict=True, ge=1, le=4096)]
    devices_per_host: Annotated[int, Field(strict=True, ge=1, le=1024)]
    device: DeviceSpec
    within_host: LinkSpec
    between_hosts: LinkSpec | None = None
    nics_per_host: Annotated[int, Field(strict=True, ge=1, le=1024)] | None = None
    cores_per_host: Annotated[int, Field(strict=True, ge=1, le=4096)] | None = None
    calibration: CalibrationSpec | None = None

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
