"""The index of a sharded checkpoint: which file holds which tensor."""

from __future__ import annotations

import json
from pathlib import Path

from helixctl.errors import Diagnostic, HelixError
from helixctl_runtime.tensors.file_type import identify


def weight_map(index: Path, shown: str) -> dict[str, Path]:
    """The shard of every tensor.

    Args:
        index: the file.
        shown: the path as the user gave it, for messages.

    Raises:
        HelixError: HX507, the index cannot be read, is not an index, or names a file outside its folder.
    """
    problem = f"{index.name} cannot be read: "
    try:
        document = json.loads(index.read_bytes(), object_pairs_hook=_once)
    except (OSError, ValueError, RecursionError) as error:
        found = identify(index)
        if found.what and found.what != "JSON":
            raise HelixError(Diagnostic("HX507", f"{index.name} is {found.what}", found.hint, file=shown)) from error
        raise HelixError(Diagnostic("HX507", problem + reason(error), file=shown)) from error
    shards = document.get("weight_map") if isinstance(document, dict) else None
    if not isinstance(shards, dict) or not shards or not all(isinstance(shard, str) for shard in shards.values()):
        raise HelixError(Diagnostic("HX507", problem + "it has no weight_map of tensors to files", file=shown))
    for name, shard in shards.items():
        if not _is_name(shard):
            message = f"{index.name} says that tensor {name} is in {shard!r}, which is not the name of a file beside it"
            hint = "put all shards into the folder of the index, and their names into it"
            raise HelixError(Diagnostic("HX507", message, hint, file=shown))
    return {name: index.parent / shard for name, shard in shards.items()}


def reason(error: Exception) -> str:
    """Why a file cannot be read."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _is_name(shard: str) -> bool:
    """Whether this is a plain file name on any system; the file may be a link, as in the cache of Hugging Face."""
    return shard not in {"", ".", ".."} and not set(shard) & set("/\\:\0")


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """A JSON object; a duplicate key is refused, because json would take its last value."""
    found: dict[str, object] = {}
    for key, value in pairs:
        if key in found:
            message = f"{key!r} stands there twice"
            raise ValueError(message)
        found[key] = value
    return found
