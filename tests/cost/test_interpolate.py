"""Between the points of a table."""

from __future__ import annotations

from math import exp, log

import pytest

from helixctl.cost.interpolate import covers, multilinear, seconds_of_size

GRID = ((16, 64), (128, 512), (1, 4, 16))
# The logarithm of a rate is 100 x (place in rows) + 10 x (place in columns) + (place in depth).
RATES = [exp(100 * i + 10 * j + k) for i in range(2) for j in range(2) for k in range(3)]


@pytest.mark.parametrize(
    ("point", "log_rate"),
    [
        ((16, 128, 1), 0),
        ((64, 512, 16), 112),
        ((64, 128, 4), 101),
        ((32, 128, 1), 50),  # half way from 16 to 64 by the logarithm
        ((32, 256, 2), 55.5),
        ((32, 256, 8), 56.5),
        ((16, 128, 2**0.5), 0.25),
        ((1, 128, 1), 0),  # beyond the ends
        ((4096, 4096, 4096), 112),
        ((32, 1, 99), 52),
    ],
)
def test_the_logarithm_of_a_rate_is_linear_in_those_of_the_sizes(point: tuple[float, ...], log_rate: float) -> None:
    assert log(multilinear(GRID, RATES, point)) == pytest.approx(log_rate)


def test_a_rate_that_grows_as_a_power_of_a_size_is_exact() -> None:
    """As where memory decides: the time is that of the weights, however many rows there are."""
    assert multilinear(((1, 64),), (3.0, 192.0), (5,)) == pytest.approx(15)


def test_a_grid_of_one_point_is_a_constant() -> None:
    assert multilinear(((8,), (8,)), [7.0], (1, 99)) == pytest.approx(7)


def test_what_a_grid_covers() -> None:
    assert covers(GRID, (16, 512, 3))
    assert not covers(GRID, (15, 512, 3))
    assert not covers(GRID, (16, 512, 17))


@pytest.mark.parametrize(
    ("nbytes", "seconds"),
    [
        (1, 1e-3),
        (1000, 1e-3),
        (10_000, 1e-3 * 4**0.5),  # half way by both logarithms
        (100_000, 4e-3),
        (1_000_000, 4e-2),  # at the bandwidth of the largest: 25 MB/s
        (10_000_000, 4e-1),
    ],
)
def test_times_of_sizes(nbytes: int, seconds: float) -> None:
    assert seconds_of_size((1000, 100_000), (1e-3, 4e-3), nbytes) == pytest.approx(seconds)


def test_one_size_gives_latency_below_and_bandwidth_above() -> None:
    assert seconds_of_size((1000,), (1e-3,), 10) == 1e-3
    assert seconds_of_size((1000,), (1e-3,), 5000) == pytest.approx(5e-3)
