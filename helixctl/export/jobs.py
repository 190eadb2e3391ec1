"""Job files for ``helixctl run``: a batch script of SLURM, an Indexed Job of Kubernetes."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import PurePath
from typing import Any, Final

import yaml

from helixctl.export.serving import heading
from helixctl.plan import Plan

_PORT: Final = 29500
_LONGEST_NAME: Final = 52  # of a Job: its pods' names are longer, and may have 63 characters


def slurm_script(plan: Plan, path: str, options: Sequence[str]) -> str:
    """A batch script: a task for every rank, which srun starts.

    Args:
        plan: what runs.
        path: of its file, as all hosts see it.
        options: of ``helixctl run``.
    """
    cluster = plan.cluster.only
    gpus = [f"#SBATCH --gpus-per-node {cluster.devices_per_host}"] if cluster.device.torch_kind == "cuda" else []
    command = shlex.join(["helixctl", "run", path, "--device", cluster.device.torch_kind, *options])
    return "\n".join(
        [
            "#!/bin/bash",
            *heading(plan, "slurm"),
            f"#SBATCH --job-name {job_name(path)}",
            f"#SBATCH --nodes {cluster.hosts}",
            f"#SBATCH --ntasks-per-node {cluster.devices_per_host}",
            *gpus,
            "#SBATCH --time 00:30:00",
            "# Rank and number of ranks are SLURM_PROCID and SLURM_NTASKS, which srun sets; the ranks meet here:",
            'MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)',
            "MASTER_PORT=$((20000 + SLURM_JOB_ID % 12000))",
            "export MASTER_ADDR MASTER_PORT",
            f"srun --kill-on-bad-exit=1 {command}",
            "",
        ]
    )


def kubernetes_job(plan: Plan, path: str, options: Sequence[str], image: str, claim: str) -> str:
    """A headless Service and an Indexed Job: a pod for every host, whose completion index is its number.

    Args:
        plan: what runs.
        path: of its file; its name is looked for at the top of the volume, at /data.
        options: of ``helixctl run``.
        image: that has helixctl with the extra ``runtime``.
        claim: the persistent volume claim that has the plan.
    """
    cluster, name = plan.cluster.only, job_name(path)
    launch = [
        "exec torchrun",
        f"--nnodes {cluster.hosts} --node-rank $JOB_COMPLETION_INDEX --nproc-per-node {cluster.devices_per_host}",
        f"--master-addr {name}-0.{name} --master-port {_PORT}",
        "--no-python",
        shlex.join(
            ["helixctl", "run", f"/data/{PurePath(path).name}", "--device", cluster.device.torch_kind, *options]
        ),
    ]
    container: dict[str, Any] = {
        "name": "ranks",
        "image": image,
        "command": ["sh", "-c"],
        "args": [" ".join(launch)],
        "volumeMounts": [{"name": "data", "mountPath": "/data"}, {"name": "shm", "mountPath": "/dev/shm"}],  # noqa: S108
    }
    if cluster.device.torch_kind == "cuda":
        container["resources"] = {"limits": {"nvidia.com/gpu": cluster.devices_per_host}}
    pod = {
        "subdomain": name,
        "restartPolicy": "Never",
        "containers": [container],
        "volumes": [
            {"name": "data", "persistentVolumeClaim": {"claimName": claim}},
            {"name": "shm", "emptyDir": {"medium": "Memory"}},  # NCCL shares memory between the GPUs of a pod
        ],
    }
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"clusterIP": "None", "publishNotReadyAddresses": True, "selector": {"job-name": name}},
    }
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name},
        "spec": {
            "completionMode": "Indexed",
            "completions": cluster.hosts,
            "parallelism": cluster.hosts,
            "backoffLimit": 0,
            "template": {"spec": pod},
        },
    }
    text = yaml.safe_dump_all([service, job], sort_keys=False, width=100)
    return "\n".join([*heading(plan, "k8s"), text])


def job_name(path: str) -> str:
    """A name for the job of a plan's file: small letters, digits and hyphens, a letter first."""
    stem = PurePath(path).name.removesuffix(".json").removesuffix(".plan")
    name = re.sub(r"[^a-z0-9]+", "-", stem.lower()).strip("-")
    name = name if name[:1].isalpha() else f"plan-{name}".rstrip("-")
    return name[:_LONGEST_NAME].rstrip("-")
