"""Hand what ``helixctl export`` writes to the parsers of what it is for; the table of docs/export.md.

    python tests/benchmarks/engine_parsers.py [TARGET ...] [--python TARGET=PYTHON] [--path TARGET=FOLDER] [--json FILE]

The plans are those of tests/export/plans.py. Every script is run on every host of its plan with programs that write
down how they were called, and the engine's parser reads their arguments: tests/export/parsers/ has a script for each.
The jobs for SLURM and Kubernetes are handed over as they are.

A parser is looked for in the interpreter that ``--python`` names for it (this one by default), with the folder of
``--path`` ahead in its PYTHONPATH; none needs a GPU. What cannot be loaded is skipped, with the reason. The exit status
is 1 where something is refused.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT))

from helixctl.export.engines import ENGINES  # noqa: E402
from helixctl.export.jobs import kubernetes_job, slurm_script  # noqa: E402
from tests.export.commands import starts  # noqa: E402
from tests.export.plans import MODELS, PLANS, case  # noqa: E402

PARSERS = ROOT / "tests/export/parsers"
# Job files, which are of no engine.
JOBS = {
    "k8s": lambda plan, name: kubernetes_job(
        plan, f"{name}.plan.json", ["--check"], "registry.example/helixctl", "data"
    ),
    "slurm": lambda plan, name: slurm_script(plan, f"{name}.plan.json", ["--check"]),
}
HAVE = {path.stem.removeprefix("of_"): path for path in PARSERS.glob("of_*.py")}


def cases_of(target: str) -> list[dict[str, Any]]:
    """What is handed over: the plan's name, the words of a command or one text, and how many ranks they are for."""
    if target in JOBS:
        texts = {name: JOBS[target](case(name), name) for name in PLANS}
        return [{"plan": name, "words": [text], "ranks": 0, "variables": {}} for name, text in texts.items()]
    found = []
    for name, ((model, _), _, targets) in PLANS.items():
        if target in targets:
            found += commands(target, name, str(MODELS / model))
    return found


def commands(target: str, name: str, model: str) -> list[dict[str, Any]]:
    """The commands that an engine's script starts on all hosts of a plan."""
    plan, found = case(name), []
    layout, hosts = plan.layout, plan.cluster.hosts
    text = ENGINES[target].write(plan, model)
    own = "every replica is a server of its own" in text
    addresses = {f"HOST_{host}": f"host-{host}" for host in range(hosts)}
    for host in range(hosts):
        with tempfile.TemporaryDirectory() as folder:
            called = starts(text, Path(folder), NODE_RANK=str(host), MASTER_ADDR="host-0", **addresses)
        ranks = layout.devices // layout.data if own else layout.devices
        found += [{"plan": name, "words": words, "ranks": ranks, "variables": exported(text)} for _, *words in called]
    return found


def exported(script: str) -> dict[str, str]:
    """The variables that a script sets for all that it starts."""
    return dict(re.findall(r"^export (\w+)=(.*)$", script, re.MULTILINE))


def ask(target: str, python: str, path: str | None, cases: list[dict[str, Any]]) -> dict[str, Any]:
    """The answer of an engine's parser, as tests/export/parsers/answer.py describes it."""
    before = {"PYTHONPATH": path} if path else {}
    env = os.environ | before | {"CUDA_VISIBLE_DEVICES": ""}
    text = json.dumps([{key: one[key] for key in ("words", "ranks", "variables")} for one in cases])
    done = subprocess.run([python, HAVE[target]], input=text, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{target}: {HAVE[target].name} failed\n{done.stderr}")
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", nargs="*", help=f"of {', '.join(HAVE)}; all by default")
    parser.add_argument("--python", action="append", default=[], metavar="TARGET=PYTHON")
    parser.add_argument("--path", action="append", default=[], metavar="TARGET=FOLDER")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    pythons, paths = (dict(pair.split("=", 1) for pair in pairs) for pairs in (given.python, given.path))
    rows = []
    for target in given.target or HAVE:
        cases = cases_of(target)
        answer = ask(target, pythons.get(target, sys.executable), paths.get(target), cases)
        if missing := answer.get("missing"):
            print(f"{target}: skipped, cannot be loaded here: {missing}", flush=True)
            continue
        refused = [(one["plan"], text) for one, text in zip(cases, answer["answers"], strict=True) if text]
        row = {
            "target": target,
            "version": answer["version"],
            "plans": len({one["plan"] for one in cases}),
            "handed_over": len(cases),
            "accepted": len(cases) - len(refused),
        }
        print(json.dumps(row), flush=True)
        for name, text in refused:
            print(f"  {name}: {text}", flush=True)
        rows.append(row | {"refused": refused})
    if given.json:
        made = {"benchmark": "tests/benchmarks/engine_parsers.py", "rows": rows}
        given.json.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
    return int(any(row["refused"] for row in rows))


if __name__ == "__main__":
    raise SystemExit(main())
