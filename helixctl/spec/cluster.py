"""What the user writes of a cluster, as frozen pydantic models."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from helixctl.spec.base import Contradiction, Dtype, Name, Spec
from helixctl.spec.calibration import CalibrationSpec
from helixctl.units import Bytes, BytesPerSecond, FlopPerSecond, Seconds


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
