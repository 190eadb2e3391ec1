"""Ranks start, give their results back, and end within bounds and with one cause when something goes wrong."""

from __future__ import annotations

import operator
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
import torch.distributed as dist  # noqa: E402

from helixctl.errors import HelixError, fail  # noqa: E402
from helixctl_runtime.ranks import Phase, Rank, run_ranks  # noqa: E402
from helixctl_runtime.ranks.devices import check_devices  # noqa: E402
from helixctl_runtime.ranks.failure.diagnosis import root_cause  # noqa: E402
from helixctl_runtime.ranks.failure.rank_report import RankReport  # noqa: E402
from helixctl_runtime.ranks.failure.rank_state import RankState  # noqa: E402
from helixctl_runtime.ranks.launchers.environment import check_world_size, detect  # noqa: E402
from helixctl_runtime.ranks.launchers.launched_rank import LaunchedRank  # noqa: E402
from helixctl_runtime.ranks.launchers.slurm import expand_hosts  # noqa: E402
from helixctl_runtime.ranks.progress import Position  # noqa: E402
from tests.ports import free_port  # noqa: E402
from tests.speed import slowness  # noqa: E402

WORLD = 4
# Seconds that a machine which is busy with other tests may add; what must not happen is a wait of ``PATIENT``.
BUSY = 5
PATIENT = 60
TASKS = ("l0.attend", "l0.concat", "l1.attend", "l1.concat")
Injection = Callable[[Rank], None]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def task_name(rank: int, ordinal: int) -> str:
    """Each rank has an attend task of its own; concat is one task for all."""
    task = TASKS[ordinal]
    return f"{task}.s{rank}" if task.endswith("attend") else task


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which temporary folders are made."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def pids(tmp_path: Path) -> Iterator[Path]:
    """A folder in which ranks leave their process ids; none of them may live when the test is over."""
    folder = tmp_path / "pids"
    folder.mkdir()
    yield folder
    living = [path.name for path in folder.iterdir() if Path("/proc", path.name).exists()]
    assert not living
    assert list(folder.iterdir())


def steps(rank: Rank, pids: Path, injections: dict[tuple[int, int, int], Injection]) -> int:
    """Three steps of TASKS; ``injections[rank, step, ordinal]`` is the fault inside that task."""
    (pids / str(os.getpid())).touch()
    rank.init_process_group()
    cell = rank.progress.cell
    x = torch.ones(100)
    rank.progress.enter(Phase.RUNNING)
    for step in range(3):
        cell[0], cell[1] = 0, step
        for ordinal, task in enumerate(TASKS):
            cell[0] = ordinal + 1
            if injection := injections.get((rank.rank, step, ordinal)):
                injection(rank)
            if task.endswith("concat"):
                dist.all_reduce(x)
    return rank.rank


def run(
    pids: Path, injections: dict[tuple[int, int, int], Injection], timeout: float = PATIENT
) -> tuple[HelixError, float]:
    """Run ``steps``, expect it to fail; the error and the seconds it took."""
    start = time.monotonic()
    with pytest.raises(HelixError) as caught:
        run_ranks(
            lambda rank: steps(rank, pids, injections),
            world_size=WORLD,
            device="cpu",
            timeout=timeout,
            task_name=task_name,
        )
    assert len(caught.value.diagnostics) == 1
    return caught.value, time.monotonic() - start


def signal_self(number: int) -> Injection:
    """End or suspend the rank by a signal."""
    return lambda _: os.kill(os.getpid(), number)


def raises(error: BaseException) -> Injection:
    """Raise in the rank."""

    def injection(_: Rank) -> None:
        raise error

    return injection


def log_of(error: HelixError) -> str:
    """The text of the log that the hint names."""
    found = re.search(r"see (\S+)$", error.diagnostics[0].hint or "")
    assert found, error
    return Path(found[1]).read_text(encoding="utf-8")


