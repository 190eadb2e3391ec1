"""Which failure is the cause of the others, from the report, the end and the position of every rank."""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from helixctl.errors import Diagnostic, HelixError, fail
from helixctl_runtime.ranks.failure.rank_state import Peer, RankState
from helixctl_runtime.ranks.progress import Phase

TaskName = Callable[[int, int], str]

_LOCATIONS: Final = {
    Phase.STARTING: "start-up",
    Phase.JOINING: "init_process_group",
    Phase.PREPARING: "preparation",
    Phase.CHECKING: "the check of the output",
    Phase.DONE: "the end of the run",
}
_SIGNAL_HINTS: Final = {
    signal.SIGKILL: "if nobody killed it, the machine ran out of memory (dmesg tells)",
    signal.SIGABRT: "ranks that meet a collective with different shapes or dtypes end this way",
    # Files are mapped, not read: reading a page that was cut off raises a signal, not an error of a call.
    signal.SIGBUS: "a weight or input file was cut short while ranks read it, or its disk or /dev/shm failed",
}


def root_cause(states: Sequence[RankState], timeout: float, task_name: TaskName) -> HelixError:
    """The error that explains the others: a death, else an error in a task, else a rank that did not arrive.

    Args:
        states: what is known of every rank.
        timeout: seconds that ranks waited for each other.
        task_name: the id of the n-th task of a rank.
    """
    deaths = [s for s in states if s.died(timeout)]
    if deaths:
        return _death_error(deaths[0], task_name)
    for kind, error_of in (("helix", _helix_error), ("task", _task_error)):
        failed = [s for s in states if s.report and s.report.kind == kind]
        if failed:
            return error_of(_first(failed), task_name)
    if any(s.waits(timeout) for s in states) or not any(s.report and s.report.kind == "gone" for s in states):
        return _late_rank_error(states, timeout, task_name)
    lost = _first([s for s in states if s.report and s.report.kind == "gone"])
    return _gone_error(lost, task_name)


def missing_ranks_error(
    states: Sequence[RankState], missing: Sequence[Peer], timeout: float, task_name: TaskName
) -> HelixError:
    """The error if ranks do not answer: which ranks, and where the others waited for them.

    Args:
        states: what is known of the ranks that answered.
        missing: the ranks that did not.
        timeout: seconds that ranks waited for each other.
        task_name: the id of the n-th task of a rank.
    """
    waiting = [s for s in states if s.waits(timeout)]
    goal = location(min(waiting or states, key=lambda s: s.position), task_name)
    arrived = sum(location(s, task_name) == goal for s in states)
    elsewhere = len(states) - arrived
    others = f"{_count(arrived)} arrived" + (f", {elsewhere} elsewhere" if elsewhere else "")
    first = states[0]
    if len(states) == 1:  # if the store is lost with the missing ranks, a rank knows only itself
        others = f"{first} waits there"
    if not waiting and any(s.report and s.report.kind == "gone" for s in states):
        message = f"{ranks_text(missing)} ended or cannot be reached; seen in {goal} by {first}"
        return fail("HX504", message, _hint(first, "see the output of that rank's launcher"))
    message = f"{ranks_text(missing)} did not arrive in {goal} within {timeout:g} s, and cannot be reached; {others}"
    hint = "see whether the host is up, the network there, the process suspended"
    if first.position.phase is Phase.JOINING:
        hint = "start helixctl on every host; under SLURM with srun, or only rank 0 exists"
    return fail("HX505", message, _hint(first, hint))


def store_unreachable_error(state: RankState, where: str, timeout: float) -> HelixError:
    """The error of a rank that could not reach the store through which all ranks meet."""
    reason = str(state.report.value).rpartition("timed out: ")[2] if state.report else ""
    message = f"{state} found nobody at {where} within {timeout:g} s, where rank 0 or torchrun should wait: {reason}"
    hint = "give all hosts the same MASTER_ADDR and MASTER_PORT; under SLURM start helixctl with srun"
    return fail("HX505", message, _hint(state, hint))


def sigterm_error(state: RankState, peers: Sequence[Peer]) -> HelixError:
    """The error of a rank that still runs when SIGTERM has ended its peers."""
    return fail("HX504", f"{ranks_text(peers)} ended by SIGTERM, seen by {state}", _hint(state))


def ranks_text(peers: Sequence[Peer]) -> str:
    """``rank 3 (cpu) on host a, ranks 8-15 on host b``."""
    by_host: dict[str, list[Peer]] = {}
    for peer in sorted(peers, key=lambda p: p.rank):
        by_host.setdefault(peer.host, []).append(peer)
    texts = []
    for host, its in by_host.items():
        device = f" ({its[0].device})" if its[0].device else ""
        who = f"rank {its[0].rank}{device}" if len(its) == 1 else f"ranks {_ranges([p.rank for p in its])}"
        texts.append(who + (f" on host {host}" if host else ""))
    return ", ".join(texts)


