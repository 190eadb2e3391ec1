"""Simulation of ranks that share the cores of their host: the same lanes and rules, driven by events."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass

from helixctl.cost.tasks import TaskCosts, collective_load
from helixctl.dag import Dag, Task
from helixctl.dag.dry_run import dry_run, meetings
from helixctl.simulate.timeline import Record, Timeline
from helixctl.simulate.waits import waits_of

# Activities that end together do so but for the rounding of their remaining seconds.
_ROUNDING = 1e-12


def simulate_shared(dag: Dag, cores: int) -> Timeline:
    """The timeline of a step on hosts of ``cores`` cores, shared by their ranks in equal parts (processor sharing).

    A rank that computes asks for one core, a rank inside a running collective for ``collective_load`` of one; a rank
    that waits asks for none. Where the ranks of a host ask for more than it has, everything on that host goes slower by
    the same factor, a collective by that of its slowest host. In a partial dag every rank that is there asks for all
    ranks of its host in equal parts.

    Raises:
        ValueError: the dag deadlocks; a proved one does not.
    """
    return _Events(dag, cores).run()


@dataclass(slots=True)
class _Activity:
    """A running task: its seconds with a core to each rank, how many are left, and the ranks by host.

    Without a task it is the copies of one rank, ahead of a collective or after all tasks.
    """

    task: Task | None
    seconds: float
    left: float
    ranks: list[int]
    hosts: Counter[int]
    cores: float  # that each rank asks for


class _Events:
    def __init__(self, dag: Dag, cores: int) -> None:
        self.dag, self.cores = dag, cores
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
        self.waiting: dict[str, list[int]] = defaultdict(list)  # ranks that stand still for a collective
        self.waits = waits_of(dag)
        self.copying: dict[int, str] = {}  # for which collective each rank has copied last
        # How many ranks of a host each of its ranks stands for: one, but in a partial dag.
        host_of = dag.plan.cluster.host_of
        there = Counter(host_of(rank) for rank, order in enumerate(dag.order) if order)
        everyone = Counter(host_of(rank) for rank in range(len(dag.order)))
        self.stands_for = {host: everyone[host] / count for host, count in there.items()}

    def run(self) -> Timeline:
        for rank in range(len(self.dag.order)):
            self._go_on(rank)
        while self.running:
            self._pass_time()
        return self.record.timeline()

    # --- time --------------------------------------------------------------------------------------------------------

    def _pass_time(self) -> None:
        """Go on to the next end of an activity."""
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
                demand[host] += ranks * activity.cores * self.stands_for[host]
        return {host: min(1.0, self.cores / asked) if asked else 1.0 for host, asked in demand.items()}

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
            self._go_on(rank)
            return
        name = activity.task.id
        self.record.end_s[name] = self.now
        if not activity.task.is_collective:
            (rank,) = activity.ranks
            self.record.clock_s[rank] = self.now
            self.at[rank] += 1
            self._go_on(rank)
            return
        for rank in activity.ranks:
            self.lanes[rank].popleft()
        for rank in activity.ranks:
            self._serve(rank)
        for rank in self.waiting.pop(name, []):
            self.record.wait(rank, name, self.now)
            self._go_on(rank)

    # --- ranks -------------------------------------------------------------------------------------------------------

    def _go_on(self, rank: int) -> None:
        """Let a rank issue its tasks until it computes, stands still, or is done."""
        order = self.dag.order[rank]
        while self.at[rank] < len(order):
            task = self.dag.task[order[self.at[rank]]]
            if self._stands_still(rank, self.waits[rank].get(task.id, ())):
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
            self._serve(rank)
        if not self._stands_still(rank, list(self.record.issued_s[rank])):
            self._copies(rank, "", self.record.copies.after_s[rank])

    def _copies(self, rank: int, name: str, seconds: float) -> bool:
        """Whether a rank has begun to copy ahead of a collective, or after all tasks."""
        if not seconds or self.copying.get(rank) == name:
            return False
        self.copying[rank] = name
        self._run(None, seconds, [rank], 1.0)
        return True

    def _stands_still(self, rank: int, collectives: Sequence[str]) -> bool:
        """Whether a rank must wait for one of these collectives."""
        for name in collectives:
            if name not in self.record.end_s:
                self.waiting[name].append(rank)
                return True
        return False

    def _serve(self, rank: int) -> None:
        """Begin the collective at the head of a rank's lane if all its ranks have it there."""
        if not self.lanes[rank]:
            return
        name = self.lanes[rank][0]
        ranks = self.arrived[name]
        ready = len(ranks) == self.awaited[name] and all(self.lanes[r][0] == name for r in ranks)
        if ready and name not in self.record.begin_s:
            self._begin(self.dag.task[name], sorted(ranks), self.load)
