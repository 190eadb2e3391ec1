"""Records: small values that the type checker keeps immutable and that cost what mutable ones cost."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def record(cls: type[T]) -> type[T]:
    """A dataclass with slots and a hash. Its attributes are not set anew: the type checker refuses it.

    Why Python does not refuse it as well: docs/adr/0037-records.md.

    Args:
        cls: a class with annotated attributes, without slots.

    Returns:
        A class with the same name, and with ``__slots__``.
    """
    made: Any = dataclass(slots=True, unsafe_hash=True, repr=False)(cls)
    if "__repr__" not in cls.__dict__:
        made.__repr__ = _shown
    return made  # type: ignore[no-any-return]


def _shown(its: Any) -> str:
    """``Name(attribute=value, ...)``: one function for all records, where dataclasses compile one each."""
    return f"{type(its).__qualname__}({', '.join(f'{f.name}={getattr(its, f.name)!r}' for f in fields(its) if f.repr)})"
