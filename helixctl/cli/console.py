"""How commands print for people: answers to standard output, everything else to standard error.

An answer is what a person ran the command for: a table, a verdict. Progress, warnings, errors and "wrote FILE" are not.
Where an artifact takes standard output (``-o -``), the answer moves to standard error, so that the artifact is whole.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


def answers(*artifacts: str | None) -> Console:
    """The console for what a command answers.

    Args:
        artifacts: the paths that the command writes to; ``-`` among them is standard output, which is then taken.
    """
    return _console(stderr="-" in artifacts)


def messages() -> Console:
    """The console for progress, warnings and what was written where: standard error."""
    return _console(stderr=True)


def say(lines: list[str], *artifacts: str | None) -> None:
    """Print lines of an answer as they are; ``artifacts`` as of ``answers``."""
    stderr = "-" in artifacts
    try:
        for line in lines:
            click.echo(line, err=stderr)
    except BrokenPipeError:
        _discard(stderr=stderr)


def wrote(path: str, what: str) -> None:
    """Say that a file was written, and what it holds; of standard output nothing is said."""
    if path != "-":
        click.echo(f"wrote {path}: {what}", err=True)


def _console(*, stderr: bool) -> Console:
    from rich.console import Console

    class Patient(Console):
        """Goes on in silence where the reader went away: a plan is still written after ``| head``."""

        def on_broken_pipe(self) -> None:
            self.quiet = True
            _discard(stderr=stderr)

    # Lines are never wrapped where nobody looks at a terminal.
    width = None if (sys.stderr if stderr else sys.stdout).isatty() else 240
    return Patient(stderr=stderr, highlight=False, width=width, soft_wrap=True)


def _discard(*, stderr: bool) -> None:
    """Let a stream that nobody reads any more lead nowhere, or the interpreter complains when it flushes."""
    stream = sys.stderr if stderr else sys.stdout
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


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
        messages().print(f"running: {what}")
        yield None
        return
    from rich.live import Live

    # Refreshed by hand: a thread of rich's would be there when the ranks are forked.
    with Live(what, console=messages(), auto_refresh=False, transient=True) as line:
        yield lambda phase, step: line.update(f"{what}: {phase}, step {min(step + 1, steps)}", refresh=True)
