"""State: what the next step takes is left where it takes it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from helixctl.dag import Dag, Value
from helixctl.dag.function import LENGTH, TOKEN
from helixctl.errors import Diagnostic
from helixctl.verify.findings import finding, region_text


def check_state(dag: Dag) -> Iterator[Diagnostic]:
    """Every rank leaves of a state what it was given, region by region, and reads it once, to write it (HX415).

    This is the step of the induction: if the cache holds the positions below ``length`` of each sequence on the ranks
    that own them, the same is so afterwards for ``length + count``, on the same ranks. That a position is written once,
    on the rank that owns it, follows from the formula of ``cache_write`` and from the tiling of the state. What a rank
    is given it overwrites, so that no other task may read it. And every rank learns the tokens of its sequences.
    """
    following = {tensor.name: tensor.next for tensor in dag.tensors if tensor.next is not None}
    given: dict[str, list[Value]] = defaultdict(list)
    left: dict[str, list[Value]] = defaultdict(list)
    for value in dag.values:
        if value.tensor in following:
            given[value.tensor].append(value)
        producer = dag.producer.get(value.id)
        if producer is not None and not producer.moves:
            left[value.tensor].append(value)
    for name, after in following.items():
        have = {(value.rank, value.region): value.id for value in left[after]}
        for value in given[name]:
            if (value.rank, value.region) not in have:
                where = f"[{region_text(dag.tensor[name], value.region)}] on rank {value.rank}"
                message = f"state {value.id} is {where}; no value of {after} there is the same for the next step"
                yield Diagnostic("HX415", message, path=value.id)
            for task in dag.consumers.get(value.id, ()):
                if after not in {dag.value[v].tensor for v in task.outputs}:
                    message = f"reads {value.id}, which the task that makes {after} overwrites"
                    yield finding("HX415", dag, task, message)
    if TOKEN in dag.tensor:
        yield from _unknown_tokens(dag)


def _unknown_tokens(dag: Dag) -> Iterator[Diagnostic]:
    """Sequences whose next token a rank that works on them neither chooses nor is sent."""
    known = {(value.rank, value.region) for value in dag.values if value.tensor == TOKEN and value.id in dag.producer}
    for value in dag.values:
        if value.tensor == LENGTH and value.id not in dag.producer and (value.rank, value.region) not in known:
            (first, last), rank = value.region[0], value.rank
            message = f"rank {rank} has no {TOKEN} of the sequences {first}:{last}, though it has their {value.id}"
            yield Diagnostic("HX415", message, path=value.id)
