"""From a path inside a document to its line and column. It reads the text again, so only where there is an error."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

from helixctl.errors import HelixError
from helixctl.spec.json_slips import position_at
from helixctl.spec.json_text import JsonCursor
from helixctl.spec.limits import MAX_YAML
from helixctl.spec.yaml_reader import DocumentPath, Place, Position, YamlReader


def locate(text: str, paths: Iterable[DocumentPath]) -> dict[DocumentPath, Place]:
    """The places of paths and of all that encloses them, in YAML or JSON. Paths that the text lacks are absent."""
    wanted = {path[:length] for path in paths for length in range(len(path) + 1)}
    if text.lstrip()[:1] == "{":
        with suppress(HelixError):  # it is YAML's flow style
            return _Located(text, wanted).places()
    if len(text) > MAX_YAML:
        return {}
    reader = YamlReader(text, wanted)
    with suppress(HelixError):  # what stands before an error is found all the same
        reader.read()
    return reader.places


class _Located:
    """The offsets of wanted paths in a text of JSON. Nothing is looked into that holds none of them."""

    def __init__(self, text: str, wanted: set[DocumentPath]) -> None:
        self._cursor = JsonCursor(text)
        self._missing = set(wanted)
        self._inner = {path[:-1] for path in wanted if path}
        self._found: dict[DocumentPath, tuple[int | None, int]] = {}

    def places(self) -> dict[DocumentPath, Place]:
        self._visit((), None)
        text = self._cursor.text

        def place(key: int | None, value: int) -> Place:
            return Place(None if key is None else position_at(text, key), position_at(text, value))

        return {path: place(*offsets) for path, offsets in self._found.items()}

    def _visit(self, path: DocumentPath, key: int | None) -> None:
        """Pass the value that is next; stop in it once all is found."""
        cursor, sign = self._cursor, self._cursor.space()
        wanted = path in self._missing
        if wanted:
            self._found[path] = (key, cursor.at)
            self._missing.discard(path)
        if not self._missing:
            return
        if path not in self._inner or sign not in {"{", "["}:
            cursor.value()
        elif sign == "{":
            for name, at in cursor.members():
                self._visit((*path, name), at)
                if not self._missing:
                    return
        else:
            for index in cursor.items():
                self._visit((*path, index), None)
                if not self._missing:
                    return
        if wanted:  # a path that begins so and is not found yet is not in the text
            self._missing = {other for other in self._missing if other[: len(path)] != path}


def position(places: dict[DocumentPath, Place], path: DocumentPath, *, of_key: bool) -> Position | None:
    """The place of a path, or of the nearest of what encloses it."""
    for length in range(len(path), -1, -1):
        place = places.get(path[:length])
        if place is not None:
            # What encloses the path begins where its key does: a block's own first line is its first child's.
            at_key = of_key or length < len(path)
            return place.key if at_key and place.key else place.value
    return None
