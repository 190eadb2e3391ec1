"""The quantities of a simulated step, under the names of a run's report: throughput, latency, bytes, memory."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice, pairwise
from statistics import fmean
from typing import NamedTuple

from helixctl.cost.links import link_names, widest_link
from helixctl.cost.memory import least_nbytes, peaks_below_fullest, state_nbytes, weight_nbytes
from helixctl.cost.tasks import crosses_hosts
from helixctl.dag import Dag, Lane, Level
from helixctl.dag.function import output_of
from helixctl.records import record
from helixctl.simulate.step import simulate
from helixctl.simulate.timeline import Timeline

_Kind = tuple[Level, str]


@record
class KindForecast:
    """The tasks of one kind in one level, summed over the step. Times are means over the ranks.

    Attributes:
        level, kind, lane: which tasks.
        tasks: their number, of all ranks together.
        busy_s: seconds in which they run. A collective runs from the rank's issue to its end, the wait for the other
            ranks and for the lane included.
        transfer_s: the part of ``busy_s`` in which data moves; 0 for computations.
        exposed_s: the part of ``busy_s`` in which the rank waits; 0 for computations.
        received_nbytes: bytes that a rank receives (the rank that receives most).
        between_hosts_nbytes: the part of them in collectives that cross hosts.
        link: where links inside hosts differ, the widest that one of them goes over.
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
    link: str = ""


class KindMemory(NamedTuple):
    """What the fullest device of one kind of hosts holds: all of it, and of that its weights and its KV cache.

    ``least_nbytes`` is all of it without gaps in its arena, or 0 of a generation.
    """

    nbytes: int
    weight_nbytes: int
    cache_nbytes: int
    least_nbytes: int = 0


@record
class Forecast:
    """A prediction of one step, never a measurement. Means over ranks are over the ranks that have tasks.

    Attributes:
        step_s: seconds until the last rank is done.
        tokens: tokens per step.
        seq_len: tokens per sequence in the step.
        latency_s: seconds until a sequence's part of the output is complete on all ranks that make it; mean over the
            sequences.
        exposed_s: seconds in which a rank is in communication, or waits for it, and does not compute; mean over the
            ranks.
        hidden_s: seconds in which a rank computes while one of its collectives is in flight; mean over the ranks.
        busy_share: the share of the step in which a rank computes; mean over the ranks.
        levels: seconds by (level, lane) of the rank that is done last; communication counts where it is exposed, so
            that they add up to the step. The copies for a collective count as computation.
        kinds: the tasks by level and kind, in the order of the step.
        received_nbytes: bytes that one rank receives in a step (the rank that receives most).
        between_hosts_nbytes: the part of them in collectives that cross hosts (the rank that receives most so).
        memory_nbytes: the peak memory of the fullest device.
        weight_nbytes: the weights of the fullest device.
        cache_nbytes: the KV cache of the fullest device.
        least_nbytes: the memory of the fullest device without gaps in its arena; 0 of a generation.
        generation: the steps that it is made of, where it is the forecast of a generation.
        memory_of_kinds: where hosts differ, the memory of the fullest device of every kind of hosts.
        link_nbytes: where links inside hosts differ, bytes that one rank receives in collectives by the widest link
            that these go over, by its name, from the innermost outwards (the rank that receives most so).
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
    cache_nbytes: int = 0
    least_nbytes: int = 0
    generation: Generation | None = None
    memory_of_kinds: tuple[KindMemory, ...] = ()
    link_nbytes: tuple[tuple[str, int], ...] = ()

    @property
    def tokens_per_s(self) -> float:
        """Tokens per second."""
        return self.tokens / self.step_s

    @property
    def fullest(self) -> KindMemory:
        """What the fullest device of all holds."""
        return KindMemory(self.memory_nbytes, self.weight_nbytes, self.cache_nbytes, self.least_nbytes)

    @property
    def sync_overhead_per_token_ms(self) -> float:
        """The paper's "TPOT": exposed communication of a step divided by the tokens of a sequence in it."""
        return self.exposed_s * 1e3 / self.seq_len


