"""Memory of a dag: what each rank allocates for a step, as its program says."""

from __future__ import annotations

from helixctl.dag import Dag, Role
from helixctl.dag.storage import held_nbytes
from helixctl.program import Programs, programs_of


def peak_nbytes(dag: Dag, programs: Programs | None = None) -> list[int]:
    """Bytes that every rank allocates: weights, state, and an arena for all else (helixctl.program); 0 without tasks.

    Workspace inside kernels and of the communication library is not counted.
    """
    programs = programs or programs_of(dag)
    weights = weight_nbytes(dag)
    return [programs[rank].nbytes if dag.order[rank] else nbytes for rank, nbytes in enumerate(weights)]


def peaks_below_fullest(dag: Dag, programs: Programs | None = None) -> list[int]:
    """As ``peak_nbytes``, where only the fullest ranks matter: the others' arenas are not searched to the end.

    The largest number is exact, and so are all that equal it; every other one is below it, and may be above what its
    rank allocates. Where hosts differ this holds for the ranks on each kind of hosts by themselves.
    """
    programs = programs or programs_of(dag)
    found = weight_nbytes(dag)
    most: dict[int, int] = {}
    known: dict[object, int] = {}
    for rank in sorted(programs.ranks, key=lambda rank: -programs[rank].least_nbytes):
        kind, program = dag.plan.cluster.kind_of(rank), programs[rank]
        same = (kind, program.least_nbytes, program.blocks)
        if same not in known:
            known[same] = program.nbytes_above(most.get(kind, 0) - 1)
        found[rank] = known[same]
        most[kind] = max(most.get(kind, 0), found[rank])
    return found


def least_nbytes(dag: Dag, programs: Programs) -> list[int]:
    """Bytes that every rank needs at least: those of ``peak_nbytes`` without the gaps in its arena."""
    found = weight_nbytes(dag)
    for rank in programs.ranks:
        found[rank] = programs[rank].least_nbytes
    return found


def weight_nbytes(dag: Dag) -> list[int]:
    """Bytes of weights of every rank, each once."""
    return _of_role(dag, "weight")


def state_nbytes(dag: Dag) -> list[int]:
    """Bytes of what every rank keeps between steps: the KV cache."""
    return _of_role(dag, "state")


def _of_role(dag: Dag, role: Role) -> list[int]:
    found = [0] * len(dag.order)
    for value in dag.values:
        if dag.tensor[value.tensor].role == role:
            found[value.rank] += held_nbytes(value, dag.tensor)
    return found


def peak_live_nbytes(dag: Dag, rank: int) -> int:
    """The largest sum of bytes that one rank needs at the same time without its weights: no arena is smaller."""
    return Programs(dag)[rank].live_nbytes
