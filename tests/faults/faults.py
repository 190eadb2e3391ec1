"""The faults: how each is made, and how a run that meets it must end."""

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
from tests.documents import SMALL, dag_of
from tests.faults.watched import Ended, Watched
from tests.ports import free_port

OLD = b"what was there before\n"
QUICK = ("--warmup", "1", "--iters", "2")
LONG = ("--iters", "1000000")


@dataclass
class Setting:
    """What a fault is made with: so many ranks, a folder of its own, and how long ranks wait for each other."""

    ranks: int
    folder: Path
    timeout: float
    victim: int = field(init=False)

    def __post_init__(self) -> None:
        self.victim = self.ranks * 5 // 16 + 1  # neither the first nor the last
        self.report.write_bytes(OLD)
        self.output.write_bytes(OLD)

    @cached_property
    def dag(self) -> Path:
        path = self.folder / "x.dag.json"
        path.write_text(self._dag.to_json())
        return path

    @cached_property
    def another_dag(self) -> Path:
        """For as many ranks, of a model with another number of layers."""
        path = self.folder / "another.dag.json"
        path.write_text(dag_of(SMALL, *self._layout, "layers=1").to_json())
        return path

    @property
    def report(self) -> Path:
        return self.folder / "r.json"

    @property
    def output(self) -> Path:
        return self.folder / "y.safetensors"

    def weights(self, change: Callable[[dict[str, torch.Tensor]], object] = lambda _: None) -> Path:
        """A file of all weights, with something changed."""
        tensors = {t.name: seeded_numbers(t, t.full, 0, torch.float32) for t in self._dag.tensors if t.role == "weight"}
        change(tensors)
        save_file(tensors, self.folder / "w.safetensors")
        return self.folder / "w.safetensors"

    def command(self, *args: str | Path, hooks: str = "", report: Path | None = None) -> list[str | Path]:
        """``helixctl run`` with files to write, and hooks."""
        start = ["-m", "tests.faults.hooked", hooks] if hooks else ["-m", "helixctl"]
        return [sys.executable, *start, *self._run(*args, report=report)]

    def outer(self, *args: str | Path, port: int, hooks: str = "", dag: str | Path | None = None) -> list[str | Path]:
        """The same with ranks that another launcher starts."""
        return [
            sys.executable,
            "-m",
            "tests.faults.forked",
            str(self.ranks),
            str(port),
            hooks,
            *self._run(*args, dag=dag),
        ]

    def _run(self, *args: str | Path, report: Path | None = None, dag: str | Path | None = None) -> list[str | Path]:
        files = ("--report", report or self.report, "--output", self.output, "--force")
        return ["run", dag or self.dag, "--timeout", f"{self.timeout:g}", *files, *args]

    @property
    def _layout(self) -> tuple[int, int]:
        return {4: (2, 2), 16: (4, 4)}[self.ranks]

    @cached_property
    def _dag(self) -> Dag:
        return dag_of(SMALL, *self._layout, "layers=2")


@dataclass(frozen=True)
class Fault:
    """A fault and the end that it must have.

    Attributes:
        waits: the run notices it only when the timeout is over.
        line: what the one line must match; ``{victim}`` is the rank at which the fault is made.
        written: the run writes its report, because it came to its end.
        there_before: the fault is made before the run, whose start counts then.
    """

    name: str
    make: Callable[[Setting], Ended]
    status: int
    line: str
    waits: bool = False
    written: bool = False
    there_before: bool = False

    def limit(self, setting: Setting) -> float:
        """Seconds within which the run must have ended."""
        return 2 + (setting.timeout if self.waits else 0)


def in_the_middle(act: Callable[[Watched, Setting], object]) -> Callable[[Setting], Ended]:
    """Do something to a run that walks steps."""

    def make(setting: Setting) -> Ended:
        with Watched(setting.command(*LONG)) as run:
            run.until(": running, step")
            run.fault()
            act(run, setting)
            return run.ended()

    return make


