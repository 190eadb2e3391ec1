"""What a user fixes of the layout: ``groups=8,pipeline=2,combine=reduce``."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches

from pydantic import ValidationError

from helixctl.errors import Diagnostic, HelixError
from helixctl.plan import Layout

Wish = Mapping[str, int | str]


def parse_wish(text: str) -> dict[str, int | str]:
    """The axes that a ``--layout`` text fixes.

    Raises:
        HelixError: HX103 for an axis that no layout has, HX105 for a value that the axis cannot have.
    """
    found: dict[str, int | str] = {}
    problems = []
    for item in filter(None, (part.strip() for part in text.split(","))):
        axis, _, value = (part.strip() for part in item.partition("="))
        if axis not in Layout.model_fields:
            near = get_close_matches(axis, Layout.model_fields, n=1)
            hint = f"did you mean {near[0]!r}?" if near else "axes: " + ", ".join(Layout.model_fields)
            problems.append(Diagnostic("HX103", f"--layout {item}: a layout has no axis {axis!r}", hint))
            continue
        if axis in found:
            problems.append(Diagnostic("HX107", f"--layout names {axis} twice"))
        found[axis] = int(value) if value.isdecimal() else value
        try:
            Layout.model_validate({"groups": 1, "slices": 1, axis: found[axis]})
        except ValidationError as error:
            allowed = error.errors()[0]["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
            problems.append(Diagnostic("HX105", f"--layout {item}: {axis} must be {allowed}, not {value!r}"))
    if problems:
        raise HelixError(problems)
    return found


def has(layout: Layout, wish: Wish) -> bool:
    """Whether a layout has every axis as it is wished for."""
    return all(getattr(layout, axis) == value for axis, value in wish.items())


def wish_text(wish: Wish) -> str:
    """``groups 8, pipeline 2``."""
    return ", ".join(f"{axis} {value}" for axis, value in wish.items())
