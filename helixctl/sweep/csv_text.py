"""A sweep as CSV: a row for every point, its figures in base units."""

from __future__ import annotations

import csv
import io
from typing import Final

from helixctl.sweep.document import Point, Sweep

# Every field of a point but its axes, which have no one column.
COLUMNS: Final = tuple(name for name in Point.model_fields if name != "layout")


def csv_text(sweep: Sweep) -> str:
    """The rows with a header; what a point has not is empty, and lines end as RFC 4180 has it."""
    stream = io.StringIO()
    rows = csv.writer(stream)
    rows.writerow(COLUMNS)
    for point in sweep.points:
        rows.writerow(["" if (value := getattr(point, name)) is None else value for name in COLUMNS])
    return stream.getvalue()
