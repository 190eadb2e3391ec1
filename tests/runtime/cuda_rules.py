"""What torch's kernels on CUDA take, and which make the host wait: read off its tables, where it has no CUDA at all.

FakeTensorMode knows shapes, strides and devices. It does not know that an op has no kernel on CUDA, that a product
takes operands of one dtype, or that ``out=`` of a kernel that does not cast must have the dtype of the result.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torchgen
import yaml
from torch._ops import OpOverload

HALF = (torch.float16, torch.bfloat16)
PRODUCTS = {"mm", "addmm", "bmm", "baddbmm", "mv", "addmv", "_grouped_mm"}
# Kernels that convert to the dtype of ``out``; test_cuda_rehearsal.py tries each on CPU, where the checks are the same.
CASTS = {"add", "sub", "mul", "div", "addcmul", "ne", "eq", "lt", "le", "gt", "ge", "cat", "sum", "cumsum"}
BY_SHAPE_OF_NUMBERS = (torch.Tag.dynamic_output_shape, torch.Tag.data_dependent_output)
_ON_CUDA = {"CUDA", "CompositeExplicitAutograd", "CompositeExplicitAutogradNonFunctional", "CompositeImplicitAutograd"}


def tensors(args: Any) -> Iterator[torch.Tensor]:
    """The tensors among arguments, also those in lists."""
    for each in args:
        if isinstance(each, torch.Tensor):
            yield each
        elif isinstance(each, list | tuple):
            yield from tensors(each)


@cache
def written(op: OpOverload) -> tuple[tuple[int, str], ...]:
    """Place and name of every argument that an op writes."""
    arguments = enumerate(op._schema.arguments)
    return tuple((i, a.name) for i, a in arguments if a.alias_info is not None and a.alias_info.is_write)


@cache
def _table() -> dict[str, dict[str, Any]]:
    """Torch's own list of ops, by name and overload."""
    path = Path(torchgen.__file__).parent / "packaged/ATen/native/native_functions.yaml"
    rows = yaml.load(path.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    found = {row["func"].partition("(")[0]: row for row in rows}
    made = {name: row for row in rows for name in row.get("autogen", "").replace(" ", "").split(",") if name}
    return made | found


@cache
def _keys(op: OpOverload) -> frozenset[str]:
    """For what an op has kernels: devices, or Composite... for all; none if torch's list does not have it."""
    row = _table().get(op.name().removeprefix("aten::"))
    if op.namespace != "aten" or row is None:
        return frozenset()
    row = _table()[row["structured_delegate"]] if "structured_delegate" in row else row
    if "ufunc_inner_loop" in row:
        return frozenset({"CPU", "CUDA"})  # made from one formula
    dispatch = row.get("dispatch", {"CompositeImplicitAutograd": ""})
    return frozenset(key.strip() for keys in dispatch for key in keys.split(","))


def on_cuda(op: OpOverload) -> bool:
    """Whether there is a kernel for CUDA, or one for all devices; questions to a tensor (prim) need no kernel."""
    return bool(_keys(op) & _ON_CUDA) or op.namespace == "prim"


def made_of_others(op: OpOverload) -> bool:
    """Whether an op comes to other ops on CUDA: what it does is seen in them."""
    return "CompositeImplicitAutograd" in _keys(op) and "CUDA" not in _keys(op)


def waits(op: OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any], results: Any = ()) -> str | None:
    """Why the host waits for the device in this call; None where it does not.

    ``results``: what it gave, if it is known: a copy from one device to another is seen by it.
    """
    name = op.name().removeprefix("aten::").removesuffix(".default")
    if name.startswith(("index.", "index_put", "_index_put", "_unsafe_index")):
        if any(t.dtype in (torch.bool, torch.uint8) for t in tensors([args[1]])):
            return f"{name} by a mask"
        return None
    if name.startswith("repeat_interleave") and kwargs.get("output_size") is not None:
        return None
    if any(tag in op.tags for tag in BY_SHAPE_OF_NUMBERS):
        return name
    devices = {t.device.type for t in (*tensors(args), *tensors([results]))}
    if name in {"_to_copy", "copy_"} and len(devices) > 1:
        return f"{name} between {' and '.join(sorted(devices))}"
    return None


def refusal(op: OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str | None:
    """Why CUDA would refuse this call, although the fake one succeeds."""
    name = op.name().removeprefix("aten::")
    if not on_cuda(op):
        return f"{name} has no kernel on CUDA"
    plain, _, overload = name.partition(".")
    out, floats = kwargs.get("out"), [t for t in tensors(args) if t.is_floating_point()]
    into = out.dtype if isinstance(out, torch.Tensor) and out.is_floating_point() else None
    if plain in PRODUCTS or plain.startswith("index_add"):
        operands = [t for t in tensors(args) if t.dim() > 1 and (t.is_floating_point() or plain in PRODUCTS)]
        if len({t.dtype for t in operands}) > 1 or not operands[0].is_floating_point():
            return f"{name} of {', '.join(str(t.dtype) for t in operands)}"
    if plain in PRODUCTS and "dtype" in overload:  # a product that keeps its accumulator
        wide = next(a for a in (*args, *kwargs.values()) if isinstance(a, torch.dtype))
        fits = args[0].dtype in HALF and wide == torch.float32 and into in {None, wide}
        return None if fits else f"{name} of {args[0].dtype} to {wide} into {into}"
    if into is not None and plain not in CASTS and floats and into != floats[0].dtype:
        return f"{name} of {floats[0].dtype} into {into}"
    return None