def test_results_come_back_in_order(pids: Path, temporary: Path) -> None:
    def worker(rank: Rank) -> tuple[int, int, torch.Tensor]:
        (pids / str(os.getpid())).touch()
        rank.init_process_group()
        pairs = rank.new_groups([(0, 1), (2, 3), (0, 1, 2, 3)])
        total = torch.tensor(rank.rank)
        for group in pairs.values():
            dist.all_reduce(total, group=group)
        return rank.rank, len(pairs), torch.full((1 << 18,), int(total))

    results = run_ranks(worker, world_size=WORLD, device="cpu", timeout=PATIENT, task_name=task_name)
    assert [r[:2] for r in results] == [(rank, 2) for rank in range(WORLD)]
    assert all(int(r[2][-1]) == 2 * (0 + 1 + 2 + 3) for r in results)
    assert list(temporary.iterdir()) == []


def test_other_ranks_write_to_their_logs(tmp_path: Path) -> None:
    def worker(rank: Rank) -> None:
        os.write(1, b"from C\n")
        sys.stdout.write(f"from {rank}\n")

    run_ranks(worker, world_size=2, device="cpu", timeout=PATIENT, task_name=task_name, log_dir=tmp_path / "logs")
    assert (tmp_path / "logs" / "rank-1.log").read_text() == "from C\nfrom rank 1 (cpu)\n"
    assert (tmp_path / "logs" / "rank-0.log").read_text() == ""


def test_fork_after_the_launcher_has_used_threads() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    square = torch.rand(600, 600)
    square @ square

    def worker(_: Rank) -> float:
        torch.set_num_threads(2)
        return float((square @ square)[0, 0])

    results = run_ranks(worker, world_size=2, device="cpu", timeout=PATIENT, task_name=task_name)
    torch.set_num_threads(before)
    assert results == [float((square @ square)[0, 0])] * 2


def test_a_killed_rank_is_named(pids: Path, temporary: Path) -> None:
    error, seconds = run(pids, {(3, 2, 2): signal_self(signal.SIGKILL)})
    assert error.diagnostics[0].code == "HX504"
    assert error.diagnostics[0].message == "rank 3 (cpu) was killed by SIGKILL during l1.attend.s3 of step 2"
    assert log_of(error) == ""
    assert [path.name[:14] for path in temporary.iterdir()] == ["helixctl-logs-"]
    assert seconds < 3 * slowness()


def test_a_crash_leaves_a_traceback(pids: Path, temporary: Path) -> None:
    error, _ = run(pids, {(1, 0, 1): signal_self(signal.SIGABRT)})
    assert error.diagnostics[0].message == "rank 1 (cpu) was killed by SIGABRT during l0.concat of step 0"
    assert "in signal_self" in log_of(error) or "in <lambda>" in log_of(error)


def test_a_rank_that_exits_is_named(pids: Path, temporary: Path) -> None:
    error, _ = run(pids, {(0, 1, 0): lambda _: os._exit(7)})
    assert error.diagnostics[0].message == "rank 0 (cpu) exited with status 7 during l0.attend.s0 of step 1"


def test_a_suspended_rank_did_not_arrive(pids: Path, temporary: Path) -> None:
    timeout = 2 * slowness()
    error, seconds = run(pids, {(2, 1, 2): signal_self(signal.SIGSTOP)}, timeout)
    assert error.diagnostics[0].code == "HX505"
    assert error.diagnostics[0].message == (
        f"rank 2 (cpu) did not arrive at l1.concat within {timeout} s; last seen in l1.attend.s2 of step 1; "
        "3 ranks arrived; its process is suspended"
    )
    assert seconds < timeout + 2 + BUSY * slowness()


def test_a_rank_that_never_joins(pids: Path, temporary: Path) -> None:
    def worker(rank: Rank) -> None:
        (pids / str(os.getpid())).touch()
        if rank.rank == 1:
            time.sleep(600)
        rank.init_process_group()

    timeout, start = 1.5 * slowness(), time.monotonic()
    with pytest.raises(HelixError, match="HX505") as caught:
        run_ranks(worker, world_size=WORLD, device="cpu", timeout=timeout, task_name=task_name)
    assert caught.value.diagnostics[0].message.startswith(
        f"rank 1 (cpu) did not arrive at init_process_group within {timeout:g} s; last seen in start-up"
    )
    assert "time.sleep(600)" in log_of(caught.value) or "in worker" in log_of(caught.value)
    assert time.monotonic() - start < timeout + 2 + BUSY * slowness()


