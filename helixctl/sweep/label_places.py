"""Where labels stand beside points so that none lies on another label or on a point.

Vega-Lite has no such placing. The plot's size and its scales are known, so pixels are counted here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple


class Side(NamedTuple):
    """A side of a point: where a label begins, in pixels from it, and how it is aligned."""

    dx: int
    dy: int
    align: str


# The first that is free is taken. y grows downwards.
SIDES: Final = (
    Side(9, -7, "left"),
    Side(-9, 9, "right"),
    Side(9, 9, "left"),
    Side(-9, -7, "right"),
    Side(9, -20, "left"),
    Side(-9, 22, "right"),
)
LETTER: Final = 5.6  # pixels, of a label's letters
HEIGHT: Final = 11
_POINT: Final = 5


class Box(NamedTuple):
    """A rectangle in pixels."""

    left: float
    top: float
    right: float
    bottom: float

    def meets(self, other: Box) -> bool:
        """Whether both have a pixel in common."""
        return (
            self.left < other.right and other.left < self.right and self.top < other.bottom and other.top < self.bottom
        )


def placed(
    wanted: Sequence[tuple[float, float, str]], points: Sequence[tuple[float, float]], width: float, height: float
) -> list[int | None]:
    """The side of each label, as an index of ``SIDES``; None where none is free.

    Args:
        wanted: of each label its point, in pixels, and its text; the first ones are placed first.
        points: all points, which no label may cover.
        width: of the plot, in pixels.
        height: of the plot, in pixels.
    """
    taken = [Box(x - _POINT, y - _POINT, x + _POINT, y + _POINT) for x, y in points]
    found: list[int | None] = []
    for x, y, text in wanted:
        boxes = [_box(x, y, text, side) for side in SIDES]
        free = (
            n
            for n, box in enumerate(boxes)
            if box.left >= 0 and box.top >= 0 and box.right <= width and box.bottom <= height
            if not any(box.meets(other) for other in taken)
        )
        side = next(free, None)
        found.append(side)
        if side is not None:
            taken.append(boxes[side])
    return found


def _box(x: float, y: float, text: str, side: Side) -> Box:
    width, middle = LETTER * len(text), y + side.dy
    left = x + side.dx if side.align == "left" else x + side.dx - width
    return Box(left, middle - HEIGHT / 2, left + width, middle + HEIGHT / 2)
