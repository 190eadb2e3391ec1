"""The faults: how each is injected, and how a run with it must end."""

from __future__ import annotations

import os
import re
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from helixctl.dag import Dag
from helixctl_runtime.tensors.seeded import seeded_numbers
from tests.documents import SMALL, dag_of, plan_of
from tests.faults.observed_run import ObservedRun, RunEnd
from tests.ports import free_port

OLD = b"what was there before\n"
QUICK = ("--warmup", "1", "--iters", "2")
LONG = ("--iters", "1000000")


@dataclass
class Setting:
    """The setting of a fault.

    Attributes:
        ranks: the number of ranks.
        folder: a folder for this fault alone.
        timeout: seconds that ranks wait for each other.
        faulty_rank: the rank at which the fault is injected.
    """

    ranks: int
    folder: Path
    timeout: float
    faulty_rank: int = field(init=False)

    def __post_init__(self) -> None:
        self.faulty_rank = self.ranks * 5 // 16 + 1  # neither the first nor the last
        self.report.write_bytes(OLD)
        self.output.write_bytes(OLD)

    @cached_property
    def dag(self) -> Path:
        path = self.folder / "x.dag.json"
        path.write_text(self._dag.to_json())
        return path

    @cached_property
    def another_dag(self) -> Path:
        """A dag for as many ranks, of a model with another number of layers."""
        path = self.folder / "another.dag.json"
        path.write_text(dag_of(SMALL, *self._layout, "layers=1").to_json())
        return path

    @cached_property
    def generation(self) -> Path:
        """A plan for as many ranks that generates for minutes."""
        path = self.folder / "x.plan.json"
        sets = ("layers=2", "vocabulary.size=97", "workload.seq_len=8", "workload.output_len=20000")
        path.write_text(plan_of(SMALL, *self._layout, *sets, slicing="key").to_json())
        return path

    @property
    def report(self) -> Path:
        return self.folder / "r.json"

    @property
    def output(self) -> Path:
        return self.folder / "y.safetensors"

    def weights(self, change: Callable[[dict[str, torch.Tensor]], object] = lambda _: None) -> Path:
        """A file of all weights, after a change."""
        tensors = {t.name: seeded_numbers(t, t.full, 0, torch.float32) for t in self._dag.tensors if t.role == "weight"}
        change(tensors)
        save_file(tensors, self.folder / "w.safetensors")
        return self.folder / "w.safetensors"

    def command(
        self, *args: str | Path, injections: str = "", report: Path | None = None, document: Path | None = None
    ) -> list[str | Path]:
        """The command ``helixctl run`` with files to write, and injections."""
        start = ["-m", "tests.faults.injections", injections] if injections else ["-m", "helixctl"]
        return [sys.executable, *start, *self._run(*args, report=report, document=document)]

    def outer_command(
        self, *args: str | Path, port: int, injections: str = "", dag: str | Path | None = None
    ) -> list[str | Path]:
        """The same command, with ranks that an outer launcher starts."""
        return [
            sys.executable,
            "-m",
            "tests.faults.fork_launcher",
            str(self.ranks),
            str(port),
            injections,
            *self._run(*args, document=dag),
        ]

    def _run(
        self, *args: str | Path, report: Path | None = None, document: str | Path | None = None
    ) -> list[str | Path]:
        files = ("--report", report or self.report, "--output", self.output, "--force")
        return ["run", document or self.dag, "--timeout", f"{self.timeout:g}", *files, *args]

    @property
    def _layout(self) -> tuple[int, int]:
        return {4: (2, 2), 16: (4, 4)}[self.ranks]

    @cached_property
    def _dag(self) -> Dag:
        return dag_of(SMALL, *self._layout, "layers=2")


@dataclass(frozen=True)
class Fault:
    """A fault, and how a run with it must end.

    Attributes:
        name: its name in the table.
        make: runs helixctl with the fault.
        status: the exit status.
        line: a pattern for the one line of the error; ``{faulty_rank}`` is the rank of the fault.
        waits: the run notices the fault only after the timeout.
        written: the run completes, so it writes its report.
        there_before: the fault exists before the run, so the time counts from the start of the command.
    """

    name: str
    make: Callable[[Setting], RunEnd]
    status: int
    line: str
    waits: bool = False
    written: bool = False
    there_before: bool = False

    def limit(self, setting: Setting) -> float:
        """Seconds within which the run must have ended."""
        return 2 + (setting.timeout if self.waits else 0)


