"""A Hugging Face config.json as a model: what transformers itself writes, the map of fields, every refusal."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helixctl.errors import Diagnostic, HelixError
from helixctl.spec import Llama3Scaling, ModelDocument, ModelSpec, SparseSpec, YarnScaling
from helixctl.spec.hugging_face import model_types
from helixctl.spec.hugging_face.families import FAMILIES
from helixctl.spec.hugging_face.without_effect import without_effect
from helixctl.spec.load import load_model, load_pair, parse_overrides
from tests.cli.command import helixctl

ROOT = Path(__file__).parent.parent.parent
CLUSTER_FILE = str(ROOT / "plans/paper/h100x16.cluster.yaml")
CPU_FILE = str(ROOT / "plans/small/cpu16.cluster.yaml")
MODELS = ROOT / "plans/models"

SIZES: dict[str, Any] = {
    "hidden_size": 96,
    "intermediate_size": 160,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "vocab_size": 1000,
    "max_position_embeddings": 4096,
}
MOE = SIZES | {"num_experts_per_tok": 3, "num_local_experts": 8}
OF_DEEPSEEK = SIZES | {
    "num_experts_per_tok": 3,
    "n_routed_experts": 8,
    "n_shared_experts": 2,
    "moe_intermediate_size": 48,
}
LATENT = {
    "num_key_value_heads": 6,
    "kv_lora_rank": 32,
    "q_lora_rank": 24,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 8,
    "v_head_dim": 16,
    "n_group": 4,
    "topk_group": 2,
}
MINIMAL: dict[str, dict[str, Any]] = {
    **dict.fromkeys(
        ("gemma", "gemma2", "olmo2", "glm4", "cohere", "cohere2", "granite", "seed_oss", "ernie4_5", "starcoder2"),
        SIZES,
    ),
    **dict.fromkeys(("smollm3", "mimo", "phi3", "qwen3_vl_text"), SIZES),
    "qwen3_vl_moe_text": SIZES | {"moe_intermediate_size": 48, "num_experts": 8, "num_experts_per_tok": 2},
    "llama": SIZES,
    "mistral": SIZES,
    "qwen2": SIZES,
    "qwen3": SIZES,
    "mixtral": MOE,
    "qwen3_moe": MOE | {"moe_intermediate_size": 48},
    "qwen2_moe": SIZES
    | {
        "num_experts_per_tok": 3,
        "num_experts": 8,
        "moe_intermediate_size": 48,
        "shared_expert_intermediate_size": 56,
    },
    "dots1": OF_DEEPSEEK,
    "deepseek_v2": OF_DEEPSEEK | LATENT,
    "deepseek_v3": OF_DEEPSEEK | LATENT,
    "deepseek_v32": OF_DEEPSEEK | LATENT,
    "glm_moe_dsa": OF_DEEPSEEK | LATENT,
    "kimi_k2": OF_DEEPSEEK | LATENT,
    "kimi_k25_text": OF_DEEPSEEK | LATENT,
    "glm4_moe": OF_DEEPSEEK,
    "gemma4_text": SIZES | {"hidden_size_per_layer_input": 0},
    "mimo_v2_flash": OF_DEEPSEEK | {"n_shared_experts": None, "num_key_value_heads": 3},
    "mistral4": OF_DEEPSEEK | LATENT,
    "llama4_text": MOE | {"intermediate_size_mlp": 200},
    "olmoe": MOE | {"num_experts": 8},
    "afmoe": SIZES | {"moe_intermediate_size": 48, "num_experts": 8, "num_experts_per_tok": 2},
    "phimoe": MOE | {"num_experts_per_tok": 2},
    "minimax_m2": MOE,
    "granitemoe": MOE,
    "gpt_oss": MOE,
    "ernie4_5_moe": SIZES | {"moe_k": 3, "moe_num_experts": 8, "moe_intermediate_size": 48},
}
CLASSES = {
    "dots1": "Dots1Config",
    "qwen2_moe": "Qwen2MoeConfig",
    "llama": "LlamaConfig",
    "mistral": "MistralConfig",
    "mixtral": "MixtralConfig",
    "qwen2": "Qwen2Config",
    "qwen3": "Qwen3Config",
    "qwen3_moe": "Qwen3MoeConfig",
}
LLAMA3 = {
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 1024,
}


def write(folder: Path, family: str, **changes: Any) -> str:
    """A config of a family with keys changed, or taken out with ``...``."""
    config = {"model_type": family} | MINIMAL.get(family, SIZES) | changes
    path = folder / "config.json"
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not ...}, indent=1))
    return str(path)


def diagnostics(path: str, *sets: str) -> tuple[Diagnostic, ...]:
    with pytest.raises(HelixError) as caught:
        load_pair(path, CLUSTER_FILE, sets)
    return caught.value.diagnostics


class TestFamilies:
    """Against configs that transformers makes and saves."""

    @pytest.fixture(params=CLASSES)
    def family(self, request: pytest.FixtureRequest) -> str:
        return str(request.param)

    def saved(self, family: str, folder: Path, **changes: Any) -> tuple[Any, ModelDocument]:
        import transformers

        config = getattr(transformers, CLASSES[family])(**MINIMAL[family] | changes)
        config.save_pretrained(folder)
        return config, load_model(str(folder))

    def test_what_transformers_saves(self, family: str, tmp_path: Path) -> None:
        config, model = self.saved(family, tmp_path)
        attention = model.attention
        assert (model.layers, model.hidden_size, attention.heads, attention.key_heads) == (3, 96, 6, 2)
        assert attention.head_dim == (128 if family == "qwen3" else 16)
        assert attention.causal
        assert attention.rotary is not None
        assert attention.rotary.theta == config.rope_parameters["rope_theta"]
        assert attention.rotary.scaling is None
        assert attention.sliding_window == (4096 if family == "mistral" else None)
        assert attention.qk_norm == (family.startswith("qwen3") or family == "dots1")
        assert (attention.qkv_bias, attention.output_bias) == (family.startswith("qwen2"), False)
        assert model.feed_forward.gated
        assert model.feed_forward.activation == "silu"
        assert model.norm.eps == config.rms_norm_eps
        assert model.vocabulary is not None
        assert (model.vocabulary.size, model.vocabulary.tied) == (1000, False)
        assert model.dtype == "float32"
        assert (model.workload.batch, model.workload.seq_len) == (8, 2048)

    def test_every_key_that_transformers_writes_is_known(self, family: str) -> None:
        import transformers

        config = getattr(transformers, CLASSES[family])().to_dict()
        others = {k: v for k, v in config.items() if k not in FAMILIES[family].model_fields}
        assert [k for k, v in others.items() if not without_effect(k, v, family)] == []

    @pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
    def test_dtype_tied_and_name(self, family: str, dtype: str, tmp_path: Path) -> None:
        folder = tmp_path / "My model, v1"
        _, model = self.saved(family, folder, dtype=dtype, tie_word_embeddings=True)
        assert model.vocabulary is not None
        assert (model.dtype, model.vocabulary.tied, model.name) == (dtype, True, "My-model-v1")

    @pytest.mark.parametrize("kind", ["default", "linear", "llama3"])
    def test_both_spellings_of_the_rotary_embedding(self, family: str, kind: str, tmp_path: Path) -> None:
        parameters = {"default": {}, "linear": {"factor": 4.0}, "llama3": LLAMA3}[kind]
        rope = {"rope_type": kind, **parameters}
        _, new = self.saved(family, tmp_path, rope_parameters={"rope_theta": 5e5, **rope})
        assert new.attention.rotary is not None
        assert new.attention.rotary.theta == 5e5
        scaling = new.attention.rotary.scaling
        assert (scaling.kind if scaling else "default") == kind
        if isinstance(scaling, Llama3Scaling):
            assert (scaling.factor, scaling.low_freq_factor, scaling.high_freq_factor) == (8, 1, 4)
            assert scaling.original_seq_len == 1024
        for tag in ("rope_type", "type"):
            path = write(tmp_path, family, rope_theta=500000, rope_scaling={tag: kind, **parameters})
            assert load_model(path).attention.rotary == new.attention.rotary

    def test_experts(self, tmp_path: Path) -> None:
        for family, changes, width, renormalise in (
            ("mixtral", {}, 160, True),
            ("qwen3_moe", {"norm_topk_prob": True}, 48, True),
            ("qwen3_moe", {}, 48, False),
        ):
            _, model = self.saved(family, tmp_path, **changes)
            experts = model.feed_forward.experts
            assert experts is not None
            assert (experts.count, experts.top_k, experts.renormalise) == (8, 3, renormalise)
            assert model.feed_forward.intermediate_size == width
            # transformers 4 writes num_experts for Qwen, 5 num_local_experts.
            other = write(tmp_path, family, num_experts=8, num_local_experts=..., **changes)
            assert load_model(other).feed_forward == model.feed_forward

    @pytest.mark.parametrize(
        ("family", "changes", "pattern"),
        [
            ("qwen3_moe", {}, None),
            ("qwen3_moe", {"mlp_only_layers": [1]}, ["main", "dense"]),
            ("qwen3_moe", {"decoder_sparse_step": 2}, ["dense", "main"]),
            ("qwen2_moe", {"decoder_sparse_step": 2, "num_hidden_layers": 4}, ["dense", "main"]),
            ("dots1", {"first_k_dense_replace": 2}, ["dense", "dense", "main"]),
            ("dots1", {"first_k_dense_replace": 0}, None),
        ],
    )
    def test_dense_layers(
        self, family: str, changes: dict[str, Any], pattern: list[str] | None, tmp_path: Path
    ) -> None:
        _, model = self.saved(family, tmp_path, **changes)
        assert (list(model.pattern) if model.pattern else None) == pattern
        if model.blocks is not None:
            network = model.alike("dense").feed_forward
            assert (network.intermediate_size, network.experts, network.gated) == (160, None, True)

    def test_the_router_and_the_shared_expert_of_dots1(self, tmp_path: Path) -> None:
        _, model = self.saved("dots1", tmp_path, n_group=4, topk_group=2, routed_scaling_factor=2.5)
        experts = model.feed_forward.experts
        assert experts is not None
        assert experts.shared is not None
        assert (experts.shared.intermediate_size, experts.shared.scored) == (2 * 48, False)
        router = experts.router
        assert (router.scores, router.choice_bias, router.scale, router.sum_eps) == ("sigmoid", True, 2.5, 1e-20)
        assert router.groups is not None
        assert (router.groups.count, router.groups.top_k, router.groups.score) == (4, 2, "sum_of_two")

    @pytest.mark.parametrize("family", ["llama", "qwen3", "qwen3_moe"])
    def test_biases_of_attention_are_of_all_projections(self, family: str, tmp_path: Path) -> None:
        _, model = self.saved(family, tmp_path, attention_bias=True)
        assert (model.attention.qkv_bias, model.attention.output_bias) == (True, True)

    @pytest.mark.parametrize(
        ("family", "changes", "window"),
        [
            ("mistral", {"sliding_window": None}, None),
            ("mistral", {"sliding_window": 128}, 128),
            ("mixtral", {"sliding_window": 128}, 128),
            ("qwen2", {"sliding_window": 128}, None),
            ("qwen2", {"sliding_window": 128, "use_sliding_window": True}, None),
            ("qwen2", {"sliding_window": 128, "use_sliding_window": True, "max_window_layers": 2}, 128),
            ("qwen3", {"sliding_window": 128, "use_sliding_window": True, "max_window_layers": 3}, None),
            ("qwen3_moe", {"sliding_window": 128, "use_sliding_window": True}, 128),
        ],
    )
    def test_sliding_windows(self, family: str, changes: dict[str, Any], window: int | None, tmp_path: Path) -> None:
        config, model = self.saved(family, tmp_path, **changes)
        assert model.attention.sliding_window == window
        slides = getattr(config, "layer_types", None) or ["sliding_attention"]
        assert window == (config.sliding_window if "sliding_attention" in slides else None)
        assert load_model(write(tmp_path, family, **changes)).attention.sliding_window == window

    def test_head_dim_apart_from_the_hidden_size(self, family: str, tmp_path: Path) -> None:
        _, model = self.saved(family, tmp_path, head_dim=32)
        assert model.attention.head_dim == 32

    def test_an_activation(self, family: str, tmp_path: Path) -> None:
        _, model = self.saved(family, tmp_path, hidden_act="relu")
        assert model.feed_forward.activation == "relu"


@pytest.mark.parametrize("family", FAMILIES)
def test_what_a_config_leaves_out_is_as_in_transformers(family: str) -> None:
    """The defaults of every family, its rotary embedding's among them."""
    from transformers import CONFIG_MAPPING

    if family not in CONFIG_MAPPING:
        pytest.skip("transformers has no such class")
    config, cls = CONFIG_MAPPING[family](), FAMILIES[family]
    config.allow_global_per_layer_attribute_access = True
    rope = config.rope_parameters
    rope = rope.get("full_attention", rope)
    if cls.default_rope is None:
        assert (cls.default_theta, rope["rope_type"]) == (rope["rope_theta"], "default")
    else:
        assert cls.default_theta == config.default_theta  # of one that says something else
        others = {"type", "max_position_embeddings", "partial_rotary_factor"}  # said again, or not looked at
        mine = cls.default_rope.get("full_attention", cls.default_rope)
        assert mine.keys() - others == rope.keys() - others
        assert all(mine[key] == rope[key] for key in mine)
    # Of these the constructor gives what it has worked out; the whole model, not its text model, ties the head.
    worked_out = {"moe_layer_end_index", *(["tie_word_embeddings"] if family == "qwen3_vl_moe_text" else [])}
    for key, field in cls.model_fields.items():
        if field.is_required() or field.default is None or not hasattr(config, key) or key in worked_out:
            continue
        if key != "sliding_window" or config.sliding_window:  # which may be switched off
            assert getattr(config, key) == field.default, key


