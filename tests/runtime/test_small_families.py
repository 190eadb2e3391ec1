"""Further families beside transformers: logits of every cut, greedy tokens with a KV cache, and every key's effect."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from helixctl.dag import Tensor
from helixctl.errors import HelixError
from helixctl.lower import lower
from helixctl.plan import Layout, Plan
from helixctl.spec import ModelSpec, WorkloadSpec
from helixctl.spec.hugging_face.families import FAMILIES
from helixctl.spec.load import load_model
from helixctl.verify import verify
from helixctl_runtime.check.reference import evaluate, relative_error
from helixctl_runtime.generate import Prompts
from helixctl_runtime.tensors.checkpoint import Checkpoint
from helixctl_runtime.tensors.tensor_source import TensorSource
from tests.runtime.generation import CPU
from tests.runtime.small_families import SMALL_FAMILIES, VOCABULARY, written
from tests.runtime.test_generation import LENGTHS, Known, check, in_float64, layouts
from tests.runtime.test_transformers import WORK, cluster, cuts, output_of_all_ranks

NEW = 32  # tokens after each prompt
# Those that together have every feature: the others differ from them in what their config says alone.
_ALWAYS = (
    "gemma2", "qwen3 with windows", "olmo3", "gemma", "olmo2", "glm4", "cohere with q and k norms", "starcoder2",
    "glm4_moe", "gpt_oss",
)  # fmt: skip
_HALF = WorkloadSpec(batch=2, seq_len=9)


def reference(folder: Path, model: ModelSpec, ids: torch.Tensor, work: WorkloadSpec) -> torch.Tensor:
    """The logits of the unpartitioned model in float64."""
    weights = TensorSource(0, str(folder), None)
    sketch = Plan.sketch(model, cluster(1), work, Layout(groups=1, slices=1))
    tensors = [tensor for tensor in lower(sketch).tensors if tensor.role == "weight"]
    assert Checkpoint(str(folder)).problems(tensors) == []

    def numbers(tensor: Tensor) -> torch.Tensor:
        return ids if tensor.role == "input" else weights.region(tensor, tensor.full, torch.float32, CPU)

    return evaluate(sketch, numbers, torch.float64)


@pytest.mark.parametrize("name", _ALWAYS)
def test_logits_of_some_cuts(name: str, tmp_path: Path) -> None:
    """Every sixth of them, beginning with another in each family, so that all are tried by some."""
    no_cut_is_far_off(name, tmp_path, _ALWAYS.index(name) % 6, 6)


@pytest.mark.sweep
@pytest.mark.parametrize("name", SMALL_FAMILIES)
def test_logits_of_every_cut(name: str, tmp_path: Path) -> None:
    no_cut_is_far_off(name, tmp_path)


def no_cut_is_far_off(name: str, tmp_path: Path, first: int = 0, every: int = 1) -> None:
    """Against float64, no cut is more than twice as far off as transformers' own float32 logits."""
    theirs = written(name, tmp_path)
    model = load_model(str(tmp_path)).model
    ids = torch.randint(3, VOCABULARY, (WORK.batch, WORK.seq_len), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        logits = theirs(ids).logits
    expected = reference(tmp_path, model, ids, WORK)
    tolerated = 2 * relative_error(logits, expected)
    assert tolerated < 1e-5
    weights = TensorSource(0, str(tmp_path), None)

    def numbers(tensor: Tensor, region: Any) -> torch.Tensor:
        if tensor.role == "input":
            return ids[tuple(slice(*interval) for interval in region)]
        return weights.region(tensor, region, torch.float32, CPU)

    found = [layout for devices in (1, 2, 3, 4, 6, 8) for layout in cuts(devices, model)]
    for layout in found[first::every]:
        dag = lower(Plan.of(model, cluster(layout.devices), WORK, layout))
        assert not verify(dag), layout
        assert relative_error(output_of_all_ranks(dag, numbers), expected) <= tolerated, layout


@pytest.mark.parametrize("name", _ALWAYS)
def test_greedy_tokens_of_some_layouts(name: str, tmp_path: Path) -> None:
    tokens_are_those_of_transformers(name, tmp_path, 2)


# transformers changes to the factors for long sequences while a short prompt grows, and then begins anew; a plan with
# room for long ones takes them from the start.
@pytest.mark.sweep
@pytest.mark.parametrize("name", [name for name in SMALL_FAMILIES if "long" not in name])
def test_greedy_tokens(name: str, tmp_path: Path) -> None:
    tokens_are_those_of_transformers(name, tmp_path, 4)


def tokens_are_those_of_transformers(name: str, tmp_path: Path, count: int) -> None:
    """Token for token what transformers makes of ragged prompts, in each slicing."""
    known = known_of(name, tmp_path)
    work = WorkloadSpec(batch=4, seq_len=max(LENGTHS), output_len=64, logits="last")
    every = list(layouts(known.model, work, 6))
    chosen = every[:: len(every) // count]
    slicings = {layout.slicing for layout in chosen}
    chosen += [next(x for x in every if x.slicing == other) for other in {"batch", "key"} - slicings]
    # Latents are expanded in prefill as well, if the model has some: with groups alone, and in each slicing.
    expanded = [x for x in every if x.latent_prefill == "expanded" and x.devices > 1]
    chosen += [next(x for x in expanded if x.slicing == its) for its in dict.fromkeys(x.slicing for x in expanded)]
    for number, layout in enumerate(chosen):
        check(known, layout, NEW if number == 0 else 6)


def known_of(name: str, folder: Path) -> Known:
    """What transformers makes of four prompts."""
    theirs = written(name, folder)
    ids = torch.randint(3, VOCABULARY, (len(LENGTHS), max(LENGTHS)), generator=torch.Generator().manual_seed(4))
    how: dict[str, Any] = {"max_new_tokens": NEW, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    tokens = [theirs.generate(row[None, :length], **how)[0, length:] for row, length in zip(ids, LENGTHS, strict=True)]
    whole = [torch.cat([row[:n], its[:-1]]) for row, n, its in zip(ids, LENGTHS, tokens, strict=True)]
    with torch.no_grad():
        single = torch.stack([theirs(row[None]).logits[0, -NEW:] for row in whole])
    spec = load_model(str(folder)).model
    exact = torch.stack([in_float64(folder, spec, row)[-NEW:] for row in whole])
    return Known(folder, spec, Prompts(ids, torch.tensor(LENGTHS)), torch.stack(tokens), exact, single)


_OTHER_ACTIVATION = {"silu": "gelu_pytorch_tanh", "gelu_pytorch_tanh": "relu", "gelu": "relu2"}
# Of sizes the next that all others go with.
_OTHER_SIZE = {
    "num_attention_heads": 8,
    "num_key_value_heads": 3,
    "head_dim": 16,
    "hidden_size": 96,
    "intermediate_size": 64,  # torch's grouped product in transformers takes rows of whole pieces of 16 bytes
    "moe_intermediate_size": 32,
}


def other(key: str, value: Any) -> Any:
    """Another value of a key; None where it has none to speak of."""
    if key in _OTHER_SIZE:
        return _OTHER_SIZE[key]
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 2
    if isinstance(value, float):
        return value * 0.5
    return _OTHER_ACTIVATION.get(value) if isinstance(value, str) else None


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.sweep) for name in SMALL_FAMILIES])
def test_every_key_has_its_effect(name: str, tmp_path: Path) -> None:
    """Another value of a key gives transformers' result of that value, or is refused: never the old result."""
    written(name, tmp_path / "first")
    config = json.loads((tmp_path / "first" / "config.json").read_text())
    config = config.get("text_config", config)
    family = FAMILIES[config["model_type"]]
    ids = torch.randint(3, 90, (_HALF.batch, _HALF.seq_len), generator=torch.Generator().manual_seed(2))
    seen = 0
    for key in family.model_fields:
        value = other(key, config.get(key, family.model_fields[key].default))
        if value is None or key in {"dtype", "torch_dtype"}:
            continue
        folder = tmp_path / key
        try:
            theirs = written(name, folder, {key: value})
        except Exception:  # noqa: BLE001  of whatever kind: transformers itself refuses it
            continue
        try:
            model = load_model(str(folder)).model
        except HelixError:
            continue
        with torch.no_grad():
            logits = theirs(ids).logits
        assert relative_error(logits, reference(folder, model, ids, _HALF)) < 1e-5, (key, value)
        seen += 1
    assert seen > 5
