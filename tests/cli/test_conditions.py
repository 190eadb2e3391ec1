"""helixctl diff --fail-if."""

from __future__ import annotations

from pathlib import Path

import pytest

from helixctl.cli.conditions import parse_conditions
from tests.cli.command import helixctl
from tests.documents import SMALL, TINY, plan_of


@pytest.mark.parametrize(
    ("text", "values", "holds"),
    [
        ("step > 5%", (100, 106), True),
        ("step > 5%", (100, 105), False),
        ("step >= 5 %", (100, 105), True),
        ("tokens/s < -5%", (100, 94), True),
        ("tokens/s < -5%", (100, 96), False),
        ("between hosts > 0%", (0, 1), True),
        ("between hosts > 0%", (0, 0), False),
        ("Step<=-1.5%", (100, 98), True),
    ],
)
def test_a_condition(text: str, values: tuple[float, float], holds: bool) -> None:
    names = {"step": "step", "tokens/s": "tokens", "between hosts": "hosts"}
    (condition,) = parse_conditions([text], names)
    assert condition.holds(*values) is holds


def test_the_status_is_that_of_the_conditions(tmp_path: Path) -> None:
    for name, batch in (("a", 2), ("b", 4)):
        plan = plan_of(SMALL, 2, 1, *TINY, f"workload.batch={batch}")
        (tmp_path / f"{name}.plan.json").write_text(plan.to_json())
    pair = ("diff", "a.plan.json", "b.plan.json")
    assert helixctl(*pair, cwd=tmp_path).status == 1
    kept = helixctl(*pair, "--fail-if", "memory > 300%", "--fail-if", "devices > 0%", cwd=tmp_path)
    assert kept.status == 0
    assert kept.said.splitlines()[-2:] == ["memory > 300%: no", "devices > 0%: no"]
    broken = helixctl(*pair, "--fail-if", "memory > 0.1%", "--fail-if", "devices > 0%", "-q", cwd=tmp_path)
    assert (broken.status, broken.out, broken.err) == (1, b"", "")


@pytest.mark.parametrize(
    ("text", "said"),
    [("step > 5", "write it as 'step > 5%'"), ("speed > 5%", "no figure 'speed'; there are step, tokens/s"),
     ("tpot > 5%", "ttft and tpot are of two plans with --output-len")],
)  # fmt: skip
def test_what_is_no_condition(text: str, said: str) -> None:
    plans = ("plans/small/dense.4x4.plan.json", "plans/small/dense.tp8-pp2.plan.json")
    done = helixctl("diff", *plans, "--fail-if", text)
    assert done.status == 2
    assert said in done.err
