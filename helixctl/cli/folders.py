"""The documents in a folder: every JSON and YAML file below it that is one of ours, told by name and content.

A folder holds other files too, so more is asked of a file in it than of one that is named: a stray ``layers`` does not
make a model. What says that it is ours and cannot be read is still an error, never passed over. A Hugging Face config
is written for others: one of a model that is not modelled is not ours.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import PurePath
from typing import Final

from helixctl.documents import Source, read_mapping
from helixctl.errors import Diagnostic, HelixError
from helixctl.spec.hugging_face import CONFIG_NAME
from helixctl.spec.limits import MAX_NBYTES
from helixctl.spec.load import HUGGING_FACE_KEYS, TELLING_KEYS, document_kind, read_text

_SUFFIXES: Final = {".json", ".yaml", ".yml"}
_FOREIGN: Final = {"node_modules", "__pycache__"}
_NAMED: Final = {f".{kind}" for kind in TELLING_KEYS}  # x.plan.json
_URN: Final = re.compile(r"""\$schema["']?\s*:\s*["']?urn:helixctl:""")
_HEAD: Final = 4096  # characters in which a document of ours says its $schema


def files_below(folder: str, problems: list[Diagnostic], exclude: Sequence[str] = ()) -> Iterator[str]:
    """The JSON and YAML files below a folder, in a fixed order; hidden files and folders are left alone.

    Args:
        folder: where to look.
        problems: takes an HX101 for every folder that cannot be read.
        exclude: patterns of files and folders to leave out.
    """
    for place, folders, files in os.walk(folder, onerror=lambda error: problems.append(_unreadable(error))):

        def stays(name: str, place: str = place) -> bool:
            path = os.path.join(place, name)  # noqa: PTH118
            return not name.startswith(".") and not _excluded(path, folder, exclude)

        folders[:] = sorted(name for name in folders if name not in _FOREIGN and stays(name))
        for name in sorted(files):
            if PurePath(name).suffix.lower() in _SUFFIXES and stays(name) and _may_be_read(place, name):
                yield os.path.join(place, name)  # noqa: PTH118  as the user wrote it: "./x" stays "./x"


def _may_be_read(place: str, name: str) -> bool:
    """Whether it is a file: no pipe, and no link that leads nowhere, unless its name says that it is one of ours."""
    path = os.path.join(place, name)  # noqa: PTH118
    return os.path.isfile(path) or (_is_named(name) and not os.path.exists(path))  # noqa: PTH110, PTH113


def _is_named(file: str) -> bool:
    return PurePath(PurePath(file).stem).suffix.lower() in _NAMED


def _excluded(path: str, folder: str, patterns: Sequence[str]) -> bool:
    """Whether a pattern fits: its name, its path from the folder, or its path as the user wrote it."""
    names = (os.path.basename(path), os.path.relpath(path, folder), os.path.normpath(path))  # noqa: PTH119
    wanted = [os.path.normpath(pattern) for pattern in patterns]
    return any(fnmatchcase(PurePath(name).as_posix(), pattern) for name in names for pattern in wanted)


def is_of_others(source: Source, error: HelixError) -> bool:
    """Whether a document that was found in a folder is a Hugging Face config of a model that is not modelled.

    Args:
        source: the document.
        error: what is wrong with it.
    """
    config = source.kind == "model" and bool(HUGGING_FACE_KEYS & source.data.keys())
    return config and any(finding.code in {"HX111", "HX112"} for finding in error.diagnostics)


def read_in_folder(file: str) -> Source | None:
    """The document that a file of a folder is; None where it is none of ours.

    Raises:
        HelixError: it is one of ours, and cannot be read; or nobody can say, since it may not be read.
    """
    named = _is_named(file)
    try:
        text = read_text(file, dags=True)
    except HelixError:
        if named or not os.access(file, os.R_OK):
            raise
        return None  # too large for us, or no text
    if not named and not _says_so(text, PurePath(file).name == CONFIG_NAME):
        return None
    data = read_mapping(text, file)
    try:
        return Source(file, text, data, document_kind(data, file))
    except HelixError as error:
        if any(d.code != "HX110" for d in error.diagnostics):
            raise
        return None


def _says_so(text: str, config: bool) -> bool:
    """Whether a text says what it is: by its ``$schema``, or by all the keys that tell a kind."""
    if len(text) > MAX_NBYTES or _URN.search(text, 0, _HEAD):  # what is so long was read because it is a dag
        return True
    sets = [*TELLING_KEYS.values(), HUGGING_FACE_KEYS, *({key} for key in HUGGING_FACE_KEYS if config)]
    likely = [keys for keys in sets if all(key in text for key in keys)]
    if not likely:
        return False  # most files of others: not worth parsing
    if not text.lstrip().startswith("{"):
        return any(all(_begins_a_line(key, text) for key in keys) for keys in likely)
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):  # a slip in it must not hide a document of ours
        return any(all(f'"{key}"' in text for key in keys) for keys in likely)
    return isinstance(data, dict) and any(keys <= data.keys() for keys in likely)


def _begins_a_line(key: str, text: str) -> bool:
    """Whether a YAML text has this key at its top level."""
    return re.search(rf"""^["']?{key}["']?\s*:""", text, re.MULTILINE) is not None


def _unreadable(error: OSError) -> Diagnostic:
    reason = (error.strerror or str(error)).lower()
    return Diagnostic("HX101", f"cannot be read: {reason}", file=error.filename)