def while_running(act: Callable[[ObservedRun, Setting], object]) -> Callable[[Setting], RunEnd]:
    """Inject a fault into a run while it walks steps."""

    def make(setting: Setting) -> RunEnd:
        with ObservedRun(setting.command(*LONG)) as run:
            run.until(": running, ")
            run.fault()
            act(run, setting)
            return run.ended()

    return make


def while_generating(act: Callable[[ObservedRun, Setting], object]) -> Callable[[Setting], RunEnd]:
    """Inject a fault into a run that generates, when every rank has walked the prefill."""

    def make(setting: Setting) -> RunEnd:
        stepped = setting.folder / "stepped"
        stepped.mkdir()
        given = ("--warmup", "0")
        with ObservedRun(setting.command(*given, injections=f"stepped:{stepped}", document=setting.generation)) as run:
            run.until_files(stepped, setting.ranks)
            run.fault()
            act(run, setting)
            return run.ended()

    return make


def signal_rank(number: int) -> Callable[[ObservedRun, Setting], None]:
    return lambda run, setting: os.kill(run.ranks(setting.ranks)[setting.faulty_rank], number)


def ctrl_c(run: ObservedRun, _: Setting) -> None:
    """Send SIGINT to all processes, as a terminal does."""
    os.killpg(run.process.pid, signal.SIGINT)


def with_injection(injection: str) -> Callable[[Setting], RunEnd]:
    """A run whose injection acts when the ranks are started."""

    def make(setting: Setting) -> RunEnd:
        with ObservedRun(setting.command(*LONG, injections=f"{injection}:{setting.faulty_rank}")) as run:
            return run.ended()

    return make


def at_injection(injection: str, setting: Setting, command: Callable[..., list[str | Path]], **named: Any) -> RunEnd:
    """A run whose injection leaves a mark when it acts; the clock starts there."""
    marks = setting.folder / "marks"
    marks.mkdir()
    with ObservedRun(command(*LONG, *named.pop("args", ()), injections=f"{injection}:{marks}/now", **named)) as run:
        run.until_files(marks, 1)
        run.fault()
        return run.ended()


def raised(setting: Setting) -> RunEnd:
    """An exception in a task of a rank."""
    return at_injection(f"raise:{setting.faulty_rank}", setting, setting.command)


def outer_raised(setting: Setting) -> RunEnd:
    """The same under an outer launcher."""
    with free_port() as port:
        return at_injection(f"raise:{setting.faulty_rank}", setting, setting.outer_command, port=port)


def cut_while_loading(setting: Setting) -> RunEnd:
    """A weight file that is cut off when a rank has begun to read it."""
    weights = setting.weights()
    return at_injection(
        f"truncate:{setting.faulty_rank}:{weights}", setting, setting.command, args=("--weights", weights)
    )


def with_weights(change: Callable[[dict[str, torch.Tensor]], object], *args: str) -> Callable[[Setting], RunEnd]:
    def make(setting: Setting) -> RunEnd:
        with ObservedRun(setting.command(*QUICK, "--weights", setting.weights(change), *args)) as run:
            return run.ended()

    return make


def cut_before(setting: Setting) -> RunEnd:
    """A weight file that is cut off before the run."""
    weights = setting.weights()
    os.truncate(weights, weights.stat().st_size // 2)
    with ObservedRun(setting.command(*QUICK, "--weights", weights)) as run:
        return run.ended()


def put_nan(tensors: dict[str, torch.Tensor]) -> None:
    tensors["l1.w_up"][3, 7] = float("nan")


@contextmanager
def full_disk(setting: Setting) -> Iterator[Path]:
    """A folder with a report on a full disk: a small tmpfs for root, else a limit on the size of files."""
    folder = setting.folder / "disk"
    folder.mkdir()
    if os.geteuid():
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        (folder / "r.json").write_bytes(OLD)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2048, before[1]))
        try:
            yield folder
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        return
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", folder], check=True)
    try:
        (folder / "r.json").write_bytes(OLD)
        (folder / "filler").write_bytes(bytes(8192))
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def no_room_for_the_report(setting: Setting) -> RunEnd:
    with full_disk(setting) as folder:
        with ObservedRun(setting.command(*QUICK, report=folder / "r.json")) as run:
            ended = run.ended()
        assert (folder / "r.json").read_bytes() == OLD
        assert not [path for path in folder.iterdir() if path.name.startswith(".")]
        setting.output.write_bytes(OLD)  # it had room
    return ended


