"""Checkpoints of another model than the plan's, or that cannot be read: all errors come before ranks start."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from helixctl.dag import Tensor
from helixctl_runtime.tensors.checkpoint import Checkpoint
from tests.runtime.families import (
    FAMILIES,
    HEAD_DIM,
    HEADS,
    HIDDEN,
    LLAMA,
    MIXTRAL,
    TIED,
    VOCABULARY,
    Weights,
    check_regions,
    saved,
    weights_of,
)


def refused(path: Path, weights: list[Tensor]) -> str:
    """All messages; every one of them HX507."""
    found = Checkpoint(str(path)).problems(weights)
    assert {problem.code for problem in found} == {"HX507"}
    assert all(problem.file == str(path) for problem in found)
    return "\n".join(map(str, found))


def changed(folder: Path, change: Callable[[Weights], object]) -> None:
    held = load_file(folder / "model.safetensors")
    change(held)
    save_file({name: x.contiguous() for name, x in held.items()}, folder / "model.safetensors")


def test_a_folder_without_safetensors(tmp_path: Path) -> None:
    assert "a folder without model.safetensors" in refused(tmp_path, LLAMA.weights)
    (tmp_path / "pytorch_model.bin").touch()
    assert "it holds pytorch_model.bin" in refused(tmp_path, LLAMA.weights)


def test_no_such_folder(tmp_path: Path) -> None:
    assert (
        refused(path := tmp_path / "nowhere", LLAMA.weights)
        == f"{path}: HX507 cannot be read: no such file or directory"
    )


def test_shards_that_are_missing_or_cut_off(tmp_path: Path) -> None:
    saved(LLAMA, tmp_path, max_shard_size="9KB")
    shards = sorted(tmp_path.glob("*.safetensors"))
    shards[0].unlink()
    shards[1].write_bytes(shards[1].read_bytes()[:-1])
    shards[2].write_bytes(b"")
    text = refused(tmp_path, LLAMA.weights)
    assert [shard.name in text for shard in shards[:4]] == [True, True, True, False]
    assert f"{shards[0].name} cannot be read: no such file or directory" in text
    assert f"{shards[1].name} cannot be read as safetensors: Error while deserializing header" in text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read: Expecting"),
        ("[]", "no weight_map"),
        ('{"weight_map": {}}', "no weight_map"),
        ('{"weight_map": {"a": 1}}', "no weight_map"),
        ('{"weight_map": {"a": "b.safetensors"}}', "b.safetensors cannot be read"),
        ("[" * 100_000, "cannot be read"),
    ],
)
def test_a_bad_index(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(text)
    assert message in refused(tmp_path, LLAMA.weights)


def test_an_index_of_other_shards(tmp_path: Path) -> None:
    saved(LLAMA, tmp_path, max_shard_size="9KB")
    index = tmp_path / "model.safetensors.index.json"
    document = json.loads(index.read_text())
    shard = document["weight_map"].pop("model.norm.weight")
    document["weight_map"]["model.more.weight"] = shard
    index.write_text(json.dumps(document))
    text = refused(tmp_path, LLAMA.weights)
    assert f"the index names model.more.weight in {shard}, which lacks them" in text
    assert f"{shard} holds model.norm.weight, which the index does not list" in text


def test_tensors_missing_or_of_another_shape_or_dtype(tmp_path: Path) -> None:
    saved(LLAMA, tmp_path)

    def change(held: Weights) -> None:
        del held["model.layers.1.mlp.up_proj.weight"]
        held["model.layers.0.self_attn.k_proj.weight"] = torch.zeros(HEADS * HEAD_DIM, HIDDEN)
        held["model.norm.weight"] = torch.zeros(HIDDEN, dtype=torch.int32)

    changed(tmp_path, change)
    text = refused(tmp_path, LLAMA.weights)
    assert "tensor model.layers.1.mlp.up_proj.weight (l1.w_up [32, 48]) is missing" in text
    shapes = "has shape [48, 32], the model [24, 32] (l0.w_k [32, 2, 12])"
    assert f"tensor model.layers.0.self_attn.k_proj.weight {shapes}" in text
    assert "tensor model.norm.weight (final_norm [32]) is I32; it must be one of F16, BF16, F32, F64" in text
    assert text.count("HX507") == 3


def test_a_quantised_checkpoint(tmp_path: Path) -> None:
    saved(LLAMA, tmp_path)

    def change(held: Weights) -> None:
        for name in [n for n in held if n.endswith("_proj.weight")]:
            held[name] = held[name].to(torch.float8_e4m3fn)
            held[f"{name}_scale_inv"] = torch.ones(1)

    changed(tmp_path, change)
    text = refused(tmp_path, LLAMA.weights)
    assert "hint: a quantised checkpoint (F8_E4M3) is read where a config.json beside it says how" in text
    assert "HX507 and 4 more" in text
    assert "does not use: model.layers.0.mlp.down_proj.weight_scale_inv" in text


def test_a_layer_too_many_and_biases(tmp_path: Path) -> None:
    """With tensors left over the checkpoint is another function."""
    saved(FAMILIES["qwen2"], tmp_path)
    text = refused(tmp_path, LLAMA.weights)
    assert "tensors that the model does not use: model.layers.0.self_attn.k_proj.bias, " in text
    fewer = weights_of(LLAMA.spec.model_copy(update={"layers": 1}))
    text = refused(tmp_path, fewer)
    assert "and 5 more" in text
    assert text.count("HX507") == 1


def test_a_layer_too_few(tmp_path: Path) -> None:
    saved(LLAMA, tmp_path)
    text = refused(tmp_path, weights_of(LLAMA.spec.model_copy(update={"layers": 5})))
    assert text.count("HX507") == 11
    assert "HX507 and 17 more" in text


def test_half_of_a_fused_tensor(tmp_path: Path) -> None:
    saved(MIXTRAL, tmp_path, save_original_format=False)
    plain = MIXTRAL.spec.feed_forward.model_copy(update={"gated": False})
    text = refused(tmp_path, weights_of(MIXTRAL.spec.model_copy(update={"feed_forward": plain})))
    assert "tensor model.layers.0.mlp.experts.gate_up_proj is used only in part" in text


def test_buffers_are_no_weights(tmp_path: Path) -> None:
    saved(LLAMA, tmp_path)
    changed(tmp_path, lambda held: held.update({"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(6)}))
    assert Checkpoint(str(tmp_path)).problems(LLAMA.weights) == []


def test_tied_heads(tmp_path: Path) -> None:
    """A tied head may be stored, if it is the embedding; another one is another function."""
    held = saved(TIED, tmp_path)
    assert "vocabulary.tied" in refused(tmp_path, LLAMA.weights)
    changed(tmp_path, lambda held: held.update({"lm_head.weight": held["model.embed_tokens.weight"].clone()}))
    check_regions(tmp_path, TIED, held, 4)
    changed(tmp_path, lambda held: held.update({"lm_head.weight": held["model.embed_tokens.weight"].double()}))
    check_regions(tmp_path, TIED, held, 4)
    for other in (torch.zeros(3), torch.zeros(VOCABULARY, HIDDEN, dtype=torch.float8_e4m3fn)):
        changed(tmp_path, lambda held, other=other: held.update({"lm_head.weight": other}))
        assert "tensor lm_head.weight is not model" in refused(tmp_path, TIED.weights)
    saved(LLAMA, tmp_path)
    assert "tensor lm_head.weight is not model.embed_tokens.weight" in refused(tmp_path, TIED.weights)


def test_own_names_of_another_model(tmp_path: Path) -> None:
    save_file({tensor.name: torch.zeros(tensor.shape) for tensor in TIED.weights}, tmp_path / "own.safetensors")
    text = refused(tmp_path / "own.safetensors", FAMILIES["qwen3"].weights)
    assert "tensor l0.q_norm is missing\n  hint: the names are those of docs/formats.md, 'Tensors'" in text
    fewer = weights_of(TIED.spec.model_copy(update={"layers": 1}))
    assert "does not use: l1.attention_norm" in refused(tmp_path / "own.safetensors", fewer)
