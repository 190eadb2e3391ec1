"""dag -> a file for people or programs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from helixctl.dag import Dag
from helixctl.emit.dot import dot, render_dot
from helixctl.emit.graphml import graphml
from helixctl.emit.html import html
from helixctl.emit.signature import with_signature
from helixctl.emit.svg import svg

_WRITERS: Final[dict[str, Callable[[Dag, int | None], str | bytes]]] = {
    "html": html,
    "svg": svg,
    "dot": dot,
    "png": lambda dag, layer: with_signature(render_dot(dot(dag, layer), "png"), "png"),
    "pdf": lambda dag, layer: with_signature(render_dot(dot(dag, layer), "pdf"), "pdf"),
    "graphml": graphml,
    "json": lambda dag, _: dag.to_json(),
}
FORMATS: Final = tuple(_WRITERS)


def emit(dag: Dag, output_format: str, layer: int | None = None) -> str | bytes:
    """A proved dag as the content of a file: text, or bytes for png and pdf.

    Args:
        dag: the dag.
        output_format: one of ``FORMATS``.
        layer: draw this layer only; None draws all. json is the document and always whole.

    Raises:
        HelixError: HX512, Graphviz is missing (png and pdf).
    """
    return _WRITERS[output_format](dag, layer)


__all__ = ["FORMATS", "emit"]
