"""Weights, inputs and outputs in safetensors files; a rank reads only its own regions."""

from __future__ import annotations

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from helixctl.dag import Dag, Tensor, Value
from helixctl.errors import Diagnostic, HelixError
from helixctl.output import write_output
from helixctl.plan import Interval
from helixctl_runtime.seeded import seeded_numbers

_FLOATS = ("F16", "BF16", "F32", "F64")


class Numbers:
    """Where the numbers of weights and inputs come from: files where given, else the seed."""

    def __init__(self, seed: int, weights: str | None, inputs: str | None) -> None:
        """Remember the sources; nothing is opened yet."""
        self.seed = seed
        self._files = {"weight": weights, "input": inputs}

    def check(self, dag: Dag) -> None:
        """See that the files hold every tensor of the dag in its shape.

        Raises:
            HelixError: HX507, every tensor that is missing or of another shape or dtype.
        """
        problems = []
        for role, path in self._files.items():
            if path is not None:
                problems += _problems(path, [t for t in dag.tensors if t.role == role])
        if problems:
            raise HelixError(problems)

    def region(
        self, tensor: Tensor, region: tuple[Interval, ...], dtype: torch.dtype, device: torch.device
    ) -> torch.Tensor:
        """A region of a tensor, in the tensor's order of dims."""
        path = self._files.get(tensor.role)
        if path is None:
            return seeded_numbers(tensor, region, self.seed, dtype, device)
        with safe_open(path, framework="pt") as file:
            part = file.get_slice(tensor.name)[tuple(slice(start, stop) for start, stop in region)]
        return part.to(device=device, dtype=dtype)

    def value(self, dag: Dag, value: Value, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
        """The numbers of a value."""
        return self.region(dag.tensor[value.tensor], value.region, dtype, device)


def write_tensor(path: str, name: str, data: torch.Tensor) -> None:
    """Write one tensor to a safetensors file, so that the file is never seen half-written.

    Raises:
        HelixError: HX511, it cannot be written.
    """
    write_output(path, save({name: data.contiguous().cpu()}))


def _problems(path: str, tensors: list[Tensor]) -> list[Diagnostic]:
    found = []
    try:
        with safe_open(path, framework="pt") as file:
            names = set(file.keys())
            for tensor in tensors:
                if tensor.name not in names:
                    found.append(Diagnostic("HX507", f"tensor {tensor.name} is missing", file=path))
                    continue
                part = file.get_slice(tensor.name)
                shape, dtype = tuple(part.get_shape()), part.get_dtype()
                if shape != tensor.shape:
                    message = f"tensor {tensor.name} has shape {list(shape)}, the model {list(tensor.shape)}"
                    found.append(Diagnostic("HX507", message, file=path))
                elif dtype not in _FLOATS:
                    message = f"tensor {tensor.name} is {dtype}; it must be one of {', '.join(_FLOATS)}"
                    found.append(Diagnostic("HX507", message, file=path))
    except (OSError, SafetensorError) as error:
        return [Diagnostic("HX507", f"cannot be read as safetensors: {error}", file=path)]
    if found:
        names_text = "the names are those of docs/formats.md, 'Tensors'"
        found[0] = Diagnostic("HX507", found[0].message, names_text, file=path)
    return found
