"""`plan --json`: what the table says, as data, in base units."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from helixctl.lower import lower
from helixctl.plan import Layout, Plan
from helixctl.simulate import forecast_from, simulate
from tests.cli.command import helixctl
from tests.documents import PAPER, SMALL

FIGURES = {"step_s", "tokens_per_s", "latency_s", "exposed_s", "hidden_s", "busy_share", "received_nbytes",
           "between_hosts_nbytes", "memory_nbytes", "weight_nbytes"}  # fmt: skip


def data(*args: str | Path) -> dict[str, Any]:
    done = helixctl("plan", *args, "--json", "-")
    assert done.status == 0, done.err
    assert "verdict" in done.err  # the table has moved
    found: dict[str, Any] = json.loads(done.out)
    return found


def test_the_chosen_one_is_what_the_plan_holds_and_simulate_predicts(tmp_path: Path) -> None:
    path = tmp_path / "x.plan.json"
    found = data(*SMALL, "-o", path)
    plan, chosen = Plan.model_validate_json(path.read_text()), found["chosen"]
    assert Layout.model_validate(chosen["layout"]) == plan.layout
    assert (found["plan_digest"], chosen["name"]) == (plan.digest, str(plan.layout))
    predicted = forecast_from(simulate(lower(plan)))
    assert {name: chosen[name] for name in FIGURES} == pytest.approx({n: getattr(predicted, n) for n in FIGURES})
    assert chosen in found["candidates"]
    assert [c for c in found["candidates"] if c["chosen"]] == [chosen]


def test_all_candidates_are_there() -> None:
    """Everything that was simulated, whether or not the table has room for it, and what is not legal."""
    found = data(*PAPER)
    legal = [c for c in found["candidates"] if c["legal"]]
    assert len(legal) >= found["search"]["simulated"]
    assert all(c[name] is not None for c in legal for name in FIGURES)
    assert [c["step_s"] for c in legal if c["fits"]] == sorted(c["step_s"] for c in legal if c["fits"])
    assert found["chosen"]["step_s"] == min(c["step_s"] for c in legal if c["fits"])
    nine_heads = data(*PAPER, "--set", "attention.heads=9", "--plain", "--groups", "1")
    illegal = [c for c in nine_heads["candidates"] if not c["legal"]]
    assert illegal
    assert all(c["illegal_because"] and c["step_s"] is None and not c["fits"] for c in illegal)


def test_what_does_not_fit_says_so() -> None:
    found = data(*PAPER, "--set", "device.memory=480 MB", "--set", "device.reserve=0")
    assert found["chosen"]["fits"]
    assert found["cluster"]["available_nbytes"] == 480e6
    assert all(c["fits"] == (c["memory_nbytes"] <= 480e6) for c in found["candidates"] if c["legal"])


def test_it_is_what_is_printed() -> None:
    args = (*PAPER, "--plain", "--groups", "4", "--slices", "4")
    found, said = data(*args), helixctl("plan", *args, "-v").said
    for sentence in (*found["reasons"], *found["notes"], *found["sources"], found["search"]["text"]):
        assert sentence in said
    for candidate in found["candidates"]:
        if candidate["verdict"]:
            assert any(candidate["name"] in line and candidate["verdict"] in line for line in said.splitlines())
    assert f"{found['proved']['tasks']} tasks over {found['proved']['devices']} devices" in said
    assert found["proved"]["whole"]
    assert (found["report"], found["format_version"], found["simulated"]) == ("helixctl plan", "1.0", True)
    assert found["workload"]["batch"] == 1024


def test_where_it_goes(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    done = helixctl("plan", *SMALL, "--plain", "--groups", "4", "--json", path)
    assert "verdict" in done.said
    assert f"wrote {path}: report" in done.err
    assert json.loads(path.read_text())["chosen"]["layout"]["groups"] == 4
    assert helixctl("plan", *SMALL, "-o", "-", "--json", "-").status == 2
    checked = helixctl("plan", *SMALL, "--plain", "--groups", "4", "--slices", "4", "-q", "--json", "-",
                       "--check", "plans/small/dense.4x4.plan.json")  # fmt: skip
    assert checked.status == 0
    assert json.loads(checked.out)["chosen"]["name"] == "4 x 4"
