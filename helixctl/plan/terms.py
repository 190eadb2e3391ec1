"""A layout in few words: in those of other programs, and short for narrow tables."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from helixctl.plan.layout import Layout
from helixctl.units import counted

# What the letters of ``short`` stand for.
_LETTERS: Final = {
    "DP": "replicas",
    "PP": "pipeline stages",
    "EP": "ways that experts are spread",
    "sh": "replicas that share experts",
    "mb": "microbatches",
    "il": "microbatches in turn",
}
_LETTER: Final = re.compile(r"\b([A-Za-z]{2})\d")


def in_field_terms(layout: Layout) -> str:
    """Sizes of parallelism: ``TP 8 (2 groups x 4 key slices) x PP 2 x DP 4``; ``one device`` where nothing is cut.

    TP is what groups and slices make together: the devices that work on one layer. How its experts are spread, EP,
    stands beside it, as it takes the same devices, or beside the replicas that share them: ``DP 32 (EP 8 over 8)``.
    """
    within = []
    if layout.slices > 1:
        within.append(f"{counted(layout.groups, 'group')} x {layout.slices} {layout.slicing} slices")
    if layout.experts > 1 and layout.expert_data == 1:
        within.append(f"EP {layout.experts}")
    parts = []
    if layout.partitions > 1:
        parts.append(f"TP {layout.partitions}" + (f" ({', '.join(within)})" if within else ""))
    parts += [f"PP {layout.pipeline}"] if layout.pipeline > 1 else []
    if layout.data > 1:
        shared = f" (EP {layout.experts} over {layout.expert_data})" if layout.expert_data > 1 else ""
        parts.append(f"DP {layout.data}{shared}")
    return " x ".join(parts) or "one device"


def short(layout: Layout) -> str:
    """``2 x 4 key DP2 PP2 mb4 il2 reduce``: all that ``str`` says, in short words; docs/glossary.md has them."""
    fields = type(layout).model_fields
    words = {
        "slicing": layout.slicing,
        "experts": f"EP{layout.experts}",
        "data": f"DP{layout.data}",
        "expert_data": f"sh{layout.expert_data}",
        "pipeline": f"PP{layout.pipeline}",
        "microbatches": f"mb{layout.microbatches}",
        "interleave": f"il{layout.interleave}",
        "combine": layout.combine,
        "gather_order": layout.gather_order,
        "residual": layout.residual,
        "placement": layout.placement,
        "reduction_dtype": f"sums-in-{layout.reduction_dtype}",
        "key_block": f"blocks-of-{layout.key_block}",
        "stages": f"layers-{layout.stages}",
        "batch_shares": f"sequences-{layout.batch_shares}",
        "group_shares": f"groups-{layout.group_shares}",
        "latent_prefill": layout.latent_prefill,
        "key_prefill": f"prefill-by-{layout.key_prefill}",
    }
    apart = [text for name, text in words.items() if getattr(layout, name) != fields[name].default]
    return " ".join([f"{layout.groups} x {layout.slices}", *apart])


def letters(texts: Sequence[str]) -> str:
    """``DP replicas, mb microbatches``: what the letters in some short forms stand for."""
    used = {found for text in texts for found in _LETTER.findall(text)}
    return ", ".join(f"{letter} {meaning}" for letter, meaning in _LETTERS.items() if letter in used)
