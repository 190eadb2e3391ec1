"""Which failure is the cause: what each rank reported, and how its end or its silence reads beside the others'."""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from helixctl.errors import Diagnostic, HelixError, fail
from helixctl_runtime.ranks.failure.standing import Peer, Standing
from helixctl_runtime.ranks.progress import Phase

TaskName = Callable[[int, int], str]

_SPOTS: Final = {
    Phase.STARTING: "start-up",
    Phase.JOINING: "init_process_group",
    Phase.PREPARING: "preparation",
    Phase.CHECKING: "the check of the output",
    Phase.DONE: "the end of the run",
}
_SIGNAL_HINTS: Final = {
    signal.SIGKILL: "if nobody killed it, the machine ran out of memory (dmesg tells)",
    signal.SIGABRT: "ranks that meet a collective with different shapes or dtypes end this way",
    # Files are mapped, not read: what is cut off while it is mapped is no error of a call.
    signal.SIGBUS: "a weight or input file was cut short while ranks read it, or its disk or /dev/shm failed",
}


def root_cause(standings: Sequence[Standing], timeout: float, task_name: TaskName) -> HelixError:
    """The one error to show: a death explains the errors at its peers, and so does an exception in a task."""
    deaths = [s for s in standings if s.died(timeout)]
    if deaths:
        return _death(deaths[0], task_name)
    for kind, error_of in (("helix", _helix_error), ("task", _task_error)):
        failed = [s for s in standings if s.report and s.report.kind == kind]
        if failed:
            return error_of(_first(failed), task_name)
    if any(s.waits(timeout) for s in standings) or not any(s.report and s.report.kind == "gone" for s in standings):
        return _nobody_came(standings, timeout, task_name)
    lost = _first([s for s in standings if s.report and s.report.kind == "gone"])
    return _gone_error(lost, task_name)


def absent(standings: Sequence[Standing], missing: Sequence[Peer], timeout: float, task_name: TaskName) -> HelixError:
    """The error where ranks do not answer: who they are, and where the others waited for them."""
    waiting = [s for s in standings if s.waits(timeout)]
    goal = spot(min(waiting or standings, key=lambda s: s.position), task_name)
    arrived = sum(spot(s, task_name) == goal for s in standings)
    elsewhere = len(standings) - arrived
    others = f"{_count(arrived)} arrived" + (f", {elsewhere} elsewhere" if elsewhere else "")
    first = standings[0]
    if len(standings) == 1:  # where the store is gone with the missing ones, a rank knows only itself
        others = f"{first} waits there"
    if not waiting and any(s.report and s.report.kind == "gone" for s in standings):
        message = f"{named(missing)} ended or cannot be reached; seen in {goal} by {first}"
        return fail("HX504", message, _hint(first, "see the output of that rank's launcher"))
    message = f"{named(missing)} did not arrive in {goal} within {timeout:g} s, and cannot be reached; {others}"
    hint = "see whether the host is up, the network there, the process suspended"
    if first.position.phase is Phase.JOINING:
        hint = "start helixctl on every host; under SLURM with srun, or only rank 0 exists"
    return fail("HX505", message, _hint(first, hint))


def nobody_there(standing: Standing, where: str, timeout: float) -> HelixError:
    """The error of a rank that could not reach the store through which all meet."""
    reason = str(standing.report.value).rpartition("timed out: ")[2] if standing.report else ""
    message = f"{standing} found nobody at {where} within {timeout:g} s, where rank 0 or torchrun should wait: {reason}"
    hint = "give all hosts the same MASTER_ADDR and MASTER_PORT; under SLURM start helixctl with srun"
    return fail("HX505", message, _hint(standing, hint))


def ended_by_sigterm(standing: Standing, peers: Sequence[Peer]) -> HelixError:
    """The error of a rank whose peers were ended by their launcher or their user, while it was not."""
    return fail("HX504", f"{named(peers)} ended by SIGTERM, seen by {standing}", _hint(standing))


def named(peers: Sequence[Peer]) -> str:
    """``rank 3 (cpu) on host a``, ``ranks 8-15 on host b``; hosts one after the other."""
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


def spot(standing: Standing, task_name: TaskName) -> str:
    """Where a rank is, or was seen last: a task and its step, or a part of the run around them."""
    phase, step, begun = standing.position
    if phase is not Phase.RUNNING:
        return _SPOTS[phase]
    return f"{task_name(standing.rank, begun - 1)} of step {step}" if begun else f"the start of step {step}"


