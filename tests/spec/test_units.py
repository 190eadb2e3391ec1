"""Quantities: what is read, what is refused, and that text and number go round."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from helixctl.units import (
    Bytes,
    BytesPerSecond,
    FlopPerSecond,
    Seconds,
    UnitError,
    human_bytes,
    human_flops,
    human_rate,
    human_seconds,
)

KINDS: dict[str, TypeAdapter[float]] = {
    "bytes": TypeAdapter(Bytes),
    "bandwidth": TypeAdapter(BytesPerSecond),
    "flops": TypeAdapter(FlopPerSecond),
    "time": TypeAdapter(Seconds),
}


def read(kind: str, text: object) -> float:
    return KINDS[kind].validate_python(text)


def refusal(kind: str, text: object) -> UnitError:
    with pytest.raises(ValidationError) as caught:
        read(kind, text)
    error = caught.value.errors()[0]["ctx"]["error"]
    assert isinstance(error, UnitError)
    return error


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        ("bytes", "80 GB", 80e9),
        ("bytes", "80GiB", 80 * 2**30),
        ("bytes", "1 B", 1),
        ("bytes", " 1.5 kB ", 1500),
        ("bytes", "1. MB", 1e6),
        ("bytes", "2e3 MB", 2e9),
        ("bandwidth", "450 GB/s", 450e9),
        ("bandwidth", "3.35 TB/s", 3.35e12),
        ("bandwidth", "8 b/s", 1),
        ("bandwidth", "1 Kib/s", 128),
        ("flops", "989 TFLOP/s", 989e12),
        ("flops", "1 PFLOP/s", 1e15),
        ("time", "5 us", 5e-6),
        ("time", "1 s", 1),
        ("time", "2 ms", 2e-3),
        ("time", "10 ns", 1e-8),
    ],
)
def test_reads(kind: str, text: str, value: float) -> None:
    assert read(kind, text) == pytest.approx(value, rel=1e-15)


def test_bits_are_an_eighth_of_bytes() -> None:
    assert read("bandwidth", "400 Gb/s") == read("bandwidth", "50 GB/s")
    assert read("bandwidth", "400 Gb/s") * 8 == read("bandwidth", "400 GB/s")


@pytest.mark.parametrize("number", ["80", 80, 80.5, "1e3", "0"])
def test_no_unit_is_refused(number: object) -> None:
    error = refusal("bytes", number)
    assert str(error).endswith("has no unit")
    assert error.hint == "write for example '80 GB'"


@pytest.mark.parametrize(
    ("kind", "text", "hint"),
    [
        ("bytes", "80 GB/s", "did you mean '80 GB'?"),
        ("bytes", "80 gb", "write for example '80 GB'"),
        ("bandwidth", "400 Gbps", "did you mean '400 Gb/s'?"),
        ("bandwidth", "400 GBps", "did you mean '400 GB/s'?"),
        ("flops", "989 TFLOPS", "did you mean '989 TFLOP/s'?"),
        ("flops", "3 apples", "write for example '989 TFLOP/s'"),
        ("time", "5 usec", "did you mean '5 us'?"),
        ("time", "5 microseconds", "did you mean '5 us'?"),
        ("time", "5 h", "write for example '5 us'"),
        ("bandwidth", "400 Gbit/s", "did you mean '400 Gb/s'?"),
        ("bandwidth", "50 GBytes/sec", "did you mean '50 GB/s'?"),
        ("bandwidth", "450 GB", "did you mean '450 GB/s'?"),
        ("bandwidth", "2 GHz", "write for example '450 GB/s'"),
        ("bandwidth", "400 gbps", "write for example '450 GB/s'"),
        ("bandwidth", "16 TFLOP/s", "write for example '450 GB/s'"),
        ("bytes", "64 KB", "did you mean '64 kB'?"),
        ("bytes", "1 TFLOP", "write for example '80 GB'"),
        ("flops", "989 Tflops", "did you mean '989 TFLOP/s'?"),
        ("flops", "989 TFLOPs/s", "did you mean '989 TFLOP/s'?"),
        ("flops", "989 TB/s", "write for example '989 TFLOP/s'"),
        ("flops", "1979 TOPS", "write for example '989 TFLOP/s'"),
    ],
)
def test_wrong_unit_is_refused_with_the_likest(kind: str, text: str, hint: str) -> None:
    error = refusal(kind, text)
    assert "which does not fit here" in str(error)
    assert error.hint == hint


@pytest.mark.parametrize("thing", ["", "fast", "-5 GB", "5 5 GB", "GB", "1_0 GB", True, [80], {"a": 1}, "5 µB"])
def test_no_quantity_is_refused(thing: object) -> None:
    assert "is not a quantity" in str(refusal("bytes", thing))


@pytest.mark.parametrize("unit", ["GT/s", "MT/s", "T/s"])
def test_transfers_are_no_bytes(unit: str) -> None:
    error = refusal("bandwidth", f"16 {unit}")
    assert error.hint.startswith("transfers are no bytes: write GB/s")
    assert "did you mean" not in error.hint


@pytest.mark.parametrize("text", ["5 us", "5 \u00b5s", "5 \u03bcs", "5\u00b5s"])
def test_both_micro_signs_are_read(text: str) -> None:
    assert read("time", text) == pytest.approx(5e-6)


def test_no_value_is_refused() -> None:
    assert str(refusal("bytes", None)) == "no value is given"


@pytest.mark.parametrize("text", ["0 B", "0.0 GB", "1e31 B", "9" * 400 + " B", "1e-400 B"])
def test_impossible_size_is_refused(text: str) -> None:
    assert "not a positive quantity of a possible size" in str(refusal("bytes", text))


def test_message_stays_short_whatever_the_value() -> None:
    deep: list[Any] = []
    for _ in range(900):
        deep = [deep]
    for value in ("x" * 10_000, list(range(10_000)), deep, "1 " + "x" * 10_000):
        assert len(str(refusal("bytes", value)).partition(" has the unit ")[0]) < 100


@pytest.mark.parametrize("kind", KINDS)
@given(value=st.floats(min_value=1e-12, max_value=1e29))
def test_any_number_goes_round(kind: str, value: float) -> None:
    assert read(kind, KINDS[kind].dump_python(value)) == value


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data(), number=st.decimals(min_value="0.001", max_value=99999, places=3))
def test_any_text_goes_round(kind: str, data: st.DataObject, number: object) -> None:
    units = {
        "bytes": ("B", "kB", "GB", "GiB", "TiB"),
        "bandwidth": ("B/s", "GB/s", "GiB/s", "Mb/s", "Gib/s"),
        "flops": ("FLOP/s", "TFLOP/s"),
        "time": ("s", "ms", "us", "ns"),
    }
    value = read(kind, f"{number} {data.draw(st.sampled_from(units[kind]))}")
    assert read(kind, KINDS[kind].dump_python(value)) == value


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("bytes", "80 GB"),
        ("bytes", "80 GiB"),
        ("bandwidth", "450 GB/s"),
        ("bandwidth", "3.35 TB/s"),
        ("flops", "989 TFLOP/s"),
        ("time", "5 us"),
        ("time", "1 s"),
    ],
)
def test_usual_text_comes_back_as_it_was(kind: str, text: str) -> None:
    assert KINDS[kind].dump_python(read(kind, text)) == text


def test_for_people() -> None:
    assert human_bytes(16_777_216) == "16.8 MB"
    assert human_bytes(5) == "5 B"
    assert human_flops(6.44e12) == "6.44 TFLOP"
    assert [human_seconds(s) for s in (2.0, 0.0215, 853e-6, 5e-9)] == ["2 s", "21.5 ms", "853 us", "5 ns"]


def test_a_slow_rate_keeps_two_digits() -> None:
    """No rate above 0 is shown as 0."""
    assert [human_rate(rate) for rate in (7336.2, 10.4, 9.62, 0.21, 0)] == ["7,336", "10", "9.6", "0.21", "0"]
    assert [human_rate(rate, 1) for rate in (1336.24, 5, 0.0312)] == ["1,336.2", "5.0", "0.031"]
