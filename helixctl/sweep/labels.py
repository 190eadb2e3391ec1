"""A layout in a few words, in the field's terms: ``TP 8, DP 2``."""

from __future__ import annotations

from typing import Final

from helixctl.plan import Layout

_SLICINGS: Final = {"head_dim": "dims", "batch": "batch", "query": "rows", "key": "keys"}


def short(layout: Layout) -> str:
    """The axes that say on how many devices a layout lies, and how: ``TP 8, PP 2, mb 4``, ``8 x 2 keys, DP 2``.

    With slices it has groups x slices and what the slices share. The axes that only say how tensors are exchanged are
    left out; ``str(layout)`` has all.
    """
    words = [f"TP {layout.groups}"]
    if layout.slices > 1:
        words = [f"{layout.groups} x {layout.slices} {_SLICINGS[layout.slicing]}"]
    elif layout.groups == 1 and layout.devices > 1:
        words = []
    for word, ways in (("DP", layout.data), ("PP", layout.pipeline), ("EP", layout.experts)):
        if ways > 1:
            words.append(f"{word} {ways}")
    if layout.microbatches > 1:
        words.append(f"mb {layout.microbatches}")
    return ", ".join(words)
