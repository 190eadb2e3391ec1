"""A GGUF file as tensors with the names and the axes of transformers: a box of one is dequantised when it is read."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from helixctl.errors import Diagnostic, HelixError
from helixctl.spec import GGUF_BLOCKS
from helixctl.spec.gguf import GgufFile
from helixctl.spec.stored import Block
from helixctl_runtime.tensors.tensor_files import FLOATS, TensorFiles


class _Place(NamedTuple):
    """Where a tensor of transformers is: the tensor of the file, and which of its experts."""

    own: str
    expert: int | None


class GgufFiles(TensorFiles):
    """As ``TensorFiles``, of one GGUF file. Block types are dequantised by the package ``gguf``, in float32."""

    def __init__(self, path: str) -> None:
        """Store the path; the file is not opened yet."""
        super().__init__(path)
        self._gguf = GgufFile(path)

    @cached_property
    def _places(self) -> dict[str, _Place]:
        return {name: _Place(own, expert) for name, own, expert in self._gguf.names()}

    @cached_property
    def names(self) -> dict[str, Path]:
        """The file of every tensor, by its name in transformers."""
        return dict.fromkeys(self._places, Path(self.path))

    def problems(self) -> list[Diagnostic]:
        """Why the file cannot be read, as HX507."""
        try:
            self._places  # noqa: B018  it is read here
            self._gguf.architecture  # noqa: B018
        except HelixError as error:
            return [Diagnostic("HX507", item.message, item.hint, file=self.path) for item in error.diagnostics]
        return []

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor, outputs first."""
        place = self._places[name]
        return self._gguf.shape(place.own)[0 if place.expert is None else 1 :]

    def dtype(self, name: str) -> str:
        """The dtype of a tensor, as safetensors calls it; of a block type that in which it is dequantised."""
        kind = self._kind(self._places[name].own)
        return kind if kind in FLOATS else "F32"

    def nbytes(self, name: str) -> int:
        """Bytes of a tensor as it is stored."""
        place = self._places[name]
        whole = int(self._gguf.tensors[place.own].n_bytes)
        return whole if place.expert is None else whole // self._gguf.shape(place.own)[0]

    def part(self, name: str, ranges: Sequence[tuple[int, int]]) -> torch.Tensor:
        """A box of a tensor; of a block that it cuts all is read."""
        place = self._places[name]
        data: Any = self._gguf.tensors[place.own].data
        kind = self._kind(place.own)
        if kind == "BF16":  # numpy has no such numbers
            data = data.view(np.int16)
        if place.expert is not None:
            data = data[place.expert]
        rows = self._rows(place.own, ranges[0])
        if len(ranges) == 1:
            return self._floats(data[rows], kind)
        (begin, end), block = ranges[-1], GGUF_BLOCKS.get(kind.lower(), Block(1, 1))
        first, last = begin // block.inputs, -(-end // block.inputs)
        part = self._floats(data[rows, first * block.nbytes : last * block.nbytes], kind)
        return part[:, begin - first * block.inputs :][:, : end - begin]

    def _rows(self, own: str, span: tuple[int, int]) -> Any:
        """The stored rows of some rows of a tensor of transformers.

        llama.cpp stores the dims of a head so that those which are rotated together stand side by side: (half, pair) of
        transformers at 2 pair + half.
        """
        heads = self._gguf.halves_in_turn(own)
        if not heads:
            return slice(*span)
        head_dim = self._gguf.shape(own)[0] // heads
        pairs = head_dim // 2
        row = np.arange(*span)
        head, dim = row // head_dim, row % head_dim
        return head * head_dim + dim % pairs * 2 + dim // pairs

    def _floats(self, data: Any, kind: str) -> torch.Tensor:
        """Numbers of what is stored, which is counted as read."""
        from gguf import GGMLQuantizationType
        from gguf.quants import dequantize

        data = np.ascontiguousarray(data)
        self.read_nbytes += data.nbytes
        if kind in {"F16", "F32", "F64"}:
            return torch.from_numpy(data if data.flags.writeable else data.copy())
        if kind == "BF16":
            return torch.from_numpy(data.copy()).view(torch.bfloat16)
        return torch.from_numpy(dequantize(data, GGMLQuantizationType[kind]))

    def _kind(self, own: str) -> str:
        return str(self._gguf.tensors[own].tensor_type.name)

    def close(self) -> None:
        """Close the file; a later use opens it again."""
        self._gguf = GgufFile(self.path)

    @property
    def others(self) -> list[str]:
        """A file has no others beside it."""
        return []
