"""Schedule: a dry run of all ranks' issue orders. Every task is issued once, after its inputs; collectives all meet."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from helixctl.dag import Dag
from helixctl.dag.dry_run import dry_run
from helixctl.errors import Diagnostic
from helixctl.verify.findings import finding


def check_issue(dag: Dag) -> Iterator[Diagnostic]:
    """Every rank issues exactly the tasks that it takes part in, once, and after the tasks it depends on (HX405)."""
    parts: list[set[str]] = [set() for _ in dag.order]
    for task in dag.tasks:
        for rank in task.ranks:
            parts[rank].add(task.id)
    for rank, (ids, mine) in enumerate(zip(dag.order, parts, strict=True)):
        counts, path = Counter(ids), f"order[{rank}]"
        for name, count in counts.items():
            if count > 1:
                yield Diagnostic("HX405", f"rank {rank} issues {name} {count} times", path=path)
            if name not in mine:
                yield Diagnostic("HX405", f"rank {rank} issues {name}, in which it takes no part", path=path)
        for name in sorted(mine - counts.keys()):
            yield Diagnostic("HX405", f"rank {rank} never issues {name}", path=path)
        yield from _late(dag, rank, ids)


def _late(dag: Dag, rank: int, ids: Sequence[str]) -> Iterator[Diagnostic]:
    """Tasks whose inputs on this rank are made later in its order."""
    place = {name: i for i, name in enumerate(ids)}
    for name in ids:
        inputs, _ = dag.ends[name].get(rank, ((), ()))
        for earlier in {p.id: p for v in inputs if (p := dag.producer.get(v)) is not None}.values():
            if place.get(earlier.id, -1) >= place[name]:
                message = f"rank {rank} issues it before {earlier.id}, whose output it reads"
                yield finding("HX405", dag, dag.task[name], message)


def check_collectives(dag: Dag) -> Iterator[Diagnostic]:
    """No deadlock: walked in the declared orders, every rank gets to its end (HX409)."""
    stuck = dry_run(dag).stuck
    if stuck:
        waits = [f"rank {rank} waits in {task.id}" for rank, task in stuck.items()]
        more = f", and {len(waits) - 4} ranks more" if len(waits) > 4 else ""  # noqa: PLR2004
        hint = "all ranks must issue the collectives that they share in one order"
        yield Diagnostic("HX409", f"deadlock: {', '.join(waits[:4])}{more}", hint, path=next(iter(stuck.values())).id)
