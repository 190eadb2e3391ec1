"""A checkpoint: the weights of a model in files, held against the plan's, and read region by region."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from math import prod
from typing import Final

import torch

from helixctl.dag import Tensor
from helixctl.errors import Diagnostic
from helixctl.plan import Interval
from helixctl_runtime.names import HuggingFaceNames, OwnNames, naming
from helixctl_runtime.stored import Stored, read_region, used_numel
from helixctl_runtime.tensor_files import TensorFiles

FLOATS: Final = {"F16": 2, "BF16": 2, "F32": 4, "F64": 8}  # and their bytes
_NAMED = 10  # problems, and tensors in one of them, that are named
_ROWS = 16  # of a head that are held against the embedding


class Checkpoint:
    """The weights of a model under one path."""

    def __init__(self, path: str) -> None:
        """Remember the path; nothing is opened yet."""
        self.files = TensorFiles(path)
        self._names: OwnNames | HuggingFaceNames | None = None

    @property
    def read_nbytes(self) -> int:
        """Bytes of stored tensors that were asked for so far."""
        return self.files.read_nbytes

    def nbytes(self, tensors: Sequence[Tensor]) -> int:
        """Bytes of the stored tensors that are these weights, each once."""
        total = 0
        for tensor in tensors:
            stored = self.names.stored(tensor)
            total += used_numel(stored, tensor) * sum(FLOATS[self.files.dtype(name)] for name in stored.names)
        return total

    def read(
        self, tensor: Tensor, region: Sequence[Interval], dtype: torch.dtype, device: torch.device
    ) -> torch.Tensor:
        """A region of a weight, in the tensor's order of dims."""
        return read_region(self.files, tensor, self.names.stored(tensor), region, dtype, device)

    @property
    def names(self) -> OwnNames | HuggingFaceNames:
        """What the files call the weights."""
        if self._names is None:
            self._names = naming(self.files.names)
        return self._names

    def problems(self, tensors: Sequence[Tensor]) -> list[Diagnostic]:
        """Why these files do not hold exactly these weights: HX507, empty where they do."""
        if found := self.files.problems():
            return shortened(found, self.files.path)
        wrong = []
        used: dict[str, int] = defaultdict(int)
        for tensor in tensors:
            stored = self.names.stored(tensor)
            for name in stored.names:
                used[name] += used_numel(stored, tensor)
                if problem := self._problem(name, stored, tensor):
                    wrong.append(problem)
        if not wrong:
            wrong = [f"tensor {n} is used only in part" for n, count in used.items() if self._numel(n) > count]
        found = [self._diagnostic(text) for text in wrong]
        if found:
            found[0] = self._diagnostic(wrong[0], self._hint(used))
        return [*shortened(found, self.files.path), *self._unused(tensors, used)]

    def _problem(self, name: str, stored: Stored, tensor: Tensor) -> str | None:
        shown = self.names.shown(tensor)
        if name not in self.files.names:
            return f"tensor {name}{shown} is missing"
        shape, dtype = self.files.shape(name), self.files.dtype(name)
        if shape != stored.shape:
            return f"tensor {name} has shape {list(shape)}, the model {list(stored.shape)}{shown}"
        if dtype not in FLOATS:
            return f"tensor {name}{shown} is {dtype}; it must be one of {', '.join(FLOATS)}"
        return None

    def _unused(self, tensors: Sequence[Tensor], used: dict[str, int]) -> list[Diagnostic]:
        """Tensors that the model lacks: with them the checkpoint is another function than the plan."""
        unused, found = self.names.unused(self.files.names, used), []
        head, embedding = self.names.head, next((t for t in tensors if t.name == "embedding"), None)
        if head in unused and embedding and not any(t.name == "w_head" for t in tensors):
            unused.remove(head)
            name = self.names.stored(embedding).names[0]
            if name in self.files.names and not self._alike(head, name):
                text = f"tensor {head} is not {name}, and the model has one tensor for both"
                found.append(self._diagnostic(text, "see vocabulary.tied of the model"))
        if unused:
            more = len(unused) - _NAMED
            text = ", ".join(unused[:_NAMED]) + (f" and {more} more" if more > 0 else "")
            hint = "the plan's model lacks them: see its layers, biases, norms and experts"
            found.append(self._diagnostic(f"tensors that the model does not use: {text}", hint))
        return found

    def _alike(self, head: str, embedding: str) -> bool:
        """Whether a head is its embedding, in some rows of it: all would be much to read before ranks start."""
        pair = (head, embedding)
        shape = self.files.shape(head)
        if shape != self.files.shape(embedding) or not {self.files.dtype(name) for name in pair} <= FLOATS.keys():
            return False
        for i in range(_ROWS):
            row = shape[0] * i // _ROWS
            box = [(row, row + 1), *((0, size) for size in shape[1:])]
            if not torch.equal(*(self.files.part(name, box).double() for name in pair)):
                return False
        return True

    def _hint(self, used: dict[str, int]) -> str | None:
        names = {name for name in used if name in self.files.names}
        if dtypes := sorted({dtype for name in names if (dtype := self.files.dtype(name)) not in FLOATS}):
            return f"a quantised checkpoint ({', '.join(dtypes)}) is not read: give the one that it is made of"
        if used.keys() - names == {self.names.head}:
            return "where the checkpoint's head is its embedding, the model says vocabulary.tied"
        return self.names.hint

    def _numel(self, name: str) -> int:
        return prod(self.files.shape(name))

    def _diagnostic(self, message: str, hint: str | None = None) -> Diagnostic:
        return Diagnostic("HX507", message, hint, file=self.files.path)


def shortened(problems: list[Diagnostic], path: str) -> list[Diagnostic]:
    """The first problems, and how many more there are."""
    more = len(problems) - _NAMED
    if more <= 0:
        return problems
    return [*problems[:_NAMED], Diagnostic("HX507", f"and {more} more", file=path)]
