"""Job files: what a scheduler reads of them, and what the ranks get."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import yaml

from helixctl.export.jobs import job_name, kubernetes_job, slurm_script
from helixctl_runtime.ranks.launchers.environment import detect
from tests.docs.examples import blocks
from tests.documents import PAPER, ROOT, SMALL, plan_of


def test_srun_gets_the_variables_that_ranks_read(tmp_path: Path) -> None:
    """The script runs; srun is one that prints what it was given."""
    script = slurm_script(plan_of(PAPER, 4, 4), "plans/a b.plan.json", ["--check", "--report", "r.json"])
    for name, body in {
        "srun": 'printf "%s\\n" "$MASTER_ADDR:$MASTER_PORT" "$@"',
        "scontrol": 'printf "%s\\n" node-a node-b; test "$3" = "node-[a-b]"',
    }.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "12345", "SLURM_JOB_NODELIST": "node-[a-b]"}
    done = subprocess.run(["bash", "-euc", script], env=env, check=True, capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines() == [
        "node-a:20345", "--kill-on-bad-exit=1", "helixctl", "run", "plans/a b.plan.json", "--device", "cuda",
        "--check", "--report", "r.json",
    ]  # fmt: skip


@pytest.mark.parametrize(("plan", "gpus"), [(plan_of(PAPER, 4, 4), True), (plan_of(SMALL, 4, 4), False)])
def test_slurm_reads_the_sizes_of_the_cluster(plan: object, gpus: bool) -> None:
    lines = slurm_script(plan, "x.plan.json", []).splitlines()  # type: ignore[arg-type]
    command = next(n for n, line in enumerate(lines) if not line.startswith("#"))
    read = dict(line.split()[1:3] for line in lines[:command] if line.startswith("#SBATCH"))
    nodes, tasks = (2, 8) if gpus else (1, 16)
    assert (read["--nodes"], read["--ntasks-per-node"]) == (str(nodes), str(tasks))
    assert ("--gpus-per-node" in read) == gpus
    assert lines[0] == "#!/bin/bash"


def test_ranks_of_srun_read_these_variables() -> None:
    env = {"SLURM_PROCID": "3", "SLURM_NTASKS": "16", "SLURM_LOCALID": "3", "SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0",
           "SLURM_STEP_NODELIST": "node-[a-b]", "SLURM_STEP_NUM_TASKS": "16",
           "MASTER_ADDR": "node-a", "MASTER_PORT": "20345"}  # fmt: skip
    launch = detect(env)
    assert launch is not None
    assert (launch.rank, launch.world_size, launch.rendezvous) == (3, 16, "tcp://node-a:20345")


def test_the_job_is_that_of_the_page() -> None:
    """docs/running.md shows it, for a plan of the same cluster."""
    page = (ROOT / "docs/running.md").read_text(encoding="utf-8")
    shown = next(block for block in blocks(page) if block.language == "yaml" and "kind: Service" in block.lines)
    service, job = yaml.safe_load_all("\n".join(shown.lines))
    text = kubernetes_job(
        plan_of(PAPER, 4, 4), "paper.plan.json", ["--report", "/data/r.json"], "registry.example/helixctl", "data"
    )
    own_service, own_job = yaml.safe_load_all(
        text.replace("name: paper", "name: helix")
        .replace("paper-0.paper", "helix-0.helix")
        .replace("domain: paper", "domain: helix")
    )
    assert own_service == service
    assert own_job == job


def test_a_job_on_cpu_ranks_asks_for_no_gpu() -> None:
    text = kubernetes_job(plan_of(SMALL, 4, 4), "x.plan.json", [], "image", "plans")
    _, job = yaml.safe_load_all(text)
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert "resources" not in container
    assert "--device cpu" in container["args"][0]
    assert {"claimName": "plans"} in [
        v.get("persistentVolumeClaim") for v in job["spec"]["template"]["spec"]["volumes"]
    ]


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("a/dense.4x4.plan.json", "dense-4x4"),
        ("4x4.plan.json", "plan-4x4"),
        ("_.json", "plan"),
        (f"{'long-' * 20}.plan.json", "long-" * 10 + "lo"),
    ],
)
def test_names_of_jobs(path: str, name: str) -> None:
    assert job_name(path) == name