@record
class Generation:
    """The steps of a generation: a static batch, without a queue.

    Attributes:
        prefill: a step of the prefill, the mean of all of them.
        decode: a decode step, the mean of all of them.
        chunks: steps of the prefill.
        batch, output_len: sequences, and tokens that are generated after each.
    """

    prefill: Forecast
    decode: Forecast
    chunks: int
    batch: int
    output_len: int

    @property
    def ttft_s(self) -> float:
        """Seconds until every sequence has its first token; its choice is the end of the prefill."""
        return self.chunks * self.prefill.step_s

    @property
    def time_per_output_token_s(self) -> float:
        """Seconds from one token of a sequence to its next."""
        return self.decode.step_s

    @property
    def total_s(self) -> float:
        """Seconds until all tokens are there."""
        return self.ttft_s + (self.output_len - 1) * self.decode.step_s

    @property
    def output_tokens_per_s(self) -> float:
        """Generated tokens per second of all sequences, the time of the prefill included."""
        return self.batch * self.output_len / self.total_s

    @property
    def tokens_per_s_per_user(self) -> float:
        """Tokens per second that one sequence gets while it is decoded."""
        return 1 / self.decode.step_s


def generated(prefill: Forecast, decode: Forecast, chunks: int, batch: int, output_len: int) -> Forecast:
    """The forecast of a generation: its step is all of it.

    Args:
        prefill: of one of its steps.
        decode: of one of its steps.
        chunks: steps of the prefill.
        batch: sequences.
        output_len: tokens that are generated after each.
    """
    its = Generation(prefill, decode, chunks, batch, output_len)

    def total(name: str, *, of_steps: bool = False) -> float:
        """The sum over all steps; ``of_steps``: of what is a share of each step's time."""
        each: list[float] = [getattr(step, name) * (step.step_s if of_steps else 1) for step in (prefill, decode)]
        return chunks * each[0] + (output_len - 1) * each[1]

    levels = {at: chunks * prefill.levels.get(at, 0.0) for at in (*prefill.levels, *decode.levels)}
    return Forecast(
        step_s=its.total_s,
        tokens=batch * output_len,
        seq_len=output_len,
        latency_s=its.total_s,
        exposed_s=total("exposed_s"),
        hidden_s=total("hidden_s"),
        busy_share=total("busy_share", of_steps=True) / its.total_s,
        levels={at: s + (output_len - 1) * decode.levels.get(at, 0.0) for at, s in levels.items()},
        kinds=(),
        received_nbytes=round(total("received_nbytes")),
        between_hosts_nbytes=round(total("between_hosts_nbytes")),
        # Weights and cache are there once; each kind of step has an arena of its own.
        memory_nbytes=prefill.memory_nbytes + decode.memory_nbytes - decode.weight_nbytes - decode.cache_nbytes,
        memory_of_kinds=tuple(map(_together, prefill.memory_of_kinds, decode.memory_of_kinds)),
        weight_nbytes=max(prefill.weight_nbytes, decode.weight_nbytes),
        cache_nbytes=prefill.cache_nbytes,
        generation=its,
        link_nbytes=line_of_links(lambda x, y: chunks * x + (output_len - 1) * y, prefill, decode),
    )


def line_of_links(of: Callable[[float, float], float], a: Forecast, b: Forecast) -> tuple[tuple[str, int], ...]:
    """The bytes by link that follow from those of two forecasts on one cluster."""
    return tuple([(name, round(of(x, y))) for (name, x), (_, y) in zip(a.link_nbytes, b.link_nbytes, strict=True)])


def forecast(dag: Dag, *, arenas: bool = True) -> Forecast:
    """Simulate a step of a dag without deadlock, and work out its forecast."""
    return forecast_from(simulate(dag), arenas=arenas)


def forecast_from(timeline: Timeline, *, arenas: bool = True) -> Forecast:
    """The forecast of a timeline.

    Args:
        timeline: of a simulated step.
        arenas: False where nobody asks for its memory: ``memory_nbytes`` is then that of weights and cache alone,
            because arenas take as long to find as all else.
    """
    dag, ranks = timeline.dag, timeline.ranks
    work, step_s = dag.work, timeline.step_s
    exposed = {rank: sum(timeline.waited_s[rank].values()) for rank in ranks}
    last = max(ranks, key=lambda rank: timeline.rank_end_s[rank])
    received_bytes = _received_bytes(timeline)
    # Where hosts differ, what is kept is that of the ranks that hold most, arenas and all.
    arenas = arenas or dag.plan.cluster.differs
    peaks = peaks_below_fullest(dag, timeline.programs) if arenas else _kept_nbytes(dag)
    least = least_nbytes(dag, timeline.programs) if arenas else peaks
    return Forecast(
        step_s=step_s,
        tokens=work.tokens,
        seq_len=work.seq_len,
        latency_s=_latency(timeline),
        exposed_s=fmean(exposed.values()),
        hidden_s=fmean(_hidden(timeline, rank) for rank in ranks),
        busy_share=fmean(timeline.rank_end_s[rank] - exposed[rank] for rank in ranks) / step_s,
        levels=_levels(timeline, last),
        kinds=_kinds(timeline, received_bytes),
        received_nbytes=_most(m.received for m in received_bytes.values()),
        between_hosts_nbytes=_most(m.between_hosts for m in received_bytes.values()),
        memory_nbytes=max(peaks),
        memory_of_kinds=_memory_of_kinds(dag, peaks, least) if dag.plan.cluster.differs else (),
        link_nbytes=_link_nbytes(received_bytes.values(), link_names(dag.plan.cluster)),
        weight_nbytes=max(weight_nbytes(dag)),
        cache_nbytes=max(state_nbytes(dag)),
        least_nbytes=max(least),
    )