@pytest.mark.parametrize(
    ("kind", "outer", "inner", "tied"),
    [
        ("llama4", True, False, False),
        ("llama4", False, True, True),
        ("llama4", None, None, False),
        ("qwen3_vl", True, False, True),
        ("qwen3_vl", None, True, False),
        ("kimi_k25", None, None, True),
        ("kimi_k25", False, True, False),
    ],
)
def test_who_ties_the_head_of_a_text_model(
    kind: str, outer: bool | None, inner: bool | None, tied: bool, tmp_path: Path
) -> None:
    """As in transformers: the whole model, by its own default; the text model where it is a whole language model."""
    text, whole = (({} if said is None else {"tie_word_embeddings": said}) for said in (inner, outer))
    config = {"model_type": kind, "text_config": MINIMAL[f"{kind}_text"] | text} | whole
    (tmp_path / "config.json").write_text(json.dumps(config))
    vocabulary = load_model(str(tmp_path)).vocabulary
    assert vocabulary is not None
    assert vocabulary.tied == tied


class TestFiles:
    @pytest.mark.parametrize("name", sorted(path.parent.name for path in MODELS.glob("*/config.json")))
    def test_shipped_models(self, name: str) -> None:
        model = load_model(str(MODELS / name))
        assert model == load_model(str(MODELS / name / "config.json"))
        assert (model.name, model.dtype, model.workload.seq_len) == (name, "bfloat16", 2048)

    def test_names(self, tmp_path: Path) -> None:
        write(tmp_path, "llama")
        config = json.loads((tmp_path / "config.json").read_text())
        commit = tmp_path / f"models--meta--Llama-9/snapshots/{'ab' * 20}"
        commit.mkdir(parents=True)
        for path, changes, name in (
            (commit / "config.json", {}, "Llama-9"),
            (tmp_path / "small one.json", {}, "small-one"),
            (tmp_path / "x.json", {"_name_or_path": "meta-llama/Llama 3/"}, "Llama-3"),
            (tmp_path / "x.json", {"_name_or_path": ".."}, "x"),
            (tmp_path / "x.json", {"_name_or_path": 7}, "x"),
            (tmp_path / "日本.json", {}, "llama"),
            (tmp_path / "y.yaml", {"_name_or_path": "a" * 300}, "a" * 100),
        ):
            path.write_text(json.dumps(config | changes))
            assert load_model(str(path)).name == name

    def test_a_folder_without_a_config(self, tmp_path: Path) -> None:
        (found,) = diagnostics(str(tmp_path))
        assert (found.code, found.file) == ("HX101", str(tmp_path / "config.json"))

    def test_yaml_is_read_as_well(self, tmp_path: Path) -> None:
        path = tmp_path / "m.yaml"
        path.write_text("\n".join(f"{key}: {value}" for key, value in ({"model_type": "llama"} | SIZES).items()))
        assert load_model(str(path)).layers == 3

    def test_a_model_of_ours_with_a_slip_stays_one(self, tmp_path: Path) -> None:
        path = tmp_path / "m.yaml"
        path.write_text((ROOT / "plans/small/dense.model.yaml").read_text() + "model_type: llama\n")
        (found,) = diagnostics(str(path))
        assert found.code == "HX103"

    def test_validate_and_plan_from_the_command_line(self, tmp_path: Path) -> None:
        write(tmp_path, "llama", max_position_embeddings=16)
        done = helixctl("validate", "-v", str(tmp_path))
        assert (done.status, done.said.split(": ")[1][:11]) == (0, "valid model")
        one_host = ("--set", "hosts=1", "--set", "devices_per_host=2")
        done = helixctl("plan", str(tmp_path), CLUSTER_FILE, *one_host, "--batch", "2", "-v")
        assert done.status == 0
        assert "num_attention_heads -> attention.heads = 6" in done.said
        assert "--set workload.batch=2 -> workload.batch = 2" in done.said
        assert done.said.index("attention.heads = 6") < done.said.index("step times are predicted")


