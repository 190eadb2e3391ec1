"""The arena of a program as one tensor, and the views of it that actions name."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

import torch

from helixctl import program
from helixctl_runtime.dtypes import TORCH


class Memory:
    """All that a step needs beside weights, allocated once."""

    def __init__(self, made: program.Program, device: torch.device, states: Mapping[str, torch.Tensor]) -> None:
        """Allocate the arena of a program.

        Args:
            made: the program.
            device: where it runs.
            states: the memory of what lives between steps, by value; contiguous, of the value's shape.
        """
        self.device = device
        self._offsets = made.arena.offsets
        self._bytes = torch.empty(made.arena.nbytes, dtype=torch.uint8, device=device)
        self._as = cache(self._bytes.view)
        self._states = {buffer.view.block: states[value] for value, buffer in made.states.items()}

    @property
    def nbytes(self) -> int:
        """Bytes that were allocated."""
        return self._bytes.untyped_storage().nbytes()

    def tensor(self, view: program.View) -> torch.Tensor:
        """The elements that a view means."""
        if view.block in self._states:
            return self._states[view.block].as_strided(view.sizes, view.strides, view.start)
        dtype = TORCH[view.dtype]
        start = self._offsets[view.block] // dtype.itemsize + view.start
        return self._as(dtype).as_strided(view.sizes, view.strides, start)
