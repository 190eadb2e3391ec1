"""Quantised weights: what configs say of them, and the bytes that follow."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from helixctl.cost.memory import weight_nbytes
from helixctl.cost.tasks import TaskCosts
from helixctl.dag.function import function_of
from helixctl.dag.retype import dequantised, retyped
from helixctl.dag.storage import Storage
from helixctl.errors import HelixError
from helixctl.lower import lower
from helixctl.plan import Layout, Plan
from helixctl.solve.candidate import priced
from helixctl.spec import ModelDocument, StoredSpec
from helixctl.spec.load import load_model, load_pair
from helixctl.verify import verify
from tests.documents import SMALL, SMALL_MOE, dag_of

LLAMA: dict[str, Any] = {
    "model_type": "llama", "hidden_size": 256, "intermediate_size": 384, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 512, "max_position_embeddings": 64,
    "dtype": "bfloat16",
}  # fmt: skip
MIXTURE: dict[str, Any] = LLAMA | {
    "model_type": "qwen3_moe", "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 128,
}  # fmt: skip
LATENT: dict[str, Any] = LLAMA | {
    "model_type": "deepseek_v32", "num_key_value_heads": 4, "kv_lora_rank": 64, "q_lora_rank": 64,
    "qk_nope_head_dim": 32, "qk_rope_head_dim": 16, "v_head_dim": 32, "n_routed_experts": 8,
    "num_experts_per_tok": 2, "moe_intermediate_size": 64, "n_shared_experts": 1, "n_group": 4, "topk_group": 2,
    "first_k_dense_replace": 1, "index_topk": 16, "index_n_heads": 2, "index_head_dim": 32,
}  # fmt: skip
IN_A_LAYER = ("w_q", "w_k", "w_v", "w_o", "w_gate", "w_up", "w_down")
FP8 = {"quant_method": "fp8", "weight_block_size": [128, 128]}
GROUPS = {"quant_method": "gptq", "bits": 4, "group_size": 128}
INT4 = {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 32, "symmetric": True}
PACKED = {
    "quant_method": "compressed-tensors", "format": "pack-quantized", "ignore": ["lm_head"],
    "config_groups": {"group_0": {"targets": ["Linear"], "weights": INT4}},
}  # fmt: skip


ROUNDED = {"num_bits": 8, "type": "float", "strategy": "channel", "symmetric": True}


def compressed(weights: dict[str, Any], activations: dict[str, Any] | None) -> dict[str, Any]:
    group = {"targets": ["Linear"], "weights": weights, "input_activations": activations}
    return {"quant_method": "compressed-tensors", "config_groups": {"group_0": group}}


def model(folder: Path, config: dict[str, Any], beside: dict[str, Any] | None = None, **how: Any) -> ModelDocument:
    quantised = {"quantization_config": how} if how else {}
    (folder / "config.json").write_text(json.dumps(config | quantised))
    if beside is not None:
        (folder / "hf_quant_config.json").write_text(json.dumps(beside))
    return load_model(str(folder))


def stored(document: ModelDocument, layer: int = 0) -> dict[str, str]:
    """How every matrix of a layer and of the ends is stored, in words."""
    its = document.alike(document.kind(layer)).stored or ()
    return {name: str(spec) for spec in its for name in spec.weights}


def test_without_a_quantisation_nothing_is_said(tmp_path: Path) -> None:
    document = model(tmp_path, LLAMA).model
    assert document.stored is None
    assert "stored" not in document.model_dump_json()
    assert dequantised(document) is document


def test_fp8_in_blocks_is_of_every_layer_and_of_no_end(tmp_path: Path) -> None:
    found = stored(model(tmp_path, LLAMA, **FP8))
    assert found == dict.fromkeys(IN_A_LAYER, "float8, a float32 scale for 128 x 128, activations in float8")


def test_modules_that_are_kept(tmp_path: Path) -> None:
    kept = ["model.layers.0.mlp.gate", "model.layers.1.self_attn", "re:.*layers\\.2\\.mlp\\.(up|down)_proj", "lm_head"]
    document = model(tmp_path, MIXTURE | {"mlp_only_layers": []}, **FP8, modules_to_not_convert=kept)
    assert set(stored(document, 0)) == set(IN_A_LAYER)
    assert set(stored(document, 1)) == {"w_gate", "w_up", "w_down"}
    assert set(stored(document, 2)) == set(IN_A_LAYER)  # experts are not mlp.up_proj
    assert document.kinds == ("main", "main_stored_2")
    assert dequantised(document.model).kinds == ("main",)
    dense = model(tmp_path, LLAMA, **FP8, modules_to_not_convert=kept)
    assert set(stored(dense, 2)) == {"w_q", "w_k", "w_v", "w_o", "w_gate"}


@pytest.mark.parametrize("ahead", ["model.language_model.", "language_model.model.", "model.", "*"])
def test_names_inside_a_model_of_several_modalities(ahead: str, tmp_path: Path) -> None:
    kept = [f"{ahead}layers.{layer}.self_attn*" for layer in range(3)] + ["language_model.lm_head"]
    document = model(tmp_path, LLAMA, quant_algo="NVFP4", ignore=kept)
    assert set(stored(document)) == {"w_gate", "w_up", "w_down"}


def test_only_experts_are_mxfp4(tmp_path: Path) -> None:
    found = stored(model(tmp_path, MIXTURE, quant_method="mxfp4", modules_to_not_convert=["model.layers.*.self_attn"]))
    assert found == dict.fromkeys(("w_gate", "w_up", "w_down"), "float4, an exponent8 scale for 32 inputs")


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"quant_method": "fp8"}, "float8, a float32 scale for a matrix, activations in float8"),
        (GROUPS, "int4, a float16 scale and a zero point for 128 inputs"),
        (GROUPS | {"bits": 8, "group_size": -1}, "int8, a float16 scale and a zero point for an output"),
        ({"quant_method": "awq", "bits": 4, "group_size": 64}, "int4, a float16 scale and a zero point for 64 inputs"),
        (PACKED, "int4, a bfloat16 scale for 32 inputs"),
        ({"quant_algo": "FP8"}, "float8, a float32 scale for a matrix, activations in float8"),
        ({"quant_algo": "NVFP4", "group_size": 16}, "float4, a float8 scale for 16 inputs, activations in float4"),
    ],
)
def test_methods(tmp_path: Path, how: dict[str, Any], said: str) -> None:
    assert stored(model(tmp_path, LLAMA, **how))["w_up"] == said


def test_a_file_beside_the_config_counts_where_the_config_says_nothing(tmp_path: Path) -> None:
    beside = {"quantization": {"quant_algo": "FP8", "exclude_modules": ["lm_head", "*.mlp.*"]}}
    assert set(stored(model(tmp_path, LLAMA, beside))) == {"w_q", "w_k", "w_v", "w_o"}
    assert (
        stored(model(tmp_path, LLAMA, beside, **FP8))["w_up"]
        == "float8, a float32 scale for 128 x 128, activations in float8"
    )


def test_scales_of_a_cache_are_named(tmp_path: Path) -> None:
    beside = {"quantization": {"quant_algo": "FP8", "kv_cache_quant_algo": "FP8"}}
    model(tmp_path, LLAMA, beside)
    notes = load_pair(str(tmp_path), "h100:1x1").notes
    assert [note for note in notes if "a quantised KV cache (kv_cache_quant_algo)" in note]
    model(tmp_path, LLAMA, {"quantization": {"quant_algo": "FP8", "kv_cache_quant_algo": None}})
    assert not [note for note in load_pair(str(tmp_path), "h100:1x1").notes if "cache" in note]


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"quant_method": "bitsandbytes"}, "weights quantised by 'bitsandbytes': not modelled"),
        ({"bits": 4}, "weights quantised without a quant_method: not modelled (quantization_config)"),
        (GROUPS | {"bits": 3}, "with bits 3: not modelled (quantization_config.bits)"),
        (GROUPS | {"group_size": "all"}, "with group_size 'all': not modelled (quantization_config.group_size)"),
        (GROUPS | {"dynamic": {"+:.*": {"bits": 8}}}, "with bits that differ by module"),
        (FP8 | {"weight_block_size": [128]}, "with weight_block_size a list of 1"),
        (FP8 | {"fmt": "e5m2"}, "with fmt 'e5m2'"),
        ({"quant_algo": "W4A8_AWQ"}, "by 'W4A8_AWQ': not modelled (quantization_config.quant_algo)"),
        ({"quant_algo": "NVFP4", "group_size": 32}, "by NVFP4 in groups of 32"),
        ({"quant_method": "awq", "bits": 4, "group_size": 64, "version": "gemv"}, "with version 'gemv'"),
    ],
)
def test_what_is_unknown_is_refused_by_name(tmp_path: Path, how: dict[str, Any], said: str) -> None:
    with pytest.raises(HelixError) as caught:
        model(tmp_path, LLAMA, **how)
    (found,) = caught.value.diagnostics
    assert found.code == "HX111"
    assert said in found.message


@pytest.mark.parametrize(
    ("spec", "shape", "nbytes"),
    [
        # (numbers) + (scales) [+ zero points]
        ({"number": "float8", "block": [128, 128], "scale": "float32"}, (256, 384), 256 * 384 + 2 * 3 * 4),
        ({"number": "float8", "block": [128, 128], "scale": "float32"}, (129, 1), 129 + 2 * 4),
        ({"number": "float8", "scale": "float32"}, (256, 384), 256 * 384 + 4),
        ({"number": "int8", "block": [1, None], "scale": "float16"}, (256, 384), 256 * 384 + 384 * 2),
        (
            {"number": "int4", "block": [1, 128], "scale": "float16", "zero_points": True},
            (256, 384),
            128 * 384 + 2 * 384 * 2 + 384,
        ),
        ({"number": "float4", "block": [1, 32], "scale": "exponent8"}, (64, 10), 32 * 10 + 2 * 10),
        (
            {"number": "float4", "block": [1, 16], "scale": "float8", "tensor_scale": "float32"},
            (64, 10),
            32 * 10 + 4 * 10 + 4,
        ),
        ({"number": "q4_k"}, (512, 10), 2 * 144 * 10),
        ({"number": "q8_0"}, (48, 10), 2 * 34 * 10),
    ],
)
def test_bytes_by_hand(spec: dict[str, Any], shape: tuple[int, int], nbytes: int) -> None:
    storage = Storage.of(StoredSpec.model_validate({"weights": ["w_up"], **spec}), ("hidden",))
    assert storage.nbytes(("hidden", "ffn"), shape) == nbytes
    assert storage.nbytes(("expert", "hidden", "ffn"), (3, *shape)) == 3 * nbytes


@pytest.mark.parametrize("specs", [SMALL, SMALL_MOE])
@pytest.mark.parametrize("layout", [(1, 1), (2, 2)])
def test_memory_and_reading_are_those_of_the_stored_bytes(specs: tuple[str, str], layout: tuple[int, int]) -> None:
    plain = dag_of(specs, *layout)
    spec = {"weights": list(IN_A_LAYER), "number": "float8", "block": [1, None], "scale": "float32"}
    as_stored = plain.plan.model.model_copy(update={"stored": (StoredSpec.model_validate(spec),)})
    quantised = lower(Plan.of(as_stored, plain.plan.cluster, plain.plan.workload, plain.plan.layout))
    assert not verify(quantised)
    for rank, (all_of, fewer) in enumerate(zip(weight_nbytes(plain), weight_nbytes(quantised), strict=True)):
        spared = 0
        for value in (v for v in plain.values if v.rank == rank and v.tensor.rpartition(".")[2] in IN_A_LAYER):
            tensor = quantised.tensor[value.tensor]
            assert tensor.storage is not None
            outputs = [n for d, n in zip(tensor.dims, value.shape, strict=True) if d not in tensor.storage.inputs]
            scales = 1
            for n in outputs:
                scales *= n
            spared += value.numel * (value.nbytes // value.numel) - value.numel - 4 * scales
        assert all_of - fewer == spared > 0
    less = [task.nbytes < other.nbytes for task, other in zip(quantised.tasks, plain.tasks, strict=True)]
    assert any(less)
    assert retyped(quantised).tasks == plain.tasks
    assert retyped(quantised).plan == plain.plan


def test_a_dag_that_says_less_than_its_model_is_refused() -> None:
    plain = dag_of(SMALL, 1, 1)
    spec = StoredSpec.model_validate({"weights": ["w_up"], "number": "float8", "scale": "float32"})
    forged = replace(
        plain,
        tensors=tuple(
            replace(t, storage=Storage.of(spec, ("hidden",))) if t.name == "l0.w_up" else t for t in plain.tensors
        ),
    )
    assert any("l0.w_up" in found.message for found in verify(forged))


def test_layers_that_are_stored_otherwise_are_priced_so(tmp_path: Path) -> None:
    """A decode step is bound by reading weights: it takes as many times less as fewer bytes are read."""
    (tmp_path / "a").mkdir()
    large = LLAMA | {"hidden_size": 4096, "intermediate_size": 14336, "num_attention_heads": 32, "num_hidden_layers": 4}
    work = ("workload.batch=1", "workload.seq_len=16", "workload.output_len=8")
    seconds = {}
    for name, how in (("none", {}), ("fp8", compressed(ROUNDED, None)), ("measured", FP8), ("int4", GROUPS)):
        model(tmp_path, large, **how)
        loaded = load_pair(str(tmp_path), "h100:1x1", work)
        plan = Plan.of(loaded.model.model, loaded.cluster, loaded.model.workload, Layout(groups=1, slices=1))
        dag = lower(plan, step="decode")
        costs = TaskCosts(dag)
        seconds[name] = sum(costs.seconds(task) for task in dag.tasks if task.kind == "linear" and task.level != "head")
        assert priced(plan)
    assert 1.6 < seconds["none"] / seconds["fp8"] < 2.05
    assert 1.3 < seconds["none"] / seconds["measured"] < 2.05  # kernels that round activations take their time
    assert 2.6 < seconds["none"] / seconds["int4"] < 4.1


def test_names_of_other_families(tmp_path: Path) -> None:
    """A latent with an indexer: what weighs the indexer's heads is never quantised, and a shared expert may be kept."""
    document = model(tmp_path, LATENT, **FP8, modules_to_not_convert=["re:.*shared_experts.*", "*.kv_b_proj"])
    of_latent = {"w_q_down", "w_q", "w_kv_down", "w_k_rope", "w_o", "w_index_q", "w_index_k"}
    assert set(stored(document, 0)) == set(stored(document, 1)) == {*of_latent, "w_gate", "w_up", "w_down"}
    assert document.kinds == ("dense", "main")