class TestMap:
    @pytest.mark.parametrize("family", FAMILIES)
    def test_every_field_of_ours_has_its_origin(self, family: str, tmp_path: Path) -> None:
        loaded = load_pair(write(tmp_path, family), CLUSTER_FILE)
        assert [o.field for o in loaded.origins] == list(dict.fromkeys(o.field for o in loaded.origins))
        data: dict[str, Any] = {}
        for origin in loaded.origins:
            at = data
            for part in origin.field[:-1]:
                at = at.setdefault(part, {})
            at[origin.field[-1]] = origin.value
        assert ModelDocument.model_validate(data) == loaded.model  # what has no origin is at its default

    def test_what_it_says(self, tmp_path: Path) -> None:
        path = write(tmp_path, "qwen2", torch_dtype="bfloat16", head_dim=None)
        lines = [str(o) for o in load_pair(path, CLUSTER_FILE, ["attention.heads=8", "hidden_size=256"]).origins]
        for line in (
            "name of the folder -> name = ",
            "num_key_value_heads -> attention.kv_heads = 2",
            "hidden_size / num_attention_heads -> attention.head_dim = 16",
            "every qwen2 -> attention.qkv_bias = true",
            "default of qwen2 -> attention.rotary.theta = 10000.0",
            "default of qwen2 -> attention.sliding_window = null",
            "torch_dtype -> dtype = 'bfloat16'",
            "min(2048, max_position_embeddings) -> workload.seq_len = 2048",
            "--set attention.heads=8 -> attention.heads = 8",
            "--set hidden_size=256 -> hidden_size = 256",
        ):
            assert any(found.startswith(line) for found in lines), line

    def test_a_model_of_ours_has_none(self) -> None:
        assert load_pair(str(ROOT / "plans/paper/dense.model.yaml"), CLUSTER_FILE, ["layers=2"]).origins == ()


