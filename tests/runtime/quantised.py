"""Matrices quantised in the formats of checkpoints, element by element as each format is defined, and what they mean.

Nothing here is shared with the runtime: indices and shifts are written out, or are those of transformers.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

# What stands beside a weight's base name, and the float32 numbers that it means, (outputs, inputs).
Made = tuple[dict[str, torch.Tensor], torch.Tensor]
GROUP = 32


@dataclass(frozen=True)
class Format:
    """One format: the config's quantisation, and how a matrix (outputs, inputs) is stored in it."""

    config: dict[str, Any]
    made: Callable[[torch.Tensor], Made]


def _integers(weight: torch.Tensor, top: int, *, symmetric: bool = False) -> tuple[torch.Tensor, ...]:
    """Numbers from 0 to top with a scale and a zero point by output and group: (R, C), (R, G), (R, G)."""
    rows, columns = weight.shape
    groups = weight.view(rows, columns // GROUP, GROUP)
    scale = ((groups.amax(-1) - groups.amin(-1)) / top).clamp(min=1e-4).half().float()
    zero = torch.full_like(scale, (top + 1) // 2) if symmetric else (-groups.amin(-1) / scale).round().clamp(1, top)
    numbers = (groups / scale[..., None] + zero[..., None]).round().clamp(0, top)
    return numbers.view(rows, columns).int(), scale, zero.int()


def _words(numbers: torch.Tensor, bits: int, order: tuple[int, ...] | None = None) -> torch.Tensor:
    """Each row's numbers in words of 32 bits, ``order[i]`` being the number that lies i-th from the lowest bits."""
    each = 32 // bits
    found = torch.zeros(numbers.shape[0], -(-numbers.shape[1] // each), dtype=torch.int64)
    for column in range(numbers.shape[1]):
        place = (order or tuple(range(each))).index(column % each)
        found[:, column // each] |= numbers[:, column].long() << (bits * place)
    return torch.where(found >= 2**31, found - 2**32, found).int()


def _meant(numbers: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor, group_of: list[int]) -> torch.Tensor:
    found = torch.empty(numbers.shape)
    for column, group in enumerate(group_of):
        found[:, column] = (numbers[:, column] - zero[:, group]).float() * scale[:, group]
    return found


def _plain_groups(columns: int) -> list[int]:
    return [column // GROUP for column in range(columns)]


def gptq(bits: int = 4, *, one_less: bool = True, shuffled: bool = False) -> Callable[[torch.Tensor], Made]:
    """GPTQ as AutoGPTQ packs it; ``shuffled``: groups in the order of activations."""

    def made(weight: torch.Tensor) -> Made:
        numbers, scale, zero = _integers(weight, 2**bits - 1)
        group_of = _plain_groups(weight.shape[1])
        if shuffled:
            order = torch.randperm(len(group_of), generator=torch.Generator().manual_seed(4)).tolist()
            group_of = [group_of[i] for i in order]
        stored = {
            ".qweight": _words(numbers, bits).T.contiguous(),  # along inputs, and the words stand inputs first
            ".qzeros": _words((zero - int(one_less)).T.contiguous(), bits),
            ".scales": scale.T.contiguous().half(),
            ".g_idx": torch.tensor(group_of, dtype=torch.int32),
        }
        return stored, _meant(numbers, scale, zero, group_of)

    return made


def awq(weight: torch.Tensor) -> Made:
    """AWQ's gemm version: of eight columns 0, 2, 4, 6, 1, 3, 5, 7 lie in a word, from its lowest bits on."""
    numbers, scale, zero = _integers(weight, 15)
    order = (0, 2, 4, 6, 1, 3, 5, 7)
    stored = {
        ".qweight": _words(numbers.T.contiguous(), 4, order),
        ".qzeros": _words(zero.T.contiguous(), 4, order),
        ".scales": scale.T.contiguous().half(),
    }
    return stored, _meant(numbers, scale, zero, _plain_groups(weight.shape[1]))


def packed(*, symmetric: bool, bits: int = 4) -> Callable[[torch.Tensor], Made]:
    """compressed-tensors' pack-quantized."""

    def made(weight: torch.Tensor) -> Made:
        numbers, scale, zero = _integers(weight, 2**bits - 1, symmetric=symmetric)
        scale = scale.bfloat16().float()
        stored = {
            ".weight_packed": _words(numbers, bits),
            ".weight_scale": scale.bfloat16(),
            ".weight_shape": torch.tensor(weight.shape, dtype=torch.int64),
        }
        if not symmetric:
            stored[".weight_zero_point"] = _words(zero.T.contiguous(), bits).T.contiguous()
        return stored, _meant(numbers, scale, zero, _plain_groups(weight.shape[1]))

    return made


def fp8_blocks(rows: int, columns: int) -> Callable[[torch.Tensor], Made]:
    """DeepSeek's fp8, dequantised by transformers."""

    def made(weight: torch.Tensor) -> Made:
        from transformers.integrations.finegrained_fp8 import _dequantize_fp8_weight

        grid = -(-weight.shape[0] // rows), -(-weight.shape[1] // columns)
        scale = torch.rand(grid, generator=torch.Generator().manual_seed(6)) / 100 + 1e-3
        spread = scale.repeat_interleave(rows, 0)[: weight.shape[0]].repeat_interleave(columns, 1)[:, : weight.shape[1]]
        numbers = (weight / spread).clamp(-448, 448).to(torch.float8_e4m3fn)
        meant = _dequantize_fp8_weight(numbers, scale, [rows, columns], torch.float32)
        return {".weight": numbers, ".weight_scale_inv": scale}, meant

    return made


def by_channel(dtype: torch.dtype, top: float) -> Callable[[torch.Tensor], Made]:
    """One number an element, one scale an output."""

    def made(weight: torch.Tensor) -> Made:
        scale = (weight.abs().amax(1, keepdim=True) / top).bfloat16().float()
        numbers = (weight / scale).round().clamp(-top, top) if dtype == torch.int8 else (weight / scale)
        numbers = numbers.clamp(-top, top).to(dtype)
        return {".weight": numbers, ".weight_scale": scale.bfloat16()}, numbers.float() * scale

    return made


def of_a_matrix(weight: torch.Tensor) -> Made:
    """fp8 with one scale, as NVIDIA's Model Optimizer stores it."""
    scale = weight.abs().max() / 448
    numbers = (weight / scale).to(torch.float8_e4m3fn)
    stored = {".weight": numbers, ".weight_scale": scale.float(), ".input_scale": torch.tensor(1.0)}
    return stored, numbers.float() * scale.float()


_E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)


def float4(group: int, form: str) -> Callable[[torch.Tensor], Made]:
    """e2m1 numbers at random, with scales: nvfp4 of the Model Optimizer or of compressed-tensors, or its mxfp4."""

    def made(weight: torch.Tensor) -> Made:
        numbers = torch.Generator().manual_seed(weight.numel())
        rows, columns = weight.shape
        nibbles = torch.randint(16, (rows, columns), generator=numbers)
        values = torch.tensor([*_E2M1, *(-x for x in _E2M1)])[nibbles]
        stored = {".weight_packed": (nibbles[:, 0::2] + 16 * nibbles[:, 1::2]).to(torch.uint8)}
        if form == "mxfp4":
            exponents = torch.randint(118, 123, (rows, columns // group), generator=numbers)
            scale = 2.0 ** (exponents.double() - 127)
            stored[".weight_scale"] = exponents.to(torch.uint8)
        else:
            fp8 = (torch.rand(rows, columns // group, generator=numbers) * 200 + 1).to(torch.float8_e4m3fn)
            stored[".weight_scale"], scale = fp8, fp8.double()
            of_all = torch.tensor(1 / 3000 if form == "modelopt" else 3000.0)
            stored[".weight_scale_2" if form == "modelopt" else ".weight_global_scale"] = of_all
            scale = scale * of_all.double() if form == "modelopt" else scale / of_all.double()
        if form == "modelopt":
            stored[".weight"] = stored.pop(".weight_packed")
        return stored, (values.double() * scale.repeat_interleave(group, 1)).float()

    return made


def mxfp8(weight: torch.Tensor) -> Made:
    """e4m3 numbers with a power of two for 32 inputs."""
    exponents = torch.randint(118, 123, (weight.shape[0], weight.shape[1] // 32), generator=torch.Generator())
    scale = 2.0 ** (exponents.double() - 127)
    numbers = (weight.double() / scale.repeat_interleave(32, 1)).clamp(-448, 448).float().to(torch.float8_e4m3fn)
    stored = {".weight": numbers, ".weight_scale": exponents.to(torch.uint8)}
    return stored, (numbers.double() * scale.repeat_interleave(32, 1)).float()


def _group(kind: str, bits: int, strategy: str, **more: Any) -> dict[str, Any]:
    weights = {"type": kind, "num_bits": bits, "strategy": strategy, "symmetric": True, **more}
    form = {4: "pack-quantized"}.get(bits, "float-quantized" if kind == "float" else "int-quantized")
    return {
        "quant_method": "compressed-tensors", "format": form, "ignore": ["lm_head"],
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}},
    }  # fmt: skip


_GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": GROUP, "desc_act": False}
FORMATS = {
    "fp8": Format({"quant_method": "fp8", "weight_block_size": [40, 24]}, fp8_blocks(40, 24)),
    "gptq": Format(_GPTQ, gptq()),
    "gptq in 8 bits": Format(_GPTQ | {"bits": 8}, gptq(8)),
    "gptq, second format, by activations": Format(
        _GPTQ | {"checkpoint_format": "gptq_v2"}, gptq(one_less=False, shuffled=True)
    ),
    "awq": Format({"quant_method": "awq", "bits": 4, "group_size": GROUP, "version": "gemm"}, awq),
    "packed": Format(_group("int", 4, "group", group_size=GROUP), packed(symmetric=True)),
    "packed with zero points": Format(
        _group("int", 4, "group", group_size=GROUP, symmetric=False), packed(symmetric=False)
    ),
    "int8 by channel": Format(_group("int", 8, "channel"), by_channel(torch.int8, 127)),
    "fp8 by channel": Format(_group("float", 8, "channel"), by_channel(torch.float8_e4m3fn, 448)),
    "nvfp4": Format({"quant_algo": "NVFP4", "group_size": 16, "ignore": ["lm_head"]}, float4(16, "modelopt")),
    "packed nvfp4": Format(_group("float", 4, "tensor_group", group_size=16), float4(16, "packed")),
    "packed mxfp4": Format(_group("float", 4, "group", group_size=32), float4(32, "mxfp4")),
    "mxfp8": Format({"quant_algo": "MXFP8", "ignore": ["lm_head"]}, mxfp8),
    "fp8 of a matrix": Format({"quant_algo": "FP8", "exclude_modules": ["lm_head"]}, of_a_matrix),
}


def quantise(folder: Path, how: Format) -> dict[str, torch.Tensor]:
    """Quantise the projections of a checkpoint in its place; what they mean, by the names of the weights."""
    held, found, meant = load_file(folder / "model.safetensors"), dict[str, torch.Tensor](), dict[str, torch.Tensor]()
    for name, weight in held.items():
        if name.endswith("_proj.weight"):
            stored, meant[name] = how.made(weight.float())
            found |= {name.removesuffix(".weight") + end: tensor for end, tensor in stored.items()}
        else:
            found[name] = weight
    save_file(found, folder / "model.safetensors")
    say(folder, how.config)
    return meant


def say(folder: Path, quantisation: dict[str, Any]) -> None:
    """Put a quantisation into the config of a folder."""
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": quantisation}))


def quantise_experts(folder: Path) -> dict[str, torch.Tensor]:
    """Quantise the experts of gpt-oss to mxfp4; what they mean, by transformers."""
    from transformers.integrations.mxfp4 import convert_moe_packed_tensors

    held, found, meant = load_file(folder / "model.safetensors"), dict[str, torch.Tensor](), dict[str, torch.Tensor]()
    numbers = torch.Generator().manual_seed(8)
    for name, weight in held.items():
        if not name.endswith(("gate_up_proj", "down_proj")):
            found[name] = weight
            continue
        experts, inputs, outputs = weight.shape
        blocks = torch.randint(256, (experts, outputs, inputs // 32, 16), dtype=torch.uint8, generator=numbers)
        scales = torch.randint(119, 124, blocks.shape[:-1], dtype=torch.uint8, generator=numbers)
        found |= {f"{name}_blocks": blocks, f"{name}_scales": scales}
        meant[name] = convert_moe_packed_tensors(blocks, scales, dtype=torch.float32)
    save_file(found, folder / "model.safetensors")
    say(folder, {"quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.self_attn", "lm_head"]})
    return meant
