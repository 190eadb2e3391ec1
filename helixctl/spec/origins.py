"""Where the fields of a model come from that was written in another format than ours."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from helixctl.records import record
from helixctl.spec.fields import dotted, shown
from helixctl.spec.overrides import Override
from helixctl.spec.yaml_reader import DocumentPath


@record
class Origin:
    """One field of ours and what gave its value.

    Attributes:
        field: the field's path in our document.
        source: a key of the file, or why there is none: "default of llama", "every llama".
        key: the path in the file at which to report an error of the field; empty for the file as a whole.
        value: the field's value.
    """

    field: tuple[str, ...]
    source: str
    key: DocumentPath
    value: Any

    def __str__(self) -> str:
        """``num_attention_heads -> attention.heads = 32``."""
        return f"{self.source} -> {dotted(self.field)} = {shown(self.value)}"


def after_overrides(origins: Sequence[Origin], overrides: Iterable[Override]) -> tuple[Origin, ...]:
    """The origins once ``--set`` had its say; fields that only ``--set`` gives come last."""
    found = {origin.field: origin for origin in origins}
    for item in overrides:
        key = found[item.path].key if item.path in found else ()
        found[item.path] = Origin(item.path, str(item), key, item.value)
    return tuple(found.values())
