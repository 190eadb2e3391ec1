"""Memory of a dag: weights for ever, every other value while it is needed."""

from __future__ import annotations

from collections import Counter

from helixctl.dag import Dag
from helixctl.dag.liveness import last_needed


def peak_nbytes(dag: Dag) -> list[int]:
    """Peak bytes of every rank: weights, and live values along the rank's issue order (helixctl.dag.liveness).

    Workspace of kernels and of the communication library is not counted.
    """
    weights = weight_nbytes(dag)
    return [nbytes + (peak_live_nbytes(dag, rank) if dag.order[rank] else 0) for rank, nbytes in enumerate(weights)]


def weight_nbytes(dag: Dag) -> list[int]:
    """Bytes of weights of every rank."""
    found = [0] * len(dag.order)
    for value in dag.values:
        if dag.tensor[value.tensor].role == "weight":
            found[value.rank] += value.nbytes
    return found


def peak_live_nbytes(dag: Dag, rank: int) -> int:
    """Peak bytes of one rank without its weights."""
    last = last_needed(dag, rank)
    given = (dag.value[v] for v in last if v in dag.kept and v not in dag.producer)
    live = sum(value.nbytes for value in given if dag.tensor[value.tensor].role == "input")
    peak = live
    expiring: Counter[int] = Counter()
    ends, values = dag.ends, dag.value
    for place, name in enumerate(dag.order[rank]):
        for value_id in ends[name][rank][1]:
            nbytes = values[value_id].nbytes
            live += nbytes
            expiring[last[value_id]] += nbytes
        peak = max(peak, live)
        live -= expiring.pop(place, 0)
    return peak
