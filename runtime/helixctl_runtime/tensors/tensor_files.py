"""Safetensors files as one set of tensors: a file, or a folder or an index as Hugging Face writes it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError, safe_open

from helixctl.errors import Diagnostic, HelixError
from helixctl_runtime.tensors.file_type import identify
from helixctl_runtime.tensors.index import reason, weight_map

FLOATS: Final = {"F16": 2, "BF16": 2, "F32": 4, "F64": 8}  # dtype of safetensors -> bytes of a number

_SINGLE = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_ADAPTER = "adapter_config.json"
_WEIGHTS = (".safetensors", ".bin", ".gguf", ".pth", ".pt")  # suffixes of files that hold weights of some kind
_WIDE = {"64": 8, "32": 4, "16": 2}  # end of a dtype's name -> bytes of a number; all others have 1
_FEW = 5  # names that a message lists
_SAMPLE: Final = 2**20  # bytes at either end of a file that are compared with those of other copies


class TensorFiles:
    """The tensors under one path. A file is opened when one of its tensors is first used, and stays open."""

    def __init__(self, path: str) -> None:
        """Store the path; no file is opened yet."""
        self.path = path
        self.read_nbytes = 0
        self._open: dict[Path, Any] = {}
        self._slices: dict[str, Any] = {}

    def close(self) -> None:
        """Close all files; a later use opens them again."""
        self._slices.clear()
        self._open.clear()

    def fingerprint(self) -> str:
        """A digest of the files' names and sizes, and of the first and the last MiB of each.

        A digest of a whole large file would take as long as loading it on every rank. Other weights differ already in
        their first MiB.
        """
        digest = hashlib.sha256()
        for file in sorted(set(self.names.values())):
            size = file.stat().st_size
            digest.update(f"{file.name} {size}\n".encode())
            with file.open("rb") as stream:
                digest.update(stream.read(_SAMPLE))
                stream.seek(max(_SAMPLE, size - _SAMPLE))
                digest.update(stream.read())
        return digest.hexdigest()

    @cached_property
    def names(self) -> dict[str, Path]:
        """The file of every tensor. An index gives it without opening the shards.

        Raises:
            HelixError: HX507, there is no such file, or it cannot be read.
        """
        entry = self._entry
        if entry.suffix == ".json":
            return weight_map(entry, self.path)
        return dict.fromkeys(self._file(entry).keys(), entry)

    def problems(self) -> list[Diagnostic]:
        """The problems of the files themselves: they cannot be read, or contradict their index."""
        try:
            files = dict.fromkeys(self.names.values())
        except HelixError as error:
            return list(error.diagnostics)
        found = self._adapter()
        for file in files:
            try:
                held = set(self._file(file).keys())
            except HelixError as error:
                found += error.diagnostics
                continue
            promised = {name for name, where in self.names.items() if where == file}
            if lost := promised - held:
                found.append(
                    self._problem(f"the index names {abbreviate(sorted(lost))} in {file.name}, which lacks them")
                )
            # If two shards hold a tensor, transformers takes that of the last shard, whatever the index says.
            if twice := held & self.names.keys() - promised:
                others = sorted({self.names[name].name for name in twice})
                found.append(
                    self._problem(
                        f"{abbreviate(sorted(twice))} in {file.name} and, by the index, in {abbreviate(others)}"
                    )
                )
            # A program that loads whole shards would take these tensors too, so the index does not fit the files.
            if more := held - self.names.keys():
                found.append(
                    self._problem(f"{file.name} holds {abbreviate(sorted(more))}, which the index does not list")
                )
        return found

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a stored tensor."""
        return tuple(self._slice(name).get_shape())

    def dtype(self, name: str) -> str:
        """The dtype of a stored tensor, as safetensors calls it: ``BF16``."""
        return str(self._slice(name).get_dtype())

    def nbytes(self, name: str) -> int:
        """Bytes of a stored tensor."""
        dtype = self.dtype(name)
        return prod(self.shape(name)) * next((n for end, n in _WIDE.items() if dtype.endswith(end)), 1)

    @property
    def others(self) -> list[str]:
        """The files of the folder that look like weights and are not read."""
        folder = Path(self.path)
        if not folder.is_dir():
            return []
        read = {self._entry.name, *(path.name for path in self.names.values())}
        held = {each.name for each in folder.iterdir()}
        return sorted(n for n in held - read if n.endswith(_WEIGHTS) or n == _INDEX)

    def part(self, name: str, ranges: Sequence[tuple[int, int]]) -> torch.Tensor:
        """A box of a stored tensor: a view of the file, counted in ``read_nbytes``.

        Args:
            name: the stored tensor.
            ranges: begin and end along each of its axes.
        """
        part: torch.Tensor = self._slice(name)[tuple(slice(start, stop) for start, stop in ranges)]
        self.read_nbytes += part.nbytes
        return part

    def scalar(self, name: str) -> torch.Tensor:
        """A stored tensor of no axes, counted as a part is."""
        found: torch.Tensor = self._file(self.names[name]).get_tensor(name)
        self.read_nbytes += found.nbytes
        return found

    def _slice(self, name: str) -> Any:
        if name not in self._slices:
            try:
                self._slices[name] = self._file(self.names[name]).get_slice(name)
            except (KeyError, SafetensorError) as error:  # the file has changed since it was checked
                raise HelixError(self._problem(f"tensor {name} is missing")) from error
        return self._slices[name]

    @property
    def _entry(self) -> Path:
        """The file to open first; if a folder holds both a file and an index, the one that transformers takes."""
        path = Path(self.path)
        try:
            if not path.is_dir():
                return path
            held = {each.name for each in path.iterdir()}
        except OSError as error:
            raise HelixError(self._problem(f"cannot be read: {reason(error)}")) from error
        for name in (_SINGLE, _INDEX):
            if name in held:
                return path / name
        others = sorted(name for name in held if name.endswith(_WEIGHTS))
        message = f"a folder without {_SINGLE} or {_INDEX}" + (f"; it holds {abbreviate(others)}" if others else "")
        hint = "give a folder that transformers' save_pretrained wrote, or a safetensors file"
        if any(name.endswith(".gguf") for name in others):
            hint = "give the GGUF file itself"
        raise HelixError(Diagnostic("HX507", message, hint, file=self.path))

    def _file(self, path: Path) -> Any:
        if path not in self._open:
            try:
                self._open[path] = safe_open(path, framework="pt")
            except (OSError, SafetensorError) as error:
                raise HelixError(self._unreadable(path, error)) from error
        return self._open[path]

    def _unreadable(self, path: Path, error: Exception) -> Diagnostic:
        shown = "" if path == Path(self.path) else f"{path.name} "
        if isinstance(error, FileNotFoundError):  # safetensors says the path once more
            return self._problem(f"{shown}cannot be read: no such file or directory")
        what, hint = identify(path)
        if what:
            return self._problem(f"{path.name} is {what}; it must be safetensors", hint)
        return self._problem(f"{shown}cannot be read as safetensors: {reason(error)}", hint)

    def _adapter(self) -> list[Diagnostic]:
        """Refuse a folder with an adapter, because transformers would add it to the weights."""
        if not (Path(self.path) / _ADAPTER).exists():
            return []
        hint = "merge it into the weights (peft: merge_and_unload), or give the file of the weights without the adapter"
        return [self._problem(f"the folder holds an adapter, {_ADAPTER}, and adapters are not read", hint)]

    def _problem(self, message: str, hint: str | None = None) -> Diagnostic:
        return Diagnostic("HX507", message, hint, file=self.path)


def abbreviate(names: Sequence[str]) -> str:
    """The first names of a list, and the number of the others."""
    more = len(names) - _FEW
    return ", ".join(names[:_FEW]) + (f" and {more} more" if more > 0 else "")
