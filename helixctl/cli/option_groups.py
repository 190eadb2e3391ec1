"""Options under headings in ``--help``, for commands that have many."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click


def grouped(groups: Mapping[str, Sequence[str]]) -> type[click.Command]:
    """The class of a command whose help has these headings.

    Args:
        groups: of each heading the options below it, such as ``--batch``; those of no heading stand under "Options".

    Returns:
        What ``click.command`` takes as ``cls``; it raises ValueError where a heading has an option that there is not.
    """

    class Grouped(click.Command):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            names = {name for parameter in self.params for name in parameter.opts}
            if missing := {name for each in groups.values() for name in each} - names:
                raise ValueError(f"no such options: {', '.join(sorted(missing))}")

        def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
            options = [p for p in self.get_params(ctx) if isinstance(p, click.Option)]  # the usage names the arguments
            left = [(p.opts, record) for p in options if (record := p.get_help_record(ctx)) is not None]
            for heading, names in groups.items():
                rows = [record for name in names for opts, record in left if name in opts]
                with formatter.section(heading):
                    formatter.write_dl(rows)
            inside = {name for each in groups.values() for name in each}
            with formatter.section("Options"):
                formatter.write_dl([record for opts, record in left if not inside.intersection(opts)])

    return Grouped