def while_outer_running(act: Callable[[list[int], Setting], object]) -> Callable[[Setting], RunEnd]:
    """Inject a fault into ranks of an outer launcher while they walk steps."""

    def make(setting: Setting) -> RunEnd:
        stepped = setting.folder / "stepped"
        stepped.mkdir()
        with (
            free_port() as port,
            ObservedRun(setting.outer_command(*LONG, port=port, injections=f"stepped:{stepped}")) as run,
        ):
            run.until_files(stepped, setting.ranks)
            run.fault()
            act(run.ranks(setting.ranks), setting)
            return run.ended()

    return make


def outer_without_one(setting: Setting) -> RunEnd:
    absent = {"FAULTS_ABSENT": str(setting.faulty_rank)}
    with free_port() as port, ObservedRun(setting.outer_command(*QUICK, port=port), **absent) as run:
        return run.ended()


def outer_with_another_dag(setting: Setting) -> RunEnd:
    for rank in range(setting.ranks):
        its = setting.another_dag if rank == setting.faulty_rank else setting.dag
        (setting.folder / f"rank-{rank}.dag.json").write_bytes(its.read_bytes())
    dags = setting.folder / "rank-{rank}.dag.json"
    with free_port() as port, ObservedRun(setting.outer_command(*QUICK, port=port, dag=dags)) as run:
        return run.ended()


def outer_port_in_use(setting: Setting) -> RunEnd:
    with listening() as port, ObservedRun(setting.outer_command(*QUICK, port=port)) as run:
        return run.ended()


@contextmanager
def listening() -> Iterator[int]:
    """A port that is in use."""
    with socket.socket() as other:
        other.bind(("", 0))
        other.listen()
        yield int(other.getsockname()[1])


RANK = r"rank {faulty_rank} \(cpu\)"
TASK = r"(?:l\d\.\S+|the start) of step \d+"
GENERATING = r"(?:l\d\.\S+|the start) \((?:prefill|decode)\) of step \d+"

