"""Checkpoints that transformers itself writes: every region of every weight, and the bytes that are read."""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
from dataclasses import replace
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from helixctl.dag import Tensor
from helixctl_runtime.tensors import tensor_files
from helixctl_runtime.tensors.checkpoint import Checkpoint
from helixctl_runtime.tensors.tensor_source import TensorSource
from tests.runtime.families import (
    CPU,
    FAMILIES,
    HEADS,
    HIDDEN,
    LLAMA,
    MIXTRAL,
    check_regions,
    cut,
    dag_for,
    expected,
    saved,
)


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
    """The model alone, or inside a vision model, whose other parts do not change the result for tokens."""
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
        numbers = TensorSource(0, str(tmp_path), None)
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
