"""Memory for values, taken ahead of the run and used again as soon as a value is no longer needed."""

from __future__ import annotations

from collections import defaultdict

import torch


class Pool:
    """Blocks of bytes on one device. A block is free again when all the values in it are."""

    def __init__(self, device: torch.device) -> None:
        """Start empty."""
        self.device = device
        self.nbytes = 0
        self._free: dict[int, list[torch.Tensor]] = defaultdict(list)
        self._block_of: dict[str, tuple[torch.Tensor, set[str]]] = {}

    def take(self, values: list[str], numel: int, dtype: torch.dtype) -> torch.Tensor:
        """Flat memory for these values together, until each of them is released."""
        nbytes = numel * dtype.itemsize
        free = self._free[nbytes]
        block = free.pop() if free else self._new(nbytes)
        users = set(values)
        for value in values:
            self._block_of[value] = (block, users)
        return block.view(dtype)

    def share(self, value: str, owner: str) -> None:
        """Let a value lie in the memory of another."""
        if owner in self._block_of:
            block, users = self._block_of[owner]
            users.add(value)
            self._block_of[value] = (block, users)

    def alone(self, value: str) -> bool:
        """Whether a value has its block to itself."""
        return value in self._block_of and self._block_of[value][1] == {value}

    def release(self, value: str) -> None:
        """A value is no longer needed."""
        if value not in self._block_of:
            return  # weights and inputs are kept
        block, users = self._block_of.pop(value)
        users.discard(value)
        if not users:
            self._free[block.numel()].append(block)

    def _new(self, nbytes: int) -> torch.Tensor:
        self.nbytes += nbytes
        return torch.empty(nbytes, dtype=torch.uint8, device=self.device)