def to_a_rank(number: int) -> Callable[[Watched, Setting], None]:
    return lambda run, setting: os.kill(run.ranks(setting.ranks)[setting.victim], number)


def ctrl_c(run: Watched, _: Setting) -> None:
    """As a terminal does it: all processes get the signal."""
    os.killpg(run.process.pid, signal.SIGINT)


def hooked(hook: str) -> Callable[[Setting], Ended]:
    """A run in which a hook makes the fault when the ranks are started."""

    def make(setting: Setting) -> Ended:
        with Watched(setting.command(*LONG, hooks=f"{hook}:{setting.victim}")) as run:
            return run.ended()

    return make


def at_once(hook: str, setting: Setting, command: Callable[..., list[str | Path]], **named: Any) -> Ended:
    """A run in which a hook makes the fault and leaves a mark, at which the clock starts."""
    marks = setting.folder / "marks"
    marks.mkdir()
    with Watched(command(*LONG, *named.pop("args", ()), hooks=f"{hook}:{marks}/now", **named)) as run:
        run.until_files(marks, 1)
        run.fault()
        return run.ended()


def raised(setting: Setting) -> Ended:
    """An exception in a task of a rank."""
    return at_once(f"raise:{setting.victim}", setting, setting.command)


def outer_raised(setting: Setting) -> Ended:
    """The same under another launcher."""
    with free_port() as port:
        return at_once(f"raise:{setting.victim}", setting, setting.outer, port=port)


def cut_while_loading(setting: Setting) -> Ended:
    """A weight file that loses its end when a rank has begun to read."""
    weights = setting.weights()
    return at_once(f"truncate:{setting.victim}:{weights}", setting, setting.command, args=("--weights", weights))


def with_weights(change: Callable[[dict[str, torch.Tensor]], object], *args: str) -> Callable[[Setting], Ended]:
    def make(setting: Setting) -> Ended:
        with Watched(setting.command(*QUICK, "--weights", setting.weights(change), *args)) as run:
            return run.ended()

    return make


