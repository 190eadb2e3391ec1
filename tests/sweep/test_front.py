"""The Pareto front, against its definition; and where labels stand."""

from __future__ import annotations

import random

from helixctl.sweep.document import Point
from helixctl.sweep.front import front
from helixctl.sweep.label_places import SIDES, _box, placed


def point(number: int, user: float | None, device: float | None, state: str = "planned") -> Point:
    return Point(
        batch=number, input_len=1, devices=1, hosts=1, state=state,  # type: ignore[arg-type]
        tokens_per_s_per_user=user, output_tokens_per_s_per_device=device,
    )  # fmt: skip


def test_it_is_the_points_that_no_other_beats() -> None:
    draw = random.Random(5)
    for _ in range(50):
        points = [point(n, draw.randint(1, 6), draw.randint(1, 6)) for n in range(1, 9)]
        pairs = {p.batch: (p.tokens_per_s_per_user, p.output_tokens_per_s_per_device) for p in points}

        def beaten(mine: tuple[float, float], pairs: dict[int, tuple[float, float]] = pairs) -> bool:  # type: ignore[assignment]
            return any(a >= mine[0] and b >= mine[1] and (a, b) != mine for a, b in pairs.values())

        assert {p.batch for p in front(points)} == {n for n, mine in pairs.items() if not beaten(mine)}  # type: ignore[arg-type]


def test_points_without_a_plan_or_over_a_limit_are_not_on_it() -> None:
    points = [point(1, 1, 1), point(2, 9, 9, "over_limit"), point(3, None, None, "refused")]
    assert [p.batch for p in front(points)] == [1]


def test_no_label_lies_on_another_or_on_a_point() -> None:
    draw = random.Random(7)
    for count in (3, 30, 200):
        points = [(draw.uniform(0, 800), draw.uniform(0, 400)) for _ in range(count)]
        wanted = [(x, y, "TP 8, DP 2 · 64") for x, y in points]
        sides = placed(wanted, points, 800, 400)
        boxes = [_box(*label, SIDES[side]) for label, side in zip(wanted, sides, strict=True) if side is not None]
        assert boxes
        assert not any(a.meets(b) for n, a in enumerate(boxes) for b in boxes[:n])
        assert not any(box.left < x < box.right and box.top < y < box.bottom for box in boxes for x, y in points)
        assert all(b.left >= 0 and b.right <= 800 and b.top >= 0 and b.bottom <= 400 for b in boxes)