@pytest.mark.parametrize("phase", [Phase.RUNNING, Phase.PREPARING])
def test_ranks_that_all_wait_for_ever(phase: Phase) -> None:
    def worker(rank: Rank) -> None:
        rank.progress.enter(phase)
        time.sleep(600)

    timeout, start = 0.5 * slowness(), time.monotonic()
    with pytest.raises(HelixError, match=rf"HX505 rank 0 \(cpu\) did not finish .* within {timeout:g} s"):
        run_ranks(worker, world_size=2, device="cpu", timeout=timeout, task_name=task_name)
    assert time.monotonic() - start < timeout + 2 + BUSY * slowness()


def test_long_preparation_is_no_hang() -> None:
    timeout = 0.5 * slowness()

    def worker(rank: Rank) -> int:
        rank.progress.enter(Phase.PREPARING)
        end = time.monotonic() + 4 * timeout
        while time.monotonic() < end:
            pass
        return rank.rank

    assert run_ranks(worker, world_size=1, device="cpu", timeout=timeout, task_name=task_name) == [0]


def test_an_exception_in_a_task(pids: Path, temporary: Path) -> None:
    error, seconds = run(pids, {(2, 0, 2): raises(ValueError("no such width\nmore"))})
    assert error.diagnostics[0].code == "HX510"
    assert error.diagnostics[0].message == "rank 2 (cpu) failed in l1.attend.s2 of step 0: ValueError: no such width"
    assert "Traceback (most recent call last)" in log_of(error)
    assert seconds < 3 * slowness()


def test_a_helix_error_is_passed_on(pids: Path, temporary: Path) -> None:
    same = {(r, 0, 0): raises(fail("HX508", "no kernel for width 512", "use float16")) for r in (1, 3)}
    error, _ = run(pids, same)
    assert error.diagnostics[0].code == "HX508"
    assert error.diagnostics[0].message == "rank 1 (cpu): no kernel for width 512"
    assert (error.diagnostics[0].hint or "").startswith("use float16; see ")


def test_ranks_on_cuda_are_fresh_processes(monkeypatch: pytest.MonkeyPatch, temporary: Path) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    worker = operator.attrgetter("rank", "local_rank", "device")
    results = run_ranks(worker, world_size=2, device="cuda", timeout=PATIENT, task_name=task_name)
    assert results == [(r, r, torch.device("cuda", r)) for r in range(2)]
    assert list(temporary.iterdir()) == []


def test_a_result_that_cannot_be_pickled() -> None:
    with pytest.raises(HelixError, match=r"HX510 rank 0 \(cpu\) failed in start-up: .*pickle"):
        run_ranks(lambda _: lambda: None, world_size=1, device="cpu", timeout=PATIENT, task_name=task_name)


def rank_state(rank: int, begun: int, report: RankReport | None = None, exit_code: int | None = None) -> RankState:
    """A rank in the given task of step 5."""
    position = Position(Phase.RUNNING, 5, begun)
    return RankState(rank, torch.device("cuda", rank), position, report, exit_code, 9.9, stopped=False, log=None)


LATE, GONE = RankReport("late", ""), RankReport("gone", "RuntimeError: Connection closed by peer")


