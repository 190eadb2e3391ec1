"""Simulation of ranks that share the cores of their host: the same lanes and rules, driven by events."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

from helixctl.cost.tasks import TaskCosts, collective_load
from helixctl.dag import Dag, Task
from helixctl.dag.dry_run import dry_run, meetings
from helixctl.simulate.timeline import Record, Timeline
from helixctl.simulate.waits import awaited_collectives

# Activities that end together have remaining seconds that differ by rounding errors only.
_ROUNDING = 1e-12


def simulate_shared(dag: Dag, cores: int | None = None) -> Timeline:
    """The timeline of a step on hosts whose ranks share cores in equal parts (processor sharing).

    A rank that computes needs one core, a rank inside a running collective ``collective_load`` of one, and a rank that
    waits none. If the ranks of a host need more cores than it has, all of them slow down by the same factor; a
    collective slows down by the factor of its slowest host. In a partial dag the ranks that have tasks stand, in equal
    parts, for all ranks of their host.

    Args:
        dag: the dag; it may be partial, as for ``simulate``.
        cores: the cores of every host; None: those that the cluster gives it, without limit where it gives none.

    Raises:
        ValueError: the dag deadlocks; a proved one does not.
    """
    return _SharedSimulation(dag, cores).run()


@dataclass(slots=True)
class _Activity:
    """A running task.

    Attributes:
        task: the task; None for the copies of one rank, before a collective or after all tasks.
        seconds: its duration if every rank has a core.
        left: the part of ``seconds`` that is left.
        ranks: its ranks.
        hosts: the number of its ranks on each host.
        cores: the cores that each rank needs.
    """

    task: Task | None
    seconds: float
    left: float
    ranks: list[int]
    hosts: Counter[int]
    cores: float


def _cores(dag: Dag, cores: int | None) -> dict[int, float]:
    """The cores of the host of every rank."""
    cluster, found = dag.plan.cluster, dict[int, float]()
    for rank in range(len(dag.order)):
        host = cluster.host_of(rank)
        if host not in found:
            found[host] = cores or cluster.hosts_of(rank).cores_per_host or inf
    return found


class _SharedSimulation:
    def __init__(self, dag: Dag, cores: int | None) -> None:
        self.dag, self.cores = dag, _cores(dag, cores)
        if dry_run(dag).stuck:
            raise ValueError("deadlock: ranks wait for ever")
        self.costs = TaskCosts(dag)
        self.load = collective_load(dag).value
        self.record = Record(dag)
        self.now = 0.0
        self.running: list[_Activity] = []
        self.at = [0] * len(dag.order)
        self.lanes: list[deque[str]] = [deque() for _ in dag.order]
        self.awaited = meetings(dag)
        self.arrived: dict[str, list[int]] = defaultdict(list)
        self.waiting: dict[str, list[int]] = defaultdict(list)  # ranks that wait for a collective
        self.waits = awaited_collectives(dag)
        self.copying: dict[int, str] = {}  # the collective for which each rank has copied last
        # How many ranks of a host each of its ranks represents: 1 unless the dag is partial.
        host_of = dag.plan.cluster.host_of
        there = Counter(host_of(rank) for rank, order in enumerate(dag.order) if order)
        everyone = Counter(host_of(rank) for rank in range(len(dag.order)))
        self.ranks_represented = {host: everyone[host] / count for host, count in there.items()}

    def run(self) -> Timeline:
        for rank in range(len(self.dag.order)):
            self._continue(rank)
        while self.running:
            self._advance()
        return self.record.timeline()

    # --- time --------------------------------------------------------------------------------------------------------

    def _advance(self) -> None:
        """Advance to the time at which the next activity ends."""
        rates = self._rates()
        paces = [min(rates[host] for host in activity.hosts) for activity in self.running]
        passed = min(a.left / pace for a, pace in zip(self.running, paces, strict=True))
        self.now += passed
        for activity, pace in zip(self.running, paces, strict=True):
            activity.left -= passed * pace
        ended = [a for a in self.running if a.left <= a.seconds * _ROUNDING]
        self.running = [a for a in self.running if a.left > a.seconds * _ROUNDING]
        for activity in ended:
            self._end(activity)

    def _rates(self) -> dict[int, float]:
        """The pace of every host, 1 where its cores suffice."""
        demand: dict[int, float] = defaultdict(float)
        for activity in self.running:
            for host, ranks in activity.hosts.items():
                demand[host] += ranks * activity.cores * self.ranks_represented[host]
        return {host: min(1.0, self.cores[host] / asked) if asked else 1.0 for host, asked in demand.items()}

    def _begin(self, task: Task, ranks: list[int], cores: float) -> None:
        self.record.begin_s[task.id] = self.now
        seconds = self.costs.seconds(task)
        if not task.is_collective:
            seconds += self.record.copies.ahead_s[ranks[0]].get(task.id, 0.0)
        self._run(task, seconds, ranks, cores)

    def _run(self, task: Task | None, seconds: float, ranks: list[int], cores: float) -> None:
        hosts = Counter(self.dag.plan.cluster.host_of(rank) for rank in ranks)
        self.running.append(_Activity(task, seconds, seconds, ranks, hosts, cores))

    def _end(self, activity: _Activity) -> None:
        if activity.task is None:
            (rank,) = activity.ranks
            self.record.copy(rank, self.copying[rank], self.now - self.record.clock_s[rank])
            self._continue(rank)
            return
        name = activity.task.id
        self.record.end_s[name] = self.now
        if not activity.task.is_collective:
            (rank,) = activity.ranks
            self.record.clock_s[rank] = self.now
            self.at[rank] += 1
            self._continue(rank)
            return
        for rank in activity.ranks:
            self.lanes[rank].popleft()
        for rank in activity.ranks:
            self._start_collective(rank)
        for rank in self.waiting.pop(name, []):
            self.record.wait(rank, name, self.now)
            self._continue(rank)

    # --- ranks -------------------------------------------------------------------------------------------------------

    def _continue(self, rank: int) -> None:
        """Let a rank issue its tasks until it computes, waits, or is done."""
        order = self.dag.order[rank]
        while self.at[rank] < len(order):
            task = self.dag.task[order[self.at[rank]]]
            if self._must_wait(rank, self.waits[rank].get(task.id, ())):
                return
            if not task.is_collective:
                self._begin(task, [rank], 1.0)
                return
            if self._copies(rank, task.id, self.record.copies.ahead_s[rank].get(task.id, 0.0)):
                return
            self.record.issued_s[rank][task.id] = self.now
            self.lanes[rank].append(task.id)
            self.arrived[task.id].append(rank)
            self.at[rank] += 1
            self._start_collective(rank)
        if not self._must_wait(rank, list(self.record.issued_s[rank])):
            self._copies(rank, "", self.record.copies.after_s[rank])

    def _copies(self, rank: int, name: str, seconds: float) -> bool:
        """Begin the copies of a rank before a collective, or after all tasks; whether there are any to wait for."""
        if not seconds or self.copying.get(rank) == name:
            return False
        self.copying[rank] = name
        self._run(None, seconds, [rank], 1.0)
        return True

    def _must_wait(self, rank: int, collectives: Sequence[str]) -> bool:
        """Whether a rank must wait for one of these collectives."""
        for name in collectives:
            if name not in self.record.end_s:
                self.waiting[name].append(rank)
                return True
        return False

    def _start_collective(self, rank: int) -> None:
        """Start the collective at the head of a rank's lane if it is at the head on all its ranks."""
        if not self.lanes[rank]:
            return
        name = self.lanes[rank][0]
        ranks = self.arrived[name]
        ready = len(ranks) == self.awaited[name] and all(self.lanes[r][0] == name for r in ranks)
        if ready and name not in self.record.begin_s:
            self._begin(self.dag.task[name], sorted(ranks), self.load)
