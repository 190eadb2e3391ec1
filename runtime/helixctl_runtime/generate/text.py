"""Text: prompts to token ids and back, by the tokenizer.json of a model's folder (the ``tokenizers`` library)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import torch

from helixctl.errors import Diagnostic, HelixError, fail
from helixctl_runtime.generate.loop import Prompts

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_FILE = "tokenizer.json"
_INCOMPLETE = "�"  # what a part of a character's bytes is decoded to


def tokenizer_file(weights: str) -> str:
    """The tokenizer.json beside the weights.

    Raises:
        HelixError: HX507, there is none.
    """
    path = Path(weights)
    found = (path if path.is_dir() else path.parent) / _FILE
    if not found.is_file():
        hint = "give --weights the folder of a Hugging Face model, or token ids with --input"
        raise HelixError(Diagnostic("HX507", f"there is no {_FILE}, which turns text into tokens", hint, str(path)))
    return str(found)


def tokenizer(path: str) -> Tokenizer:
    """Read a tokenizer.json.

    Raises:
        HelixError: HX501, the library is not installed; HX507, the file cannot be read.
    """
    try:
        from tokenizers import Tokenizer
    except ModuleNotFoundError as error:
        hint = "in the clone of helixctl: pip install '.[text]'"
        raise fail("HX501", f"{error.name} is not installed", hint) from error
    try:
        return Tokenizer.from_file(path)
    except Exception as error:
        raise HelixError(Diagnostic("HX507", f"cannot be read: {error}", None, path)) from error


def encoded(path: str, texts: Sequence[str], *, whole: bool = False) -> Prompts:
    """Texts as token ids.

    Args:
        path: of the tokenizer.json.
        texts: the prompts.
        whole: they have all special tokens already; else those are added that the tokenizer puts around a text.

    Raises:
        HelixError: as ``tokenizer``; HX507, a text has no token.
    """
    made = tokenizer(path)
    rows = [made.encode(text, add_special_tokens=not whole).ids for text in texts]
    for text, row in zip(texts, rows, strict=True):
        if not row:
            raise HelixError(Diagnostic("HX507", f"the prompt {text!r} has no token", "give some text", path))
    lengths = torch.tensor([len(row) for row in rows])
    ids = torch.zeros(len(rows), int(lengths.max()), dtype=torch.int64)
    for row, its in zip(rows, ids, strict=True):
        its[: len(row)] = torch.tensor(row)
    return Prompts(ids, lengths)


def decoded(path: str, rows: Sequence[Sequence[int]]) -> list[str]:
    """Tokens as text, without special tokens; -1, behind the end of a sequence, is none."""
    made = tokenizer(path)
    return [_text(made, [token for token in row if token >= 0]) for row in rows]


def _text(made: Tokenizer, tokens: list[int]) -> str:
    return made.decode(tokens, skip_special_tokens=True)


def ends_of(weights: str) -> tuple[int, ...]:
    """The tokens that end a sequence, by the generation_config.json or the config.json beside the weights."""
    path = Path(weights)
    folder = path if path.is_dir() else path.parent
    for name in ("generation_config.json", "config.json"):
        try:
            found: Any = json.loads((folder / name).read_text(encoding="utf-8")).get("eos_token_id")
        except (OSError, ValueError, AttributeError):
            continue
        if found is not None:
            return tuple(found) if isinstance(found, list) else (int(found),)
    return ()


class Printer:
    """Prints the text of the first prompt as its tokens come."""

    def __init__(self, path: str, stream: TextIO, head: str = "") -> None:
        """Print nothing yet.

        Args:
            path: of the tokenizer.json.
            stream: where to.
            head: what stands ahead of the text, printed with its first token.
        """
        self._tokenizer, self._stream, self._head = tokenizer(path), stream, head
        self._tokens: list[int] = []
        self._printed = ""

    def add(self, token: torch.Tensor) -> None:
        """Print what a step's tokens, int64 (batch), add to the first text; half a character waits for its rest."""
        if int(token[0]) < 0:
            return
        self._tokens.append(int(token[0]))
        text = _text(self._tokenizer, self._tokens)
        if not text.endswith(_INCOMPLETE):
            self._print(text)

    def end(self) -> None:
        """Print what waits for a rest that has not come."""
        self._print(_text(self._tokenizer, self._tokens))

    def _print(self, text: str) -> None:
        if not text.startswith(self._printed):
            return
        with suppress(BrokenPipeError):  # nobody reads any more; the tokens go on
            self._stream.write(self._head + text[len(self._printed) :])
            self._stream.flush()
        self._head, self._printed = "", text