def _ranges(ranks: Sequence[int]) -> str:
    """``0-3, 5``."""
    runs: list[list[int]] = []
    for rank in ranks:
        if runs and rank == runs[-1][-1] + 1:
            runs[-1].append(rank)
        else:
            runs.append([rank])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def location(state: RankState, task_name: TaskName) -> str:
    """The task and the step at which a rank was seen last, or the phase of the run outside the steps."""
    phase, step, begun, _ = state.position
    if phase is not Phase.RUNNING:
        return _LOCATIONS[phase]
    return f"{task_name(state.rank, begun - 1)} of step {step}" if begun else f"the start of step {step}"


def _hint(state: RankState, *parts: str | None) -> str | None:
    log = f"see {state.log}" if state.log else None
    return "; ".join(part for part in (*parts, log) if part) or None


def _first(failed: Sequence[RankState]) -> RankState:
    earliest = min(failed, key=lambda s: s.report.when if s.report else 0.0)
    # If several ranks report the same, name the lowest, so that the same fault gives the same message.
    value = earliest.report.value if earliest.report else None
    return next(s for s in failed if s.report and s.report.value == value)


def _death_error(state: RankState, task_name: TaskName) -> HelixError:
    code = state.exit_code or 0
    number = next((s for s in signal.Signals if s == -code), None)
    end = f"was killed by {number.name if number else f'signal {-code}'}" if code < 0 else f"exited with status {code}"
    known = _SIGNAL_HINTS.get(number) if number else None
    message = f"{state} {end} during {location(state, task_name)}"
    return fail("HX504", message, _hint(state, known))


def _helix_error(state: RankState, task_name: TaskName) -> HelixError:  # noqa: ARG001  one signature for all kinds
    value = state.report.value if state.report else ()
    diagnostics = [d for d in value if isinstance(d, Diagnostic)] if isinstance(value, tuple) else []
    return HelixError([replace(d, message=_by(state, d), hint=_hint(state, d.hint)) for d in diagnostics])


def _by(state: RankState, found: Diagnostic) -> str:
    # The message of HX503 already names the rank that differs; which rank saw it first does not matter.
    return found.message if found.message.startswith("rank ") else f"{state}: {found.message}"


def _task_error(state: RankState, task_name: TaskName) -> HelixError:
    value = state.report.value if state.report else ""
    return fail("HX510", f"{state} failed in {location(state, task_name)}: {value}", _hint(state))


def _gone_error(state: RankState, task_name: TaskName) -> HelixError:
    value = state.report.value if state.report else ""
    message = f"{state} lost its connection to another rank in {location(state, task_name)}: {value}"
    return fail("HX504", message, _hint(state))


def _late_rank_error(states: Sequence[RankState], timeout: float, task_name: TaskName) -> HelixError:
    waiting = [s for s in states if s.waits(timeout)]
    unreported = [s for s in states if s.report is None and s.exit_code is None]
    ended = [s for s in states if s not in waiting and s not in unreported]
    if not unreported and not ended:
        return _all_waiting_error(states, timeout, task_name)
    late = min(unreported or ended, key=lambda s: (not s.stopped, s.position))
    suspended = "; its process is suspended" if late.stopped else ""
    there = location(late, task_name)
    hint = _hint(
        late, "continue or end the suspended process" if late.stopped else "raise --timeout if it only is slow"
    )
    goal = location(min(waiting, key=lambda s: s.position), task_name) if waiting else there
    if goal == there:
        peers = f"; {_count(len(waiting))} waiting for it" if waiting else ""
        return fail("HX505", f"{late} did not finish {there} within {timeout:g} s{peers}{suspended}", hint)
    arrived = sum(location(s, task_name) == goal for s in states if s is not late)
    elsewhere = len(states) - 1 - arrived
    peers = f"{_count(arrived)} arrived" + (f", {elsewhere} elsewhere" if elsewhere else "")
    goal = goal.removesuffix(f" of step {late.position.step}")
    message = f"{late} did not arrive at {goal} within {timeout:g} s; last seen in {there}; {peers}{suspended}"
    return fail("HX505", message, hint)


def _count(number: int) -> str:
    return "1 rank" if number == 1 else f"{number} ranks"


def _all_waiting_error(states: Sequence[RankState], timeout: float, task_name: TaskName) -> HelixError:
    by_location: dict[str, list[int]] = {}
    for s in states:
        by_location.setdefault(location(s, task_name), []).append(s.rank)
    where = "; ".join(f"{', '.join(map(str, ranks))} in {at}" for at, ranks in by_location.items())
    message = f"no rank was served within {timeout:g} s: ranks {where}"
    return fail("HX505", message, _hint(states[0], "raise --timeout if the ranks only are slow"))
