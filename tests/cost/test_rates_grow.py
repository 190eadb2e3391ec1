"""What the rates that come with helixctl say of experts and latents, on grids that are not theirs: more takes no less.

The rates are fitted to shapes of some models (tests/benchmarks/rates.py); a search asks for shapes between and beyond.
"""

from __future__ import annotations

from itertools import pairwise, product
from typing import Final

import pytest

from helixctl.cost.compute import _NOTHING_LESS, _Device, _Less
from helixctl.spec import Arithmetic
from helixctl.spec.load import load_cluster

GPUS: Final = ("a100", "b200", "h100", "h200", "l40s")
# Experts that have rows, rows of one, hidden, width, ranks: within the axes, at their ends and beyond.
AXES: Final = (
    (1, 5, 64, 600),
    (1, 7, 128, 700, 9000),
    (1024, 2880, 7168),
    (12, 96, 192, 2880, 16384),
    (1, 6, 300),
)
ROUNDED: Final = 1.02  # rates have three digits, and five axes between which they add up
NUMBERS: Final = {"float8": 8, "float8_blocks": 8, "float4": 4}  # bits of each


def seconds(device: _Device, shape: tuple[int, ...], arithmetic: Arithmetic | None = None) -> float:
    """Of gated experts of ``used``, ``rows``, ``hidden``, ``width``, ``ranks``."""
    used, rows, hidden, width, ranks = shape
    table, whole = device.experts_table, 2 * 3 * used * hidden * width
    assert table is not None
    less = _Less(whole - whole * NUMBERS[arithmetic] // 16, arithmetic) if arithmetic else _NOTHING_LESS
    return device.measured_experts(table, (used, used * rows, hidden, width, ranks), 3, whole, less).seconds


def device_of(gpu: str) -> _Device:
    return _Device(load_cluster(f"{gpu}:8").only, "bfloat16")


def falls(device: _Device, axis: int, arithmetic: Arithmetic | None = None) -> float:
    """How much less, at worst, the next size of an axis takes: 1 is no less."""
    others = product(*(sizes if i != axis else (0,) for i, sizes in enumerate(AXES)))
    worst = 1.0
    for shape in others:
        line = [seconds(device, (*shape[:axis], size, *shape[axis + 1 :]), arithmetic) for size in AXES[axis]]
        worst = max(worst, *(before / after for before, after in pairwise(line)))
    return worst


@pytest.mark.parametrize("axis", range(len(AXES)), ids=("used", "rows", "hidden", "width", "ranks"))
@pytest.mark.parametrize("gpu", GPUS)
def test_more_experts_rows_width_or_ranks_take_no_less_time(gpu: str, axis: int) -> None:
    assert falls(device_of(gpu), axis) < ROUNDED


@pytest.mark.parametrize("axis", [1, 3], ids=("rows", "width"))
@pytest.mark.parametrize("gpu", GPUS)
def test_in_quantised_numbers_more_takes_little_less_time_at_most(gpu: str, axis: int) -> None:
    """Their factors stand for all numbers of experts and ranks; where the dtype's rates are flat they show through."""
    device = device_of(gpu)
    kinds = [kind for kind, its in device.calibration.quantised.items() if its.experts] if device.calibration else []
    assert bool(kinds) == (gpu != "a100")
    for kind in kinds:
        assert falls(device, axis, kind) < 1.6, kind


@pytest.mark.parametrize("ranks", [2, 4, 8])
@pytest.mark.parametrize("gpu", GPUS)
def test_whole_experts_take_not_many_times_what_they_take_cut(gpu: str, ranks: int) -> None:
    """On one rank beside their parts one after another, and over ranks beside cut over as many: as much arithmetic.

    The engines' own kernels are up to 2.5 times slower with few wide experts than with many narrow ones.
    """
    device = device_of(gpu)
    for used, rows, hidden, width in product((8, 32, 128), (1, 16, 256, 4096), (2048, 6144), (768, 1536, 14336)):
        cut = seconds(device, (used, rows, hidden, width // ranks, 1))
        assert seconds(device, (used, rows, hidden, width, 1)) < 2.3 * ranks * cut
        assert seconds(device, (used // ranks, rows, hidden, width, ranks)) < 2.6 * cut


@pytest.mark.parametrize("gpu", GPUS)
def test_large_experts_have_a_fifth_of_the_peak_at_least_and_never_more_than_all(gpu: str) -> None:
    device = device_of(gpu)
    for used, rows, hidden, width in product((8, 64, 600), (512, 2048, 9000), (2048, 6144), (768, 4096, 14336)):
        share = 6 * used * rows * hidden * width / seconds(device, (used, rows, hidden, width, 1)) / device.peak.value
        assert 0.2 < share < 1


@pytest.mark.parametrize("gpu", GPUS)
def test_long_caches_are_read_no_faster_than_memory_and_as_fast_for_many_query_heads_as_for_few(gpu: str) -> None:
    """Of many caches and long ones few query heads alone were measured."""
    device = device_of(gpu)
    for width, caches, keys in product((64, 128), (32, 300), (30_000, 300_000)):
        few, many = (device.decode(caches, shared, 1, (width, width), keys).seconds for shared in (2, 16))
        assert many == pytest.approx(few, rel=0.25)
        assert min(few, many) > 0.99 * 4 * caches * keys * width / device.bandwidth.value


LATENT: Final = ((1, 3, 8, 40, 300, 2000), (2, 100, 700, 5000, 40000, 300_000), (1, 8, 24, 100, 256))


@pytest.mark.parametrize("axis", range(len(LATENT)), ids=("sequences", "keys", "heads"))
@pytest.mark.parametrize("gpu", GPUS)
def test_more_latents_or_more_queries_of_them_take_no_less_time(gpu: str, axis: int) -> None:
    device = device_of(gpu)

    def seconds_of(sequences: int, keys: int, heads: int) -> float:
        return device.decode(sequences, heads, 1, (576, 512), keys, once=True).seconds

    for shape in product(*(sizes if i != axis else (0,) for i, sizes in enumerate(LATENT))):
        line = [seconds_of(*shape[:axis], size, *shape[axis + 1 :]) for size in LATENT[axis]]
        assert all(before / after < ROUNDED for before, after in pairwise(line))
