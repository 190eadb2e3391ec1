"""The columns that every table of layouts has: the layout and its verdict, and what a narrow one leaves of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from helixctl.cli.tables import Column, Table
from helixctl.plan.terms import letters, short
from helixctl.solve import Row

LAYOUT: Final = Column("layout", short=1, fold=10, least=12, key=letters)
# What is left out of a short verdict begins with this.
_CAUSE: Final = re.compile(r":|;| \(|, but")
VERDICT: Final = Column("verdict", fold=2, least=48, short=7)


def add_row(made: Table, row: Row, figures: Sequence[str]) -> None:
    """Add a layout: a star before the chosen one, its name, the figures, and the verdict on it.

    In short, a verdict is what stands before its cause: "1.14 x slower".
    """
    layout = row.candidate.layout
    made.add_row(
        "*" if row.chosen else "",
        (str(layout), short(layout)),
        *figures,
        (row.verdict, _CAUSE.split(row.verdict)[0]),
        style="bold" if row.chosen else None,
    )