def cut_before(setting: Setting) -> Ended:
    """A weight file of which the end is missing from the start."""
    weights = setting.weights()
    os.truncate(weights, weights.stat().st_size // 2)
    with Watched(setting.command(*QUICK, "--weights", weights)) as run:
        return run.ended()


def put_nan(tensors: dict[str, torch.Tensor]) -> None:
    tensors["l1.w_up"][3, 7] = float("nan")


@contextmanager
def full_disk(setting: Setting) -> Iterator[Path]:
    """A folder on a disk without room, in which a report lies; as root a small tmpfs, else a limit on files."""
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


def no_room_for_the_report(setting: Setting) -> Ended:
    with full_disk(setting) as folder:
        with Watched(setting.command(*QUICK, report=folder / "r.json")) as run:
            ended = run.ended()
        assert (folder / "r.json").read_bytes() == OLD
        assert not [path for path in folder.iterdir() if path.name.startswith(".")]
        setting.output.write_bytes(OLD)  # it had room
    return ended


def outer(act: Callable[[list[int], Setting], object]) -> Callable[[Setting], Ended]:
    """Ranks of another launcher that walk steps, and something done to them."""

    def make(setting: Setting) -> Ended:
        stepped = setting.folder / "stepped"
        stepped.mkdir()
        with free_port() as port, Watched(setting.outer(*LONG, port=port, hooks=f"stepped:{stepped}")) as run:
            run.until_files(stepped, setting.ranks)
            run.fault()
            act(run.ranks(setting.ranks), setting)
            return run.ended()

    return make


def outer_without_one(setting: Setting) -> Ended:
    absent = {"FAULTS_ABSENT": str(setting.victim)}
    with free_port() as port, Watched(setting.outer(*QUICK, port=port), **absent) as run:
        return run.ended()


def outer_with_another_dag(setting: Setting) -> Ended:
    for rank in range(setting.ranks):
        its = setting.another_dag if rank == setting.victim else setting.dag
        (setting.folder / f"rank-{rank}.dag.json").write_bytes(its.read_bytes())
    dags = setting.folder / "rank-{rank}.dag.json"
    with free_port() as port, Watched(setting.outer(*QUICK, port=port, dag=dags)) as run:
        return run.ended()


def outer_port_in_use(setting: Setting) -> Ended:
    with listening() as port, Watched(setting.outer(*QUICK, port=port)) as run:
        return run.ended()


@contextmanager
def listening() -> Iterator[int]:
    """A port that another process has."""
    with socket.socket() as other:
        other.bind(("", 0))
        other.listen()
        yield int(other.getsockname()[1])


RANK = r"rank {victim} \(cpu\)"
TASK = r"(?:l\d\.\S+|the start) of step \d+"

FAULTS = (
    Fault(
        "kill -9 of a rank",
        in_the_middle(to_a_rank(signal.SIGKILL)),
        1,
        rf"HX504 {RANK} was killed by SIGKILL during {TASK}",
    ),
    Fault(
        "SIGSTOP of a rank",
        in_the_middle(to_a_rank(signal.SIGSTOP)),
        1,
        rf"HX505 {RANK} did not (?:finish|arrive at) .*its process is suspended",
        waits=True,
    ),
    Fault("exception in a task", raised, 1, rf"HX510 {RANK} failed in {TASK}: MemoryError: "),
    Fault(
        "a rank hangs before it joins",
        hooked("absent"),
        1,
        rf"HX505 {RANK} did not arrive at init_process_group within .*; last seen in start-up; \d+ ranks? arrived",
        waits=True,
        there_before=True,
    ),
    Fault(
        "no room for a rank's process", hooked("no-fork"), 1, rf"HX510 {RANK} could not be started: ", there_before=True
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
    Fault("Ctrl-C", in_the_middle(ctrl_c), 130, "interrupted"),
    Fault(
        "SIGTERM to the launcher",
        in_the_middle(lambda run, _: run.process.send_signal(signal.SIGTERM)),
        143,
        "ended by SIGTERM",
    ),
    Fault("kill -9 of the launcher", in_the_middle(lambda run, _: run.process.kill()), -9, ""),
    Fault("no room for the report", no_room_for_the_report, 2, r"HX511 cannot write \S+r\.json: ", there_before=True),
    Fault(
        "outer launcher: kill -9 of a rank",
        outer(lambda ranks, setting: os.kill(ranks[setting.victim], signal.SIGKILL)),
        137,
        rf"HX504 {RANK} ended or cannot be reached; seen in {TASK} by rank \d+",
    ),
    Fault(
        "outer launcher: SIGSTOP of a rank",
        outer(lambda ranks, setting: os.kill(ranks[setting.victim], signal.SIGSTOP)),
        1,
        rf"HX505 {RANK} did not arrive in {TASK} within .*, and cannot be reached; \d+ ranks? arrived",
        waits=True,
    ),
    Fault(
        "outer launcher: SIGTERM to all ranks",
        outer(lambda ranks, _: [os.kill(rank, signal.SIGTERM) for rank in ranks]),
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
        r"HX505 rank {victim} did not arrive in init_process_group within .*, and cannot be reached; \d+ ranks? ",
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


def wrong(fault: Fault, setting: Setting, ended: Ended) -> list[str]:
    """What of the end is not as it must be, the time left aside."""
    found = []
    if ended.status != fault.status:
        found.append(f"exit status {ended.status}, not {fault.status}")
    if ended.orphans:
        found.append(f"{ended.orphans} processes are left")
    if "Traceback" in ended.text:
        found.append("a traceback")
    line = fault.line.replace("{victim}", str(setting.victim))
    if len(ended.lines) != bool(line):
        found.append(f"{len(ended.lines)} lines, not one")
    elif line and not re.match(line, ended.lines[0]):
        found.append(f"another line: {ended.lines[0]}")
    if not fault.written:
        found += [f"{path.name} has changed" for path in (setting.report, setting.output) if path.read_bytes() != OLD]
    found += [f"{path.name} is left" for path in setting.folder.glob(".*")]
    return found
