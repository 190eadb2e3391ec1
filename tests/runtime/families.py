"""Models of the families that transformers writes, and all their weights in helixctl's form."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import pytest
import torch

from helixctl.dag import Dag, Tensor
from helixctl.dag.function import function_of
from helixctl.lower import lower
from helixctl.plan import Interval, Layout, Plan
from helixctl.spec import ModelSpec, WorkloadSpec
from helixctl.spec.load import load_specs
from helixctl_runtime.tensors.checkpoint import Checkpoint
from tests.documents import SMALL

CPU = torch.device("cpu")
VOCABULARY, HIDDEN, FFN, LAYERS, HEADS, KV_HEADS, HEAD_DIM, EXPERTS = 97, 32, 48, 2, 4, 2, 12, 3
WORK = WorkloadSpec(batch=2, seq_len=5)
Weights = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Family:
    """A model as helixctl describes it, and what makes transformers build the same."""

    type: str
    config: dict[str, Any]
    attention: dict[str, Any]
    experts: bool = False
    tied: bool = False

    @property
    def spec(self) -> ModelSpec:
        attention = {"heads": HEADS, "kv_heads": KV_HEADS, "head_dim": HEAD_DIM, "causal": True, "rotary": {}}
        experts = {"count": EXPERTS, "top_k": 2, "renormalise": self.type == "mixtral"} if self.experts else None
        return ModelSpec.model_validate(
            {
                "name": "small",
                "layers": LAYERS,
                "hidden_size": HIDDEN,
                "attention": attention | self.attention,
                "feed_forward": {"intermediate_size": FFN, "activation": "silu", "gated": True, "experts": experts},
                "norm": {"eps": 1e-6},
                "vocabulary": {"size": VOCABULARY, "tied": self.tied},
                "dtype": "float32",
            }
        )

    @property
    def weights(self) -> list[Tensor]:
        return weights_of(self.spec)

    def made(self, dtype: torch.dtype = torch.float32) -> Any:
        """A random model of transformers."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            transformers = pytest.importorskip("transformers")
            sizes = {
                "vocab_size": VOCABULARY,
                "hidden_size": HIDDEN,
                "intermediate_size": FFN,
                "num_hidden_layers": LAYERS,
                "num_attention_heads": HEADS,
                "num_key_value_heads": KV_HEADS,
                "head_dim": HEAD_DIM,
                "num_experts_per_tok": 2,
                "rms_norm_eps": 1e-6,
                "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
                "tie_word_embeddings": self.tied,
            }
            config = transformers.AutoConfig.for_model(self.type, **(sizes | self.config))
            torch.manual_seed(3)
            model = transformers.AutoModelForCausalLM.from_config(config)
        with torch.no_grad():
            for parameter in model.parameters():
                # Biases and norms are constant as they are made. With products of the size of their inputs no softmax
                # is of one key alone: its error would be that of a few numbers, and a matter of chance.
                parameter.normal_(std=parameter.shape[-1] ** -0.5 if parameter.dim() > 1 else 1)
        return model.to(dtype)


MOE = {"num_experts": EXPERTS, "moe_intermediate_size": FFN}
FAMILIES = {
    "llama": Family("llama", {}, {}),
    "llama with biases": Family("llama", {"attention_bias": True}, {"qkv_bias": True, "output_bias": True}),
    "llama tied": Family("llama", {}, {}, tied=True),
    "mistral": Family("mistral", {}, {}),
    "qwen2": Family("qwen2", {}, {"qkv_bias": True}),
    "qwen2 tied": Family("qwen2", {}, {"qkv_bias": True}, tied=True),
    "qwen3": Family("qwen3", {}, {"qk_norm": True}),
    "mixtral": Family("mixtral", {"num_local_experts": EXPERTS}, {}, experts=True),
    "qwen3_moe": Family("qwen3_moe", MOE, {"qk_norm": True}, experts=True),
}
LLAMA, TIED, MIXTRAL = FAMILIES["llama"], FAMILIES["llama tied"], FAMILIES["mixtral"]


def weights_of(spec: ModelSpec) -> list[Tensor]:
    return [t for t in function_of(spec, WORK.in_one_pass).tensors.values() if t.role == "weight"]


