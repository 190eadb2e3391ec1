"""Safetensors files as one set of tensors: a file, or a folder or an index as Hugging Face writes it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from helixctl.errors import Diagnostic, HelixError

_SINGLE = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_WEIGHTS = (".safetensors", ".bin", ".gguf", ".pth")  # what weights of other kinds are called, for a message
_FEW = 5  # names that a message lists


class TensorFiles:
    """The tensors under one path. A file is opened when something of it is first asked for, and stays open."""

    def __init__(self, path: str) -> None:
        """Remember the path; nothing is opened yet."""
        self.path = path
        self.read_nbytes = 0
        self._open: dict[Path, Any] = {}
        self._slices: dict[str, Any] = {}

    def close(self) -> None:
        """Let go of all files; what is asked for later is opened again."""
        self._slices.clear()
        self._open.clear()

    @cached_property
    def names(self) -> dict[str, Path]:
        """The file of every tensor: from the index where there is one, so that its shards are not opened for it.

        Raises:
            HelixError: HX507, there is no such file, or it cannot be read.
        """
        entry = self._entry
        if entry.suffix == ".json":
            return {name: entry.parent / shard for name, shard in _weight_map(entry, self.path).items()}
        return dict.fromkeys(self._file(entry).keys(), entry)

    def problems(self) -> list[Diagnostic]:
        """What is wrong with the files themselves: they cannot be read, or are not what their index says."""
        try:
            files = dict.fromkeys(self.names.values())
        except HelixError as error:
            return list(error.diagnostics)
        found: list[Diagnostic] = []
        for file in files:
            try:
                held = set(self._file(file).keys())
            except HelixError as error:
                found += error.diagnostics
                continue
            promised = {name for name, where in self.names.items() if where == file}
            if lost := promised - held:
                found.append(self._problem(f"the index names {few(sorted(lost))} in {file.name}, which lacks them"))
            # Who loads whole shards would take these too: the index is not that of these files.
            if more := held - self.names.keys():
                found.append(self._problem(f"{file.name} holds {few(sorted(more))}, of which the index knows nothing"))
        return found

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a stored tensor."""
        return tuple(self._slice(name).get_shape())

    def dtype(self, name: str) -> str:
        """The dtype of a stored tensor, as safetensors calls it: ``BF16``."""
        return str(self._slice(name).get_dtype())

    def part(self, name: str, ranges: Sequence[tuple[int, int]]) -> torch.Tensor:
        """A box of a stored tensor, counted in ``read_nbytes``: a view of the file, of which only this is read."""
        part: torch.Tensor = self._slice(name)[tuple(slice(start, stop) for start, stop in ranges)]
        self.read_nbytes += part.nbytes
        return part

    def _slice(self, name: str) -> Any:
        if name not in self._slices:
            try:
                self._slices[name] = self._file(self.names[name]).get_slice(name)
            except (KeyError, SafetensorError) as error:  # another file than the one that was checked
                raise HelixError(self._problem(f"tensor {name} is missing")) from error
        return self._slices[name]

    @property
    def _entry(self) -> Path:
        """The file to begin with; of a folder that holds both, the one that transformers takes."""
        path = Path(self.path)
        try:
            if not path.is_dir():
                return path
            held = {each.name for each in path.iterdir()}
        except OSError as error:
            raise HelixError(self._problem(f"cannot be read: {_reason(error)}")) from error
        for name in (_SINGLE, _INDEX):
            if name in held:
                return path / name
        others = sorted(name for name in held if name.endswith(_WEIGHTS))
        message = f"a folder without {_SINGLE} or {_INDEX}" + (f"; it holds {few(others)}" if others else "")
        hint = "give a folder that transformers' save_pretrained wrote, or a safetensors file"
        raise HelixError(Diagnostic("HX507", message, hint, file=self.path))

    def _file(self, path: Path) -> Any:
        if path not in self._open:
            try:
                self._open[path] = safe_open(path, framework="pt")
            except (OSError, SafetensorError) as error:
                shown = "" if path == Path(self.path) else f"{path.name} "
                problem = self._problem(f"{shown}cannot be read as safetensors: {_reason(error)}")
                raise HelixError(problem) from error
        return self._open[path]

    def _problem(self, message: str) -> Diagnostic:
        return Diagnostic("HX507", message, file=self.path)


def few(names: Sequence[str]) -> str:
    """The first of some names, and how many more there are."""
    more = len(names) - _FEW
    return ", ".join(names[:_FEW]) + (f" and {more} more" if more > 0 else "")


def _weight_map(index: Path, shown: str) -> dict[str, str]:
    """The shard of every tensor.

    Raises:
        HelixError: HX507, the index cannot be read or is none.
    """
    problem = f"{index.name} cannot be read: "
    try:
        document = json.loads(index.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise HelixError(Diagnostic("HX507", problem + _reason(error), file=shown)) from error
    shards = document.get("weight_map") if isinstance(document, dict) else None
    if not isinstance(shards, dict) or not shards or not all(isinstance(shard, str) for shard in shards.values()):
        raise HelixError(Diagnostic("HX507", problem + "it has no weight_map of tensors to files", file=shown))
    return shards


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
