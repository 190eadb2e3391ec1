"""What the user writes of a cluster, as frozen pydantic models."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from functools import cache, cached_property
from itertools import accumulate, pairwise
from typing import Annotated, Any, Final, Literal, NamedTuple, Self

from pydantic import (
    BeforeValidator,
    Field,
    ModelWrapValidatorHandler,
    TypeAdapter,
    ValidationError,
    WrapValidator,
    field_validator,
    model_validator,
)
from pydantic_core import InitErrorDetails

from helixctl.errors import Diagnostic
from helixctl.spec.base import Contradiction, Dtype, Name, RateDtype, Spec, added, in_order
from helixctl.spec.calibration import CalibrationSpec
from helixctl.spec.named import cluster_names, figures_of
from helixctl.units import Bytes, BytesPerSecond, FlopPerSecond, Seconds, Share, human_bytes

_RESERVE = 0.1


class LinkSpec(Spec):
    """What one device can send, in one direction, over one kind of link."""

    bandwidth: BytesPerSecond
    latency: Seconds


class DomainSpec(LinkSpec):
    """Devices of a host that a link of their own joins: a pair with a bridge, those behind a switch, those of a socket.

    Attributes:
        bandwidth, latency: between two devices of one domain, as of any link.
        name: what it is, such as pair, switch or socket.
        devices: of a domain, neighbours by their rank.
        uplinks: the links to the next level outwards that the devices of a domain share, as those of a host share its
            NICs; None: each device has its own.
    """

    name: Name
    devices: Annotated[int, Field(strict=True, ge=2, le=1024)]
    uplinks: Annotated[int, Field(strict=True, ge=1, le=1024)] | None = added(None)


# From the innermost outwards; an empty list is none.
Domains = Annotated[tuple[DomainSpec, ...], Field(max_length=8)]


def _check_nested(links: tuple[DomainSpec, ...], devices: int) -> None:
    """Refuse domains that are no whole parts of the next ones outwards, or of a host.

    Raises:
        Contradiction: a size does not divide the next, or a name is there twice.
    """
    sizes = [*((link.devices, f"a {link.name}") for link in links), (devices, "a host")]
    for (inner, its), (outer, next_one) in pairwise(sizes):
        if inner >= outer or outer % inner:
            msg = (
                f"{its} has {inner} devices, and {next_one} {outer}: from the innermost outwards each has fewer "
                "devices than the next, and divides it"
            )
            raise Contradiction(msg, "links")
    names = [link.name for link in links]
    if taken := [name for name in names if name in ("within_host", "between_hosts")]:
        msg = f"{taken[0]} is another field; name the domain by what it is: pair, switch, socket"
        raise Contradiction(msg, "links")
    if twice := [name for name in names if names.count(name) > 1]:
        msg = f"two of links are named {twice[0]}"
        raise Contradiction(msg, "links")


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


def _device_of_a_gpu(value: object) -> object:
    """The device that the name of a GPU stands for; all else as it is."""
    if not isinstance(value, str):
        return value
    if value.lower() not in cluster_names():
        msg = f"no GPU is named {value!r}: {', '.join(cluster_names())}; or a mapping that describes the device"
        raise ValueError(msg)
    return figures_of(value.lower())["device"]


def _or_a_gpu(schema: dict[str, Any]) -> None:
    """In a file the name of a GPU stands for a device, and gives the link between two of them."""
    schema["properties"]["device"] = {
        "anyOf": [schema["properties"]["device"], {"type": "string", "enum": list(cluster_names())}]
    }
    schema["required"].remove("within_host")


class HostsSpec(Spec, json_schema_extra=_or_a_gpu):
    """Hosts that are alike, of a cluster whose hosts differ.

    Attributes:
        count: hosts.
        devices: of each of them.
        device: each of these; in a file also the name of a GPU, ``h100``, which then gives the links and the measured
            rates that are not written.
        within_host: the link between two devices of a host.
        links: domains of the devices of a host, from the innermost outwards; two that share none have within_host.
        between_hosts: that from one of these hosts to another host; None: that of the cluster.
        nics, cores: of a host, shared by its devices; None: each device has its own.
        calibration: rates that were measured on such hosts.
        measured: in its place those that come with helixctl.
    """

    count: Annotated[int, Field(strict=True, ge=1, le=4096)]
    devices: Annotated[int, Field(strict=True, ge=1, le=1024)]
    device: Annotated[DeviceSpec, BeforeValidator(_device_of_a_gpu)]
    within_host: LinkSpec
    between_hosts: LinkSpec | None = added(None)
    nics: Annotated[int, Field(strict=True, ge=1, le=1024)] | None = added(None)
    cores: Annotated[int, Field(strict=True, ge=1, le=4096)] | None = added(None)
    calibration: CalibrationSpec | None = added(None)
    measured: MeasuredSpec | None = added(None)
    links: Domains = added(())

    @model_validator(mode="after")
    def _no_contradiction(self) -> Self:
        _check_nested(self.links, self.devices)
        if self.calibration is not None and self.measured is not None:
            msg = "measured and calibration both give measured rates; leave one of them out"
            raise Contradiction(msg, "measured")
        return self


class EqualHosts(NamedTuple):
    """The hosts of one kind, with all that is known of them; its names are those of the fields of an equal cluster."""

    name: str
    hosts: int
    devices_per_host: int
    device: DeviceSpec
    within_host: LinkSpec
    between_hosts: LinkSpec | None
    nics_per_host: int | None
    cores_per_host: int | None
    calibration: CalibrationSpec | None
    measured: MeasuredSpec | None
    links: tuple[DomainSpec, ...] = ()

    @property
    def devices(self) -> int:
        """Devices of these hosts."""
        return self.hosts * self.devices_per_host

    @property
    def domain_sizes(self) -> tuple[int, ...]:
        """Devices of every domain of links, from the innermost outwards; the last is the host."""
        return (*[link.devices for link in self.links], self.devices_per_host)

    def __str__(self) -> str:
        """``2 x 8 NVIDIA H100``."""
        return f"{self.hosts} x {self.devices_per_host} {self.device.name}"


_MOST_KINDS: Final = 64
HostCount = Annotated[int, Field(strict=True, ge=1, le=4096)]
Kinds = tuple[HostsSpec, ...]


def _counted_or_listed(value: object, _: object) -> object:
    """A number of hosts, or a list of their kinds: what is wrong is said of the one that was written."""
    return _validator(Kinds if isinstance(value, list | tuple) else HostCount).validate_python(value)


@cache
def _validator(form: Any) -> TypeAdapter[Any]:
    """Made when it is first needed: most clusters have hosts that are alike."""
    return TypeAdapter(form)


# Fields that describe hosts which are all alike: a list of hosts has them in its items.
_OF_EQUAL_HOSTS: Final = ("devices_per_host", "device", "within_host")
_IN_ITEMS: Final = {
    "devices_per_host": "devices",
    "device": "device",
    "within_host": "within_host",
    "nics_per_host": "nics",
    "cores_per_host": "cores",
    "calibration": "calibration",
    "measured": "measured",
    "links": "links",
}
_REQUIRED_OF_EQUAL: Final[dict[str, Any]] = {
    "if": {"properties": {"hosts": {"type": "integer"}}},
    "then": {
        "required": list(_OF_EQUAL_HOSTS),
        "properties": {name: {"not": {"type": "null"}} for name in _OF_EQUAL_HOSTS},
    },
}


class ClusterSpec(Spec, json_schema_extra=_REQUIRED_OF_EQUAL):
    """Hosts of devices. Ranks are numbered host by host.

    Where hosts differ, ``hosts`` is a list of their kinds, which have all other fields but ``between_hosts``. All code
    asks ``kinds`` and the methods below, which answer for equal hosts as well.

    Attributes:
        hosts: how many there are; or the kinds of hosts, in the order of their ranks.
        devices_per_host, device, within_host: of every host, where all are equal; else None.
        links: of every host, where all are equal: domains of its devices, from the innermost outwards. Two devices that
            share none have the link within_host.
        between_hosts: the link between two hosts; of hosts that differ, where their kind has none of its own.
        nics_per_host: network cards that the devices of a host share; None: each device has its own.
        cores_per_host: CPU cores that the devices of a host share; None: each device computes by itself.
        calibration: measured constants, which replace the cost model's defaults.
        measured: in its place those that come with helixctl.
    """

    name: Name
    hosts: Annotated[HostCount | Kinds, WrapValidator(_counted_or_listed)]
    devices_per_host: Annotated[int, Field(strict=True, ge=1, le=1024)] | None = added(None)
    device: DeviceSpec | None = added(None)
    within_host: LinkSpec | None = added(None)
    between_hosts: LinkSpec | None = None
    nics_per_host: Annotated[int, Field(strict=True, ge=1, le=1024)] | None = None
    cores_per_host: Annotated[int, Field(strict=True, ge=1, le=4096)] | None = None
    calibration: CalibrationSpec | None = None
    measured: MeasuredSpec | None = added(None)
    links: Domains = added(())

    @model_validator(mode="wrap")
    @classmethod
    def _whole(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        """Fields of equal hosts are missing where they are not given; a list of hosts is completed by its GPUs."""
        if not isinstance(data, Mapping):
            return handler(data)
        if isinstance(data.get("hosts"), list | tuple):
            return handler(_with_figures(data))
        absent = [name for name in _OF_EQUAL_HOSTS if data.get(name) is None]
        if not absent:
            return handler(data)
        found = [InitErrorDetails(type="missing", loc=(name,), input=data) for name in absent if name not in data]
        found += [
            InitErrorDetails(type="model_type", loc=(name,), input=None, ctx={"class_name": name})
            for name in absent
            if name in data
        ]
        try:
            handler(data)
        except ValidationError as error:  # a contradiction, at no field, is said of fields that are all there
            found += [_again(item) for item in error.errors(include_url=False) if item["loc"]]
        order = list(cls.model_fields)
        found.sort(key=lambda item: order.index(str(item["loc"][0])) if item["loc"][0] in order else len(order))
        raise ValidationError.from_exception_data(cls.__name__, found)

    @model_validator(mode="after")
    def _no_contradiction(self) -> Self:
        if isinstance(self.hosts, tuple):
            for field, name in _IN_ITEMS.items():
                if getattr(self, field) not in (None, ()):
                    msg = f"hosts is a list of kinds: {field} belongs to each of them, as {name}"
                    raise Contradiction(msg, field)
            if not 1 <= len(self.hosts) <= _MOST_KINDS:
                msg = f"hosts is a list of 1 to {_MOST_KINDS} kinds, not of {len(self.hosts)}"
                raise Contradiction(msg, "hosts")
            if len({kind.device.kind for kind in self.hosts}) > 1:
                msg = "some hosts have cuda devices, some cpu: a plan runs on one of the two"
                raise Contradiction(msg, "hosts")
            several = sum(kind.count for kind in self.hosts)
            if several > 1 and self.between_hosts is None and any(k.between_hosts is None for k in self.hosts):
                msg = f"{several} hosts, but between_hosts is not given"
                raise Contradiction(msg, "hosts")
            return self
        if self.hosts > 1 and self.between_hosts is None:
            msg = f"{self.hosts} hosts, but between_hosts is not given"
            raise Contradiction(msg, "hosts")
        if self.devices_per_host is not None:
            _check_nested(self.links, self.devices_per_host)
        if self.calibration is not None and self.measured is not None:
            msg = "measured and calibration both give measured rates; leave one of them out"
            raise Contradiction(msg, "measured")
        return self

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """As pydantic's, without what was worked out for the fields that change."""
        copy = super().model_copy(update=update, deep=deep)
        for worked_out in ("kinds", "_first_ranks"):
            copy.__dict__.pop(worked_out, None)
        return copy

    @cached_property
    def kinds(self) -> tuple[EqualHosts, ...]:
        """The kinds of hosts, in the order of their ranks; one where all hosts are equal."""
        if isinstance(self.hosts, tuple):
            return tuple([_resolved(self, kind) for kind in self.hosts])
        if self.devices_per_host is None or self.device is None or self.within_host is None:
            raise TypeError  # validation has refused it
        return (
            EqualHosts(
                self.name,
                self.hosts,
                self.devices_per_host,
                self.device,
                self.within_host,
                self.between_hosts,
                self.nics_per_host,
                self.cores_per_host,
                self.calibration,
                self.measured,
                self.links,
            ),
        )

    @property
    def differs(self) -> bool:
        """Whether there are several kinds of hosts."""
        return len(self.kinds) > 1

    @property
    def only(self) -> EqualHosts:
        """The kind of all hosts.

        Raises:
            ValueError: there are several.
        """
        if self.differs:
            raise ValueError(f"hosts of {self.name} differ: {self.devices_text}")
        return self.kinds[0]

    @property
    def devices(self) -> int:
        """Devices of all hosts."""
        return sum([kind.devices for kind in self.kinds])

    @property
    def host_count(self) -> int:
        """Hosts of all kinds."""
        return sum([kind.hosts for kind in self.kinds])

    @property
    def device_kind(self) -> Literal["cuda", "cpu"]:
        """What torch calls all devices."""
        return self.kinds[0].device.torch_kind

    @property
    def shares_cores(self) -> bool:
        """Whether the devices of some host share its cores."""
        return any(kind.cores_per_host is not None for kind in self.kinds)

    @property
    def devices_text(self) -> str:
        """``16 x NVIDIA H100 and 4 x NVIDIA L40S``."""
        found: dict[str, int] = {}
        for kind in self.kinds:
            found[kind.device.name] = found.get(kind.device.name, 0) + kind.devices
        *first, last = [f"{count} x {name}" for name, count in found.items()]
        return f"{', '.join(first)} and {last}" if first else last

    @property
    def device_names(self) -> str:
        """The name of the device; of several kinds all of them, with their numbers."""
        return self.devices_text if self.differs else self.kinds[0].device.name

    @property
    def memory_text(self) -> str:
        """What every kind of device has, to be read after what a plan needs."""
        return "; ".join(dict.fromkeys(kind.device.memory_text for kind in self.kinds))

    @cached_property
    def _first_ranks(self) -> tuple[int, ...]:
        """The first rank of every kind."""
        return (0, *accumulate(kind.devices for kind in self.kinds[:-1]))

    def kind_of(self, rank: int) -> int:
        """The place of a rank's hosts among the kinds."""
        return bisect_right(self._first_ranks, rank) - 1

    def hosts_of(self, rank: int) -> EqualHosts:
        """The hosts that are like that of a rank: its links, its measured rates, its device."""
        return self.kinds[self.kind_of(rank)]

    def device_of(self, rank: int) -> DeviceSpec:
        """The device of a rank: its memory, its rates."""
        return self.hosts_of(rank).device

    def host_of(self, rank: int) -> int:
        """The host of a rank."""
        if isinstance(self.hosts, int) and self.devices_per_host:
            return rank // self.devices_per_host
        its = self.kind_of(rank)
        before = sum([kind.hosts for kind in self.kinds[:its]])
        return before + (rank - self._first_ranks[its]) // self.kinds[its].devices_per_host

    def domains_of(self, rank: int) -> tuple[int, ...]:
        """The domains of links that a rank is in, from the innermost outwards, each by its first rank."""
        place = self.place_of(rank)
        return tuple([rank - place % link.devices for link in self.hosts_of(rank).links])

    @property
    def has_domains(self) -> bool:
        """Whether some host has links that differ."""
        return any(kind.links for kind in self.kinds)

    def place_of(self, rank: int) -> int:
        """The place of a rank's device on its host."""
        its = self.kind_of(rank)
        return (rank - self._first_ranks[its]) % self.kinds[its].devices_per_host

    def of_kind(self, kind: int, hosts: int | None = None) -> ClusterSpec:
        """A cluster of the hosts of one kind alone, or of so many hosts like them."""
        its = self.kinds[kind]
        update = {**its._asdict(), "hosts": hosts or its.hosts}
        return self.model_copy(update=update) if not self.differs else ClusterSpec.model_construct(**update)


