"""The pre-commit hook, the GitHub Action and the recipes of docs/ci.md: run, not only read."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from tests.cli.command import ENVIRONMENT
from tests.documents import ROOT

CI = (ROOT / "docs/ci.md").read_text()
(HOOK,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
ACTION = yaml.safe_load((ROOT / "action.yml").read_text())
STEPS = {step["name"]: step for step in ACTION["runs"]["steps"]}
BAD = "tests/invalid/HX406-region-moved.dag.json"


@pytest.fixture
def path(tmp_path: Path) -> str:
    """A PATH whose ``helixctl`` is this one, as the hook's own environment would have it."""
    program = tmp_path / "bin/helixctl"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nPYTHONPATH="{ROOT}" exec "{sys.executable}" -m helixctl "$@"\n')
    program.chmod(0o755)
    return f"{program.parent}{os.pathsep}{os.environ['PATH']}"


# --- pre-commit ------------------------------------------------------------------------------------------------------


def files_of_the_hook() -> list[str]:
    """The files that pre-commit would pass for this repository."""
    tracked = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, check=False
    )
    names = tracked.stdout.decode().splitlines() or [str(p.relative_to(ROOT)) for p in ROOT.rglob("*.*")]
    return sorted(name for name in names if re.search(HOOK["files"], name))


def test_the_hook_passes_every_document_that_is_shipped(path: str) -> None:
    files = [name for name in files_of_the_hook() if name.startswith("plans/")]
    shipped = [p for p in (ROOT / "plans").rglob("*.*") if p.suffix in {".json", ".yaml"} and p.name != "config.json"]
    assert files == sorted(str(p.relative_to(ROOT)) for p in shipped)
    command = [*shlex.split(HOOK["entry"]), *files]
    done = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT | {"PATH": path}, capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_the_hook_refuses_what_is_wrong(path: str) -> None:
    command = [*shlex.split(HOOK["entry"]), BAD]
    done = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT | {"PATH": path}, capture_output=True, check=False)
    assert done.returncode == 1
    assert b"HX406" in done.stdout


def test_the_hook_has_what_pre_commit_requires() -> None:
    assert (HOOK["id"], HOOK["language"], HOOK["types_or"]) == ("helixctl-validate", "python", ["json", "yaml"])
    assert not any(re.search(HOOK["files"], name) for name in ("package.json", "docs/x.yaml", "x.plan.json.txt"))
    assert all(re.search(HOOK["files"], name) for name in ("a/x.model.yml", "x.cluster.yaml", "x.plan.json"))
    assert HOOK["id"] in CI


# --- GitHub Action ---------------------------------------------------------------------------------------------------


def substituted(text: str, context: dict[str, str]) -> str:
    """``${{ a || b }}`` with values of a context: as much of the expressions as action.yml uses."""

    def value(match: re.Match[str]) -> str:
        return next((found for name in match[1].split("||") if (found := context[name.strip()])), "")

    return re.sub(r"\$\{\{\s*(.*?)\s*\}\}", value, text)


def run_step(name: str, tmp_path: Path, cwd: Path = ROOT, **inputs: str) -> subprocess.CompletedProcess[bytes]:
    """Run a step's script as the runner does."""
    step, given = STEPS[name], {key: row["default"] for key, row in ACTION["inputs"].items()} | inputs
    context = {f"inputs.{key}": value for key, value in given.items()}
    context |= {"runner.temp": str(tmp_path), "github.action_path": str(ROOT)}
    context["steps.python.outputs.python-path"] = str(tmp_path / "python")
    env = {key: substituted(text, context) for key, text in step["env"].items()}
    assert "${{" not in step["run"]
    github = {"GITHUB_ACTIONS": "true", "GITHUB_OUTPUT": str(tmp_path / "output"), "GITHUB_WORKSPACE": str(ROOT)}
    github["GITHUB_STEP_SUMMARY"] = str(tmp_path / "summary.md")
    command = ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail", "-c", step["run"]]
    return subprocess.run(command, cwd=cwd, env=ENVIRONMENT | github | env, capture_output=True, check=False)


@pytest.fixture
def installed(tmp_path: Path, path: str) -> Path:
    """A runner's folder in which "Install helixctl" has been, without the network: helixctl is this one."""
    fake = tmp_path / "python"
    # "python -m venv DIR" makes DIR/bin/python this script again; "python -m pip install X" notes X.
    fake.write_text(
        "#!/bin/bash\nset -e\n"
        'if [ "$2" = venv ]; then mkdir -p "$3/bin"; cp "$0" "$3/bin/python"\n'
        f'else printf "%s\\n" "${{@: -1}}" > "{tmp_path}/requirement"; '
        f'cp "{path.partition(os.pathsep)[0]}/helixctl" "$(dirname "$0")/helixctl"; fi\n'
    )
    fake.chmod(0o755)
    done = run_step("Install helixctl", tmp_path)
    assert (done.returncode, done.stderr) == (0, b"")
    assert (tmp_path / "requirement").read_text() == f"{ROOT}\n"
    return tmp_path


