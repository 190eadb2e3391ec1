"""How commands print for people: answers to standard output, everything else to standard error.

An answer is what a person ran the command for: a table, a verdict. Progress, warnings, errors and "wrote FILE" are not.
Where an artifact takes standard output (``-o -``), the answer moves to standard error, so that the artifact is whole.

Lines fit the terminal: tables give up columns, sentences go on in the next line, and no word is broken. What is no
terminal gets every column, and every sentence on one line, unless the variable COLUMNS says how wide it is.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from textwrap import wrap
from typing import TYPE_CHECKING, Any, Final, Literal

import click

from helixctl.cli.tables import Column, Table
from helixctl.output import cannot_write

if TYPE_CHECKING:
    from rich.console import Console

_WIDEST: Final = 140  # longer lines of a text are hard to read, on however wide a terminal
_USUAL: Final = 80  # where a terminal does not say its width


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
    """Print lines of an answer; ``artifacts`` as of ``answers``."""
    stderr = "-" in artifacts
    with _writing(stderr=stderr):
        for line in lines:
            click.echo(fitted(line, stderr=stderr), err=stderr)


def tell(text: str) -> None:
    """Print a message, a warning or an error on standard error."""
    with _writing(stderr=True):
        click.echo(fitted(text, stderr=True), err=True)


def wrote(path: str, what: str) -> None:
    """Say that a file was written, and what it holds; of standard output nothing is said."""
    if path != "-":
        tell(f"wrote {path}: {what}")


def width_of(*, stderr: bool) -> int | None:
    """How many letters a line of standard output or standard error may have; None: however many."""
    told = os.environ.get("COLUMNS", "")
    if told.isdecimal() and int(told):
        return int(told)
    stream = sys.stderr if stderr else sys.stdout
    try:
        return (os.get_terminal_size(stream.fileno()).columns or _USUAL) if stream.isatty() else None
    except (OSError, ValueError, AttributeError):  # closed, or nothing that has a number
        return None


def fitted(text: str, *, stderr: bool) -> str:
    """A text in lines that fit the terminal, no word broken; what goes on is set in by two blanks."""
    width = width_of(stderr=stderr)
    if width is None:
        return text
    width = min(width, _WIDEST)
    return "\n".join(part for line in text.split("\n") for part in _wrapped(line, width))


def _wrapped(line: str, width: int) -> list[str]:
    if len(line) <= width:
        return [line]
    indent = line[: len(line) - len(line.lstrip())]
    return wrap(
        line.strip(),
        width,
        initial_indent=indent,
        subsequent_indent=f"{indent}  ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def _console(*, stderr: bool) -> Console:
    from rich.console import Console
    from rich.text import Text

    class Patient(Console):
        """Prints tables and sentences as wide as there is room; goes on in silence where the reader went away."""

        def print(self, *objects: Any, style: Any = None, **options: Any) -> None:
            """Print a table, or a sentence: brackets in it are no markup. ``out`` prints a text of others as it is."""
            with _writing(stderr=stderr):
                if options.get("no_wrap"):
                    super().print(*objects, style=style, **options)
                    return
                for printed in objects:
                    if isinstance(printed, Table):
                        for line in printed.lines(width_of(stderr=stderr)):
                            super().print(Text(line.text, style="bold" if line.bold else ""))
                    elif isinstance(printed, str):
                        super().print(Text(fitted(printed, stderr=stderr)), style=style)
                    else:
                        super().print(printed, style=style, **options)
                if not objects:
                    super().print()

        def on_broken_pipe(self) -> None:
            self.quiet = True
            _discard(stderr=stderr)

    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    system: Literal["auto"] | None = None if plain else "auto"
    # No line is wrapped by the library: ``fitted`` and tables do that.
    return Patient(stderr=stderr, highlight=False, width=10**6, soft_wrap=True, color_system=system)


@contextmanager
def _writing(*, stderr: bool) -> Iterator[None]:
    """What is written here goes on in silence where the reader went away; HX511 where an answer has no room."""
    try:
        yield
    except BrokenPipeError:
        _discard(stderr=stderr)
    except OSError as error:
        if not stderr:
            raise cannot_write("-", error) from error
        _discard(stderr=True)  # where else could it be said?


def _discard(*, stderr: bool) -> None:
    """Let a stream that nobody reads any more lead nowhere, or the interpreter complains when it flushes."""
    stream = sys.stderr if stderr else sys.stdout
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def table(*columns: str | Column) -> Table:
    """A table without lines; a column whose name starts with ``>`` is set to the right."""
    return Table([c if isinstance(c, Column) else Column(c.lstrip(">"), right=c.startswith(">")) for c in columns])
