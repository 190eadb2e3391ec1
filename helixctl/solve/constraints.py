"""What a user fixes of the layout: ``groups=8,pipeline=2,combine=reduce``, in our words or in those of other programs.

Read are also a layout as helixctl prints it, ``8 x 1, pipeline 2, reduce``, and sizes of parallelism, ``tp=8,pp=2``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from pydantic import ValidationError

from helixctl.errors import Diagnostic, HelixError
from helixctl.plan import Layout
from helixctl.records import record
from helixctl.solve.families import Layouts, each_of_kind, of_kind
from helixctl.spec.fields import did_you_mean

AxisConstraints = Mapping[str, int | str]  # an axis of the layout, or ``partitions``, and the value that it must have
# Not an axis but a product of two: groups x slices.
PARTITIONS: Final = "partitions"
# The search takes all factor pairs groups x slices and filters them, so that other pairs can be shown beside.
PAIR_AXES: Final = frozenset({"groups", "slices", PARTITIONS})

_PARALLEL: Final = {
    "tp": (PARTITIONS, "tensor_parallel tensor_model_parallel tp"),
    "pp": ("pipeline", "pipeline_parallel pipeline_model_parallel pp"),
    "dp": ("data", "data_parallel dp"),
    "ep": ("experts", "expert_parallel expert_model_parallel moe_expert_parallel ep"),
}
_OTHER_NAMES: Final = {
    f"{name}{end}": axis for axis, names in _PARALLEL.values() for name in names.split() for end in ("", "_size")
}
_PAIR: Final = re.compile(r"(\d+)\s*[xX×*]\s*(\d+)")  # noqa: RUF001
_EXPERTS: Final = re.compile(r"experts\s*=?\s*(\d+)\s*[xX×]\s*(\d+)")  # noqa: RUF001
_REDUCED: Final = re.compile(r"reduced in the (accumulator|model)'s dtype")
_ITEMS: Final = re.compile(r",|(?:\s+|(?<=\d))[x×]\s*(?=[A-Za-z_]+\s*=)")  # noqa: RUF001  "tp=8 x pp=2" too
_ASSIGNED: Final = re.compile(r"(.*?)\s*(?:=|\s)\s*([^\s=]*)")  # axis=value, or axis value
_WORDS: Final = {
    "concat": "combine", "reduce": "combine", "slices_first": "gather_order", "groups_first": "gather_order",
}  # fmt: skip
_EXAMPLE: Final = "--layout groups=8,pipeline=2,combine=reduce"


def parse_constraints(text: str) -> dict[str, int | str]:
    """The axes that a ``--layout`` text fixes, and ``partitions``, the product of groups and slices.

    Raises:
        HelixError: HX103 for an axis that no layout has, HX105 for a value that the axis cannot have or where none is
            fixed, HX107 for an axis that is fixed twice.
    """
    found: dict[str, int | str] = {}
    problems = []
    for item in filter(None, (part.strip() for part in _ITEMS.split(text))):
        for axis, value in _axes(item):
            if axis not in {*Layout.model_fields, PARTITIONS}:
                hint = did_you_mean(axis, list(Layout.model_fields)) or "axes: " + ", ".join(Layout.model_fields)
                problems.append(Diagnostic("HX103", f"--layout {item}: a layout has no axis {axis!r}", hint))
                continue
            if axis in found and not (axis == PARTITIONS and str(found[axis]) == value):
                problems.append(Diagnostic("HX107", f"--layout names {_name(axis)} twice"))
            found[axis] = int(value) if value.isdecimal() else value
            if reason := _refused(axis, found[axis]):
                problems.append(Diagnostic("HX105", f"--layout {item}: {_name(axis)} must be {reason}, not {value!r}"))
    if not found and not problems:
        problems.append(Diagnostic("HX105", f"--layout {text!r} fixes no axis", f"leave it out, or write {_EXAMPLE}"))
    if problems:
        raise HelixError(problems)
    return found


def constraints_of(layout: str | AxisConstraints | None) -> dict[str, int | str]:
    """The axes that a text for ``--layout`` fixes, or a mapping, whose axes and values are those of such a text.

    Raises:
        HelixError: as ``parse_constraints``.
    """
    if not layout and not isinstance(layout, str):
        return {}
    text = layout if isinstance(layout, str) else ",".join(f"{axis}={value}" for axis, value in layout.items())
    return parse_constraints(text)


@record
class Request:
    """Which layouts a user asks for.

    Attributes:
        given: the axes that the user fixes.
        plain: every other axis keeps its default, but groups and slices, which make up the devices, and the slicing,
            which the model decides.
        admitted: what else a layout must satisfy; None: nothing.
    """

    given: AxisConstraints
    plain: bool = False
    admitted: Callable[[Layout], bool] | None = None

    @property
    def fixed(self) -> dict[str, int | str]:
        """Every axis that has one value only."""
        defaults = {name: field.default for name, field in Layout.model_fields.items()} if self.plain else {}
        return {**{axis: defaults[axis] for axis in defaults.keys() - {"groups", "slices", "slicing"}}, **self.given}

    @property
    def fixed_beside_pairs(self) -> dict[str, int | str]:
        """The same without groups and slices."""
        return {axis: value for axis, value in self.fixed.items() if axis not in PAIR_AXES}

    @property
    def is_free(self) -> bool:
        """Whether nothing is fixed."""
        return not self.given and not self.plain and self.admitted is None

    def admitted_of(self, its: Layouts) -> Layouts | None:
        """Those of some layouts that it admits; None where it admits none.

        All layouts of a family have every axis that is given.
        """
        if self.admitted is None:
            return of_kind(its, self.admits) if self.given else its
        return each_of_kind(its, self.admits)

    def admits(self, layout: Layout) -> bool:
        """Whether a layout has every axis as it is given, and is admitted."""
        return satisfies(layout, self.given) and (self.admitted is None or self.admitted(layout))

    def __str__(self) -> str:
        """``groups 8, pipeline 2``: what is given, empty where nothing is."""
        return constraints_text(self.given)


def satisfies(layout: Layout, constraints: AxisConstraints) -> bool:
    """Whether a layout has every axis as it is fixed."""
    return not constraints or all(getattr(layout, axis) == value for axis, value in constraints.items())


def read_as(text: str) -> str | None:
    """How a text in other words than ``axis=value`` was read; None where it is in these."""
    items = [part.strip() for part in _ITEMS.split(text) if part.strip()]
    if all(item.partition("=")[0].strip() in Layout.model_fields for item in items):
        return None
    meant = [f"{_name(axis)}={value}" for axis, value in parse_constraints(text).items()]
    return f"--layout {text!r} is read as {', '.join(meant)}"


def constraints_text(constraints: AxisConstraints) -> str:
    """``groups 8, pipeline 2``."""
    return ", ".join(f"{_name(axis)} {value}" for axis, value in constraints.items())


def _name(axis: str) -> str:
    return "groups x slices" if axis == PARTITIONS else axis


def _axes(item: str) -> Iterator[tuple[str, str]]:
    """The axes and values of one part of the text."""
    if pair := _PAIR.fullmatch(item):
        yield from zip(("groups", "slices"), pair.groups(), strict=True)
    elif experts := _EXPERTS.fullmatch(item):  # the ways, and the pieces of an expert: together all partitions
        yield "experts", experts[1]
        yield PARTITIONS, str(int(experts[1]) * int(experts[2]))
    elif reduced := _REDUCED.fullmatch(item):
        yield "reduction_dtype", reduced[1]
    elif item in _WORDS:
        yield _WORDS[item], item
    else:
        found = _ASSIGNED.fullmatch(item)
        axis, value = (found[1], found[2]) if found else (item, "")
        yield _OTHER_NAMES.get(axis.lower().replace("-", "_"), axis), value


def _refused(axis: str, value: int | str) -> str | None:
    """What the value of an axis must be, if it is none."""
    field = "groups" if axis == PARTITIONS else axis
    try:
        Layout.model_validate({"groups": 1, "slices": 1, field: value})
    except ValidationError as error:
        return error.errors()[0]["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
    return None
