"""An upper bound of the width of a text, so that every label fits its box without a browser or a font file.

The widths are those of DejaVu Sans, the widest of the usual sans-serif fonts, rounded up: a text that fits with them
also fits in Helvetica, Arial, Segoe UI, Roboto or Liberation Sans. ``tests/emit/test_layouts.py`` compares them with a
browser.
"""

from __future__ import annotations

from functools import lru_cache
from math import ceil
from typing import Final

# Width in hundredths of the font's size -> the characters that are at most as wide. Any other character has _OTHER.
_REGULAR: Final = {
    30: "'ijlIJ",
    37: " ,./|:;\\f-",
    42: "()[]t!r",
    53: '"*_`sz',
    56: "cL?",
    62: "FkvxyPTYaoe",
    64: "ESbdghnpqu$0123456789{}",
    70: "KAVBRXZC",
    79: "UHNDG&OQ",
    87: "w#+<=>^~M",
    100: "%mW@",
}
_BOLD: Final = {
    36: "'ijl ",
    44: "/IJ\\|,.:;-f",
    53: '!()[]tr_`"*',
    66: "?zcsLvxy",
    74: "akEFTeohnu{}$0123456789SYbdgpqCPZ",
    86: "BAKRVXUGDOQ#+<=>HN^~",
    111: "&w%@MmW",
}
_OTHER: Final = 111
_ELLIPSIS: Final = "\u2026"


def _widths(classes: dict[int, str]) -> dict[str, int]:
    return {character: width for width, characters in classes.items() for character in characters}


_TABLES: Final = {False: _widths(_REGULAR), True: _widths(_BOLD)}


@lru_cache(maxsize=4096)
def text_width(text: str, size: int, *, bold: bool = False) -> int:
    """An upper bound of the width of a line of text, in pixels, in a font of ``size`` pixels."""
    table = _TABLES[bold]
    return ceil(sum(table.get(character, _OTHER) for character in text) * size / 100)


def fit(text: str, width: int, size: int, *, bold: bool = False) -> str:
    """The text, or the longest beginning of it that fits with an ellipsis.

    Args:
        text: the text.
        width: the width to fit, in pixels.
        size: the size of the font, in pixels.
        bold: the font is bold.
    """
    if text_width(text, size, bold=bold) <= width:
        return text
    kept = text
    while kept and text_width(kept + _ELLIPSIS, size, bold=bold) > width:
        kept = kept[:-1]
    return kept.rstrip() + _ELLIPSIS
