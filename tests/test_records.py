"""Records: equal, hashed and shown as frozen dataclasses are, without room for more attributes."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest

from helixctl.records import record


@record
class Point:
    """One with a default, and with a field that is not shown."""

    x: int
    y: tuple[int, ...] = ()
    hidden: int = field(default=0, repr=False)


@record
class Named:
    """One with a text of its own."""

    name: str

    def __repr__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class Frozen:
    x: int
    y: tuple[int, ...] = ()
    hidden: int = field(default=0, repr=False)


def test_it_is_what_a_frozen_dataclass_is() -> None:
    one, other = Point(1, (2, 3)), Point(y=(2, 3), x=1)
    assert one == other
    assert hash(one) == hash(other) == hash(Frozen(1, (2, 3)))
    assert repr(one) == repr(Frozen(1, (2, 3))).replace("Frozen", "Point")
    assert replace(one, x=2) == Point(2, (2, 3)) != one
    assert repr(Named("its own")) == "its own"


def test_it_has_no_room_for_more() -> None:
    one = Point(1)
    with pytest.raises(AttributeError):
        one.z = 1  # type: ignore[attr-defined]
    assert not hasattr(one, "__dict__")
