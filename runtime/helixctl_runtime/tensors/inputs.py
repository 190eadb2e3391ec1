"""The input of a model in a file: token ids or hidden states, and what tokenizers write beside them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from functools import partial

import torch

from helixctl.dag import Tensor
from helixctl.dag.function import LENGTH
from helixctl.errors import Diagnostic, HelixError
from helixctl_runtime.tensors.stored_tensor import read_region, stored_as_is
from helixctl_runtime.tensors.tensor_files import FLOATS, TensorFiles

MASK, POSITIONS = "attention_mask", "position_ids"
_IDS = ("I64", "I32")
# Tensors that tokenizers and data sets write beside the ids, and that no forward pass of helixctl depends on.
_WITHOUT_EFFECT = frozenset({"labels", "length", "offset_mapping", "special_tokens_mask"})
_NO_POSITIONS = "positions are not read, and count from 0 in every sequence: leave them out where they do"
_ALONE = "give a file with the tensor {} alone"


@dataclass(frozen=True, slots=True)
class InputRules:
    """What the plan requires of an input file.

    Attributes:
        tensor: the input of the dag.
        vocabulary: the number of token ids; None if the model reads hidden states.
        causal: no token attends to a later one.
        last: the output is that of the last real token of every sequence.
        allowed: names of other tensors that the same file may hold, such as the weights.
    """

    tensor: Tensor
    vocabulary: int | None
    causal: bool
    last: bool = False
    allowed: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Findings:
    """The problems of an input file, and notes on the tensors that it holds beside the input."""

    problems: list[Diagnostic]
    notes: list[str]


class _Refused(Exception):  # noqa: N818  becomes a diagnostic
    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message, self.hint = message, hint


def inspect_input(files: TensorFiles, rules: InputRules) -> Findings:
    """Check that a file holds this input, and no other tensor that would change the result."""
    found = Findings([], [])
    try:
        names = files.names
        _apply(found, files, partial(_check, files, rules))
        for name in sorted(names.keys() - rules.allowed - {rules.tensor.name}):
            _apply(found, files, partial(_check_extra, files, name, rules))
    except HelixError as error:
        found.problems.extend(error.diagnostics)
    return found


def lengths(files: TensorFiles, batch: int, seq_len: int) -> torch.Tensor:
    """The number of real tokens of each sequence: from its attention mask or a tensor ``length``, else all.

    Args:
        files: the file of the input.
        batch: sequences of the input.
        seq_len: tokens of each, padding included.

    Returns:
        int64 of shape (batch,), each from 1 to ``seq_len``. The real tokens come first.

    Raises:
        HelixError: HX507, the mask is not one of padding on the right, or it contradicts the tensor ``length``.
    """
    try:
        found = _lengths(files, batch, seq_len)
        return _given_lengths(files, found, seq_len) if LENGTH in files.names else found
    except _Refused as error:
        raise HelixError(Diagnostic("HX507", error.message, error.hint, file=files.path)) from error


def read_ids(path: str, vocabulary: int) -> tuple[torch.Tensor, torch.Tensor, list[str]]:
    """Prompts that a file holds: token ids, int64 (batch, tokens), the length of each, int64 (batch), and notes.

    Args:
        path: a safetensors file with ``input_ids``, and ``attention_mask`` or ``length`` where they differ in length.
        vocabulary: how many token ids there are.

    Raises:
        HelixError: HX507, what is wrong with it.
    """
    with closing(TensorFiles(path)) as files:
        name = "input_ids"
        shape = files.shape(name) if name in files.names else ()
        if len(shape) != 2:  # noqa: PLR2004
            it_has = f"tensor {name} has shape {list(shape)}" if shape else f"tensor {name} is missing"
            raise HelixError(Diagnostic("HX507", f"{it_has}; prompts are (batch, tokens)", None, path))
        tensor = Tensor(name, "input", ("batch", "seq"), shape)
        found = inspect_input(files, InputRules(tensor, vocabulary, causal=True, last=True))
        if found.problems:
            raise HelixError(found.problems)
        return _read_all(files, name).long(), lengths(files, *shape), found.notes


def _apply(found: Findings, files: TensorFiles, check: Callable[[], str | None]) -> None:
    try:
        if note := check():
            found.notes.append(note)
    except _Refused as error:
        problem = Diagnostic("HX507", error.message, error.hint, file=files.path)
        if problem not in found.problems:  # positions depend on the mask
            found.problems.append(problem)


def _check(files: TensorFiles, rules: InputRules) -> None:
    tensor = rules.tensor
    if tensor.name not in files.names:
        raise _Refused(f"tensor {tensor.name} is missing")
    shape, dtype = files.shape(tensor.name), files.dtype(tensor.name)
    allowed = _IDS if rules.vocabulary else tuple(FLOATS)
    if shape != tensor.shape:
        raise _Refused(f"tensor {tensor.name} has shape {list(shape)}, the plan {list(tensor.shape)}")
    if dtype not in allowed:
        raise _Refused(f"tensor {tensor.name} is {dtype}; it must be one of {', '.join(allowed)}")
    if rules.vocabulary:
        ids = read_region(files, tensor, stored_as_is(tensor), tensor.full, torch.int64, torch.device("cpu"))
        for place in ((ids < 0) | (ids >= rules.vocabulary)).nonzero()[:1]:
            number, last = int(ids[tuple(place)]), rules.vocabulary - 1
            at = f"tensor {tensor.name} is {number} at {place.tolist()}"
            raise _Refused(f"{at}; the model's token ids are 0 to {last}")


def _check_extra(files: TensorFiles, name: str, rules: InputRules) -> str | None:
    """Check a tensor beside the input: it has no effect on the result, or it is refused; a note about it, if any."""
    size = dict(zip(rules.tensor.dims, rules.tensor.shape, strict=True))
    if name == MASK:
        return _mask(files, size["batch"], size["seq"], causal=rules.causal)
    if name == POSITIONS:
        return _positions(files, size["batch"], size["seq"])
    if name == LENGTH and rules.last:
        _given_lengths(files, _lengths(files, size["batch"], size["seq"]), size["seq"])
        return None
    if name in _WITHOUT_EFFECT:
        return f"{name} has no effect on the output"
    if name == "token_type_ids" and not _read_all(files, name).any():
        return f"{name} is 0 everywhere and has no effect"
    message = f"tensor {name} is not read, and may change the result"
    raise _Refused(message, _ALONE.format(rules.tensor.name))


def _mask(files: TensorFiles, batch: int, seq_len: int, *, causal: bool) -> str | None:
    padding = batch * seq_len - int(_lengths(files, batch, seq_len).sum())
    if not padding:
        return None
    if not causal:
        message = f"tensor {MASK} pads {padding} tokens; the model is not causal, so that all tokens would see them"
        raise _Refused(message, "run sequences of one length together, without padding")
    pads = f"{MASK} pads {padding} of {batch * seq_len} tokens on the right"
    return f"{pads}: no real token sees them, and their own output means nothing"


def _lengths(files: TensorFiles, batch: int, seq_len: int) -> torch.Tensor:
    if MASK not in files.names:
        return torch.full((batch,), seq_len, dtype=torch.int64)
    if (shape := files.shape(MASK)) != (batch, seq_len):
        message = f"tensor {MASK} has shape {list(shape)}; a mask of padding has that of the ids, {[batch, seq_len]}"
        raise _Refused(message, "other masks are not read: leave it out where it is the causal one")
    mask = _read_all(files, MASK)
    for place in ((mask != 0) & (mask != 1)).nonzero()[:1]:
        number = mask[tuple(place)].item()
        raise _Refused(f"tensor {MASK} is {number} at {place.tolist()}; it must be 0 or 1: 1 for real tokens")
    real = mask.bool()
    for place in (real[:, 1:] & ~real[:, :-1]).nonzero()[:1]:
        row, column = place.tolist()
        message = f"tensor {MASK} hides tokens before real ones: it is 0 at {[row, column]}, 1 at {[row, column + 1]}"
        hint = "no mask is applied: pad on the right (tokenizer.padding_side = 'right'), or run equal lengths together"
        raise _Refused(message, hint)
    for row in (~real.any(1)).nonzero()[:1]:
        raise _Refused(f"tensor {MASK} is 0 everywhere in sequence {int(row)}", "leave out the empty sequence")
    return real.sum(1)


def _given_lengths(files: TensorFiles, masked: torch.Tensor, seq_len: int) -> torch.Tensor:
    if (shape := files.shape(LENGTH)) != masked.shape or files.dtype(LENGTH) not in _IDS:
        it_is = f"tensor {LENGTH} is {files.dtype(LENGTH)} {list(shape)}"
        raise _Refused(f"{it_is}; it must be I64 or I32 {list(masked.shape)}")
    found = _read_all(files, LENGTH).long()
    for place in ((found < 1) | (found > seq_len)).nonzero()[:1]:
        raise _Refused(f"tensor {LENGTH} is {int(found[place])} at {place.tolist()}; it must be from 1 to {seq_len}")
    for place in ((found != masked) & (MASK in files.names)).nonzero()[:1]:
        message = f"tensor {LENGTH} is {int(found[place])} at {place.tolist()}, by {MASK} it is {int(masked[place])}"
        raise _Refused(message, "leave one of them out")
    return found


def _positions(files: TensorFiles, batch: int, seq_len: int) -> str | None:
    """Check that positions count from 0 in every sequence; those of padding have no effect."""
    shape = files.shape(POSITIONS)
    if shape not in {(seq_len,), (1, seq_len), (batch, seq_len)}:
        raise _Refused(f"tensor {POSITIONS} has shape {list(shape)}, the ids {[batch, seq_len]}", _NO_POSITIONS)
    found, due = _read_all(files, POSITIONS).to(torch.float64).expand(batch, seq_len), torch.arange(seq_len)
    real = due < _lengths(files, batch, seq_len)[:, None]
    for row, column in ((found != due) & real).nonzero()[:1].tolist():
        number = found[row, column].item()
        message = f"tensor {POSITIONS} is {number:g} at {[row, column]}, where the model counts {column}"
        raise _Refused(message, _NO_POSITIONS)
    return None


def _read_all(files: TensorFiles, name: str) -> torch.Tensor:
    return files.part(name, [(0, size) for size in files.shape(name)])