@pytest.mark.parametrize(
    ("states", "message"),
    [
        pytest.param(
            [rank_state(0, 2, GONE), rank_state(1, 1, None, -9), rank_state(2, 1, RankReport("task", "ValueError"))],
            "HX504 rank 1 (cuda:1) was killed by SIGKILL during l0.attend.s1 of step 5",
            id="a death explains everything",
        ),
        pytest.param(
            [rank_state(0, 2, LATE), rank_state(1, 2, GONE), rank_state(2, 1, RankReport("task", "ValueError"))],
            "HX510 rank 2 (cuda:2) failed in l0.attend.s2 of step 5: ValueError",
            id="an exception explains errors of communication",
        ),
        pytest.param(
            [rank_state(0, 2, None, -6), rank_state(1, 1), rank_state(2, 4)],
            "HX505 rank 1 (cuda:1) did not arrive at l0.concat within 10 s; last seen in l0.attend.s1 of step 5; "
            "1 rank arrived, 1 elsewhere",
            id="NCCL aborts a rank that waits",
        ),
        pytest.param(
            [rank_state(0, 2, LATE), rank_state(1, 4, RankReport("result", None)), rank_state(2, 2, LATE)],
            "HX505 rank 1 (cuda:1) did not arrive at l0.concat within 10 s; last seen in l1.concat of step 5; "
            "2 ranks arrived",
            id="a rank that has returned",
        ),
        pytest.param(
            [rank_state(0, 2, LATE), rank_state(1, 4, LATE), rank_state(2, 2, LATE)],
            "HX505 no rank was served within 10 s: ranks 0, 2 in l0.concat of step 5; 1 in l1.concat of step 5",
            id="ranks wait for each other",
        ),
        pytest.param(
            [rank_state(0, 2, GONE), rank_state(1, 4, GONE)],
            "HX504 rank 0 (cuda:0) lost its connection to another rank in l0.concat of step 5: "
            "RuntimeError: Connection closed by peer",
            id="nobody died",
        ),
    ],
)
def test_root_cause(states: list[RankState], message: str) -> None:
    assert str(root_cause(states, 10, task_name)).partition("\n")[0] == message


LAUNCHER = """
import os, signal, sys, time
from pathlib import Path
from helixctl_runtime.ranks import run_ranks

# Where the tests run in the background of a shell, they inherit that SIGINT is ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)

def worker(rank):
    rank.init_process_group()
    Path(sys.argv[1], str(os.getpid())).touch()
    time.sleep(600)

run_ranks(worker, world_size=4, device="cpu", timeout=300, task_name=lambda rank, ordinal: "t")
"""


@pytest.mark.parametrize(
    ("number", "status"),
    [
        pytest.param(signal.SIGINT, -signal.SIGINT, marks=pytest.mark.sweep),
        pytest.param(signal.SIGTERM, 143, marks=pytest.mark.sweep),
        (signal.SIGKILL, -signal.SIGKILL),
    ],
)
def test_ranks_end_with_their_launcher(pids: Path, temporary: Path, number: int, status: int) -> None:
    command = [sys.executable, "-c", LAUNCHER, str(pids)]
    environ = {**os.environ, "TMPDIR": str(temporary)}
    with subprocess.Popen(command, env=environ, stderr=subprocess.PIPE, text=True) as launcher:
        while len(list(pids.iterdir())) < WORLD:
            time.sleep(0.05)
        start = time.monotonic()
        launcher.send_signal(number)
        _, errors = launcher.communicate(timeout=300)
    assert launcher.returncode == status, errors
    assert time.monotonic() - start < 2 + BUSY * slowness()
    if number != signal.SIGKILL:
        assert list(temporary.iterdir()) == []
    while any(Path("/proc", path.name).exists() for path in pids.iterdir()):
        assert time.monotonic() - start < 2 + BUSY * slowness()
        time.sleep(0.02)


OUTER = """
import torch, torch.distributed as dist
from helixctl.errors import HelixError
from helixctl_runtime.ranks import Phase, run_ranks

def worker(rank):
    rank.init_process_group()
    x = torch.tensor(rank.rank + 1)
    dist.all_reduce(x)
    print(int(x), flush=True)
    rank.progress.enter(Phase.RUNNING)
    rank.progress.cell[0] = 1
    if rank.rank == 1:
        raise ValueError("broken")
    dist.all_reduce(x)

for work in (lambda rank: rank.rank, worker):
    try:
        name = lambda rank, ordinal: f"t{ordinal}"
        print(run_ranks(work, world_size=2, device="cpu", timeout=60, task_name=name), flush=True)
    except HelixError as error:
        print(error)
        raise SystemExit(error.exit_status)
"""


