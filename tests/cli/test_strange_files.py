"""Files as editors, merges and shells leave them: each has its own error, and nothing is lost or blocks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.command import ENVIRONMENT, helixctl
from tests.documents import ROOT, SMALL

PLAN = (ROOT / "plans/small/dense.4x4.plan.json").read_text()


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        (f"// generated\n{PLAN}", "1:1", "a comment (//)"),
        (f"/* of two\n lines */\n{PLAN}", "1:1", "a comment (/*)"),
        (f"\n// a\n// b\n{PLAN}", "2:1", "a comment (//)"),
        (PLAN.replace('  "digests"', '<<<<<<< HEAD\n  "digests"', 1), "4:1", "a conflict that git left"),
        ("layers: 4\n=======\nattention: {}\n", "2:1", "a conflict that git left"),
    ],
)
def test_what_is_no_json_is_said_where_it_is(text: str, place: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "x.plan.json"
    path.write_text(text)
    done = helixctl("validate", path)
    assert done.status == 2
    assert f"{path}:{place}" in done.said
    assert f"HX102 {message}" in done.said


def test_pipes_and_links_to_nowhere_in_a_folder_are_left_alone(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.json")
    (tmp_path / "link.json").symlink_to("nowhere.json")
    (tmp_path / "x.plan.json").write_text(PLAN)
    assert helixctl("validate", tmp_path, timeout=30).status == 0
    (tmp_path / "y.plan.json").symlink_to("nowhere.json")  # says that it is one of ours
    assert helixctl("validate", tmp_path, timeout=30).status == 2


def test_a_report_never_replaces_what_was_checked_in_a_folder(tmp_path: Path) -> None:
    path = tmp_path / "x.plan.json"
    path.write_text(PLAN)
    for force in ((), ("--force",)):
        done = helixctl("validate", tmp_path, "-o", path, "-f", "json", *force)
        assert done.status == 2
        assert "HX511" in done.err
        assert path.read_text() == PLAN


def test_a_pipe_that_has_no_path_can_be_written(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "helixctl", "plan", *SMALL, "--plain", "--groups", "4", "-q", "-o", "/dev/stdout"]
    done = subprocess.run(command, capture_output=True, cwd=ROOT, env=ENVIRONMENT, check=True)
    assert json.loads(done.stdout)["layout"]["groups"] == 4


def test_keys_of_other_runtimes_have_no_effect(tmp_path: Path) -> None:
    config = json.loads((ROOT / "plans/models/Llama-3.1-8B/config.json").read_text())
    config |= {"transformers.js_config": {"dtype": "q4"}, "base_model_tp_plan": {"layers.*": "colwise"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert helixctl("validate", tmp_path / "config.json").status == 0