def saved(family: Family, folder: Path, *, dtype: torch.dtype = torch.float32, **how: Any) -> Weights:
    """Write a model as transformers writes it; its weights in memory, by its names there."""
    model = family.made(dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save_pretrained(folder, **how)
    return {name: tensor.detach() for name, tensor in model.state_dict().items()}


def _heads(x: torch.Tensor) -> torch.Tensor:
    """A stored projection, with its rows as heads."""
    return x.T.reshape(HIDDEN, -1, HEAD_DIM)


# Every weight of helixctl, from what transformers holds in memory: "." stands for the layer.
EXPECTED: dict[str, Callable[[Weights], torch.Tensor]] = {
    "embedding": lambda held: held["model.embed_tokens.weight"],
    "final_norm": lambda held: held["model.norm.weight"],
    "w_head": lambda held: held["lm_head.weight"].T,
    ".attention_norm": lambda layer: layer["input_layernorm.weight"],
    ".feed_forward_norm": lambda layer: layer["post_attention_layernorm.weight"],
    ".q_norm": lambda layer: layer["self_attn.q_norm.weight"],
    ".k_norm": lambda layer: layer["self_attn.k_norm.weight"],
    ".w_q": lambda layer: _heads(layer["self_attn.q_proj.weight"]),
    ".w_k": lambda layer: _heads(layer["self_attn.k_proj.weight"]),
    ".w_v": lambda layer: _heads(layer["self_attn.v_proj.weight"]),
    ".b_q": lambda layer: layer["self_attn.q_proj.bias"].reshape(-1, HEAD_DIM),
    ".b_k": lambda layer: layer["self_attn.k_proj.bias"].reshape(-1, HEAD_DIM),
    ".b_v": lambda layer: layer["self_attn.v_proj.bias"].reshape(-1, HEAD_DIM),
    ".b_o": lambda layer: layer["self_attn.o_proj.bias"],
    ".w_o": lambda layer: layer["self_attn.o_proj.weight"].T.reshape(HEADS, HEAD_DIM, HIDDEN),
    ".w_router": lambda layer: layer["mlp.gate.weight"].T,
    ".w_gate": lambda layer: layer["mlp.gate_proj.weight"].T,
    ".w_up": lambda layer: layer["mlp.up_proj.weight"].T,
    ".w_down": lambda layer: layer["mlp.down_proj.weight"].T,
}
OF_EXPERTS: dict[str, Callable[[Weights], torch.Tensor]] = {
    ".w_gate": lambda layer: layer["mlp.experts.gate_up_proj"][:, :FFN].transpose(1, 2),
    ".w_up": lambda layer: layer["mlp.experts.gate_up_proj"][:, FFN:].transpose(1, 2),
    ".w_down": lambda layer: layer["mlp.experts.down_proj"].transpose(1, 2),
}


def expected(tensor: Tensor, held: Weights) -> torch.Tensor:
    """A weight of helixctl, from what transformers holds in memory."""
    layer, dot, part = tensor.name.rpartition(".")
    if dot:
        begin = f"model.layers.{layer[1:]}."
        held = {name.removeprefix(begin): x for name, x in held.items() if name.startswith(begin)}
    made = (EXPECTED | OF_EXPERTS if "expert" in tensor.dims else EXPECTED)[dot + part]
    return made(held)


def regions(tensor: Tensor, count: int = 6) -> list[tuple[Interval, ...]]:
    """The whole, and some random boxes."""
    rng = random.Random(tensor.name)
    boxes = [tuple((start := rng.randrange(n), rng.randint(start + 1, n)) for n in tensor.shape) for _ in range(count)]
    return [tensor.full, *boxes]


def cut(x: torch.Tensor, region: tuple[Interval, ...]) -> torch.Tensor:
    return x[tuple(slice(*interval) for interval in region)]


def check_regions(path: Path, family: Family, held: Weights, nbytes: int) -> None:
    """Every weight, by regions: the numbers, and the bytes that were asked for, in elements of ``nbytes``."""
    checkpoint = Checkpoint(str(path))
    assert checkpoint.problems(family.weights) == []
    checkpoint.files.read_nbytes = 0
    for tensor in family.weights:
        whole = expected(tensor, held)
        assert whole.shape == tensor.shape
        for region in regions(tensor):
            before = checkpoint.read_nbytes
            found = checkpoint.read(tensor, region, torch.float64, CPU)
            assert found.is_contiguous()
            assert torch.equal(found, cut(whole, region).double()), (tensor.name, region)
            assert checkpoint.read_nbytes - before == nbytes * prod(b - a for a, b in region)
    assert checkpoint.nbytes(family.weights) == nbytes * sum(prod(t.shape) for t in family.weights)


def dag_for(family: Family, layout: dict[str, Any], **work: Any) -> Dag:
    """The dag of a family's model, with other fields of its workload, on as many devices as the layout takes."""
    devices = Layout.model_validate(layout).devices
    cluster = load_specs(*SMALL, (f"devices_per_host={devices}",))[1]
    return lower(Plan.of(family.spec, cluster, WORK.model_copy(update=work), Layout.model_validate(layout)))
