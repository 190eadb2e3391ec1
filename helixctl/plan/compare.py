"""What differs between two plans: axes of the layout, then fields of the specs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

from helixctl.plan.document import Plan, digest
from helixctl.records import record
from helixctl.spec import ModelSpec

_PARTS: Final = ("layout", "model", "workload", "cluster")
_LONG: Final = 40  # letters of a value that are worth a line


@record
class Difference:
    """One field that two plans have with different values; None is a field that is not given.

    Attributes:
        part: layout, model, workload, cluster or digests.
        field: the dotted path inside that part.
        values: of the first plan and of the second.
    """

    part: str
    field: str
    values: tuple[Any, Any]

    @property
    def texts(self) -> tuple[str, str]:
        """The values, fit for a line."""
        first, second = (_text(value) for value in self.values)
        return first, f"{second}, others" if first == second else second


def differences(first: Plan, second: Plan) -> list[Difference]:
    """What differs, in the order of the documents; empty where the plans are equal.

    A digest is only named where its spec is the same in both, and it is not that of the spec in one of them: the plan
    was edited. Two digests of one spec come from two orders of the keys in its file (``key_order.py``).
    """
    one, other = (plan.model_dump(mode="json", by_alias=True) for plan in (first, second))
    found = [d for part in _PARTS for d in _compared(part, (), one[part], other[part])]
    parts = {d.part for d in found} | {name for name in one["digests"] if _hold(name, first, second)}
    return found + [d for d in _compared("digests", (), one["digests"], other["digests"]) if d.field not in parts]


def model_differences(first: ModelSpec, second: ModelSpec) -> list[Difference]:
    """The fields in which two models differ, in the order of the documents."""
    one, other = (model.model_dump(mode="json") for model in (first, second))
    return list(_compared("model", (), one, other))


def _hold(name: str, *plans: Plan) -> bool:
    """Whether the plans' digests of a spec are the spec's."""
    return all(digest(getattr(plan, name)) == getattr(plan.digests, name) for plan in plans)


def _compared(part: str, path: tuple[str, ...], first: Any, second: Any) -> Iterator[Difference]:
    if first == second:
        return
    if any(isinstance(value, dict) for value in (first, second)) and all(
        value is None or isinstance(value, dict) for value in (first, second)
    ):
        mine, theirs = first or {}, second or {}
        keys = dict.fromkeys((*mine, *theirs))
        found = [d for key in keys for d in _compared(part, (*path, key), mine.get(key), theirs.get(key))]
        if found:
            yield from found
            return
    yield Difference(part, ".".join(path), (first, second))


def _text(value: Any) -> str:
    if value is None or isinstance(value, str):
        return "-" if value is None else value
    text = json.dumps(value)
    return text if len(text) <= _LONG or not isinstance(value, list) else f"{len(value)} items"
