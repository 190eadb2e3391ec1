"""The measured rates that come with helixctl: a file for each GPU that has a name, read when a prediction needs it.

A cluster says by name and digest which of them are its own (``measured``), so that a plan need not carry them. What
becomes of a digest that this helixctl does not have is in docs/adr/0018-rates-by-digest.md.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cache
from hashlib import sha256
from typing import Any, Final

from helixctl.records import record
from helixctl.spec.base import Dtype
from helixctl.spec.calibration import (
    AttentionTable,
    CalibrationSpec,
    CollectiveTable,
    DecodeTable,
    ExpertsFactors,
    ExpertsTable,
    LatentDecodeTable,
    MatmulTable,
    ProductFactors,
    QuantisedTables,
)
from helixctl.spec.cluster import ClusterSpec, EqualHosts
from helixctl.spec.named import folder_of_clusters

_TABLES: Final[dict[str, Any]] = {
    "matmul": MatmulTable,
    "attention": AttentionTable,
    "decode": DecodeTable,
    "latent_decode": LatentDecodeTable,
    "experts": ExpertsTable,
}
_SHOWN: Final = 19  # characters of a digest in a sentence: sha256: and twelve


@record
class ShippedRates:
    """The rates of one GPU.

    Attributes:
        digest: ``sha256:`` of the file.
        memory_bandwidth, peak, within_host: the figures of the GPU on which they were measured. Where a cluster has
            others it is of another GPU, and these rates say nothing of it.
        calibration: the rates.
        on_device: the same without collectives.
    """

    digest: str
    memory_bandwidth: float
    peak: Mapping[Dtype, float]
    within_host: Mapping[str, float]
    calibration: CalibrationSpec
    on_device: CalibrationSpec


def rates_of(cluster: EqualHosts) -> CalibrationSpec | None:
    """The measured rates by which tasks on equal hosts are priced: their own, or those that come with helixctl.

    None where there are none, or where the figures of the device are not those of the GPU that was measured; without
    collectives where those of the link inside a host are not, or where links inside a host differ.
    """
    if cluster.measured is None:
        return cluster.calibration
    found = shipped_rates(cluster.measured.gpu)
    if found is None or any(_other_figures(cluster, found)):
        return None
    return found.calibration if _same_link(cluster, found) else found.on_device


def doubts(cluster: ClusterSpec) -> Iterator[str]:
    """Sentences on what of the rates that a cluster names is not used, or is not what it names."""
    for kind in cluster.kinds:
        for doubt in _doubts(kind):
            yield f"{kind.device.name}: {doubt}" if cluster.differs else doubt


def _doubts(cluster: EqualHosts) -> Iterator[str]:
    if cluster.device.kind == "rocm" and cluster.calibration is None:
        yield (
            f"no measured table stands behind {cluster.device.name}: it is predicted by datasheet, with constants that "
            "were measured on NVIDIA's GPUs"
        )
    if cluster.measured is None:
        return
    gpu, digest = cluster.measured.gpu, cluster.measured.digest
    found = shipped_rates(gpu)
    if found is None:
        yield f"measured.gpu: this helixctl has no measured rates of {gpu}: it is predicted by datasheet"
        return
    figures = list(_other_figures(cluster, found))
    if figures:
        those = f"{' and '.join(figures)} {'is not that' if len(figures) == 1 else 'are not those'}"
        yield f"{those} of the {gpu} whose rates were measured: it is predicted by datasheet"
        return
    # Who describes links that differ asks for prices by these links.
    if not cluster.links and not _same_link(cluster, found):
        yield f"within_host is not that of the {gpu} that was measured: collectives are predicted from the link"
    if digest != found.digest:
        theirs, ours = digest[:_SHOWN], found.digest[:_SHOWN]
        yield f"measured.digest: {theirs}... of {gpu} is named; this helixctl has {ours}..., and predicts by that"


@cache
def shipped_rates(gpu: str) -> ShippedRates | None:
    """The rates of a GPU by its name, or None: there are none."""
    file = folder_of_clusters() / f"{gpu}.rates.json"
    if not file.is_file():
        return None
    # A checkout on Windows may end lines otherwise, and the digest is over the file as it is shipped.
    text = file.read_bytes().replace(b"\r\n", b"\n")
    data = json.loads(text)
    rates, of = data["rates"], data["measured_on"]
    collectives = tuple(CollectiveTable.model_construct(**_as_tuples(table)) for table in rates["collectives"])
    tables: dict[str, Any] = {name: _by_dtype(name, rates[name], data["as"]) for name in _TABLES}
    # Not validated: the file is a part of this package, and the tests validate it.
    alone = CalibrationSpec.model_construct(
        source=data["source"],
        task_overhead=rates["task_overhead"],
        quantised={name: _factors(tables) for name, tables in rates.get("quantised", {}).items()},
        elementwise=rates["elementwise"],
        collectives=(),
        collective_load=0.0,
        **tables,
    )
    return ShippedRates(
        digest="sha256:" + sha256(text).hexdigest(),
        memory_bandwidth=of["memory_bandwidth"],
        peak=of["peak"],
        within_host=of["within_host"],
        calibration=alone.model_copy(update={"collectives": collectives}),
        on_device=alone,
    )


def _by_dtype(name: str, tables: dict[str, Any], same: dict[str, str]) -> dict[str, Any]:
    """Tables by dtype; ``same`` names the dtypes that have the rates of another where they have no table."""
    found = {dtype: _TABLES[name].model_construct(**_as_tuples(table)) for dtype, table in tables.items()}
    return {dtype: found[other] for dtype, other in same.items() if other in found} | found


def _factors(tables: dict[str, Any]) -> QuantisedTables:
    kinds: dict[str, Any] = {"products": MatmulTable, "matmul": ProductFactors, "experts": ExpertsFactors}
    found: dict[str, Any] = {
        name: kind.model_construct(**_as_tuples(tables[name])) if name in tables else None
        for name, kind in kinds.items()
    }
    return QuantisedTables.model_construct(**found)


def _as_tuples(table: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in table.items()}


def _same_link(cluster: EqualHosts, found: ShippedRates) -> bool:
    link = cluster.within_host
    return not cluster.links and {"bandwidth": link.bandwidth, "latency": link.latency} == found.within_host


def _other_figures(cluster: EqualHosts, found: ShippedRates) -> Iterator[str]:
    """The figures of the device that are not those of the GPU that was measured."""
    if cluster.device.memory_bandwidth != found.memory_bandwidth:
        yield "device.memory_bandwidth"
    for dtype, rate in found.peak.items():
        # A device without a rate for a dtype computes nothing in it.
        if cluster.device.peak.get(dtype, rate) != rate:
            yield f"device.peak.{dtype}"
