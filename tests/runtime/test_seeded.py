"""Seeded numbers: the definition in docs/formats.md, and that a region is a part of the whole."""

from __future__ import annotations

import hashlib
import re

import pytest
import torch

from helixctl.dag import Tensor
from helixctl.dag.function import seeded
from helixctl_runtime.tensors.seeded import seeded_numbers
from tests.documents import ROOT

TENSOR = Tensor("l0.w_q", "weight", ("hidden", "head", "head_dim"), (6, 4, 10), (0.0, 0.5))
WORD = 2**64 - 1


def by_the_book(name: str, seed: int, i: int) -> float:
    """docs/formats.md, in Python's integers."""
    return ((word(name, seed, i) >> 48) - 32768) / 32768


def word(name: str, seed: int, i: int) -> int:
    """z of docs/formats.md."""
    z = int.from_bytes(hashlib.sha256(f"{seed}:{name}".encode()).digest()[:8], "big") + (i + 1) * 0x9E3779B97F4A7C15
    z &= WORD
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & WORD
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & WORD
    return z ^ (z >> 31)


def test_the_definition() -> None:
    whole = seeded_numbers(TENSOR, TENSOR.full, 7, torch.float64).flatten()
    assert whole.tolist() == [0.5 * by_the_book("l0.w_q", 7, i) for i in range(240)]


def test_the_numbers_that_the_document_gives() -> None:
    text = (ROOT / "docs/formats.md").read_text()
    stated = re.search(r"init \[0, 1\] are\n([-0-9., ]+)\.\n", text)
    assert stated
    assert [float(x) for x in stated[1].split(",")] == [by_the_book("input", 0, i) for i in range(3)]


@pytest.mark.parametrize("size", [2, 32000, 151936, 2**31])
def test_token_ids(size: int) -> None:
    """Whole numbers of the vocabulary, whatever its size; a region is a part of the whole."""
    tensor = Tensor("input_ids", "input", ("batch", "seq"), (6, 50), (0.0, float(size)))
    ids = seeded_numbers(tensor, tensor.full, 3, torch.int64)
    assert ids.dtype == torch.int64
    assert ids.flatten().tolist() == [(word("input_ids", 3, i) >> 32) * size >> 32 for i in range(300)]
    assert 0 <= int(ids.min()) < size / 10 < size * 9 / 10 <= int(ids.max()) < size or size == 2
    assert torch.equal(seeded_numbers(tensor, ((2, 5), (7, 20)), 3, torch.int64), ids[2:5, 7:20])


def test_the_ids_that_the_document_gives() -> None:
    text = (ROOT / "docs/formats.md").read_text()
    stated = re.search(r"init \[0, 32000\] they are the ids\n([0-9, ]+)\.\n", text)
    assert stated
    tensor = Tensor("input_ids", "input", ("batch", "seq"), (1, 3), (0.0, 32000.0))
    assert [[int(x) for x in stated[1].split(",")]] == seeded_numbers(tensor, tensor.full, 0, torch.int64).tolist()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_a_region_is_a_part_of_the_whole(dtype: torch.dtype) -> None:
    whole = seeded_numbers(TENSOR, TENSOR.full, 0, dtype)
    part = seeded_numbers(TENSOR, ((1, 5), (2, 4), (3, 9)), 0, dtype)
    assert torch.equal(part, whole[1:5, 2:4, 3:9])


def test_exact_in_float32_and_rounded_once() -> None:
    exact = seeded_numbers(TENSOR, TENSOR.full, 0, torch.float64)
    assert torch.equal(seeded_numbers(TENSOR, TENSOR.full, 0, torch.float32).double(), exact)
    assert torch.equal(seeded_numbers(TENSOR, TENSOR.full, 0, torch.float16), exact.half())


def test_seed_and_name_matter() -> None:
    numbers = [seeded_numbers(t, t.full, s, torch.float32) for t, s in (
        (TENSOR, 0), (TENSOR, 1), (Tensor("l0.w_k", "weight", TENSOR.dims, TENSOR.shape, TENSOR.init), 0)
    )]  # fmt: skip
    assert not torch.equal(numbers[0], numbers[1])
    assert not torch.equal(numbers[0], numbers[2])
    assert abs(float(numbers[0].mean())) < 0.05
    assert float(numbers[0].std()) == pytest.approx(0.5 / 3**0.5, rel=0.1)


@pytest.mark.parametrize("half", range(20))
def test_a_scale_between_two_powers_has_the_even_exponent(half: int) -> None:
    """Between 2^-half and 2^-(half + 1) in the logarithm, where the page says which of them it is."""
    assert seeded(3 * 2 ** (2 * half + 1)) == (0.0, 2.0 ** -(half + half % 2))


@pytest.mark.parametrize("region", [TENSOR.full, ((1, 4), (2, 3), (0, 7)), ((5, 6), (0, 4), (3, 10))])
def test_parts_that_are_made_one_after_the_other(
    monkeypatch: pytest.MonkeyPatch, region: tuple[tuple[int, int], ...]
) -> None:
    """A large region is made in parts, whose numbers are those of the region made at once."""
    at_once = seeded_numbers(TENSOR, region, 7, torch.float32)
    monkeypatch.setattr("helixctl_runtime.tensors.seeded._MOST_IN_A_CACHE", 5)
    assert torch.equal(seeded_numbers(TENSOR, region, 7, torch.float32), at_once)