class TestOverrides:
    def test_they_apply_to_the_model(self, tmp_path: Path) -> None:
        path = write(tmp_path, "llama")
        model = load_model(path, parse_overrides(["attention.heads=8", "attention.softmax_slices=2", "model.name=x"]))
        assert (model.attention.heads, model.attention.softmax_slices, model.name) == (8, 2, "x")

    def test_a_contradiction_is_laid_at_the_key_of_the_config(self, tmp_path: Path) -> None:
        path = write(tmp_path, "llama")
        (found,) = diagnostics(path, "attention.heads=5")
        assert str(found) == (
            f"{path}:7:2: HX109 attention: 2 kv_heads do not divide 5 heads (num_key_value_heads) "
            "(with --set attention.heads=5)"
        )
        (found,) = diagnostics(path, "attention.kv_heads=4")
        assert str(found) == "HX109 --set attention.kv_heads=4: attention: 4 kv_heads do not divide 6 heads"


class TestWindow:
    def test_a_model_that_is_not_causal_has_none(self, tmp_path: Path) -> None:
        path = tmp_path / "m.yaml"
        text = (ROOT / "plans/small/dense.model.yaml").read_text()
        path.write_text(text.replace("  softmax_slices: 4", "  sliding_window: 4"))
        (found,) = diagnostics(str(path))
        assert (found.code, found.line, found.path) == ("HX109", 9, "attention.sliding_window")

    def test_sequences_may_be_longer(self, tmp_path: Path) -> None:
        path = write(tmp_path, "mistral", sliding_window=128)
        model = load_pair(path, CLUSTER_FILE, ["workload.seq_len=2048"]).model
        assert (model.attention.sliding_window, model.blocks) == (128, None)

    def test_some_layers_have_none(self, tmp_path: Path) -> None:
        kinds = ["full_attention", "sliding_attention"]
        changes = {"use_sliding_window": True, "sliding_window": 128, "num_hidden_layers": 2, "layer_types": kinds}
        model = load_model(write(tmp_path, "qwen2", **changes))
        windows = [model.alike(model.kind(layer)).attention.sliding_window for layer in range(2)]
        assert windows == [None, 128]


