"""What a simulated step means in the words of a run's report: throughput, latency, overhead, bytes, memory."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice, pairwise
from statistics import fmean

from helixctl.cost.memory import peak_nbytes, weight_nbytes
from helixctl.cost.tasks import crosses_hosts
from helixctl.dag import Dag, Lane, Level
from helixctl.dag.function import output_of
from helixctl.simulate.step import simulate
from helixctl.simulate.timeline import Timeline

_Kind = tuple[Level, str]


@dataclass(frozen=True, slots=True)
class KindForecast:
    """The tasks of one kind in one level, summed over the step. Times are means over the ranks.

    Attributes:
        tasks: how many, of all ranks together.
        busy_s: compute: the time they run. Communication: from a rank's issue to the end, with the wait for the other
            ranks and for the lane.
        transfer_s: communication: of it, the time in which data moves; 0 for compute.
        exposed_s: communication: of it, the time for which a rank stands still; 0 for compute.
        received_nbytes: bytes that a rank receives (the one that receives most).
        between_hosts_nbytes: of them, in collectives that cross hosts.
    """

    level: Level
    kind: str
    lane: Lane
    tasks: int
    busy_s: float
    transfer_s: float
    exposed_s: float
    received_nbytes: int
    between_hosts_nbytes: int


@dataclass(frozen=True, slots=True)
class Forecast:
    """A prediction of one step, never a measurement. Means over ranks are over the ranks that have tasks.

    Attributes:
        step_s: seconds until the last rank is done.
        tokens: tokens per step.
        seq_len: tokens per sequence in the step.
        latency_s: when a sequence's part of the output is complete on all ranks that make it, mean over the sequences.
        exposed_s: time in which a rank neither computes nor is done: in communication, or waiting for it, that no
            computation hides; mean over the ranks.
        hidden_s: time in which a rank computes while a collective of it is on its way; mean over the ranks.
        busy_share: compute time as a share of the step; mean over the ranks.
        levels: seconds by (level, lane) of the rank that is done last; its communication is what is exposed, so that
            they add up to the step. The copies for a collective are computation.
        kinds: by level and kind, in the order in which the step comes to them.
        received_nbytes: bytes that one rank receives in a step (the one that receives most).
        between_hosts_nbytes: of them, in collectives that cross hosts (the rank with most of them).
        memory_nbytes: peak of the fullest device.
        weight_nbytes: weights of the fullest device.
    """

    step_s: float
    tokens: int
    seq_len: int
    latency_s: float
    exposed_s: float
    hidden_s: float
    busy_share: float
    levels: dict[tuple[Level, Lane], float]
    kinds: tuple[KindForecast, ...]
    received_nbytes: int
    between_hosts_nbytes: int
    memory_nbytes: int
    weight_nbytes: int

    @property
    def tokens_per_s(self) -> float:
        """Tokens per second."""
        return self.tokens / self.step_s

    @property
    def sync_overhead_per_token_ms(self) -> float:
        """The paper's "TPOT": exposed communication of a step divided by the tokens of a sequence in it."""
        return self.exposed_s * 1e3 / self.seq_len


def forecast(dag: Dag) -> Forecast:
    """Simulate a step of a dag that is free of deadlock, and say what it means."""
    return forecast_of(simulate(dag))


def forecast_of(timeline: Timeline) -> Forecast:
    """The forecast of a timeline."""
    dag, ranks = timeline.dag, timeline.ranks
    work, step_s = dag.plan.workload, timeline.step_s
    exposed = {rank: sum(timeline.waited_s[rank].values()) for rank in ranks}
    last = max(ranks, key=lambda rank: timeline.rank_end_s[rank])
    moved = _moved(timeline)
    return Forecast(
        step_s=step_s,
        tokens=work.tokens,
        seq_len=work.seq_len,
        latency_s=_latency(timeline),
        exposed_s=fmean(exposed.values()),
        hidden_s=fmean(_hidden(timeline, rank) for rank in ranks),
        busy_share=fmean(timeline.rank_end_s[rank] - exposed[rank] for rank in ranks) / step_s,
        levels=_levels(timeline, last),
        kinds=_kinds(timeline, moved),
        received_nbytes=_most(m.received for m in moved.values()),
        between_hosts_nbytes=_most(m.between_hosts for m in moved.values()),
        memory_nbytes=max(peak_nbytes(dag, timeline.programs)),
        weight_nbytes=max(weight_nbytes(dag)),
    )


@dataclass(slots=True)
class _Moved:
    """Bytes that each rank receives in one kind of one level."""

    received: Counter[int] = field(default_factory=Counter)
    between_hosts: Counter[int] = field(default_factory=Counter)


