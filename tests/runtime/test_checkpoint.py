"""Checkpoints that transformers itself writes: every region of every weight, bytes counted, and what is refused."""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import random
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from math import prod
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from helixctl.dag import Dag, Tensor
from helixctl.dag.function import function_of
from helixctl.errors import HelixError
from helixctl.lower import lower
from helixctl.plan import Interval, Layout, Plan
from helixctl.spec import ModelSpec, WorkloadSpec
from helixctl.spec.load import load_specs
from helixctl_runtime.checkpoint import Checkpoint
from helixctl_runtime.files import Numbers
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
        rotary = {"heads": HEADS, "kv_heads": KV_HEADS, "head_dim": HEAD_DIM, "causal": True, "rotary": {}}
        experts = {"count": EXPERTS, "top_k": 2} if self.experts else None
        return ModelSpec.model_validate(
            {
                "name": "small",
                "layers": LAYERS,
                "hidden_size": HIDDEN,
                "attention": rotary | self.attention,
                "feed_forward": {"intermediate_size": FFN, "activation": "silu", "gated": True, "experts": experts},
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
                "tie_word_embeddings": self.tied,
            }
            config = transformers.AutoConfig.for_model(self.type, **(sizes | self.config))
            torch.manual_seed(3)
            model = transformers.AutoModelForCausalLM.from_config(config)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.normal_()  # biases and norms are constant as they are made
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
    return [t for t in function_of(spec, WORK).tensors.values() if t.role == "weight"]


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


@pytest.mark.parametrize("name", FAMILIES)
def test_families(name: str, tmp_path: Path) -> None:
    held = saved(FAMILIES[name], tmp_path)
    check_regions(tmp_path, FAMILIES[name], held, 4)
    check_regions(tmp_path / "model.safetensors", FAMILIES[name], held, 4)


@pytest.mark.parametrize("name", ["mixtral", "qwen3_moe"])
def test_fused_experts(name: str, tmp_path: Path) -> None:
    """The names and shapes that transformers 5 holds in memory, gate and up of all experts in one tensor."""
    held = saved(FAMILIES[name], tmp_path, save_original_format=False)
    assert "model.layers.0.mlp.experts.gate_up_proj" in load_file(tmp_path / "model.safetensors")
    check_regions(tmp_path, FAMILIES[name], held, 4)


@pytest.mark.parametrize("name", ["llama", "qwen3_moe"])
def test_shards_of_half_precision(name: str, tmp_path: Path) -> None:
    held = saved(FAMILIES[name], tmp_path, dtype=torch.bfloat16, max_shard_size="9KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 3
    check_regions(tmp_path, FAMILIES[name], held, 2)
    check_regions(tmp_path / "model.safetensors.index.json", FAMILIES[name], held, 2)


@pytest.mark.parametrize(
    ("prefix", "head"),
    [
        ("", "lm_head.weight"),
        ("language_model.model.", "language_model.lm_head.weight"),
        ("model.language_model.", "lm_head.weight"),
    ],
)
def test_prefixes(prefix: str, head: str, tmp_path: Path) -> None:
    """The model alone, or inside one that also sees, whose other parts do not change what tokens give."""
    held = saved(LLAMA, tmp_path / "plain")
    inside = {prefix + n.removeprefix("model.") if n.startswith("model.") else head: x for n, x in held.items()}
    if prefix:
        inside["vision_tower.layers.0.input_layernorm.weight"] = torch.zeros(3)
    save_file(inside, tmp_path / "model.safetensors")
    check_regions(tmp_path, LLAMA, held, 4)


def test_a_file_of_own_names(tmp_path: Path) -> None:
    family = FAMILIES["qwen3_moe"]
    held = saved(family, tmp_path / "theirs")
    own = {tensor.name: expected(tensor, held).contiguous() for tensor in family.weights}
    save_file(own | {"input_ids": torch.zeros(2, 5, dtype=torch.int64)}, tmp_path / "own.safetensors")
    check_regions(tmp_path / "own.safetensors", family, held, 4)


def test_what_is_read_is_rounded_once_and_outlives_the_files(tmp_path: Path) -> None:
    held = saved(LLAMA, tmp_path)
    checkpoint, tensor = Checkpoint(str(tmp_path)), LLAMA.weights[0]
    found = checkpoint.read(tensor, tensor.full, torch.bfloat16, CPU)
    plain = checkpoint.read(tensor, tensor.full, torch.float32, CPU)
    checkpoint.files.close()
    file = tmp_path / "model.safetensors"
    content = file.read_bytes()
    begin = 8 + int.from_bytes(content[:8], "little")
    with file.open("r+b") as opened:  # the same file, so that a view of it would change
        opened.seek(begin)
        opened.write(bytes(len(content) - begin))
    assert torch.equal(plain, expected(tensor, held))
    assert torch.equal(found, expected(tensor, held).bfloat16())
    again = checkpoint.read(tensor, ((0, 1), (0, HIDDEN)), torch.float32, CPU)
    assert not again.any()


def test_a_file_is_opened_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved(LLAMA, tmp_path, max_shard_size="9KB")
    from helixctl_runtime import tensor_files

    opened = []
    plain = tensor_files.safe_open
    monkeypatch.setattr(tensor_files, "safe_open", lambda path, **how: opened.append(path) or plain(path, **how))
    checkpoint = Checkpoint(str(tmp_path))
    for tensor in LLAMA.weights:
        if tensor.name.startswith("l0."):
            checkpoint.read(tensor, tensor.full, torch.float32, CPU)
    assert len(opened) == len(set(opened)) < len(list(tmp_path.glob("*.safetensors")))


@pytest.mark.parametrize(("slices", "slicing"), [(4, "head_dim"), (2, "head")])
def test_all_cuts_together_read_every_byte_once(slices: int, slicing: str, tmp_path: Path) -> None:
    saved(MIXTRAL, tmp_path)
    checkpoint = Checkpoint(str(tmp_path))
    for tensor in MIXTRAL.weights:
        before = checkpoint.read_nbytes
        at = tensor.dims.index(slicing) if slicing in tensor.dims else 0
        ends = [tensor.shape[at] * i // slices for i in range(slices + 1)]
        for piece in pairwise(ends):
            region = tuple(piece if i == at else whole for i, whole in enumerate(tensor.full))
            checkpoint.read(tensor, region, torch.float32, CPU)
        assert checkpoint.read_nbytes - before == 4 * prod(tensor.shape)
    assert checkpoint.read_nbytes == checkpoint.nbytes(MIXTRAL.weights)


@pytest.mark.parametrize(
    ("name", "layout"),
    [
        ("llama", {"groups": 4, "slices": 2, "slicing": "batch"}),
        ("mixtral", {"groups": 4, "slices": 2, "slicing": "query", "combine": "reduce"}),
        ("qwen2", {"groups": 4, "slices": 1, "pipeline": 2}),
        ("qwen2 tied", {"groups": 2, "slices": 2, "slicing": "query"}),
        ("qwen3_moe", {"groups": 4, "slices": 2, "slicing": "query", "experts": 2}),
    ],
)
def test_the_ranks_of_a_dag_read_every_weight_once(name: str, layout: dict[str, Any], tmp_path: Path) -> None:
    """As many heads of keys and values as groups: only norms, some biases and routers are on several ranks."""
    plain = FAMILIES[name]
    family = replace(
        plain,
        config=plain.config | {"num_key_value_heads": HEADS},
        attention=plain.attention | {"kv_heads": HEADS},
    )
    dag = dag_for(family, layout)
    saved(family, tmp_path)
    read = dict.fromkeys((tensor.name for tensor in family.weights), 0)
    times = {tensor.name: torch.zeros(tensor.shape) for tensor in family.weights}
    for rank in range(dag.plan.layout.devices):
        numbers = Numbers(0, str(tmp_path), None)
        numbers.check(dag)
        for value in (v for v in dag.values if v.rank == rank and v.tensor in read):
            before = numbers.weights_read_nbytes
            numbers.value(dag, value, torch.float32, CPU)
            read[value.tensor] += numbers.weights_read_nbytes - before
            cut(times[value.tensor], value.region).add_(1)
    for tensor in family.weights:
        assert read[tensor.name] == 4 * times[tensor.name].sum()
        replicated = len(tensor.dims) == 1 or tensor.name.endswith("w_router")
        assert replicated or times[tensor.name].unique().tolist() == [1]
    assert numbers.weights_nbytes(dag) == sum(4 * prod(tensor.shape) for tensor in family.weights)


def dag_for(family: Family, layout: dict[str, Any]) -> Dag:
    """The dag of a family's model on as many devices as the layout takes."""
    devices = Layout.model_validate(layout).devices
    cluster = load_specs(*SMALL, (f"devices_per_host={devices}",))[1]
    return lower(Plan.of(family.spec, cluster, WORK, Layout.model_validate(layout)))


@pytest.mark.skipif(sys.platform != "linux", reason="asks the kernel of Linux")
def test_only_pages_of_the_region_are_read(tmp_path: Path) -> None:
    """Of a large file the kernel brings in what a region needs and what it reads ahead, not the whole."""
    tensor = Tensor("l0.w_q", "weight", ("hidden", "head", "head_dim"), (1024, 512, 64))
    file = tmp_path / "model.safetensors"
    names = ["layers.0.input_layernorm.weight", "layers.0.self_attn.q_proj.weight"]
    save_file(dict(zip(names, (torch.zeros(1024), torch.ones(512 * 64, 1024)), strict=True)), file)
    forget(file)
    if resident(file) > 0.1:
        pytest.skip("this file system keeps its pages")
    checkpoint = Checkpoint(str(file))
    assert checkpoint.read(tensor, ((0, 1024), (200, 202), (0, 64)), torch.float32, CPU).all()
    assert checkpoint.read_nbytes == 2 * 64 * 1024 * 4
    assert resident(file) < 0.5


def forget(file: Path) -> None:
    """Drop a file's pages from memory."""
    descriptor = os.open(file, os.O_RDONLY)
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)


def resident(file: Path) -> float:
    """The share of a file's pages that are in memory."""
    libc = ctypes.CDLL(None, use_errno=True)
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_COPY) as mapped:
        pages = (ctypes.c_ubyte * -(-len(mapped) // mmap.PAGESIZE))()
        view = (ctypes.c_char * len(mapped)).from_buffer(mapped)
        assert libc.mincore(view, ctypes.c_size_t(len(mapped)), pages) == 0
        del view
    return sum(page & 1 for page in pages) / len(pages)


# --- what is refused -------------------------------------------------------------------------------------------------


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
    assert "No such file" in refused(tmp_path / "nowhere", LLAMA.weights)


def test_shards_that_are_missing_or_cut_off(tmp_path: Path) -> None:
    saved(LLAMA, tmp_path, max_shard_size="9KB")
    shards = sorted(tmp_path.glob("*.safetensors"))
    shards[0].unlink()
    shards[1].write_bytes(shards[1].read_bytes()[:-1])
    shards[2].write_bytes(b"")
    text = refused(tmp_path, LLAMA.weights)
    assert [shard.name in text for shard in shards[:4]] == [True, True, True, False]
    assert f"{shards[0].name} cannot be read as safetensors: No such file" in text
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
    assert f"{shard} holds model.norm.weight, of which the index knows nothing" in text


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
    assert "hint: a quantised checkpoint (F8_E4M3) is not read" in text
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
    saved(LLAMA, tmp_path)
    assert "tensor lm_head.weight is not model.embed_tokens.weight" in refused(tmp_path, TIED.weights)


def test_own_names_of_another_model(tmp_path: Path) -> None:
    save_file({tensor.name: torch.zeros(tensor.shape) for tensor in TIED.weights}, tmp_path / "own.safetensors")
    text = refused(tmp_path / "own.safetensors", FAMILIES["qwen3"].weights)
    assert "tensor l0.q_norm is missing\n  hint: the names are those of docs/formats.md, 'Tensors'" in text
    fewer = weights_of(TIED.spec.model_copy(update={"layers": 1}))
    assert "does not use: l1.attention_norm" in refused(tmp_path / "own.safetensors", fewer)


# --- input -----------------------------------------------------------------------------------------------------------


def numbers(path: Path | str, *, spec: ModelSpec = LLAMA.spec) -> tuple[Numbers, Tensor]:
    """An input file after its check, and the tensor that it gives."""
    tensors = tuple(function_of(spec, WORK).tensors.values())
    found = Numbers(0, None, str(path))
    found.check(SimpleNamespace(tensors=tensors, plan=SimpleNamespace(model=spec)))  # type: ignore[arg-type]
    return found, next(tensor for tensor in tensors if tensor.role == "input")


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32])
def test_token_ids(dtype: torch.dtype, tmp_path: Path) -> None:
    ids = torch.randint(VOCABULARY, (2, 5), dtype=dtype)
    save_file({"input_ids": ids, "attention_mask": torch.ones(2, 5)}, tmp_path / "x.safetensors")
    found, tensor = numbers(tmp_path / "x.safetensors")
    read = found.region(tensor, ((1, 2), (0, 4)), torch.int64, CPU)
    assert torch.equal(read, ids[1:, :4].long())


@pytest.mark.parametrize(
    ("held", "message"),
    [
        ({"input": torch.zeros(2, 5)}, "tensor input_ids is missing"),
        ({"input_ids": torch.zeros(2, 5)}, "tensor input_ids is F32; it must be one of I64, I32"),
        ({"input_ids": torch.zeros(1, 5, dtype=torch.int64)}, "tensor input_ids has shape [1, 5], the plan [2, 5]"),
        ({"input_ids": torch.tensor([[1] * 5, [2, 3, 97, 98, -1]])}, "input_ids is 97 at [1, 2]; the model's token"),
        ({"input_ids": torch.tensor([[1] * 5, [2, 3, -7, 98, -1]])}, "input_ids is -7 at [1, 2]; the model's token"),
    ],
)
def test_bad_token_ids(held: Weights, message: str, tmp_path: Path) -> None:
    save_file(held, tmp_path / "x.safetensors")
    with pytest.raises(HelixError, match="HX507") as caught:
        numbers(tmp_path / "x.safetensors")
    assert message in str(caught.value)
    assert caught.value.exit_status == 2


def test_hidden_states(tmp_path: Path) -> None:
    spec = LLAMA.spec.model_copy(update={"vocabulary": None})
    states = torch.randn(2, 5, HIDDEN).half()
    save_file({"input": states}, tmp_path / "x.safetensors")
    found, tensor = numbers(tmp_path / "x.safetensors", spec=spec)
    assert torch.equal(found.region(tensor, tensor.full, torch.float32, CPU), states.float())
    save_file({"input": states.int()}, tmp_path / "x.safetensors")
    with pytest.raises(HelixError, match="tensor input is I32; it must be one of F16"):
        numbers(tmp_path / "x.safetensors", spec=spec)
    with pytest.raises(HelixError, match="cannot be read"):
        numbers(tmp_path / "nowhere.safetensors", spec=spec)