class TestLatent:
    def test_of_the_published_config(self, tmp_path: Path) -> None:
        """DeepSeek V3's: yarn's mscale enters the scale twice, and no cosine; its auto_map is its own class."""
        rope = {"type": "yarn", "factor": 40, "mscale": 1.0, "mscale_all_dim": 1.0,
                "original_max_position_embeddings": 4096}  # fmt: skip
        code = {"AutoModelForCausalLM": "modeling_deepseek.DeepseekV3ForCausalLM"}
        spec = load_model(write(tmp_path, "deepseek_v3", rope_scaling=rope, auto_map=code)).attention
        assert spec.latent
        assert spec.rotary
        assert (spec.kv_heads, spec.head_dim, spec.rotary.interleaved) == (
            1,
            spec.unrotated_dim + spec.latent.rope_dim,
            True,
        )
        assert spec.scale == pytest.approx((0.1 * math.log(40) + 1) ** 2 / math.sqrt(spec.head_dim), rel=1e-15)
        assert isinstance(spec.rotary.scaling, YarnScaling)
        assert spec.rotary.scaling.attention_factor == 1.0

    @pytest.mark.parametrize(
        "changes",
        [
            {"auto_map": {"AutoModel": "modeling_mine.Mine"}},
            {"attention_bias": True},
            {"num_key_value_heads": 1},
            {"head_dim": 64},
            {"scoring_func": "softmax"},
            {"index_topk": 2048},
        ],
    )
    def test_what_is_refused(self, changes: dict[str, Any], tmp_path: Path) -> None:
        assert diagnostics(write(tmp_path, "deepseek_v3", **changes))


