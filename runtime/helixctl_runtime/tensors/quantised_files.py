"""Files with quantised weights, as if each were stored in floats: a box of one is dequantised when it is read."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import torch

from helixctl.errors import Diagnostic, HelixError
from helixctl.spec.gguf import is_gguf
from helixctl.spec.hugging_face import CONFIG_NAME, quantisation_beside
from helixctl.spec.hugging_face.features import QUANTISED
from helixctl.spec.hugging_face.quantised import IN_A_FILE_OF_ITS_OWN, Quantisation, quantisation_of
from helixctl_runtime.tensors.gguf_files import GgufFiles
from helixctl_runtime.tensors.quantised_matrix import LAYOUTS, QuantisedMatrix
from helixctl_runtime.tensors.tensor_files import FLOATS, TensorFiles

# Ends of names beside a weight that tell how activations and caches are scaled: nothing here computes with them.
_OF_ACTIVATIONS: Final = (
    ".input_scale",
    ".output_scale",
    ".k_scale",
    ".v_scale",
    ".activation_scale",
    ".weight_observer",
)
_NUMBERS: Final = tuple(dict.fromkeys(layout.numbers for layout in LAYOUTS.values()))
_BESIDE: Final = tuple(dict.fromkeys(end for its in LAYOUTS.values() for end in (*its.needed, *its.optional)))


class QuantisedFiles(TensorFiles):
    """As ``TensorFiles``, of a checkpoint whose config says how its weights are quantised."""

    def __init__(self, path: str, quantisation: Quantisation) -> None:
        """Store the arguments; no file is opened yet."""
        super().__init__(path)
        self.quantisation = quantisation
        self._stored = TensorFiles(path)

    @cached_property
    def names(self) -> dict[str, Path]:
        """The file of every tensor; of a quantised one that of its numbers."""
        hidden = {name for matrix in self._matrices.values() for name in matrix.members}
        hidden |= {name for name in self._stored.names if name.endswith(_OF_ACTIVATIONS)}
        found = {name: file for name, file in self._stored.names.items() if name not in hidden}
        files = self._stored.names
        return found | {name: files[its.base + its.numbers] for name, its in self._matrices.items()}

    @property
    def read_nbytes(self) -> int:
        """Bytes of stored tensors that were read so far, scales among them."""
        return self._stored.read_nbytes

    @read_nbytes.setter
    def read_nbytes(self, nbytes: int) -> None:
        """Nothing is read here: the base class begins at 0."""

    @cached_property
    def _matrices(self) -> dict[str, QuantisedMatrix]:
        """By the name that it would have in floats, every tensor that is quantised."""
        found: dict[str, QuantisedMatrix] = {}
        for name in self._stored.names:
            for end in _NUMBERS:
                base = name.removesuffix(end)
                if base == name or (end == ".weight" and self._stored.dtype(name) in FLOATS):
                    continue
                scheme = self.quantisation.scheme(base)
                layout = LAYOUTS.get(scheme.layout) if scheme else None
                if scheme and layout and layout.numbers == end:
                    matrix = layout(self._stored, base, scheme)
                    found[matrix.name] = matrix
        return found

    def problems(self) -> list[Diagnostic]:
        """Those of the files, and of what is stored beside quantised weights."""
        found = self._stored.problems()
        return found or [self._problem(text, self._hint) for text in self._wrong()]

    def _wrong(self) -> Iterator[str]:
        names = self._stored.names
        for matrix in self._matrices.values():
            yield from matrix.problems()
            others = [matrix.base + end for end in _BESIDE if matrix.base + end in names]
            if mixed := [name for name in others if name not in matrix.members]:
                layout = matrix.scheme.layout
                yield f"tensor {matrix.base + matrix.numbers} is stored as {layout} says, and beside it is {mixed[0]}"
        known = {matrix.base for matrix in self._matrices.values()}
        for name in names:
            base = next((name.removesuffix(end) for end in (*_NUMBERS, *_BESIDE) if name.endswith(end)), None)
            if base is None or base in known or (name.endswith(".weight") and self._stored.dtype(name) in FLOATS):
                continue
            scheme = self.quantisation.scheme(base)
            if scheme is None:
                yield f"tensor {name} is of a quantised weight, and the config leaves {base} as it is"
            elif scheme.layout not in LAYOUTS:
                yield f"tensor {name} is stored as {scheme.layout}, which is not read"
            else:
                numbers = f"{base}{LAYOUTS[scheme.layout].numbers}"
                yield f"tensor {name}: {numbers} is missing, its numbers as {scheme.layout}"

    @property
    def _hint(self) -> str:
        return f"the config says that weights are quantised by {self.quantisation.method}"

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor as if it were stored in floats."""
        its = self._matrices.get(name)
        return its.shape if its else self._stored.shape(name)

    def dtype(self, name: str) -> str:
        """The dtype of a stored tensor; of a quantised one that in which it is dequantised."""
        return "F32" if name in self._matrices else self._stored.dtype(name)

    def nbytes(self, name: str) -> int:
        """Bytes of a stored tensor, of a quantised one with its scales."""
        its = self._matrices.get(name)
        return its.nbytes if its else self._stored.nbytes(name)

    def part(self, name: str, ranges: Sequence[tuple[int, int]]) -> torch.Tensor:
        """A box of a tensor, dequantised if it is quantised."""
        its = self._matrices.get(name)
        return its.part(ranges) if its else self._stored.part(name, ranges)

    def close(self) -> None:
        """Close all files; a later use opens them again."""
        self._stored.close()


def files_of(path: str) -> TensorFiles:
    """The tensors under a path: dequantised as they are read where a config, or a GGUF file, says how they are stored.

    Raises:
        HelixError: HX507, the config's quantisation is not known.
    """
    if is_gguf(path):
        return GgufFiles(path)
    where = Path(path)
    config = (where if where.is_dir() else where.parent) / CONFIG_NAME
    quantisation = _quantisation(config)
    return TensorFiles(path) if quantisation is None else QuantisedFiles(path, quantisation)


def _quantisation(config: Path) -> Quantisation | None:
    data = _mapping(config)
    texts = [data, *(its for key in ("text_config", "llm_config") if isinstance(its := data.get(key), dict))]
    said = [(its, key) for its in texts for key in QUANTISED if its.get(key)]
    beside = quantisation_beside(str(config))
    if not said and beside:
        said = [(_mapping(beside), IN_A_FILE_OF_ITS_OWN)]
    if not said:
        return None
    found, wrong = quantisation_of(*said[0])
    if wrong:
        hint = "give the checkpoint that it was made of"
        raise HelixError([Diagnostic("HX507", item.message, hint, file=str(config)) for item in wrong])
    return found


def _mapping(path: Path) -> dict[str, Any]:
    """What a JSON file holds; nothing where it is not there, or is no mapping: what reads configs says so."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
