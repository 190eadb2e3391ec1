"""From a path inside a document to its line and column. It reads the text again, so only where there is an error."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import suppress

from helixctl.errors import HelixError
from helixctl.spec.limits import MAX_YAML
from helixctl.spec.yaml_reader import DocumentPath, Place, Position, YamlReader


def locate(text: str, paths: Iterable[DocumentPath]) -> dict[DocumentPath, Place]:
    """The places of paths and of all that encloses them, in YAML or JSON. Paths that the text lacks are absent.

    Of a long text, which only a dag is, the places of the rows of its tables.
    """
    if len(text) > MAX_YAML:
        return dict(_rows(text, {path[:2] for path in paths}))
    wanted = {path[:length] for path in paths for length in range(len(path) + 1)}
    reader = YamlReader(text, wanted)
    # Some valid JSON is not quite YAML, such as "\ud83d\ude00": what stands before it is found all the same.
    with suppress(HelixError):
        reader.read()
    return reader.places


def _rows(text: str, rows: Iterable[DocumentPath]) -> Iterator[tuple[DocumentPath, Place]]:
    """The places of rows of tables, where they stand one on a line, as helixctl writes them."""
    for row in rows:
        match row:
            case (str(table), int(index)) if begin := re.search(rf'^"{re.escape(table)}": ?\[\n', text, re.MULTILINE):
                line = text.count("\n", 0, begin.end()) + 1 + index
                yield row, Place(None, (line, 1))


def position(places: dict[DocumentPath, Place], path: DocumentPath, *, of_key: bool) -> Position | None:
    """The place of a path, or of the nearest of what encloses it."""
    for length in range(len(path), -1, -1):
        place = places.get(path[:length])
        if place is not None:
            # What encloses the path begins where its key does: a block's own first line is its first child's.
            at_key = of_key or length < len(path)
            return place.key if at_key and place.key else place.value
    return None