class TestSparse:
    """A sparse choice of keys: DeepSeek V3.2 and GLM-5."""

    INDEXER: ClassVar[dict[str, Any]] = {"index_n_heads": 5, "index_head_dim": 12, "index_topk": 9}

    @pytest.mark.parametrize(("family", "neighbours"), [("deepseek_v32", False), ("glm_moe_dsa", True)])
    def test_indexer(self, family: str, neighbours: bool, tmp_path: Path) -> None:
        """The indexer of GLM turns neighbouring dims, that of DeepSeek halves; the heads of both turn neighbours."""
        spec = load_model(write(tmp_path, family, **self.INDEXER)).attention
        assert spec.sparse == SparseSpec(heads=5, head_dim=12, top_k=9, interleaved=neighbours)
        assert spec.rotary
        assert spec.rotary.interleaved

    @pytest.mark.parametrize(
        "changes",
        [
            {"indexer_types": ["full", "full", "shared", "full", "shared"]},
            {"index_topk_pattern": "FFSFS"},
            {"index_topk_pattern": ["full", "full", "shared", "full", "shared"]},
            {"index_topk_freq": 2},
            {"index_topk_freq": 2, "index_skip_topk_offset": 4},
            {"index_topk_freq": 3, "index_skip_topk_offset": 1},
            {"index_topk_freq": 0},
            {"index_topk_pattern": "FFFFF", "indexer_types": ["full", "shared", "shared", "shared", "full"]},
        ],
    )
    def test_layers_that_share_are_those_of_transformers(self, changes: dict[str, Any], tmp_path: Path) -> None:
        transformers = pytest.importorskip("transformers")
        file = write(tmp_path, "glm_moe_dsa", num_hidden_layers=5, first_k_dense_replace=2, **self.INDEXER, **changes)
        model = load_model(file)
        theirs = transformers.AutoConfig.for_model(**json.loads(Path(file).read_text()))
        alike = [model.alike(model.kind(layer)) for layer in range(5)]
        assert all(layer.attention.sparse for layer in alike)
        shared = ["shared" if its.attention.sparse and its.attention.sparse.shared else "full" for its in alike]
        assert shared == theirs.indexer_types
        assert ["sparse" if its.feed_forward.experts else "dense" for its in alike] == theirs.mlp_layer_types

    @pytest.mark.parametrize(
        ("family", "changes"),
        [
            ("glm_moe_dsa", {"indexer_types": ["shared", "full", "full"]}),
            ("glm_moe_dsa", {"indexer_types": ["full"]}),
            ("glm_moe_dsa", {"index_topk_pattern": "FX"}),
            ("glm_moe_dsa", {"indexer_rope_interleave": False}),
            ("deepseek_v32", {"rope_interleave": False}),
            ("deepseek_v32", {"index_head_dim": 6}),
            ("deepseek_v32", {"mlp_layer_types": ["dense"]}),
            ("deepseek_v32", {"indexer_types": ["full"] * 3}),
            ("deepseek_v32", {"layer_types": ["full_attention"] * 3}),
            ("deepseek_v32", {"q_lora_rank": None}),
            ("llama", {"layer_types": ["indexed_attention"] * 3}),
        ],
    )
    def test_what_is_refused(self, family: str, changes: dict[str, Any], tmp_path: Path) -> None:
        own = self.INDEXER if family != "llama" else {}
        assert diagnostics(write(tmp_path, family, **own | changes))


