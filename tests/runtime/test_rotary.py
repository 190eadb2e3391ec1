"""The numbers of the rotary embedding against transformers, and against docs/formats.md as the interpreter has it."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from helixctl.spec import RotarySpec
from helixctl_runtime.tensors.rotary import frequencies, rotations
from tests import interpreter

LLAMA3 = {"kind": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_seq_len": 8192}
YARN = {"kind": "yarn", "factor": 4.0, "original_seq_len": 4096, "attention_factor": 1.1}
SCALINGS = [
    None,
    {"kind": "linear", "factor": 3.7},
    LLAMA3,
    {**LLAMA3, "high_freq_factor": 1.0},  # Llama 4: nothing is blended
    {**LLAMA3, "factor": 32.3, "low_freq_factor": 1.1},
    YARN,
    {"kind": "proportional", "pairs": 1, "factor": 1.7},
    {**YARN, "beta_fast": 16.0, "beta_slow": 2.0, "truncate": False},
]
WIDTHS = [2, 6, 64, 80, 128, 256]


def spec(theta: float, scaling: dict[str, Any] | None) -> RotarySpec:
    return RotarySpec.model_validate({"theta": theta, "scaling": scaling})


def of_transformers(rotary: RotarySpec, width: int) -> LlamaRotaryEmbedding:
    parameters = {"rope_theta": rotary.theta, "rope_type": "default"}
    if rotary.scaling:
        parameters |= rotary.scaling.model_dump()
        parameters["rope_type"] = parameters.pop("kind")
        if "pairs" in parameters:
            parameters["partial_rotary_factor"] = 2 * parameters.pop("pairs") / width
        if "original_seq_len" in parameters:
            parameters["original_max_position_embeddings"] = parameters.pop("original_seq_len")
    config = LlamaConfig(num_attention_heads=4, head_dim=width, rope_parameters=parameters)
    return LlamaRotaryEmbedding(config)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scaling", SCALINGS)
@pytest.mark.parametrize("theta", [10000.0, 500000.0, 1e6])
def test_the_frequencies_are_those_of_transformers(theta: float, scaling: dict[str, Any] | None, width: int) -> None:
    """To the bit; and the rotations as near as two roundings of one number are."""
    rotary = spec(theta, scaling)
    theirs = of_transformers(rotary, width)
    assert torch.equal(frequencies(rotary, width), theirs.inv_freq)
    wanted = theirs(torch.zeros(1), torch.arange(3000, 3100).unsqueeze(0))
    for mine, whole in zip(rotations(rotary, width, (3000, 3100)), wanted, strict=True):
        assert mine.dtype == torch.float32
        # Below 1, and with an attention factor below 2, where numbers lie twice as far apart.
        apart = 2.0**-23 if scaling and scaling["kind"] == "yarn" else 2.0**-24
        assert float((mine - whole[0, :, : width // 2]).abs().max()) <= apart


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scaling", SCALINGS)
def test_the_frequencies_are_those_of_the_page(scaling: dict[str, Any] | None, width: int) -> None:
    rotary = spec(123456.7, scaling)
    by_the_page = interpreter.frequencies(json.loads(rotary.model_dump_json()), width)
    assert by_the_page.dtype == np.float32
    assert np.array_equal(frequencies(rotary, width).numpy(), by_the_page)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("positions", [100, 4096, 4097, 30000])
def test_a_base_that_grows_is_that_of_transformers(positions: int, width: int) -> None:
    """By the tokens of the longest sequence; one pair, of which transformers makes nothing, has the frequency 1."""
    scaling = {"kind": "dynamic", "factor": 3.3, "original_seq_len": 4096}
    found = frequencies(spec(10000.0, scaling).resolved(width, positions), width)
    if width == 2:
        assert found.tolist() == [1.0]
        return
    rope = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 3.3}
    config = LlamaConfig(num_attention_heads=4, head_dim=width, max_position_embeddings=4096, rope_parameters=rope)
    theirs = ROPE_INIT_FUNCTIONS["dynamic"](config, torch.device("cpu"), seq_len=positions)[0]
    assert torch.allclose(found, theirs, rtol=1e-6, atol=0)
    assert torch.equal(found, frequencies(spec(10000.0, None), width)) == (positions <= 4096)


def test_rotations_of_later_positions_are_a_part_of_all() -> None:
    whole, part = rotations(spec(500.0, None), 8, (0, 40)), rotations(spec(500.0, None), 8, (13, 29))
    assert all(torch.equal(a[13:29], b) for a, b in zip(whole, part, strict=True))


@pytest.mark.parametrize("theta", [10000.0, 500000.0, 1e6, 1e7])
@pytest.mark.parametrize("width", WIDTHS)
def test_a_reader_of_single_powers_differs_as_little_as_the_page_says(theta: float, width: int) -> None:
    """They differ by one unit in the last place of the power; the page gives it as a part of the frequency."""
    exponents = np.arange(0, width, 2).astype(np.float32) / np.float32(width)
    exact = 1 / np.float64(np.float32(theta)) ** exponents.astype(np.float64)
    found = frequencies(spec(theta, None), width).double().numpy()
    assert float(np.max(np.abs(found - exact) / exact)) <= 1.7e-7
