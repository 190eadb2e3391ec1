"""Which launcher started this process, from the variables that it sets; one of several processes never starts all."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from helixctl.errors import HelixError
from helixctl_runtime.ranks.interfaces import check_interfaces
from helixctl_runtime.ranks.launchers.environment import check_world_size, detect
from helixctl_runtime.ranks.launchers.launched_rank import LaunchedRank
from tests.cli.command import ENVIRONMENT, helixctl
from tests.cli.small_language_model import written as written_model
from tests.documents import ROOT, SMALL, dag_of
from tests.fork import fork
from tests.ports import free_port
from tests.runtime.families import TIED, VOCABULARY, dag_for, saved
from tests.runtime.test_heads import other, written
from tests.speed import slowness

TIMEOUT = 1000  # seconds, for which no rank here may wait

OMPI = "OMPI_COMM_WORLD_RANK=1 OMPI_COMM_WORLD_SIZE=4 OMPI_COMM_WORLD_LOCAL_RANK=1"
WHOLE_OMPI = "OMPI_COMM_WORLD_RANK={} OMPI_COMM_WORLD_SIZE=2 OMPI_COMM_WORLD_LOCAL_RANK={} OMPI_COMM_WORLD_LOCAL_SIZE=2"
SRUN = "SLURM_PROCID=1 SLURM_NTASKS=4 SLURM_LOCALID=0 SLURM_NODELIST=a[1-2] SLURM_STEP_ID=0 SLURM_JOB_ID=10"
BATCH = "SLURM_PROCID=0 SLURM_NTASKS=4 SLURM_LOCALID=0 SLURM_NODELIST=a[1-2] SLURM_JOB_ID=10 SLURM_NTASKS=4"
TORCHRUN = "RANK=2 WORLD_SIZE=8 LOCAL_RANK=0 MASTER_ADDR=h MASTER_PORT=1 TORCHELASTIC_RUN_ID=x"
AT_M, HERE = "tcp://m:99", "tcp://127.0.0.1:20000"
M = "MASTER_ADDR=m MASTER_PORT=99"


def environ(text: str) -> dict[str, str]:
    return dict(word.split("=", 1) for word in text.split())


@pytest.mark.parametrize(
    ("text", "rank"),
    [
        (f"{OMPI} OMPI_COMM_WORLD_LOCAL_SIZE=4", LaunchedRank("mpirun", 1, 4, 1, HERE)),
        (f"{OMPI} OMPI_COMM_WORLD_LOCAL_SIZE=2 {M}", LaunchedRank("mpirun", 1, 4, 1, AT_M)),
        (f"{OMPI} PMIX_RANK=1 {M}", LaunchedRank("mpirun", 1, 4, 1, AT_M)),
        (f"PMI_RANK=3 PMI_SIZE=4 MPI_LOCALRANKID=1 MPI_LOCALNRANKS=2 {M}", LaunchedRank("mpiexec", 3, 4, 1, AT_M)),
        ("PMI_RANK=3 PMI_SIZE=4 MPI_LOCALNRANKS=4", LaunchedRank("mpiexec", 3, 4, 3, HERE)),
        (f"PMI_RANK=3 PMI_SIZE=4 PMI_LOCAL_RANK=1 {M}", LaunchedRank("mpiexec", 3, 4, 1, AT_M)),
        (f"MV2_COMM_WORLD_RANK=1 MV2_COMM_WORLD_SIZE=2 {M}", LaunchedRank("mpirun_rsh", 1, 2, 1, AT_M)),
        ("JSM_NAMESPACE_RANK=1 JSM_NAMESPACE_SIZE=2 JSM_NAMESPACE_LOCAL_SIZE=2", LaunchedRank("jsrun", 1, 2, 1, HERE)),
        (
            "FLUX_TASK_RANK=1 FLUX_JOB_SIZE=2 FLUX_TASK_LOCAL_ID=1 FLUX_JOB_NNODES=1",
            LaunchedRank("flux run", 1, 2, 1, HERE),
        ),
        # One launcher inside another: the innermost counts.
        (f"{TORCHRUN} {SRUN}", LaunchedRank("torchrun", 2, 8, 0, "env://")),
        (f"{TORCHRUN} {BATCH}", LaunchedRank("torchrun", 2, 8, 0, "env://")),
        (f"{TORCHRUN} {OMPI}", LaunchedRank("torchrun", 2, 8, 0, "env://")),
        (f"{OMPI} OMPI_COMM_WORLD_LOCAL_SIZE=4 {BATCH}", LaunchedRank("mpirun", 1, 4, 1, HERE)),
        # srun itself sets PMI's variables, and knows the hosts.
        (f"PMI_RANK=1 PMI_SIZE=4 PMIX_RANK=1 {SRUN}", LaunchedRank("srun", 1, 4, 0, "tcp://a1:20160")),
        # One process is no rank of several.
        ("OMPI_COMM_WORLD_RANK=0 OMPI_COMM_WORLD_SIZE=1 PMIX_RANK=0", None),
        ("PMI_RANK=0 PMI_SIZE=1 MPI_LOCALRANKID=0", None),
        ("PMIX_RANK=0 SLURM_PROCID=0 SLURM_NTASKS=1", None),
        ("WORLD_SIZE=1", None),
        ("SLURM_NTASKS=4 SLURM_JOB_ID=3", None),  # the shell of salloc
    ],
)  # fmt: skip
def test_detected_ranks(text: str, rank: LaunchedRank | None) -> None:
    assert detect(environ(text)) == rank


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("PMI_RANK=1 PMI_SIZE=4", "PMI_RANK makes this process rank 1 of 4, and nothing says where the ranks meet"),
        (
            f"{OMPI} OMPI_COMM_WORLD_LOCAL_SIZE=2",
            "OMPI_COMM_WORLD_RANK makes this process rank 1 of 4, and nothing says",
        ),
        ("OMPI_COMM_WORLD_RANK=1", "OMPI_COMM_WORLD_RANK is 1, OMPI_COMM_WORLD_SIZE is not set"),
        ("OMPI_COMM_WORLD_RANK=0", "OMPI_COMM_WORLD_RANK is 0, OMPI_COMM_WORLD_SIZE is not set"),
        ("PMI_SIZE=2", "PMI_SIZE is 2, PMI_RANK is not set"),
        ("PMI_RANK=4 PMI_SIZE=4", "PMI_RANK is 4, and PMI_SIZE 4"),
        ("PMI_RANK=x PMI_SIZE=4", "PMI_RANK is 'x', not a number"),
        ("PMIX_RANK=0", "PMIX_RANK is 0: a launcher has started this process as one of several"),
        ("PMIX_RANK=1 PMIX_NAMESPACE=prterun-a@1", "PMIX_RANK is 1: a launcher"),
        ("ALPS_APP_PE=3", "ALPS_APP_PE is 3: a launcher"),
        ("MPI_LOCALRANKID=1", "MPI_LOCALRANKID is 1: a launcher"),
        (f"{OMPI} PMI_RANK=2 PMI_SIZE=4", "OMPI_COMM_WORLD_RANK makes this process rank 1 of 4, and PMI_RANK makes"),
        (
            f"{OMPI} RANK=0 WORLD_SIZE=4 MASTER_ADDR=h MASTER_PORT=1",
            "RANK makes this process rank 0 of 4, and OMPI_COMM",
        ),
        (
            f"{SRUN} RANK=0 WORLD_SIZE=4 MASTER_ADDR=h MASTER_PORT=1",
            "RANK makes this process rank 0 of 4, and SLURM_PROCID",
        ),
        ("RANK=3", "RANK is 3, WORLD_SIZE not set"),
        ("WORLD_SIZE=4", "WORLD_SIZE is 4, RANK not set"),
        ("LOCAL_RANK=1", "LOCAL_RANK is 1, RANK and WORLD_SIZE not set"),
        ("RANK=4 WORLD_SIZE=4 MASTER_ADDR=h MASTER_PORT=1", "RANK is 4, and WORLD_SIZE 4"),
        ("SLURM_PROCID=2", "SLURM_PROCID is 2, SLURM_NTASKS is not set"),
        (BATCH, "this is the batch script of a SLURM job of 4 tasks, which runs once and is no rank"),
        (f"{BATCH} SLURM_STEP_ID=4294967291", "this is the batch script of a SLURM job of 4 tasks"),
        (f"{BATCH} MASTER_ADDR=a1 MASTER_PORT=1", "this is the batch script of a SLURM job of 4 tasks"),
    ],
)
def test_one_of_several_never_starts_all(text: str, message: str) -> None:
    with pytest.raises(HelixError) as caught:
        detect(environ(text))
    (found,) = caught.value.diagnostics
    assert found.code == "HX509"
    assert found.message.startswith(message)
    assert found.hint


def test_jobs_on_one_host_have_ports_of_their_own() -> None:
    text = f"{OMPI} OMPI_COMM_WORLD_LOCAL_SIZE=4"
    first, second = (detect(environ(f"{text} PMIX_NAMESPACE={job}")) for job in ("prterun-a-1@1", "prterun-a-2@1"))
    assert first
    assert second
    assert first.rendezvous != second.rendezvous
    peer = detect(environ(f"{text} PMIX_NAMESPACE=prterun-a-1@1") | {"OMPI_COMM_WORLD_RANK": "3"})
    assert peer
    assert (peer.rank, peer.rendezvous) == (3, first.rendezvous)


def test_another_number_of_ranks_than_the_plan_has() -> None:
    for launcher, command in (("mpirun", "mpirun -n 16"), ("jsrun", "jsrun --np 16"), ("flux run", "flux run -n 16")):
        with pytest.raises(
            HelixError, match=f"HX509 the plan is for 16 ranks, {launcher} started 4\n  hint: {command} "
        ):
            check_world_size(LaunchedRank(launcher, 0, 4, 0, "tcp://h:1"), 16)


@pytest.fixture
def unused_port() -> Iterator[int]:
    """A port that nothing listens on."""
    with free_port() as port:
        yield port


def two(port: int, text: str = WHOLE_OMPI) -> list[str]:
    """The environments of both ranks."""
    return [f"{text.replace('{}', str(rank))} MASTER_PORT={port}" for rank in range(2)]


def started(
    folder: Path,
    texts: list[str],
    *options: str | Path,
    document: Path | None = None,
    each: Sequence[Sequence[str | Path]] = ((), ()),
    fresh: bool = False,
) -> list[tuple[int, str]]:
    """The exit status and words of ``helixctl run`` of a plan for two ranks, in a process of each environment.

    ``fresh``: each is a new interpreter, as an outer launcher starts them; else they are forked where torch is loaded.
    """
    (folder / "x.dag.json").write_text(dag_of(SMALL, 2, 1, "layers=1").to_json())
    given = ["run", str(document or folder / "x.dag.json"), *(() if document else ("--warmup", "1", "--iters", "2"))]
    given += ["--report", str(folder / "r.json"), "--timeout", str(TIMEOUT), *map(str, options)]

    def one(number: int) -> tuple[int, str]:
        arguments, env = [*given, *map(str, each[number])], ENVIRONMENT | environ(texts[number])
        if fresh:
            command = [sys.executable, "-m", "helixctl", *arguments]
            done = subprocess.run(command, env=env, capture_output=True, text=True, cwd=ROOT, timeout=500, check=False)
            return done.returncode, done.stdout + done.stderr
        forked = fork(arguments, env=env, cwd=ROOT, torch=True, beside=number)
        return forked.status, (forked.out + forked.err).decode()

    with ThreadPoolExecutor(2) as threads:
        return list(threads.map(one, range(2)))


@pytest.mark.parametrize(
    "text",
    [
        WHOLE_OMPI,
        pytest.param("PMI_RANK={} PMI_SIZE=2 MASTER_ADDR=127.0.0.1", marks=pytest.mark.sweep),
        pytest.param(
            "SLURM_PROCID={} SLURM_NTASKS=2 SLURM_LOCALID={} SLURM_NODELIST=localhost SLURM_STEP_ID=0",
            marks=pytest.mark.sweep,
        ),
    ],
)
def test_two_processes_are_the_two_ranks(text: str, unused_port: int, tmp_path: Path) -> None:
    (first, said), (second, nothing) = started(tmp_path, two(unused_port, text), fresh=True)
    assert (first, second) == (0, 0), said + nothing
    assert "2 CPU ranks" in said
    assert nothing == ""
    assert [rank["rank"] for rank in json.loads((tmp_path / "r.json").read_text())["ranks"]] == [0, 1]


def test_a_generation_of_two_processes(unused_port: int, tmp_path: Path) -> None:
    """Each has the prompt, and the first prints what comes of it; ranks that have other prompts are told so."""
    known = written_model(tmp_path / "little")
    plan = tmp_path / "x.plan.json"
    sizes = ("--batch", "1", "--input-len", "20", "--output-len", "6", "--layout", "groups=2,slices=1")
    done = helixctl("plan", known.folder, SMALL[1], *sizes, "--set", "devices_per_host=2", "--quiet", "-o", plan)
    assert done.status == 0, done.err
    torchrun = "RANK={} WORLD_SIZE=2 LOCAL_RANK={} MASTER_ADDR=127.0.0.1 GLOO_SOCKET_IFNAME=lo"
    weights = ("--weights", known.folder, "--ignore-eos")
    both = (("--prompt", "The quick"), ("--prompt", "The quick"))
    (first, said), (second, nothing) = started(tmp_path, two(unused_port, torchrun), *weights, document=plan, each=both)
    assert (first, second) == (0, 0), said + nothing
    due = known.continued("The quick", 6)
    assert known.text(due) in said
    assert nothing == ""
    assert json.loads((tmp_path / "r.json").read_text())["tokens"] == [due]
    for second_has in (("--prompt", "A quick"), ("--prompt", "The quick", "--generate", "5")):
        each = (both[0], second_has)
        ends = started(tmp_path, two(unused_port, torchrun), *weights, "--force", document=plan, each=each)
        assert [status for status, _ in ends] == [1, 1], ends
        option = "--generate 5, not 6" if "--generate" in second_has else "--prompt with the tokens "
        assert any(f"HX503 rank 1 (cpu) has {option}" in words for _, words in ends), ends


def test_ranks_that_are_told_otherwise_or_read_other_files(unused_port: int, tmp_path: Path) -> None:
    """A stale copy on one host: the output would be that of two models, or of two inputs."""
    for name in "ab":
        numbers = torch.full((16, 8, 512), float(name == "a"))
        save_file({"input": numbers}, tmp_path / f"{name}.safetensors")
    for each, said in (
        ((("--seed", "1"), ("--seed", "2")), "--seed 2, not 1"),
        ((("--input", tmp_path / "a.safetensors"), ("--input", tmp_path / "b.safetensors")), "other files for --input"),
    ):
        ends = started(tmp_path, two(unused_port), each=each)
        assert [status for status, _ in ends] == [1, 1], ends
        assert any(
            f"HX503 rank 1 (cpu) {text}" in words for _, words in ends for text in (f"has {said}", f"reads {said}")
        )
        assert not (tmp_path / "r.json").exists()


def test_each_rank_compares_its_share_of_a_head(unused_port: int, tmp_path: Path) -> None:
    """Rank 1 has the last rows; it says what it found, and the other does not wait."""
    held = saved(TIED, tmp_path)
    written(tmp_path, held | {"lm_head.weight": other(held["lm_head.weight"], VOCABULARY - 1)})
    (tmp_path / "tied.dag.json").write_text(dag_for(TIED, {"groups": 2, "slices": 1}).to_json())
    begin = time.monotonic()
    found = started(tmp_path, two(unused_port), "--weights", tmp_path, document=tmp_path / "tied.dag.json")
    assert [status for status, _ in found] == [2, 2]
    said = "".join(text for _, text in found)
    assert said.count("HX507") == 1
    assert f"rank 1 (cpu): tensor lm_head.weight is not model.embed_tokens.weight: row {VOCABULARY - 1} differs" in said
    assert time.monotonic() - begin < 40 * slowness()  # two starts of torch on a busy machine, and not the timeout


@pytest.mark.parametrize(
    "text",
    ["PMIX_RANK={}", *(pytest.param(text, marks=pytest.mark.sweep) for text in ("PMI_RANK={} PMI_SIZE=2", BATCH))],
)
def test_none_of_two_processes_waits_or_writes(text: str, tmp_path: Path) -> None:
    begin = time.monotonic()
    for status, said in started(tmp_path, [text.format(r) for r in range(2)]):
        assert (status, said.count("HX509"), "  hint: " in said) == (2, 1, True)
    assert time.monotonic() - begin < 40 * slowness()  # two starts of torch on a busy machine, and not the timeout
    assert not (tmp_path / "r.json").exists()


def test_an_interface_of_another_machine() -> None:
    here = [name for _, name in socket.if_nameindex()]
    done = helixctl("run", "plans/small/dense.4x4.plan.json", "--timeout", "50", env={"GLOO_SOCKET_IFNAME": "ib9"})
    assert done.status == 2
    assert "HX513 GLOO_SOCKET_IFNAME=ib9 names the interface ib9, not on this machine" in done.err
    assert f"hint: unset GLOO_SOCKET_IFNAME, or name one that is here: {', '.join(here)}" in done.err


@pytest.mark.parametrize(
    ("device", "value", "fine"),
    [
        ("cpu", "lo", True),
        ("cpu", "", True),
        ("cpu", "lo,ib9", False),
        ("cpu", "^ib9", False),
        ("cpu", "=lo", False),
        ("cuda", "lo", True),
        ("cuda", "l", True),
        ("cuda", "ib9,lo", True),
        ("cuda", "ib9", False),
        ("cuda", "=lo", True),
        ("cuda", "=l", False),
        ("cuda", "^ib9", True),
    ],
)
def test_how_interfaces_are_named(device, value: str, fine: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "if_nameindex", lambda: [(1, "lo"), (2, "eth0")])
    variable = "GLOO_SOCKET_IFNAME" if device == "cpu" else "NCCL_SOCKET_IFNAME"
    other = "NCCL_SOCKET_IFNAME" if device == "cpu" else "GLOO_SOCKET_IFNAME"
    check_interfaces({other: "of-no-concern"}, device)
    if fine:
        check_interfaces({variable: value}, device)
        return
    with pytest.raises(HelixError, match=f"HX513 {variable}=") as caught:
        check_interfaces({variable: value}, device)
    assert "lo, eth0" in str(caught.value)


def test_nccl_may_be_left_no_interface(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "if_nameindex", lambda: [(1, "lo"), (2, "eth0")])
    with pytest.raises(HelixError, match=r"HX513 NCCL_SOCKET_IFNAME=\^lo,eth excludes every interface of this machine"):
        check_interfaces({"NCCL_SOCKET_IFNAME": "^lo,eth"}, "cuda")
