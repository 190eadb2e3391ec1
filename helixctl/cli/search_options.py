"""The options of a search for a layout, which ``plan`` and ``sweep`` share: each is declared here alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

import click

from helixctl.cli.completion import axes, clusters, models
from helixctl.cli.times import Time
from helixctl.solve import OBJECTIVES, Objective
from helixctl.solve.objective import OF_A_GENERATION

F = TypeVar("F", bound=Callable[..., Any])

_SPECS: Final = (
    click.argument("model", shell_complete=models),
    click.argument("cluster", shell_complete=clusters),
)
_SEARCH: Final = (
    click.option(
        "--layout",
        "axes",
        metavar="AXIS=VALUE,...",
        shell_complete=axes,
        help="Fix any axes of the layout; the rest is searched.",
    ),
    click.option(
        "--plain", is_flag=True, help="Search n x m alone: every other axis that is not fixed keeps its default."
    ),
    click.option("--objective", type=click.Choice(OBJECTIVES), default="throughput", show_default=True),
    click.option("--max-ttft", type=Time(), help="Of a generation: first tokens after at most this, such as 500ms."),
    click.option("--max-tpot", type=Time(), help="Of a generation: at most this from token to token, such as 30ms."),
    click.option(
        "--set", "sets", multiple=True, metavar="FIELD=VALUE", help="Override any field of a spec. Repeatable."
    ),
)


def specs(command: F) -> F:
    """Add the arguments MODEL and CLUSTER."""
    return _added(command, _SPECS)


def search_options(command: F) -> F:
    """Add ``--layout``, ``--plain``, ``--objective``, ``--max-ttft``, ``--max-tpot`` and ``--set``."""
    return _added(command, _SEARCH)


def refuse_of_a_generation(
    objective: Objective, max_ttft: float | None, max_tpot: float | None, output_len: int | None
) -> None:
    """Refuse what only a generation has where the workload is one pass.

    Args:
        objective: as it is asked for.
        max_ttft: seconds; None: no limit.
        max_tpot: seconds; None: no limit.
        output_len: of the workload; None: it is one pass.

    Raises:
        click.UsageError: with the first such option.
    """
    limits = (("--max-ttft", max_ttft), ("--max-tpot", max_tpot))
    given = [option for option, seconds in limits if seconds is not None]
    given += [f"--objective {objective}"] if objective in OF_A_GENERATION else []
    if given and output_len is None:
        raise click.UsageError(f"{given[0]} is of a generation; give --output-len N, the tokens after each prompt")


def _added(command: F, options: tuple[Callable[[F], F], ...]) -> F:
    for option in reversed(options):
        command = option(command)
    return command