class TestRefusals:
    """tests/invalid has whole configs; here is one key at a time."""

    @pytest.mark.parametrize(
        ("family", "changes", "feature"),
        [
            ("llama", {"mlp_bias": True}, "biases in the feed-forward network"),
            ("llama", {"attn_logit_softcapping": 50.0}, "soft-capped logits"),
            ("llama", {"kv_lora_rank": 512}, "multi-head latent attention"),
            ("llama", {"linear_num_key_heads": 4}, "linear attention"),
            ("llama", {"mamba_d_state": 16}, "state-space layers (Mamba)"),
            ("llama", {"ssm_cfg": {"layer": "Mamba2"}}, "state-space layers (Mamba)"),
            ("llama", {"hybrid_override_pattern": "M-M*"}, "blocks of several kinds"),
            ("llama", {"layer_types": ["linear_attention"] * 2 + ["full_attention"]}, "layers of linear_attention"),
            ("llama", {"layer_types": ["sliding_attention"] * 3}, "alternating sliding and full attention"),
            ("llama", {"sliding_window_pattern": 6}, "alternating sliding and full attention"),
            ("llama", {"partial_rotary_factor": 0.5}, "rotary embedding of a part of the head"),
            ("llama", {"rope_parameters": {"partial_rotary_factor": 0.5}}, "rotary embedding of a part of the head"),
            ("llama", {"rope_scaling": {"type": "ntk", "factor": 2.0}}, "rotary embedding of type 'ntk'"),
            ("llama", {"rope_scaling": {"type": "su", "factor": 2.0}}, "rotary embedding of type 'su'"),
            ("llama", {"hidden_act": "quick_gelu"}, "activation 'quick_gelu'"),
            ("llama", {"rope_parameters": {"full_attention": {"rope_theta": 1e4}}}, "rotary embeddings that differ"),
            ("llama", {"architectures": ["LlamaModel"]}, "architecture LlamaModel"),
            ("llama", {"auto_map": {"AutoModel": "x.X"}}, "code of the model's own"),
            ("llama", {"per_layer_config": {"1": {"head_dim": 8}}}, "layers that differ"),
            ("llama", {"pretraining_tp": 4}, "projections computed in slices"),
            ("qwen2", {"use_mrope": True}, "multimodal rotary embedding"),
            ("mixtral", {"n_shared_experts": 1}, "shared experts"),
            ("mixtral", {"mlp_only_layers": [0]}, "dense layers among layers of experts"),
            ("mixtral", {"decoder_sparse_step": 2}, "experts in some layers"),
            ("qwen3_moe", {"shared_expert_intermediate_size": 8}, "shared experts"),
        ],
    )
    def test_features(self, family: str, changes: dict[str, Any], feature: str, tmp_path: Path) -> None:
        path = write(tmp_path, family, **changes)
        (found,) = diagnostics(path)
        assert (found.code, found.message[: len(feature)]) == ("HX111", feature)
        (key,) = changes
        assert found.line is not None
        assert key in "".join(Path(path).read_text().splitlines()[found.line - 2 : found.line])

    @pytest.mark.parametrize(
        "changes",
        [
            {"mlp_bias": False, "partial_rotary_factor": 1.0, "pretraining_tp": 1, "architectures": None},
            {"quantization_config": None, "some_new_key": None, "layer_types": ["full_attention"] * 3},
            {"eos_token_id": [1, 2], "attention_dropout": 0.1, "use_cache": False, "temperature": 0.6},
            {"architectures": ["LLaMAForCausalLM"], "rope_scaling": {}, "rope_parameters": None},
            {"is_llama_config": True, "rope_interleaved": False, "activation": "swiglu", "_anything": {"a": [1]}},
            {"_model_name_or_path": "x/y", "_attn_implementation_autoset": True, "tokenizer_padding_side": "left"},
            {"hidden_dropout_prob": 0.1, "layerdrop": 0.0, "neftune_noise_alpha": 5, "init_std": 0.02, "seq_aux": True},
            {
                "attn_output_gate": False,
                "alibi": False,
                "position_embedding_type": "rope",
                "n_group": 1,
                "use_mrope": False,
            },
            {"n_layers": 3, "d_model": 96, "activation_function": "silu", "n_kv_heads": 2, "norm_eps": 1e-6},
            {"qk_norm": False, "use_bias": False, "use_cross_layer_cache": False, "use_flash_attn": True},
        ],
    )
    def test_features_that_are_off_and_keys_without_effect(self, changes: dict[str, Any], tmp_path: Path) -> None:
        plain = load_model(write(tmp_path, "llama"))
        assert load_model(write(tmp_path, "llama", **changes)) == plain

    @pytest.mark.parametrize(
        ("config", "code", "text"),
        [
            ({"architectures": ["LlamaForCausalLM"]}, "HX104", "missing key 'model_type'"),
            ({"model_type": 7}, "HX105", "model_type must be a name such as llama, not 7"),
            ({"model_type": "opt"}, "HX111", "model_type 'opt' is not modelled"),
        ],
    )
    def test_model_types(self, config: dict[str, Any], code: str, text: str, tmp_path: Path) -> None:
        path = tmp_path / "config.json"
        path.write_text(json.dumps(config))
        (found,) = diagnostics(str(path))
        assert (found.code, found.line, found.message[: len(text)]) == (code, 1, text)

    @pytest.mark.parametrize(
        ("family", "near"), [("llama3", "llama, "), ("deepseek_v4", "deepseek_v3, deepseek_v2"), ("bloom", None)]
    )
    def test_an_unknown_family_is_told_the_nearest(self, family: str, near: str | None, tmp_path: Path) -> None:
        path = tmp_path / "config.json"
        path.write_text(json.dumps({"model_type": family}))
        (found,) = diagnostics(str(path))
        every = "helixctl models lists all"
        if near is None:
            assert found.hint == f"{every} that are"
        else:
            assert found.hint is not None
            assert found.hint.startswith(f"the nearest that are modelled: {near}")
            assert found.hint.endswith(f"; {every}")
        listed = helixctl("models").said.partition("model_types are read:")[2]
        assert [name.strip() for name in listed.split(",")] == model_types()

    def test_a_nested_config_is_read(self, tmp_path: Path) -> None:
        path = tmp_path / "config.json"
        inner = {"model_type": "llama", "kv_lora_rank": 8} | SIZES
        path.write_text(json.dumps({"model_type": "llava", "text_config": inner, "vision_config": {}}, indent=1))
        found = diagnostics(str(path))
        assert [(d.line, d.message.partition(":")[0]) for d in found] == [
            (2, "model_type 'llava' is not modelled"),
            (3, "several modalities"),
            (5, "multi-head latent attention"),
        ]
        assert found[0].hint == "its text_config is a llama, which is: give that as a config.json of its own"

    @pytest.mark.parametrize(
        ("name", "features"),
        [
            ("Qwen3NextConfig", {"linear attention", "shared experts", "layers of linear_attention"}),
            ("NemotronHConfig", {"state-space layers (Mamba)"}),
        ],
    )
    def test_what_transformers_saves_of_others(self, name: str, features: set[str], tmp_path: Path) -> None:
        import transformers

        getattr(transformers, name)().save_pretrained(tmp_path)
        found = diagnostics(str(tmp_path))
        assert {d.code for d in found} == {"HX111"}
        assert features <= {d.message.partition(":")[0] for d in found}

    @pytest.mark.parametrize(
        ("family", "changes", "codes"),
        [
            ("llama", {"hidden_size": ...}, ["HX104"]),
            ("llama", {"rope_scaling": {"type": "linear"}}, ["HX104"]),
            ("mixtral", {"num_local_experts": ...}, ["HX104"]),
            ("qwen3_moe", {"moe_intermediate_size": ...}, ["HX104"]),
            ("llama", {"num_attention_heads": 0}, ["HX105"]),
            ("llama", {"hidden_size": "96"}, ["HX105"]),
            ("llama", {"hidden_size": True}, ["HX105"]),
            ("llama", {"rms_norm_eps": float("nan")}, ["HX105"]),
            ("llama", {"rope_theta": [1e4]}, ["HX105"]),
            ("llama", {"rope_scaling": "linear"}, ["HX105"]),
            ("llama", {"rope_scaling": {"type": 3}}, ["HX105"]),
            ("llama", {"architectures": "LlamaForCausalLM"}, ["HX105"]),
            ("llama", {"layer_types": "full_attention"}, ["HX105"]),
            ("qwen3", {"head_dim": None}, ["HX105"]),
            ("llama", {"num_key_value_heads": 4}, ["HX109"]),
            ("llama", {"hidden_size": 97}, ["HX109"]),
            ("llama", {"head_dim": 15}, ["HX109"]),
            ("mixtral", {"num_experts_per_tok": 9}, ["HX109"]),
            ("mixtral", {"num_experts": 16}, ["HX109"]),
            ("llama", {"rope_scaling": {"type": "llama3", **LLAMA3, "low_freq_factor": 5.0}}, ["HX109"]),
            ("llama", {"rope_scaling": {"type": "default"}, "rope_parameters": {"rope_theta": 5e5}}, ["HX109"]),
            ("qwen2", {"layer_types": ["sliding_attention"] * 3}, ["HX109"]),
            ("llama", {"sliding_window": 128}, ["HX112"]),
            ("llama", {"activation": "gelu"}, ["HX109"]),
            ("llama", {"activation": "geglu"}, ["HX109"]),
            ("llama", {"n_layers": 4}, ["HX109"]),
            ("llama", {"rope_interleaved": True}, ["HX111"]),
            ("llama", {"alibi": True}, ["HX111"]),
            ("llama", {"use_rope": False}, ["HX112"]),
            ("llama", {"is_causal": False}, ["HX112"]),
            ("llama", {"qk_norm": True}, ["HX112"]),
            ("qwen3", {"qk_norm": False}, ["HX112"]),
            ("qwen2", {"use_bias": False}, ["HX112"]),
            ("qwen2", {"attention_bias": True}, ["HX112"]),
            ("llama", {"rope_scaling": {"type": "linear", "factor": 2.0, "beta_fast": 32}}, ["HX112"]),
            ("llama", {"a": 1, "b": False, "vocab_size": 0}, ["HX105", "HX112", "HX112"]),
        ],
    )
    def test_wrong_values(self, family: str, changes: dict[str, Any], codes: list[str], tmp_path: Path) -> None:
        path = write(tmp_path, family, **changes)
        found = diagnostics(path)
        assert sorted(d.code for d in found) == codes
        assert all(d.file == path and d.line and d.col for d in found)

    JUNK = st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats()
        | st.text(max_size=5)
        | st.sampled_from(["linear", "llama3", "yarn", "default", "sliding_attention", "llama", "mamba"]),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["type", "rope_type", "factor", "rope_theta", "x"]), inner, max_size=3)
        ),
        max_leaves=6,
    )
    KEYS = sorted(
        {key for cls in FAMILIES.values() for key in cls.model_fields}
        | {"model_type", "architectures", "text_config", "mlp_bias", "kv_lora_rank", "_name_or_path", "mamba_x", "new"}
    )

    @pytest.mark.sweep
    @settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
    @given(st.sampled_from(sorted(FAMILIES)), st.dictionaries(st.sampled_from(KEYS), JUNK, max_size=4))
    def test_no_junk_is_more_than_an_error(self, tmp_path: Path, family: str, junk: dict[str, Any]) -> None:
        path = write(tmp_path, family, **junk)
        try:
            model = load_model(path)
        except HelixError as error:
            assert all(d.file == path for d in error.diagnostics)  # noqa: PT017
        else:
            assert ModelSpec.model_validate(model.model.model_dump()) == model.model


def test_the_dtype_of_quantised_weights_without_one(tmp_path: Path) -> None:
    quantised = {"quantization_config": {"quant_method": "mxfp4"}}
    assert load_model(write(tmp_path, "gpt_oss")).dtype == "float32"
    assert load_model(write(tmp_path, "gpt_oss", **quantised)).dtype == "bfloat16"
    assert load_model(write(tmp_path, "gpt_oss", **quantised, dtype="float16")).dtype == "float16"