def test_the_action_installs_the_version_that_is_asked_for(installed: Path) -> None:
    assert run_step("Install helixctl", installed, version="helixctl==0.1.0").returncode == 0
    assert (installed / "requirement").read_text() == "helixctl==0.1.0\n"


def test_the_action_validates_the_plans_of_this_repository(installed: Path) -> None:
    done = run_step("Validate", installed, paths="plans")
    assert (done.returncode, done.stderr) == (0, b"")
    (counts,) = re.findall(r"^(\d+) documents: (\d+) valid$", (installed / "summary.md").read_text(), re.MULTILINE)
    assert counts[0] == counts[1]
    assert not (installed / "output").exists()


def test_the_action_fails_annotates_and_reports(installed: Path) -> None:
    report = installed / "a report.xml"
    done = run_step("Validate", installed, paths=f"  plans/small\n\n{BAD}\n", output=str(report))
    assert done.returncode == 1
    assert f"file={BAD},line=53".encode() in done.stderr
    assert report.read_text().startswith("<?xml")
    assert "1 refused" in (installed / "summary.md").read_text()


def test_the_action_leaves_a_sarif_report_to_upload(installed: Path) -> None:
    done = run_step("Validate", installed, cwd=installed, **{"paths": f"{ROOT}/{BAD}", "upload-sarif": "true"})
    assert done.returncode == 1
    assert (installed / "output").read_text() == "sarif=helixctl.sarif\n"
    assert json.loads((installed / "helixctl.sarif").read_text())["version"] == "2.1.0"
    upload = STEPS["Upload the SARIF report"]
    assert "steps.validate.outputs.sarif" in upload["with"]["sarif_file"]
    assert "!cancelled()" in upload["if"]  # findings fail the step before it


def test_inputs_of_the_action_cannot_run_commands(installed: Path) -> None:
    done = run_step("Validate", installed, paths='plans/small"; touch pwned; echo "$(touch pwned)')
    assert done.returncode == 2
    assert b"HX101" in done.stderr
    assert not (ROOT / "pwned").exists()


def test_the_docs_name_every_input() -> None:
    for name in ACTION["inputs"]:
        assert f"`{name}`" in CI
    (step,) = [s for s in recipe("plans.yml")["jobs"]["validate"]["steps"] if "helixctl" in s["uses"]]
    assert step["with"].keys() <= ACTION["inputs"].keys()


# --- docs/ci.md ------------------------------------------------------------------------------------------------------


def recipe(name: str) -> dict[str, Any]:
    """The YAML block whose first line names this file."""
    (found,) = [block for block in re.findall(r"```yaml\n(.*?)```", CI, re.DOTALL) if name in block.partition("\n")[0]]
    return yaml.safe_load(found)  # type: ignore[no-any-return]


def test_the_gitlab_recipe_runs(path: str, tmp_path: Path) -> None:
    job = recipe(".gitlab-ci.yml")["plans"]
    (command,) = [line for line in job["script"] if line.startswith("helixctl ")]
    (tmp_path / "plans").symlink_to(ROOT / "plans")
    done = subprocess.run(
        shlex.split(command), cwd=tmp_path, env=ENVIRONMENT | {"PATH": path}, capture_output=True, check=False
    )
    assert done.returncode == 0
    assert (tmp_path / job["artifacts"]["reports"]["junit"]).read_text().startswith("<?xml")


def test_the_pre_commit_recipes() -> None:
    (repo,) = recipe(".pre-commit-config.yaml")["repos"]
    assert repo["hooks"] == [{"id": HOOK["id"]}]
    (other,) = re.findall(r"`files: (\S+)`", CI)
    assert re.search(other, "plans/models/Llama-3.1-8B/config.json")


def test_the_editor_recipes_lead_to_schemas_that_hold() -> None:
    (line,) = re.findall(r"# yaml-language-server: \$schema=(\S+)", CI)
    model = ROOT / "plans/paper/dense.model.yaml"
    jsonschema.validate(yaml.safe_load(model.read_text()), json.loads((model.parent / line).read_text()))
    (block,) = re.findall(r"```json\n(.*?)```", CI, re.DOTALL)
    settings = json.loads(block)
    pairs = [(glob, url) for url, glob in settings["yaml.schemas"].items()]
    pairs += [(row["fileMatch"][0], row["url"]) for row in settings["json.schemas"]]
    assert len(pairs) == 6
    for glob, url in pairs:
        kind = glob.split(".")[1]
        assert url == f"./schemas/{kind}.schema.json"
        assert (ROOT / url).is_file()
        files = list((ROOT / "plans").rglob(glob))
        assert files or glob in {"*.model.json", "*.cluster.json"}