def test_functions_keep_their_equations(tmp_path: Path) -> None:
    document = model(tmp_path, LLAMA, **FP8)
    step = document.workload.in_one_pass
    assert function_of(document.model, step).equations == function_of(dequantised(document.model), step).equations


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ([{"weights": ["w_x"], "number": "int4", "scale": "float16"}], "w_q"),
        ([{"weights": ["w_q"], "number": "int4"}], "int4 without the dtype of its scales"),
        ([{"weights": ["w_q"], "number": "q4_k", "scale": "float16"}], "q4_k holds its scales in blocks of its own"),
        ([{"weights": ["w_q"], "number": "q4_k"}, {"weights": ["w_q"], "number": "q8_0"}], "w_q is stored in two ways"),
    ],
)
def test_wrong_specs(tmp_path: Path, spec: list[dict[str, Any]], said: str) -> None:
    text = Path(SMALL[0]).read_text() + f"\nstored: {json.dumps(spec)}\n"
    (tmp_path / "m.yaml").write_text(text)
    with pytest.raises(HelixError, match=said):
        load_model(str(tmp_path / "m.yaml"))


@pytest.mark.parametrize(
    ("how", "said"),
    [
        (FP8, "float8"),
        ({"quant_method": "fp8", "activation_scheme": "static"}, "float8"),
        (GROUPS, None),
        (PACKED, None),
        (compressed(ROUNDED, ROUNDED), "float8"),
        (compressed(ROUNDED, None), None),
        (compressed(ROUNDED | {"type": "int"}, ROUNDED | {"type": "int"}), "int8"),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, "float4"),
        ({"quant_method": "modelopt", "quant_algo": "W4A16_NVFP4"}, None),
        ({"quant_method": "modelopt", "quant_algo": "MXFP8"}, "float8"),
    ],
)
def test_a_config_says_whether_activations_are_rounded_too(
    tmp_path: Path, how: dict[str, Any], said: str | None
) -> None:
    document = model(tmp_path, LLAMA, **how)
    assert {spec.activations for spec in document.stored or ()} == {said}


