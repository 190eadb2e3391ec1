"""The variables of the launchers of MPI, and of those like them."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass

from helixctl.errors import fail
from helixctl_runtime.ranks.launchers.launched_rank import DeclaredRank, LaunchedRank, integer, job_port


@dataclass(frozen=True, slots=True)
class _Launcher:
    """The variables of a launcher; a tuple holds several names for one number, and the first that is set counts."""

    command: str
    rank: str
    size: str
    local_rank: tuple[str, ...]
    local_size: tuple[str, ...]
    nodes: str = ""


_LAUNCHERS = (
    _Launcher(
        "mpirun",
        "OMPI_COMM_WORLD_RANK",
        "OMPI_COMM_WORLD_SIZE",
        ("OMPI_COMM_WORLD_LOCAL_RANK",),
        ("OMPI_COMM_WORLD_LOCAL_SIZE",),
    ),
    _Launcher(
        "mpirun_rsh",
        "MV2_COMM_WORLD_RANK",
        "MV2_COMM_WORLD_SIZE",
        ("MV2_COMM_WORLD_LOCAL_RANK",),
        ("MV2_COMM_WORLD_LOCAL_SIZE",),
    ),
    _Launcher(
        "mpiexec", "PMI_RANK", "PMI_SIZE", ("MPI_LOCALRANKID", "PMI_LOCAL_RANK"), ("MPI_LOCALNRANKS", "PMI_LOCAL_SIZE")
    ),
    _Launcher(
        "jsrun",
        "JSM_NAMESPACE_RANK",
        "JSM_NAMESPACE_SIZE",
        ("JSM_NAMESPACE_LOCAL_RANK",),
        ("JSM_NAMESPACE_LOCAL_SIZE",),
    ),
    _Launcher("flux run", "FLUX_TASK_RANK", "FLUX_JOB_SIZE", ("FLUX_TASK_LOCAL_ID",), (), "FLUX_JOB_NNODES"),
    _Launcher("horovodrun", "HOROVOD_RANK", "HOROVOD_SIZE", ("HOROVOD_LOCAL_RANK",), ("HOROVOD_LOCAL_SIZE",)),
)
# Variables of launchers that set a rank, but not the number of ranks.
_RANKS_ALONE = ("PMIX_RANK", "PALS_RANKID", "ALPS_APP_PE", "PMI_ID", "MPI_LOCALRANKID")
# What tells one job from another on the same host.
_JOBS = ("PMIX_NAMESPACE", "OMPI_MCA_ess_base_jobid", "PMI_JOBID", "FLUX_JOB_ID", "LSB_JOBID", "PBS_JOBID")


def declared_by_mpi(environ: Mapping[str, str]) -> DeclaredRank | None:
    """The rank that such a launcher declares; None if it started one process, or if there is no launcher.

    Raises:
        HelixError: HX509, the variables lack the rank or the number of ranks, or contradict each other.
    """
    found = [_standpoint(environ, each) for each in _LAUNCHERS if each.rank in environ or each.size in environ]
    several = [each for each in found if each.world_size > 1]
    for other in several[1:]:
        if (other.rank, other.world_size) != (several[0].rank, several[0].world_size):
            raise fail(
                "HX509", f"{several[0]}, and {other}", "unset the variables of the launcher that did not start it"
            )
    return several[0] if several else None


def check_single_process(environ: Mapping[str, str], *, known: bool) -> None:
    """Raise HX509 if a variable declares one process of several, but not the number of processes.

    Args:
        environ: the environment.
        known: a launcher declares that there is one process, so a rank of 0 is right.
    """
    for name in _RANKS_ALONE:
        if name in environ and not (known and environ[name] == "0"):
            message = f"{name} is {environ[name]}: a launcher has started this process as one of several"
            hint = (
                "it does not say of how many: set RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT in each, "
                f"or unset {name} to start all ranks here"
            )
            raise fail("HX509", message, hint)


def declares_one_process(environ: Mapping[str, str]) -> bool:
    """Whether a launcher declares that it started one process."""
    return any(environ.get(each.size) == "1" for each in _LAUNCHERS)


def launched_by_mpi(environ: Mapping[str, str], declared: DeclaredRank) -> LaunchedRank:
    """The rank that such a launcher has started.

    Args:
        environ: the environment.
        declared: what ``declared_by_mpi`` found in it.

    Raises:
        HelixError: HX509, no variable says where the ranks meet.
    """
    host = environ.get("MASTER_ADDR") or ("127.0.0.1" if declared.local_size == declared.world_size else None)
    if host is None:
        hint = (
            f"set MASTER_ADDR in all of them to the host of rank 0, 127.0.0.1 where all are here: {_exported(declared)}"
        )
        raise fail("HX509", f"{declared}, and nothing says where the ranks meet", hint)
    job = next((environ[name] for name in _JOBS if environ.get(name)), "")
    return declared.meeting_at(host, integer(environ, "MASTER_PORT", job_port(zlib.crc32(job.encode()))))


def _exported(declared: DeclaredRank) -> str:
    option = {"mpirun": "-x MASTER_ADDR=HOST", "mpiexec": "-genv MASTER_ADDR HOST"}.get(declared.launcher, "")
    return f"{declared.launcher} {option} ..." if option else f"export MASTER_ADDR=HOST; {declared.launcher} ..."


def _standpoint(environ: Mapping[str, str], of: _Launcher) -> DeclaredRank:
    for name, other in ((of.rank, of.size), (of.size, of.rank)):
        if name not in environ and environ[other] != ("1" if other == of.size else ""):
            hint = f"set both as {of.command} does, or unset {other} to start all ranks here"
            raise fail("HX509", f"{other} is {environ[other]}, {name} is not set", hint)
    rank, size = integer(environ, of.rank, 0), integer(environ, of.size, 1)
    if rank >= size:
        hint = f"set both as {of.command} does, or unset both to start all ranks here"
        raise fail("HX509", f"{of.rank} is {rank}, and {of.size} {size}", hint)
    local_size = size if of.nodes and environ.get(of.nodes) == "1" else _first(environ, of.local_size)
    local_rank = _first(environ, of.local_rank)
    if local_rank is None:
        local_rank = rank % local_size if local_size else rank
    return DeclaredRank(of.command, of.rank, rank, size, local_rank, local_size)


def _first(environ: Mapping[str, str], names: tuple[str, ...]) -> int | None:
    return next((integer(environ, name, 0) for name in names if environ.get(name)), None)
