"""The key order of plans that were written before the mappings of a cluster had an order of their own.

Those plans hold ``peak`` and the tables of a calibration in the order of their cluster file, and their digests are over
that order. Such a plan is read with the order restored, so that it and its dags keep their bytes and their digests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import permutations
from typing import Any

from helixctl.spec import DTYPE_NBYTES, ClusterSpec


def in_digested_order(cluster: ClusterSpec, wanted: str, digest: Callable[[ClusterSpec], str]) -> ClusterSpec:
    """The cluster with its keys in the order that gives the wanted digest; as it is where no order does.

    Args:
        cluster: a cluster whose mappings are in their canonical order.
        wanted: the digest that the plan gives of it.
        digest: computes the digest of a cluster.
    """
    return next((found for found in _orders(cluster) if digest(found) == wanted), cluster)


def _orders(cluster: ClusterSpec) -> Iterator[ClusterSpec]:
    """The cluster as it is, then in every order that its file can have had; at most 3,456."""
    if cluster.device is None:  # clusters whose hosts differ came later
        yield cluster
        return
    rates = cluster.device.peak
    dtypes = [name for name in rates if name in DTYPE_NBYTES]  # those plans had no others
    for peak in permutations(dtypes):
        device = cluster.device.model_copy(update={"peak": _picked(rates, dict.fromkeys((*peak, *rates)))})
        for calibration in _calibrations(cluster):
            yield cluster.model_copy(update={"device": device, "calibration": calibration})


def _calibrations(cluster: ClusterSpec) -> Iterator[Any]:
    """A calibration measures every kernel in one order of dtypes, so both tables have that order."""
    found = cluster.calibration
    if found is None:
        yield None
        return
    for dtypes in permutations(dict.fromkeys((*found.matmul, *found.attention))):
        for kinds in permutations(found.elementwise):
            tables = {"matmul": _picked(found.matmul, dtypes), "attention": _picked(found.attention, dtypes)}
            yield found.model_copy(update={**tables, "elementwise": _picked(found.elementwise, kinds)})


def _picked(table: Mapping[Any, Any], keys: Iterable[Any]) -> dict[Any, Any]:
    return {key: table[key] for key in keys if key in table}
