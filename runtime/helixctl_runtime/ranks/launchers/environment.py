"""Which launcher started this process: torchrun, srun, a launcher of MPI, or none.

If one launcher runs inside another, the innermost counts: torchrun and whatever else sets ``RANK`` and
``WORLD_SIZE``, then those of MPI, then srun.
"""

from __future__ import annotations

from collections.abc import Mapping

from helixctl.errors import fail
from helixctl_runtime.ranks.launchers.launched_rank import DeclaredRank, LaunchedRank, integer
from helixctl_runtime.ranks.launchers.mpi import (
    check_single_process,
    declared_by_mpi,
    declares_one_process,
    launched_by_mpi,
)
from helixctl_runtime.ranks.launchers.slurm import declared_by_srun, is_srun_step, launched_by_srun

_ELASTIC = "TORCHELASTIC_RUN_ID"  # torchrun's own mark


def detect(environ: Mapping[str, str]) -> LaunchedRank | None:
    """The rank that the environment declares this process to be; None if this process must start the ranks.

    Raises:
        HelixError: HX509, the process is one of several, and the environment lacks its rank, the number of ranks, or
            where they meet.
    """
    srun = declared_by_srun(environ)
    if "RANK" in environ and "WORLD_SIZE" in environ:
        return _launched_by_torchrun(environ, srun)
    _check_parts(environ)
    mpi = declared_by_mpi(environ)
    if mpi and not (srun and _same(mpi, srun) and is_srun_step(environ)):
        return launched_by_mpi(environ, mpi)
    if srun:
        return launched_by_srun(environ, srun)
    check_single_process(environ, known=declares_one_process(environ) or "SLURM_PROCID" in environ)
    return None


def check_world_size(launched: LaunchedRank, wanted: int) -> None:
    """Raise HX509 if the launcher started another number of ranks than the plan has."""
    if launched.world_size == wanted:
        return
    command = {
        "torchrun": f"torchrun --nproc-per-node {wanted} --no-python helixctl run ... "
        f"(over two hosts: --nnodes 2 --nproc-per-node {max(1, wanted // 2)}), "
        "or unset RANK and WORLD_SIZE to start local ranks",
        "srun": f"srun --ntasks {wanted} helixctl run ..., or unset SLURM_PROCID to start local ranks",
        "jsrun": f"jsrun --np {wanted} helixctl run ...",
        "horovodrun": f"horovodrun -np {wanted} helixctl run ...",
    }
    started = f"{launched.launcher} started {launched.world_size}"
    hint = command.get(
        launched.launcher, f"{launched.launcher} -n {wanted} helixctl run ...; without it all ranks start here"
    )
    raise fail("HX509", f"the plan is for {wanted} ranks, {started}", hint)


def _launched_by_torchrun(environ: Mapping[str, str], srun: DeclaredRank | None) -> LaunchedRank:
    missing = [name for name in ("MASTER_ADDR", "MASTER_PORT") if name not in environ]
    if missing:
        hint = "set it as torchrun does, or unset RANK and WORLD_SIZE to start local ranks"
        raise fail("HX509", f"RANK and WORLD_SIZE are set, {' and '.join(missing)} not", hint)
    rank, size = integer(environ, "RANK", 0), integer(environ, "WORLD_SIZE", 1)
    if rank >= size:
        hint = "set both as torchrun does, or unset both to start local ranks"
        raise fail("HX509", f"RANK is {rank}, and WORLD_SIZE {size}", hint)
    declared = DeclaredRank("torchrun", "RANK", rank, size, integer(environ, "LOCAL_RANK", rank))
    if _ELASTIC not in environ:
        for other in (declared_by_mpi(environ), srun if is_srun_step(environ) else None):
            _check_agreed(declared, other)
    # env:// and not the address itself: under torchrun the store already runs in its agent.
    return LaunchedRank(declared.launcher, rank, size, declared.local_rank, "env://")


def _check_agreed(declared: DeclaredRank, other: DeclaredRank | None) -> None:
    """Raise HX509 if another launcher of as many ranks declares another rank: an exported RANK is the same in all."""
    if other and other.world_size == declared.world_size and other.rank != declared.rank:
        raise fail(
            "HX509", f"{declared}, and {other}", "unset RANK and WORLD_SIZE, or set RANK in each process to its own"
        )


def _check_parts(environ: Mapping[str, str]) -> None:
    """Raise HX509 if only some of torchrun's variables are set, and they declare one process of several."""
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):
        if environ.get(name, "0") not in {"", "0"} and not (name == "WORLD_SIZE" and environ[name] == "1"):
            lacks = [other for other in ("RANK", "WORLD_SIZE") if other not in environ]
            hint = f"set RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT, or unset {name} to start all ranks here"
            raise fail("HX509", f"{name} is {environ[name]}, {' and '.join(lacks)} not set", hint)


def _same(one: DeclaredRank, other: DeclaredRank) -> bool:
    return (one.rank, one.world_size) == (other.rank, other.world_size)