def _resolved(cluster: ClusterSpec, kind: HostsSpec) -> EqualHosts:
    one = isinstance(cluster.hosts, tuple) and len(cluster.hosts) == 1
    name = cluster.name if one else f"{cluster.name}, hosts of {kind.device.name}"
    between = kind.between_hosts or cluster.between_hosts
    return EqualHosts(
        name,
        kind.count,
        kind.devices,
        kind.device,
        kind.within_host,
        between,
        kind.nics,
        kind.cores,
        kind.calibration,
        kind.measured,
        kind.links,
    )


def _with_figures(data: Mapping[str, Any]) -> dict[str, Any]:
    """The data of a cluster with a list of hosts; an item that names a GPU has its links and its measured rates."""
    names = ["within_host", "measured"] + (["between_hosts"] if data.get("between_hosts") is None else [])
    return {**data, "hosts": [_completed(item, names) for item in data["hosts"]]}


def _completed(item: object, names: list[str]) -> object:
    if not isinstance(item, Mapping) or not isinstance(item.get("device"), str):
        return item
    gpu = item["device"].lower()
    if gpu not in cluster_names():
        return item
    figures = figures_of(gpu)
    own = "calibration" in item  # takes the place of measured rates
    return {**{name: figures[name] for name in names if name in figures and not (own and name == "measured")}, **item}


def _again(error: Any) -> InitErrorDetails:
    """An error, to be raised once more."""
    found = InitErrorDetails(type=error["type"], loc=error["loc"], input=error["input"])
    if "ctx" in error:
        found["ctx"] = error["ctx"]
    return found