def _kept_nbytes(dag: Dag) -> list[int]:
    return [sum(its) for its in zip(weight_nbytes(dag), state_nbytes(dag), strict=True)]


def _memory_of_kinds(dag: Dag, peaks: Sequence[int], least: Sequence[int]) -> tuple[KindMemory, ...]:
    cluster, none = dag.plan.cluster, KindMemory(0, 0, 0)
    found = [none for _ in cluster.kinds]
    for rank, its in enumerate(zip(peaks, weight_nbytes(dag), state_nbytes(dag), least, strict=True)):
        kind = cluster.kind_of(rank)
        found[kind] = max(found[kind], KindMemory(*its))
    return tuple(found)


def _together(prefill: KindMemory, decode: KindMemory) -> KindMemory:
    """Weights and cache once, and an arena for each step."""
    arenas = decode.nbytes - decode.weight_nbytes - decode.cache_nbytes
    weights = max(prefill.weight_nbytes, decode.weight_nbytes)
    return KindMemory(prefill.nbytes - prefill.weight_nbytes + weights + arenas, weights, prefill.cache_nbytes)


@dataclass(slots=True)
class _ReceivedBytes:
    """Bytes that each rank receives in one kind of one level; by the widest link where links inside hosts differ."""

    received: Counter[int] = field(default_factory=Counter)
    between_hosts: Counter[int] = field(default_factory=Counter)
    by_link: dict[str, Counter[int]] = field(default_factory=lambda: defaultdict(Counter))


def _link_nbytes(received: Iterable[_ReceivedBytes], names: Sequence[str]) -> tuple[tuple[str, int], ...]:
    found = list(received)
    return tuple([(name, _most(its.by_link.get(name, Counter[int]()) for its in found)) for name in names])


def _received_bytes(timeline: Timeline) -> dict[_Kind, _ReceivedBytes]:
    dag, ranks = timeline.dag, frozenset(timeline.ranks)
    has_domains = dag.plan.cluster.has_domains
    found: dict[_Kind, _ReceivedBytes] = defaultdict(_ReceivedBytes)
    for name in timeline.begin_s:
        task = dag.task[name]
        if not task.is_collective:
            continue
        nbytes = dict.fromkeys(ranks.intersection(task.receivers), task.nbytes)
        received_bytes = found[task.level, task.kind]
        received_bytes.received.update(nbytes)
        if crosses_hosts(task, dag.plan.cluster):
            received_bytes.between_hosts.update(nbytes)
        if has_domains:
            received_bytes.by_link[widest_link(task.ranks, dag.plan.cluster)].update(nbytes)
    return found


def _most(counts: Iterable[Counter[int]]) -> int:
    """The total of the rank that has the largest."""
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


def _kinds(timeline: Timeline, received_bytes: dict[_Kind, _ReceivedBytes]) -> tuple[KindForecast, ...]:
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
    none, names = _ReceivedBytes(), link_names(timeline.dag.plan.cluster)
    return tuple(
        KindForecast(
            level=kind[0],
            kind=kind[1],
            lane=lane[kind],
            tasks=tasks[kind],
            busy_s=busy[kind] / len(ranks),
            transfer_s=transfer[kind] / len(ranks),
            exposed_s=exposed[kind] / len(ranks),
            received_nbytes=_most([received_bytes.get(kind, none).received]),
            between_hosts_nbytes=_most([received_bytes.get(kind, none).between_hosts]),
            link=max(received_bytes.get(kind, none).by_link, key=names.index, default=""),
        )
        for kind in busy
    )


def _hidden(timeline: Timeline, rank: int) -> float:
    """Seconds in which a rank computes while one of its collectives is in flight, from its issue to its end."""
    issued = timeline.issued_s[rank]
    computing = [
        (timeline.begin_s[name], timeline.end_s[name]) for name in timeline.dag.order[rank] if name not in issued
    ]
    total, first, reached = 0.0, 0, 0.0
    for name, issue in issued.items():  # in the order of issue; time that two of them share counts once
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
    """Seconds until a sequence's whole output is there, mean over the sequences that this dag computes."""
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
