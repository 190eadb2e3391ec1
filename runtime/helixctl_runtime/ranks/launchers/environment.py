"""Who started this process: torchrun, srun, a launcher of MPI, or nobody.

Of several launchers, one inside the other, the innermost counts: torchrun and whatever else sets ``RANK`` and
``WORLD_SIZE``, then those of MPI, then srun.
"""

from __future__ import annotations

from collections.abc import Mapping

from helixctl.errors import fail
from helixctl_runtime.ranks.launchers.mpi import check_alone, of_mpi, place_of_mpi, says_alone
from helixctl_runtime.ranks.launchers.place import Place, Standpoint, integer
from helixctl_runtime.ranks.launchers.slurm import in_step, of_srun, place_of_srun

_ELASTIC = "TORCHELASTIC_RUN_ID"  # torchrun's own mark


def detect(environ: Mapping[str, str]) -> Place | None:
    """The rank that the environment makes of this process; None where this process is to start the ranks.

    Raises:
        HelixError: HX509, it is one of several, and the environment does not say which, of how many, or where they
            meet.
    """
    srun = of_srun(environ)
    if "RANK" in environ and "WORLD_SIZE" in environ:
        return _of_torchrun(environ, srun)
    _check_parts(environ)
    mpi = of_mpi(environ)
    if mpi and not (srun and _same(mpi, srun) and in_step(environ)):
        return place_of_mpi(environ, mpi)
    if srun:
        return place_of_srun(environ, srun)
    check_alone(environ, known=says_alone(environ) or "SLURM_PROCID" in environ)
    return None


def check_world_size(place: Place, wanted: int) -> None:
    """Raise HX509 where the launcher started another number of ranks than the plan has."""
    if place.world_size == wanted:
        return
    command = {
        "torchrun": f"torchrun --nproc-per-node {wanted} --no-python helixctl run ... "
        f"(over two hosts: --nnodes 2 --nproc-per-node {max(1, wanted // 2)}), "
        "or unset RANK and WORLD_SIZE to start local ranks",
        "srun": f"srun --ntasks {wanted} helixctl run ..., or unset SLURM_PROCID to start local ranks",
        "jsrun": f"jsrun --np {wanted} helixctl run ...",
        "horovodrun": f"horovodrun -np {wanted} helixctl run ...",
    }
    started = f"{place.launcher} started {place.world_size}"
    hint = command.get(
        place.launcher, f"{place.launcher} -n {wanted} helixctl run ...; without it all ranks start here"
    )
    raise fail("HX509", f"the plan is for {wanted} ranks, {started}", hint)


def _of_torchrun(environ: Mapping[str, str], srun: Standpoint | None) -> Place:
    missing = [name for name in ("MASTER_ADDR", "MASTER_PORT") if name not in environ]
    if missing:
        hint = "set it as torchrun does, or unset RANK and WORLD_SIZE to start local ranks"
        raise fail("HX509", f"RANK and WORLD_SIZE are set, {' and '.join(missing)} not", hint)
    rank, size = integer(environ, "RANK", 0), integer(environ, "WORLD_SIZE", 1)
    if rank >= size:
        hint = "set both as torchrun does, or unset both to start local ranks"
        raise fail("HX509", f"RANK is {rank}, and WORLD_SIZE {size}", hint)
    at = Standpoint("torchrun", "RANK", rank, size, integer(environ, "LOCAL_RANK", rank))
    if _ELASTIC not in environ:
        for other in (of_mpi(environ), srun if in_step(environ) else None):
            _check_agreed(at, other)
    # env:// and not the address itself: under torchrun the store already runs in its agent.
    return Place(at.launcher, rank, size, at.local_rank, "env://")


def _check_agreed(at: Standpoint, other: Standpoint | None) -> None:
    """Raise HX509 where another launcher of as many ranks says another rank: an exported RANK is the same in all."""
    if other and other.world_size == at.world_size and other.rank != at.rank:
        raise fail("HX509", f"{at}, and {other}", "unset RANK and WORLD_SIZE, or set RANK in each process to its own")


def _check_parts(environ: Mapping[str, str]) -> None:
    """Raise HX509 where part of torchrun's variables says that this is one process of several."""
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):
        if environ.get(name, "0") not in {"", "0"} and not (name == "WORLD_SIZE" and environ[name] == "1"):
            lacks = [other for other in ("RANK", "WORLD_SIZE") if other not in environ]
            hint = f"set RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT, or unset {name} to start all ranks here"
            raise fail("HX509", f"{name} is {environ[name]}, {' and '.join(lacks)} not set", hint)


def _same(one: Standpoint, other: Standpoint) -> bool:
    return (one.rank, one.world_size) == (other.rank, other.world_size)