def _hint(standing: Standing, *parts: str | None) -> str | None:
    log = f"see {standing.log}" if standing.log else None
    return "; ".join(part for part in (*parts, log) if part) or None


def _first(failed: Sequence[Standing]) -> Standing:
    earliest = min(failed, key=lambda s: s.report.when if s.report else 0.0)
    # Where all ranks say the same, name the lowest, so that the same fault gives the same words.
    value = earliest.report.value if earliest.report else None
    return next(s for s in failed if s.report and s.report.value == value)


def _death(standing: Standing, task_name: TaskName) -> HelixError:
    code = standing.exit_code or 0
    number = next((s for s in signal.Signals if s == -code), None)
    end = f"was killed by {number.name if number else f'signal {-code}'}" if code < 0 else f"exited with status {code}"
    known = _SIGNAL_HINTS.get(number) if number else None
    message = f"{standing} {end} during {spot(standing, task_name)}"
    return fail("HX504", message, _hint(standing, known))


def _helix_error(standing: Standing, task_name: TaskName) -> HelixError:  # noqa: ARG001  one signature for all kinds
    value = standing.report.value if standing.report else ()
    diagnostics = [d for d in value if isinstance(d, Diagnostic)] if isinstance(value, tuple) else []
    named = [replace(d, message=_by(standing, d), hint=_hint(standing, d.hint)) for d in diagnostics]
    return HelixError(named)


def _by(standing: Standing, found: Diagnostic) -> str:
    # Of what concerns all ranks (HX503) the message itself names one; who saw it first says nothing.
    return found.message if found.message.startswith("rank ") else f"{standing}: {found.message}"


def _task_error(standing: Standing, task_name: TaskName) -> HelixError:
    value = standing.report.value if standing.report else ""
    return fail("HX510", f"{standing} failed in {spot(standing, task_name)}: {value}", _hint(standing))


def _gone_error(standing: Standing, task_name: TaskName) -> HelixError:
    value = standing.report.value if standing.report else ""
    message = f"{standing} lost its connection to another rank in {spot(standing, task_name)}: {value}"
    return fail("HX504", message, _hint(standing))


def _nobody_came(standings: Sequence[Standing], timeout: float, task_name: TaskName) -> HelixError:
    waiting = [s for s in standings if s.waits(timeout)]
    silent = [s for s in standings if s.report is None and s.exit_code is None]
    ended = [s for s in standings if s not in waiting and s not in silent]
    if not silent and not ended:
        return _all_wait(standings, timeout, task_name)
    late = min(silent or ended, key=lambda s: (not s.stopped, s.position))
    suspended = "; its process is suspended" if late.stopped else ""
    there = spot(late, task_name)
    hint = _hint(
        late, "continue or end the suspended process" if late.stopped else "raise --timeout if it only is slow"
    )
    goal = spot(min(waiting, key=lambda s: s.position), task_name) if waiting else there
    if goal == there:
        peers = f"; {_count(len(waiting))} waiting for it" if waiting else ""
        return fail("HX505", f"{late} did not finish {there} within {timeout:g} s{peers}{suspended}", hint)
    arrived = sum(spot(s, task_name) == goal for s in standings if s is not late)
    elsewhere = len(standings) - 1 - arrived
    peers = f"{_count(arrived)} arrived" + (f", {elsewhere} elsewhere" if elsewhere else "")
    goal = goal.removesuffix(f" of step {late.position.step}")
    message = f"{late} did not arrive at {goal} within {timeout:g} s; last seen in {there}; {peers}{suspended}"
    return fail("HX505", message, hint)


def _count(number: int) -> str:
    return "1 rank" if number == 1 else f"{number} ranks"


def _all_wait(standings: Sequence[Standing], timeout: float, task_name: TaskName) -> HelixError:
    spots: dict[str, list[int]] = {}
    for s in standings:
        spots.setdefault(spot(s, task_name), []).append(s.rank)
    where = "; ".join(f"{', '.join(map(str, ranks))} in {spot}" for spot, ranks in spots.items())
    message = f"no rank was served within {timeout:g} s: ranks {where}"
    return fail("HX505", message, _hint(standings[0], "raise --timeout if the ranks only are slow"))
