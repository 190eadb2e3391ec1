"""What a file gives the model to work on: token ids, or hidden states."""

from __future__ import annotations

import torch

from helixctl.dag import Tensor
from helixctl.errors import Diagnostic, HelixError
from helixctl_runtime.checkpoint import FLOATS
from helixctl_runtime.stored import as_it_is, read_region
from helixctl_runtime.tensor_files import TensorFiles

_IDS = ("I64", "I32")


def input_problems(files: TensorFiles, tensor: Tensor, vocabulary: int | None) -> list[Diagnostic]:
    """Why a file does not hold this input: HX507, empty where it does.

    ``vocabulary`` is the number of token ids, where that is what the model reads.
    """
    try:
        message = _problem(files, tensor, vocabulary)
    except HelixError as error:
        return list(error.diagnostics)
    return [Diagnostic("HX507", message, file=files.path)] if message else []


def _problem(files: TensorFiles, tensor: Tensor, vocabulary: int | None) -> str | None:
    if tensor.name not in files.names:
        return f"tensor {tensor.name} is missing"
    shape, dtype, allowed = files.shape(tensor.name), files.dtype(tensor.name), _IDS if vocabulary else tuple(FLOATS)
    if shape != tensor.shape:
        return f"tensor {tensor.name} has shape {list(shape)}, the plan {list(tensor.shape)}"
    if dtype not in allowed:
        return f"tensor {tensor.name} is {dtype}; it must be one of {', '.join(allowed)}"
    if vocabulary:
        ids = read_region(files, tensor, as_it_is(tensor), tensor.full, torch.int64, torch.device("cpu"))
        for place in ((ids < 0) | (ids >= vocabulary)).nonzero()[:1]:
            number = int(ids[tuple(place)])
            return (
                f"tensor {tensor.name} is {number} at {place.tolist()}; the model's token ids are 0 to {vocabulary - 1}"
            )
    return None