def test_activations_in_other_numbers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(HelixError, match="input_activations"):
        model(tmp_path, LLAMA, **compressed(ROUNDED, ROUNDED | {"num_bits": 16}))


YARN: dict[str, Any] = {
    "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16, "mscale": 1.0, "mscale_all_dim": 1.0,
    "beta_fast": 32, "beta_slow": 1, "rope_theta": 10000.0,
}  # fmt: skip
NESTED: list[dict[str, Any]] = [
    LLAMA | {"quantization_config": FP8 | {"fmt": "e4m3", "activation_scheme": "dynamic"}},
    LLAMA | {"quantization_config": GROUPS | {"checkpoint_format": "gptq", "desc_act": False, "sym": True}},
    LLAMA | {"quantization_config": {"quant_method": "awq", "bits": 4, "group_size": 128, "version": "gemm"}},
    LLAMA | {"quantization_config": PACKED},
    LLAMA | {"quantization_config": compressed(ROUNDED, ROUNDED | {"dynamic": True})},
    LLAMA | {"quantization_config": {"quant_algo": "NVFP4", "group_size": 16, "exclude_modules": ["lm_head"]}},
    MIXTURE | {"quantization_config": {"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]}},
    LLAMA | {"rope_scaling": YARN},
    LATENT | {"rope_scaling": YARN},
]


def places(value: Any) -> Iterator[tuple[Any, ...]]:
    """The paths of all that is in a document."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (key,)
        yield from ((key, *path) for path in places(inner))


@pytest.mark.parametrize("number", range(len(NESTED)))
def test_a_value_of_another_type_is_read_or_refused(number: int, tmp_path: Path) -> None:
    """Wherever it stands: it may not even have a hash."""
    whole = {key: value for key, value in NESTED[number].items() if key in {"quantization_config", "rope_scaling"}}
    refused = 0
    for path in places(whole):
        for junk in ([], {}, ["x"], {"x": 1}, "x", 1.5, -1, True, None):
            config = copy.deepcopy(NESTED[number])
            place: Any = config
            for key in path[:-1]:
                place = place[key]
            place[path[-1]] = junk
            try:
                model(tmp_path, config)
            except HelixError:
                refused += 1
    assert refused > len(list(places(whole)))