def test_ranks_of_another_launcher(unused_port: int) -> None:
    environ = {**os.environ, "TORCH_CPP_LOG_LEVEL": "ERROR", "WORLD_SIZE": "2"}
    environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(unused_port)}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", OUTER],
            env={**environ, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    first, second = [process.communicate(timeout=300)[0].splitlines() for process in processes]
    assert first[:2] == ["[0, None]", "3"]
    assert second[:2] == ["[None, 1]", "3"]
    # Both know whose fault it was, and one of them says it. One that is stuck in the collective ends all the same.
    said = [line for line in first[2:] + second[2:] if "HX" in line]
    assert said == ["HX510 rank 1 (cpu) failed in t0 of step 0: ValueError: broken"]
    assert [process.returncode for process in processes] == [1, 1]


@pytest.fixture
def unused_port() -> Iterator[int]:
    """A port that nothing listens on."""
    with free_port() as port:
        yield port


def test_torchrun_comes_before_slurm() -> None:
    slurm = {"SLURM_PROCID": "3", "SLURM_NTASKS": "4", "SLURM_LOCALID": "1", "SLURM_NODELIST": "a[07-08]"}
    torchrun = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "MASTER_ADDR": "h", "MASTER_PORT": "1"}
    assert detect(slurm | torchrun) == LaunchedRank("torchrun", 5, 8, 1, "env://")
    assert detect({**slurm, "SLURM_JOB_ID": "10"}) == LaunchedRank("srun", 3, 4, 1, "tcp://a07:20160")
    assert detect({**slurm, "MASTER_ADDR": "m", "MASTER_PORT": "99"}) == LaunchedRank("srun", 3, 4, 1, "tcp://m:99")
    assert detect({**slurm, "SLURM_NTASKS": "1"}) is None
    assert detect({**slurm, "SLURM_STEP_NUM_TASKS": "1"}) is None
    assert detect({"RANK": "0"}) is None


@pytest.mark.parametrize(
    ("nodelist", "hosts"),
    [
        ("node1", ["node1"]),
        ("a,b-2", ["a", "b-2"]),
        ("n[1-3,07],m", ["n1", "n2", "n3", "n07", "m"]),
        ("n[098-101]", ["n098", "n099", "n100", "n101"]),
        ("r[1-2]n[1,3]-ib", ["r1n1-ib", "r1n3-ib", "r2n1-ib", "r2n3-ib"]),
    ],
)
def test_node_lists(nodelist: str, hosts: list[str]) -> None:
    assert expand_hosts(nodelist) == hosts


@pytest.mark.parametrize(
    "environ",
    [
        {"RANK": "x", "WORLD_SIZE": "2", "MASTER_ADDR": "h", "MASTER_PORT": "1"},
        {"RANK": "0", "WORLD_SIZE": "2"},
        {"SLURM_PROCID": "0", "SLURM_NTASKS": "2"},
        {"SLURM_PROCID": "0", "SLURM_NTASKS": "2", "SLURM_NODELIST": "n[1-2"},
    ],
)
def test_environments_that_make_no_sense(environ: dict[str, str]) -> None:
    with pytest.raises(HelixError, match="HX509"):
        detect(environ)


def test_another_number_of_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "0", "WORLD_SIZE": "8", "MASTER_ADDR": "h", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(HelixError, match="HX509 the plan is for 16 ranks, torchrun started 8") as caught:
        run_ranks(lambda _: None, world_size=16, device="cpu", timeout=5, task_name=task_name)
    assert "--nproc-per-node 16" in str(caught.value)
    with pytest.raises(HelixError, match="srun --ntasks 16"):
        check_world_size(LaunchedRank("srun", 0, 4, 0, "tcp://h:1"), 16)


def test_too_few_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    with pytest.raises(HelixError, match="HX502 16 ranks need 16 CUDA devices, this machine has 8") as caught:
        check_devices("cuda", 16)
    assert "--device cpu" in str(caught.value)
    assert "--nnodes 2 --nproc-per-node 8" in str(caught.value)
    check_devices("cuda", 8)
    check_devices("cpu", 16)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(HelixError, match="HX502 1 rank needs a CUDA device, this machine has none"):
        check_devices("cuda", 1)
