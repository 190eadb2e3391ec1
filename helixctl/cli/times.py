"""Options that are times: ``500ms``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from helixctl.units import UnitError, parse_seconds

if TYPE_CHECKING:
    from click import Context, Parameter


class Time(click.ParamType[float]):
    """Seconds, from a number with its unit."""

    name = "TIME"

    def convert(self, value: Any, param: Parameter | None, ctx: Context | None) -> float:
        """Seconds; what is seconds already stays.

        Raises:
            click.BadParameter: there is no unit, or one of another quantity.
        """
        if isinstance(value, float):
            return value
        try:
            return parse_seconds(value)
        except UnitError as error:
            known = error.hint if error.hint.startswith("did you mean") else "write for example 500ms"
            raise click.BadParameter(f"{error}; {known}", ctx, param, param.opts[0] if param else None) from error
