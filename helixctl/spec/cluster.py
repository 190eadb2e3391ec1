"""What the user writes of a cluster, as frozen pydantic models."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from helixctl.errors import Diagnostic
from helixctl.spec.base import Contradiction, Dtype, Name, RateDtype, Spec, added, in_order
from helixctl.spec.calibration import CalibrationSpec
from helixctl.units import Bytes, BytesPerSecond, FlopPerSecond, Seconds, Share, human_bytes

_RESERVE = 0.1


class LinkSpec(Spec):
    """What one device can send, in one direction, over one kind of link."""

    bandwidth: BytesPerSecond
    latency: Seconds


class DeviceSpec(Spec):
    """One device.

    Attributes:
        kind, name: what it is; rocm is an AMD GPU, which is predicted by datasheet.
        memory: bytes that it has.
        memory_bandwidth: of reading and writing that memory, bytes per second.
        peak: the dense matrix-product rate, FLOP/s, by dtype; a model's dtype must be among them. That of int8, float8
            and float4 is of products of which both factors are quantised.
        sms: streaming multiprocessors of a GPU; None: those of an H100.
        matmul_share: part of ``peak`` that large matrix products reach; None: that of an H100.
        reserve: share of the memory that no plan takes. Kernels and communication need workspace, which the memory
            proof does not count; engines keep a tenth as well (vLLM: ``gpu_memory_utilization`` 0.9).
    """

    kind: Literal["cuda", "cpu", "rocm"]
    name: Annotated[str, Field(min_length=1, max_length=100)]
    memory: Bytes
    memory_bandwidth: BytesPerSecond
    peak: Annotated[dict[RateDtype, FlopPerSecond], in_order(RateDtype)]
    sms: Annotated[int, Field(strict=True, ge=1, le=2**16)] | None = added(None)
    matmul_share: Share | None = added(None)
    reserve: Share = added(_RESERVE)

    @field_validator("peak")
    @classmethod
    def _some_peak(cls, peak: dict[RateDtype, FlopPerSecond]) -> dict[RateDtype, FlopPerSecond]:
        if not peak:
            msg = "peak names no dtype; give at least the model's"
            raise ValueError(msg)
        return peak

    @field_validator("matmul_share")
    @classmethod
    def _some_share(cls, share: float | None) -> float | None:
        if share == 0:
            msg = "must be over 0 %; leave it out for that of an H100"
            raise ValueError(msg)
        return share

    @property
    def torch_kind(self) -> Literal["cuda", "cpu"]:
        """What torch calls it: AMD's GPUs are cuda to it, too."""
        return "cpu" if self.kind == "cpu" else "cuda"

    @property
    def available(self) -> float:
        """Bytes that weights and values may take: the memory without the reserve."""
        return self.memory * (1 - self.reserve)

    @property
    def memory_text(self) -> str:
        """What it has, to be read after what a plan needs."""
        text = f"{self.name} has {human_bytes(self.memory)}"
        return (
            f"{text}, {human_bytes(self.available)} without its reserve of {self.reserve * 100:.3g} %"
            if self.reserve
            else text
        )


def no_peak(dtype: Dtype, device: DeviceSpec) -> Diagnostic:
    """HX114: a device has no rate for the dtype in which a model computes."""
    message = (
        f"{device.name} has no peak rate for {dtype}, in which the model computes; it has {', '.join(device.peak)}"
    )
    return Diagnostic("HX114", message, f"add {dtype} to device.peak of the cluster, or choose another --set dtype")


class MeasuredSpec(Spec):
    """A calibration that comes with helixctl, by name: of a GPU, and the very rates by their digest (spec/rates.py)."""

    gpu: Name
    digest: Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]


class ClusterSpec(Spec):
    """Hosts of equal devices. Ranks are numbered host by host.

    Attributes:
        nics_per_host: network cards that the devices of a host share; None: each device has its own.
        cores_per_host: CPU cores that the devices of a host share; None: each device computes by itself.
        calibration: measured constants, which replace the cost model's defaults.
        measured: in its place those that come with helixctl.
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
    measured: MeasuredSpec | None = added(None)

    @model_validator(mode="after")
    def _no_contradiction(self) -> Self:
        if self.hosts > 1 and self.between_hosts is None:
            msg = f"{self.hosts} hosts, but between_hosts is not given"
            raise Contradiction(msg, "hosts")
        if self.calibration is not None and self.measured is not None:
            msg = "measured and calibration both give measured rates; leave one of them out"
            raise Contradiction(msg, "measured")
        return self

    @property
    def devices(self) -> int:
        """Devices of all hosts."""
        return self.hosts * self.devices_per_host

    def host_of(self, rank: int) -> int:
        """The host of a rank."""
        return rank // self.devices_per_host
