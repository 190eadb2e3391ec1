"""The cost model beside a sample of NVIDIA's tables, of points that no rate of ours was taken from.

docs/measurements/silicon.md has all of them; the sample is written by `tests/benchmarks/silicon.py --sample`.
"""

from __future__ import annotations

import json
import statistics

import pytest

from helixctl.spec import ClusterSpec
from helixctl.spec.load import load_cluster
from tests.benchmarks.silicon import KINDS, SAMPLE, SAMPLED, clusters, held_out

SECONDS = json.loads(SAMPLE.read_text(encoding="utf-8"))["seconds"]
# The least share of all GPUs' sampled shapes within a factor of 1.25 (experts 1.5), by the rates that come with
# helixctl, and how far the median may be from 1. Over a cache the engines differ most, by half on an L40S.
BARS = {
    "product": (0.95, 0.05),
    "causal attention": (0.8, 0.05),
    "attention over a cache": (0.7, 0.1),
    "latent attention over a cache": (0.9, 0.05),
    "all four": (0.9, 0.05),
    "experts": (0.9, 0.05),
    "product in float8": (0.95, 0.05),
    "product in float8 in blocks": (0.95, 0.05),
    "product in float4": (0.95, 0.05),
    "product in int8": (0.95, 0.05),
}
KIND = {kind.name: kind for kind in KINDS}


def ratios(name: str, gpu: str, cluster: ClusterSpec) -> list[float]:
    """Predicted by measured."""
    shapes = {tuple(row[:-1]): row[-1] for row in SECONDS[name][gpu]}
    assert held_out(KIND[name], gpu, shapes) == shapes  # else the sample says nothing
    return [KIND[name].predicted(cluster, shape) / seconds for shape, seconds in shapes.items()]


def near(found: list[float], name: str) -> float:
    factor = KIND[name].near
    return sum(1 / factor <= ratio <= factor for ratio in found) / len(found)


@pytest.mark.parametrize("name", BARS)
def test_by_the_rates_that_come_with_helixctl(name: str) -> None:
    found = [ratio for gpu in SECONDS[name] for ratio in ratios(name, gpu, clusters(gpu)["by-name"])]
    assert len(found) == SAMPLED * len(SECONDS[name])
    share, off = BARS[name]
    assert near(found, name) >= share
    assert statistics.median(found) == pytest.approx(1, abs=off)


@pytest.mark.parametrize("name", BARS)
def test_datasheets_say_less(name: str) -> None:
    named, sheet = (
        near([ratio for gpu in SECONDS[name] for ratio in ratios(name, gpu, clusters(gpu)[which])], name)
        for which in ("by-name", "by-datasheet")
    )
    assert named > sheet + 0.1


def test_a_cache_without_a_table_is_read_by_as_many_sms_as_there_are_pieces() -> None:
    """Of H100 and B200 three quarters, where a cache has 1,024 keys and more."""
    for gpu in ("h100", "b200"):
        rows = [row for row in SECONDS["attention over a cache"][gpu] if row[0] >= 1024]
        cluster = clusters(gpu)["by-datasheet"]
        its = [KIND["attention over a cache"].predicted(cluster, tuple(row[:-1])) / row[-1] for row in rows]
        assert near(its, "attention over a cache") >= 0.75


def test_eight_l40s_without_nvlink_are_slow_together() -> None:
    """20, 5 and 1.3 GB/s of bus on 2, 4 and 8, where the link has 32."""
    cluster = load_cluster("l40s:8")
    nbytes = 2**28
    found = {n: KIND["all_reduce"].predicted(cluster, ("all_reduce", n, nbytes)) for n in (2, 4, 8)}
    assert [round(nbytes / seconds / 1e9, 1) for seconds in found.values()] == [20.0, 5.1, 1.4]
