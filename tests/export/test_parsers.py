"""The scripts that hand command lines to engines: what they say of an engine that accepts, refuses, or is not there."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.benchmarks.engine_parsers import HAVE, PARSERS, cases_of
from tests.export.plans import PLANS

ENGINE = """
import argparse
import os
from answer import main

def load():
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", type=int)

    def accept(words, ranks):
        print("an engine talks")
        if parser.parse_args(words).size != int(os.environ["SIZE"]) or ranks != 8:
            raise ValueError("of another size")

    return "1.2", accept

main(load)
"""


def asked(script: Path, cases: list[dict[str, object]], path: Path = PARSERS) -> dict[str, object]:
    done = subprocess.run(
        [sys.executable, script], input=json.dumps(cases), env={"PYTHONPATH": str(path)}, capture_output=True,
        text=True, check=True,
    )  # fmt: skip
    answer: dict[str, object] = json.loads(done.stdout)
    return answer


def test_an_engine_accepts_and_refuses(tmp_path: Path) -> None:
    script = tmp_path / "of_engine.py"
    script.write_text(ENGINE)
    lines = (["--size", "8"], ["--size", "4"], ["--sise", "8"], ["--size", "8"])
    answer = asked(script, [{"words": words, "ranks": 8, "variables": {"SIZE": "8"}} for words in lines])
    first, other, unknown, last = answer["answers"]  # type: ignore[misc]
    assert (answer["version"], first, other, last) == ("1.2", None, "ValueError: of another size", None)
    assert "unrecognized arguments: --sise 8" in unknown


def test_an_engine_that_is_not_there() -> None:
    assert "missing" in asked(PARSERS / "of_sglang.py", [])


@pytest.mark.parametrize("target", ["slurm", "torchtitan"])
def test_every_plan_of_a_target_is_handed_over(target: str) -> None:
    cases = cases_of(target)
    due = {name for name, (_, _, targets) in PLANS.items() if target in targets or target == "slurm"}
    assert {one["plan"] for one in cases} == due
    assert target in HAVE
    assert all(one["words"] for one in cases)
