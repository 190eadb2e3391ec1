"""SLURM's variables: which task of a step this process is, and the host of the first task."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping

from helixctl.errors import fail
from helixctl_runtime.ranks.launchers.launched_rank import DeclaredRank, LaunchedRank, integer, job_port

# Set in every task of a step, and never in a batch script, which SLURM runs once, on the first host.
_STEP = ("SLURM_STEP_ID", "SLURM_STEPID", "SLURM_STEP_NUM_TASKS", "SLURM_STEP_NODELIST", "SLURM_SRUN_COMM_PORT")
# Step ids that SLURM gives to what is no step: the batch script, the container of a job, the shell of salloc.
_NO_STEPS = frozenset({"batch", "extern", "interactive", "4294967291", "4294967292", "4294967290"})


def declared_by_srun(environ: Mapping[str, str]) -> DeclaredRank | None:
    """The task of a step that this process is; None if the step has one task, or if there is none.

    Raises:
        HelixError: HX509, SLURM_PROCID is set without a number of tasks.
    """
    # A step may have fewer tasks than its job: srun -n 1 inside a larger allocation.
    tasks = integer(environ, "SLURM_STEP_NUM_TASKS", integer(environ, "SLURM_NTASKS", 1))
    rank = integer(environ, "SLURM_PROCID", 0)
    if rank and not {"SLURM_NTASKS", "SLURM_STEP_NUM_TASKS"} & environ.keys():
        hint = "start helixctl with srun, or unset SLURM_PROCID to start all ranks here"
        raise fail("HX509", f"SLURM_PROCID is {rank}, SLURM_NTASKS is not set", hint)
    if "SLURM_PROCID" not in environ or tasks <= 1:
        return None
    return DeclaredRank("srun", "SLURM_PROCID", rank, tasks, integer(environ, "SLURM_LOCALID", rank))


def is_srun_step(environ: Mapping[str, str]) -> bool:
    """Whether srun has started this process; SLURM itself starts a batch script, with SLURM_PROCID 0."""
    if environ.get("SLURM_STEP_ID", environ.get("SLURM_STEPID")) in _NO_STEPS:
        return False
    return environ.get("SLURM_PROCID") != "0" or any(name in environ for name in _STEP)


def launched_by_srun(environ: Mapping[str, str], declared: DeclaredRank) -> LaunchedRank:
    """The rank that a task of a step is.

    Args:
        environ: the environment.
        declared: what ``declared_by_srun`` found in it.

    Raises:
        HelixError: HX509, this is a batch script, or the environment does not name the hosts.
    """
    if not is_srun_step(environ):
        message = (
            f"this is the batch script of a SLURM job of {declared.world_size} tasks, which runs once and is no rank"
        )
        hint = "start the ranks with srun: srun helixctl run ...; or unset SLURM_PROCID to start them on this host"
        raise fail("HX509", message, hint)
    nodelist = environ.get("SLURM_STEP_NODELIST") or environ.get("SLURM_NODELIST") or environ.get("SLURM_JOB_NODELIST")
    host = environ.get("MASTER_ADDR") or (expand_hosts(nodelist)[0] if nodelist else None)
    if host is None:
        hint = "set MASTER_ADDR to the host of rank 0, or unset SLURM_PROCID to start local ranks"
        raise fail("HX509", "SLURM_PROCID is set, SLURM_NODELIST is not", hint)
    job, step = integer(environ, "SLURM_JOB_ID", 0), integer(environ, "SLURM_STEP_ID", 0)
    return declared.meeting_at(host, integer(environ, "MASTER_PORT", job_port(job * 16 + step)))


def expand_hosts(nodelist: str) -> list[str]:
    """The hosts of a SLURM node list: ``a[1-2,7],b`` is a1, a2, a7, b; leading zeros are kept."""
    # A comma inside brackets separates numbers, one outside separates hosts.
    if not re.fullmatch(r"(?:[^\[\]]|\[[0-9,-]+\])+", nodelist):
        raise fail("HX509", f"{nodelist!r} is not a SLURM node list", "set MASTER_ADDR to the host of rank 0")
    try:
        hosts = _expanded(nodelist)
    except ValueError:
        hosts = []
    if not hosts:
        raise fail("HX509", f"{nodelist!r} is not a SLURM node list", "set MASTER_ADDR to the host of rank 0")
    return hosts


def _expanded(nodelist: str) -> list[str]:
    """The hosts of a list.

    Raises:
        ValueError: a range has no numbers.
    """
    hosts: list[str] = []
    for entry in re.findall(r"(?:[^,\[]|\[[^\]]*\])+", nodelist):
        parts = re.split(r"\[([^\]]*)\]", entry)
        choices = [_numbers(part) if index % 2 else [part] for index, part in enumerate(parts)]
        hosts += ["".join(chosen) for chosen in itertools.product(*choices)]
    return hosts


def _numbers(ranges: str) -> list[str]:
    numbers: list[str] = []
    for part in ranges.split(","):
        first, _, last = part.partition("-")
        numbers += [str(n).zfill(len(first)) for n in range(int(first), int(last or first) + 1)]
    return numbers