FAULTS = (
    Fault(
        "kill -9 of a rank",
        while_running(signal_rank(signal.SIGKILL)),
        1,
        rf"HX504 {RANK} was killed by SIGKILL during {TASK}",
    ),
    Fault(
        "kill -9 of a rank that generates",
        while_generating(signal_rank(signal.SIGKILL)),
        1,
        rf"HX504 {RANK} was killed by SIGKILL during {GENERATING}",
    ),
    Fault(
        "SIGSTOP of a rank that generates",
        while_generating(signal_rank(signal.SIGSTOP)),
        1,
        rf"HX505 {RANK} did not (?:finish|arrive at) .*its process is suspended",
        waits=True,
    ),
    Fault(
        "SIGSTOP of a rank",
        while_running(signal_rank(signal.SIGSTOP)),
        1,
        rf"HX505 {RANK} did not (?:finish|arrive at) .*its process is suspended",
        waits=True,
    ),
    Fault("exception in a task", raised, 1, rf"HX510 {RANK} failed in {TASK}: MemoryError: "),
    Fault(
        "a rank hangs before it joins",
        with_injection("absent"),
        1,
        rf"HX505 {RANK} did not arrive at init_process_group within .*; last seen in start-up; \d+ ranks? arrived",
        waits=True,
        there_before=True,
    ),
    Fault(
        "no room for a rank's process",
        with_injection("no-fork"),
        1,
        rf"HX510 {RANK} could not be started: ",
        there_before=True,
    ),
    Fault(
        "weight file cut short",
        cut_before,
        2,
        r"\S+w\.safetensors: HX507 cannot be read as safetensors: ",
        there_before=True,
    ),
    Fault(
        "weight file without a tensor",
        with_weights(lambda tensors: tensors.pop("l1.w_up")),
        2,
        r"\S+w\.safetensors: HX507 tensor l1\.w_up is missing",
        there_before=True,
    ),
    Fault(
        "weight file cut short while ranks load",
        cut_while_loading,
        1,
        r"HX504 rank \d+ \(cpu\) was killed by SIGBUS during preparation",
    ),
    Fault(
        "NaN in a weight, --check",
        with_weights(put_nan, "--check"),
        1,
        r"HX506 the model's own output is not finite: l1\.w_up is nan at \[3, 7\]",
        written=True,
        there_before=True,
    ),
    Fault(
        "NaN in a weight, no --check",
        with_weights(put_nan),
        0,
        r"warning: the output holds NaN or infinity; --check tells where they come from",
        written=True,
        there_before=True,
    ),
    Fault("Ctrl-C", while_running(ctrl_c), 130, "interrupted"),
    Fault(
        "SIGTERM to the launcher",
        while_running(lambda run, _: run.process.send_signal(signal.SIGTERM)),
        143,
        "ended by SIGTERM",
    ),
    Fault("kill -9 of the launcher", while_running(lambda run, _: run.process.kill()), -9, ""),
    Fault("no room for the report", no_room_for_the_report, 2, r"HX511 cannot write \S+r\.json: ", there_before=True),
    Fault(
        "outer launcher: kill -9 of a rank",
        while_outer_running(lambda ranks, setting: os.kill(ranks[setting.faulty_rank], signal.SIGKILL)),
        137,
        rf"HX504 {RANK} ended or cannot be reached; seen in {TASK} by rank \d+",
    ),
    Fault(
        "outer launcher: SIGSTOP of a rank",
        while_outer_running(lambda ranks, setting: os.kill(ranks[setting.faulty_rank], signal.SIGSTOP)),
        1,
        rf"HX505 {RANK} did not arrive in {TASK} within .*, and cannot be reached; \d+ ranks? arrived",
        waits=True,
    ),
    Fault(
        "outer launcher: SIGTERM to all ranks",
        while_outer_running(lambda ranks, _: [os.kill(rank, signal.SIGTERM) for rank in ranks]),
        143,
        "",
    ),
    Fault(
        "outer launcher: exception in a task",
        outer_raised,
        1,
        rf"HX510 {RANK} failed in {TASK}: MemoryError: ",
    ),
    Fault(
        "outer launcher: a rank is never started",
        outer_without_one,
        1,
        r"HX505 rank {faulty_rank} did not arrive in init_process_group within .*, and cannot be reached; \d+ ranks? ",
        waits=True,
        there_before=True,
    ),
    Fault(
        "outer launcher: port in use",
        outer_port_in_use,
        2,
        r"HX513 rank 0 \(cpu\): port \d+ of this host is in use",
        there_before=True,
    ),
    Fault(
        "outer launcher: another dag on a rank",
        outer_with_another_dag,
        1,
        rf"HX503 {RANK} holds the dag sha256:\S+, rank 0 \(cpu\) the dag sha256:",
        there_before=True,
    ),
)


def wrong(fault: Fault, setting: Setting, ended: RunEnd) -> list[str]:
    """How the end of a run differs from what the fault requires, except for the time."""
    found = []
    if ended.status != fault.status:
        found.append(f"exit status {ended.status}, not {fault.status}")
    if ended.orphans:
        found.append(f"{ended.orphans} processes are left")
    if "Traceback" in ended.text:
        found.append("a traceback")
    line = fault.line.replace("{faulty_rank}", str(setting.faulty_rank))
    if len(ended.lines) != bool(line):
        found.append(f"{len(ended.lines)} lines, not one")
    elif line and not re.match(line, ended.lines[0]):
        found.append(f"another line: {ended.lines[0]}")
    if not fault.written:
        found += [f"{path.name} has changed" for path in (setting.report, setting.output) if path.read_bytes() != OLD]
    found += [f"{path.name} is left" for path in setting.folder.glob(".*")]
    return found
