"""A checkpoint: the weights of a model in files, compared with the plan's weights and read region by region."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from functools import cached_property
from math import prod
from typing import Any, Final

import torch

from helixctl.dag import Tensor
from helixctl.errors import Diagnostic, HelixError
from helixctl.plan import Interval
from helixctl_runtime.tensors.choice import OPTION, choose_names, guess_names, misfit
from helixctl_runtime.tensors.difference import ALL_ROWS, RowShare, difference
from helixctl_runtime.tensors.names import HuggingFaceNames, Names, is_head, prefixes
from helixctl_runtime.tensors.quantised_files import files_of
from helixctl_runtime.tensors.stored_tensor import read_region, used_numel
from helixctl_runtime.tensors.tensor_files import FLOATS, TensorFiles, abbreviate

_OF_VOCABULARY: Final = ("embedding", "w_head")
_MOST_NAMED: Final = 10  # problems that are reported, and tensors that one of them names


class Checkpoint:
    """The weights of a model under one path."""

    def __init__(self, path: str, prefix: str | None = None) -> None:
        """Store the arguments; no file is opened yet.

        Args:
            path: a safetensors file, or a folder or an index as Hugging Face writes it.
            prefix: the prefix of one of several models in the files (``--weights-prefix``).
        """
        self._path = path
        self._requested_prefix = prefix
        self._names: Names | None = None

    @cached_property
    def files(self) -> TensorFiles:
        """The files, dequantised as they are read where their config says how."""
        return files_of(self._path)

    @property
    def read_nbytes(self) -> int:
        """Bytes of stored tensors that were read so far."""
        return self.files.read_nbytes

    def nbytes(self, tensors: Sequence[Tensor]) -> int:
        """Bytes of the stored tensors that hold these weights, each counted once."""
        total = 0
        for tensor in tensors:
            stored = self.names.stored(tensor)
            used = used_numel(stored, tensor)
            total += sum(self.files.nbytes(name) * used // self._numel(name) for name in stored.names)
        return total

    def read(
        self, tensor: Tensor, region: Sequence[Interval], dtype: torch.dtype, device: torch.device
    ) -> torch.Tensor:
        """Read a region of a weight.

        Args:
            tensor: the weight.
            region: an interval for each of its dims.
            dtype: the dtype of the result.
            device: the device of the result.

        Returns:
            The region, in the weight's order of dims.
        """
        return read_region(self.files, tensor, self.names.stored(tensor), region, dtype, device)

    @property
    def names(self) -> Names:
        """The names of the weights in the files."""
        if self._names is None:
            self._names = guess_names(self.files, self._requested_prefix)
        return self._names

    def problems(self, tensors: Sequence[Tensor], *, rows: bool = True) -> list[Diagnostic]:
        """Why these files do not hold exactly these weights: diagnostics HX507, none if they do.

        Args:
            tensors: the weights of the model.
            rows: also compare the stored heads (see ``heads``), which reads them.
        """
        try:
            if found := self.files.problems():
                return shortened(found, self.files.path)
            self._names = choose_names(self.files, tensors, self._requested_prefix)
        except HelixError as error:
            return list(error.diagnostics)
        used = self._used(tensors)
        wrong = list(self._misfits(tensors))
        if not wrong:
            wrong = [f"tensor {n} is used only in part" for n, count in used.items() if self._numel(n) > count]
            wrong += [f"tensor {n} is all there is for two weights" for n, c in used.items() if self._numel(n) < c]
        found = [self._diagnostic(text) for text in wrong]
        if found:
            found[0] = self._diagnostic(wrong[0], self._hint(used))
        found = [*shortened(found, self.files.path), *self._left_over(tensors, used)]
        return found + (self.heads(tensors) if rows else [])

    def heads(self, tensors: Sequence[Tensor], share: RowShare = ALL_ROWS) -> list[Diagnostic]:
        """The stored heads that the model does not read, and that differ from the tensor that it reads instead.

        Args:
            tensors: the weights of the model.
            share: ``(i, n)``: compare the i-th of n parts of the rows. All parts cost one pass over both tensors.
        """
        read = [self.names.stored(t).names[0] for name in _OF_VOCABULARY for t in tensors if t.name == name]
        if not read or any(name not in self.files.names for name in read):
            return []
        found = []
        for name, against in self._possible_heads(tensors, read):
            why = [difference(self.files, name, other, share) for other in against]
            if all(why):
                message = f"tensor {name} is not {against[-1]}: {why[-1]}"
                found.append(self._diagnostic(message, self._remedy(name, read)))
        return found

    def stored_names(self, tensors: Sequence[Tensor]) -> list[str]:
        """The names of the stored tensors that hold these weights."""
        return list(self._used(tensors))

    def account(self, tensors: Sequence[Tensor]) -> dict[str, Any]:
        """What is read from the files and what is left out, under the keys of the report."""
        used, names = self._used(tensors), self.names
        others = [n for n in self.files.names if n not in used]
        return {
            "path": self.files.path,
            "prefix": names.prefix,
            "files": sorted({self.files.names[name].name for name in used}),
            "tensors": len(used),
            "nbytes": self.nbytes(tensors),
            "left_out": {
                "tensors": len(others),
                "nbytes": sum(self.files.nbytes(n) for n in others),
                "parts": _parts(others, names.prefix or ""),
            },
            "other_files": self.files.others,
        }

    def _used(self, tensors: Sequence[Tensor]) -> dict[str, int]:
        """The number of elements of each stored tensor that are weights of the model."""
        used: dict[str, int] = defaultdict(int)
        for tensor in tensors:
            stored = self.names.stored(tensor)
            for name in stored.names:
                used[name] += used_numel(stored, tensor)
        return used

    def _misfits(self, tensors: Sequence[Tensor]) -> Iterator[str]:
        for tensor in tensors:
            stored = self.names.stored(tensor)
            for name in stored.names:
                if problem := misfit(self.files, self.names, stored, tensor, name):
                    yield problem

    def _left_over(self, tensors: Sequence[Tensor], used: dict[str, int]) -> list[Diagnostic]:
        """Refuse weights that the model lacks: with them the checkpoint computes another function than the plan."""
        has_vocabulary = any(tensor.name in _OF_VOCABULARY for tensor in tensors)
        unused = [n for n in self.names.unused(self.files.names, used) if not (has_vocabulary and is_head(n))]
        if not unused:
            return []
        more = len(unused) - _MOST_NAMED
        text = ", ".join(unused[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
        hint = "the plan's model lacks them: see its layers, biases, norms and experts"
        if (
            self.names.prefix
            and self._requested_prefix is None
            and not any(n.startswith(self.names.prefix) or n.endswith("lm_head.bias") for n in unused)
        ):
            hint += f"; {OPTION} {self.names.prefix!r} reads the model alone"
        return [self._diagnostic(f"tensors that the model does not use: {text}", hint)]

    def _possible_heads(self, tensors: Sequence[Tensor], read: Sequence[str]) -> Iterator[tuple[str, Sequence[str]]]:
        """Tensors that may be the model's head and are not read, each with the tensors that it may be a copy of."""
        used = self._used(tensors)
        for name in self.names.unused(self.files.names, used):
            if is_head(name):
                yield name, read[-1:]
        if isinstance(self.names, HuggingFaceNames) and self._requested_prefix is None:
            beside = self.names.without_model(self.names.beside(self.files.names, used))
            shape = self.files.shape(read[0])
            yield from ((name, read) for name in beside if self.files.shape(name) == shape)

    def _remedy(self, name: str, read: Sequence[str]) -> str:
        if len(read) == 1 and name == self.names.head and self.files.shape(name) == self.files.shape(read[0]):
            return (
                "the plan's model has one tensor for both; transformers reads the stored head where they differ: "
                "plan with --set vocabulary.tied=false"
            )
        if self._requested_prefix is None and not is_head(name):
            return (
                f"it may be the model's head; {OPTION} {self.names.prefix!r} reads what has that prefix, and its head"
            )
        return "it may be the model's head, which the plan would leave out: take out of the files what is not meant"

    def _hint(self, used: dict[str, int]) -> str | None:
        names = {name for name in used if name in self.files.names}
        if dtypes := sorted({dtype for name in names if (dtype := self.files.dtype(name)) not in FLOATS}):
            return (
                f"a quantised checkpoint ({', '.join(dtypes)}) is read where a config.json beside it says how it is "
                "quantised: give the folder of both"
            )
        head = self.names.head
        lacks_head = used.keys() - names == {head}
        if lacks_head or (head in names and used[head] == 2 * self._numel(head)):  # one for embedding and head
            return "where the checkpoint's head is its embedding, the model says vocabulary.tied"
        others = [other for other in prefixes(self.files.names) if other != self.names.prefix]
        if others and self._requested_prefix is None:
            there = abbreviate([repr(other) for other in others])
            return f"looked for after the prefix {self.names.prefix!r}; {OPTION} takes another: {there}"
        return self.names.hint

    def _numel(self, name: str) -> int:
        return prod(self.files.shape(name))

    def _diagnostic(self, message: str, hint: str | None = None) -> Diagnostic:
        return Diagnostic("HX507", message, hint, file=self.files.path)


def shortened(problems: list[Diagnostic], path: str) -> list[Diagnostic]:
    """The first problems, and the number of the others."""
    more = len(problems) - _MOST_NAMED
    if more <= 0:
        return problems
    return [*problems[:_MOST_NAMED], Diagnostic("HX507", f"and {more} more", file=path)]


def _parts(names: Sequence[str], prefix: str) -> dict[str, int]:
    """The number of tensors in each part of a larger model: a part branches off the path to the prefix."""
    path, found = prefix.split("."), Counter[str]()
    for name in names:
        parts = name.split(".")
        same = next((i for i, part in enumerate(parts) if i >= len(path) or part != path[i]), len(parts))
        found[".".join(parts[: same + 1])] += 1
    return dict(sorted(found.items()))
