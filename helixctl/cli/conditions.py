"""``diff --fail-if``: conditions on how much the figures of one plan are beside those of another."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import click

from helixctl.records import record

_FORM: Final = re.compile(r"\s*([\w/ -]*?)\s*(>=|<=|>|<)\s*([+-]?\d+(?:\.\d*)?)\s*%\s*")
_SIGNS: Final[dict[str, Callable[[float, float], bool]]] = {
    ">": operator.gt,
    "<": operator.lt,
    ">=": operator.ge,
    "<=": operator.le,
}


@record
class Condition:
    """``step > 5%``: B has over 5 % more of a figure than A.

    Attributes:
        text: as it was given.
        name: of the figure.
        sign: how the change is compared with the percentage.
        percent: the change, of A's figure; negative: less.
    """

    text: str
    name: str
    sign: str
    percent: float

    def holds(self, first: float, second: float) -> bool:
        """Whether it is so of two figures; what grows from nothing has grown by more than any percentage."""
        change = (second - first) / first * 100 if first else float("inf") if second else 0.0
        return _SIGNS[self.sign](change, self.percent)


def parse_conditions(texts: Sequence[str], names: Mapping[str, str]) -> tuple[Condition, ...]:
    """Read conditions.

    Args:
        texts: such as ``step > 5%``.
        names: what a figure may be called, with its key.

    Raises:
        click.BadParameter: one cannot be read, or names no figure.
    """
    found = []
    for text in texts:
        match = _FORM.fullmatch(text)
        if match is None:
            raise click.BadParameter(f"{text!r}: write it as 'step > 5%'", param_hint="--fail-if")
        name = match[1].strip().lower()
        if name not in names:
            raise click.BadParameter(f"no figure {name!r}; there are {', '.join(names)}", param_hint="--fail-if")
        found.append(Condition(text, names[name], match[2], float(match[3])))
    return tuple(found)