def _moved(timeline: Timeline) -> dict[_Kind, _Moved]:
    dag, ranks = timeline.dag, frozenset(timeline.ranks)
    found: dict[_Kind, _Moved] = defaultdict(_Moved)
    for name in timeline.begin_s:
        task = dag.task[name]
        if not task.is_collective:
            continue
        nbytes = dict.fromkeys(ranks.intersection(task.receivers), task.nbytes)
        moved = found[task.level, task.kind]
        moved.received.update(nbytes)
        if crosses_hosts(task, dag.plan.cluster):
            moved.between_hosts.update(nbytes)
    return found


def _most(counts: Iterable[Counter[int]]) -> int:
    """The total of the rank that has most."""
    return max(sum(counts, Counter[int]()).values(), default=0)


def _levels(timeline: Timeline, rank: int) -> dict[tuple[Level, Lane], float]:
    found: dict[tuple[Level, Lane], float] = defaultdict(float)
    for name in timeline.dag.order[rank]:
        task = timeline.dag.task[name]
        if task.is_collective:
            found[task.level, task.lane] += timeline.waited_s[rank].get(name, 0.0)
            if copied := timeline.copied_s[rank].get(name):
                found[task.level, "compute"] += copied
        else:
            found[task.level, task.lane] += timeline.end_s[name] - timeline.begin_s[name]
    if copied := timeline.copied_s[rank].get(""):
        found[timeline.dag.task[timeline.dag.order[rank][-1]].level, "compute"] += copied
    return dict(found)


def _kinds(timeline: Timeline, moved: dict[_Kind, _Moved]) -> tuple[KindForecast, ...]:
    task, begin_s, end_s, ranks = timeline.dag.task, timeline.begin_s, timeline.end_s, timeline.ranks
    busy: dict[_Kind, float] = defaultdict(float)
    transfer: dict[_Kind, float] = defaultdict(float)
    exposed: dict[_Kind, float] = defaultdict(float)
    lane: dict[_Kind, Lane] = {}
    for rank in ranks:
        issued_s, waited_s = timeline.issued_s[rank], timeline.waited_s[rank]
        for name in timeline.dag.order[rank]:
            kind = (task[name].level, task[name].kind)
            run = end_s[name] - begin_s[name]
            if name in issued_s:
                lane[kind] = "communication"
                transfer[kind] += run
                exposed[kind] += waited_s.get(name, 0.0)
                busy[kind] += end_s[name] - issued_s[name]
            else:
                lane[kind] = "compute"
                busy[kind] += run
    tasks = Counter((task[name].level, task[name].kind) for name in begin_s)
    none = _Moved()
    return tuple(
        KindForecast(
            level=kind[0],
            kind=kind[1],
            lane=lane[kind],
            tasks=tasks[kind],
            busy_s=busy[kind] / len(ranks),
            transfer_s=transfer[kind] / len(ranks),
            exposed_s=exposed[kind] / len(ranks),
            received_nbytes=_most([moved.get(kind, none).received]),
            between_hosts_nbytes=_most([moved.get(kind, none).between_hosts]),
        )
        for kind in busy
    )


def _hidden(timeline: Timeline, rank: int) -> float:
    """Time in which a rank computes while a collective of it is on its way, from its issue to its end."""
    issued = timeline.issued_s[rank]
    computing = [
        (timeline.begin_s[name], timeline.end_s[name]) for name in timeline.dag.order[rank] if name not in issued
    ]
    total, first, reached = 0.0, 0, 0.0
    for name, issue in issued.items():  # in the order of issue; what two of them share counts once
        begin, end = max(issue, reached), timeline.end_s[name]
        reached = max(reached, end)
        while first < len(computing) and computing[first][1] <= begin:
            first += 1
        for start, stop in islice(computing, first, None):
            if start >= end:
                break
            total += max(0.0, min(end, stop) - max(begin, start))
    return total


def _latency(timeline: Timeline) -> float:
    """Mean over the sequences that this dag computes of the time at which the last part of their output is there."""
    dag = timeline.dag
    output = output_of(dag.plan.model)
    axis = dag.tensor[output].dims.index("batch")
    complete: dict[tuple[int, int], float] = {}
    for value in dag.values:
        if value.tensor == output and (task := dag.producer.get(value.id)) is not None:
            part = value.region[axis]
            complete[part] = max(complete.get(part, 0.0), timeline.end_s[task.id])
    cuts = sorted({cut for part in complete for cut in part})
    total = sequences = 0.0
    for start, stop in pairwise(cuts):
        ends = [end for part, end in complete.items() if part[0] <= start and stop <= part[1]]
        if ends:
            total += max(ends) * (stop - start)
            sequences += stop - start
    return total / sequences if sequences else timeline.step_s
