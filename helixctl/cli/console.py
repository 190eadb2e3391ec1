"""How commands print for people: to standard error, with colour only where it helps (rich knows when)."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


def console(*, stderr: bool = True) -> Console:
    """A console on standard error, or output; lines are never wrapped where nobody looks at a terminal."""
    from rich.console import Console

    width = None if (sys.stderr if stderr else sys.stdout).isatty() else 240
    return Console(stderr=stderr, highlight=False, width=width, soft_wrap=True)


def table(*columns: str) -> Table:
    """A table without lines; a column whose name starts with ``>`` is set to the right."""
    from rich.table import Table

    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name in columns:
        made.add_column(name.lstrip(">"), justify="right" if name.startswith(">") else "left", overflow="fold")
    return made


@contextmanager
def progress(what: str, steps: int, *, live: bool) -> Iterator[Callable[[str, int], None] | None]:
    """Show how far a run is: a live line on a terminal, one plain line elsewhere, and where others write there too."""
    if not live or not sys.stderr.isatty():
        console().print(f"running: {what}")
        yield None
        return
    from rich.live import Live

    # Refreshed by hand: a thread of rich's would be there when the ranks are forked.
    with Live(what, console=console(), auto_refresh=False, transient=True) as line:
        yield lambda phase, step: line.update(f"{what}: {phase}, step {min(step + 1, steps)}", refresh=True)
