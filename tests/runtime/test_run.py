"""helixctl run on gloo ranks: checks pass, files go in and out, reports hold, and a failure is one clear line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from helixctl.dag.retype import retyped
from helixctl.units import human_bytes
from helixctl_runtime.report.environment import less_precise
from helixctl_runtime.run import Options, run
from helixctl_runtime.tensors.seeded import seeded_numbers
from tests.cli.command import ENVIRONMENT, helixctl
from tests.documents import ROOT, SMALL, SMALL_MOE, dag_of, plan_of
from tests.runtime.together import run_together
from tests.speed import slowness

QUICK = ("--warmup", "1", "--iters", "3")


def write(path: Path, groups: int, slices: int, *sets: str) -> Path:
    path.write_text(dag_of(SMALL, groups, slices, *sets).to_json())
    return path


DIFFERING = """
name: differs
hosts:
  - {count: 1, devices: 2, within_host: {bandwidth: 1 GB/s, latency: 50 us}, device: {kind: cpu, name: large,
     memory: 400 MB, memory_bandwidth: 5 GB/s, peak: {float32: 32 GFLOP/s}}}
  - {count: 1, devices: 2, within_host: {bandwidth: 1 GB/s, latency: 50 us}, device: {kind: cpu, name: small,
     memory: 100 MB, memory_bandwidth: 2 GB/s, peak: {float32: 8 GFLOP/s}}}
between_hosts: {bandwidth: 100 MB/s, latency: 500 us}
"""


@pytest.mark.parametrize(
    ("fixed", "layout"),
    [
        # One device of the second host has nothing to do.
        ("groups=1,slices=1,data=3,pipeline=1,microbatches=1", '"batch_shares":"4-4-1"'),
        pytest.param("groups=1,slices=1,data=1,pipeline=3,microbatches=9", '"stages":"3-2-1"', marks=pytest.mark.sweep),
    ],
)
def test_unequal_shares_on_hosts_that_differ(fixed: str, layout: str, tmp_path: Path) -> None:
    """The same file is planned, proved, and run by CPU ranks with the same shares."""
    (tmp_path / "x.cluster.yaml").write_text(DIFFERING)
    plan, report = tmp_path / "x.plan.json", tmp_path / "x.report.json"
    specs = (SMALL[0], tmp_path / "x.cluster.yaml", "--batch", "9", "--set", "layers=6", "--layout", fixed)
    planned = helixctl("plan", *specs, "-o", plan)
    assert planned.status == 0, planned.err
    assert "idle: 1 of 4 devices, 1 x small" in planned.said
    assert layout in plan.read_text().replace(" ", "").replace("\n", "")
    assert helixctl("validate", plan).status == 0
    done = helixctl("run", plan, *QUICK, "--check", "--report", report)
    assert done.status == 0, done.err
    assert "check passed" in done.said
    assert json.loads(report.read_text())["ranks"][2]["rank"] == 2


@pytest.mark.sweep
@pytest.mark.parametrize(
    ("documents", "layout"),
    [
        (SMALL_MOE, "groups=3,slices=1,group_shares=3-2-1,combine=reduce"),
        (SMALL, "groups=4,slices=1,group_shares=3-3-1-1,residual=sharded"),
        (SMALL_MOE, "groups=2,slices=2,group_shares=1-3,experts=2"),
    ],
)
def test_groups_of_unequal_shares(documents: tuple[str, str], layout: str, tmp_path: Path) -> None:
    devices = 3 if "groups=3" in layout else 4
    plan = tmp_path / "x.plan.json"
    sets = ("--set", f"devices_per_host={devices}", "--set", "layers=2", "--layout", layout)
    planned = helixctl("plan", *documents, *sets, "-o", plan)
    assert planned.status == 0, planned.err
    done = helixctl("run", plan, *QUICK, "--check")
    assert done.status == 0, done.err
    assert "check passed" in done.said


@pytest.mark.parametrize(
    ("groups", "slices", "dtype"),
    [
        (1, 1, "float32"),
        (2, 1, "bfloat16"),
        pytest.param(2, 2, "float32", marks=pytest.mark.sweep),
        pytest.param(2, 2, "float16", marks=pytest.mark.sweep),
        pytest.param(1, 4, "bfloat16", marks=pytest.mark.sweep),
        (4, 1, "float32"),
    ],
)
def test_check_passes(groups: int, slices: int, dtype: str, tmp_path: Path) -> None:
    path = write(tmp_path / "x.dag.json", groups, slices, "layers=2")
    done = helixctl("run", path, *QUICK, "--check", "--dtype", dtype)
    assert done.status == 0, done.err
    assert "check passed: relative error" in done.said
    ranks = groups * slices
    assert f"{ranks} CPU rank{'s' * (ranks > 1)} sharing" in done.said
    assert "attention kernel: FLASH_ATTENTION" in done.said


@pytest.mark.parametrize("groups", [2, pytest.param(4, marks=pytest.mark.sweep)])
def test_ranks_from_a_plan_file(groups: int, tmp_path: Path) -> None:
    plan, report = tmp_path / "x.plan.json", tmp_path / "r.json"
    plan.write_text(plan_of(SMALL, groups, groups).to_json())
    done = helixctl("run", plan, *QUICK, "--check", "--report", report)
    assert done.status == 0, done.err
    assert len(json.loads(report.read_text())["ranks"]) == groups**2


def test_the_report(tmp_path: Path) -> None:
    path = write(tmp_path / "x.dag.json", 2, 2)
    done = helixctl("run", path, *QUICK, "--check", "--seed", "5", "--report", "-")
    report = json.loads(done.out)
    dag = dag_of(SMALL, 2, 2)
    assert report["simulated"] is False
    assert (report["dag_digest"], report["plan_digest"]) == (dag.digest, dag.plan_digest)
    assert (report["seed"], report["warmup"], report["iters"]) == (5, 1, 3)
    step = report["step_time_ms"]
    assert 0 < step["min"] <= step["p10"] <= step["p50"] <= step["p90"] <= step["p99"] <= step["max"]
    assert report["tokens_per_s"] == pytest.approx(16 * 8 / step["mean"] * 1e3)
    exposed = report["communication"]["exposed_ms"]
    assert 0 < exposed < step["mean"]
    assert exposed == pytest.approx(sum(r["exposed_ms"] for r in report["ranks"]) / 4)
    assert report["sync_overhead_per_token_ms"] == pytest.approx(exposed / 8)
    assert report["communication"]["hidden_ms"] > 0
    received = {row["level"]: row["received_nbytes_per_rank"] for row in report["levels"]}
    # 4 layers; attention output of 16 x 8 x 512 float32: half of a half, then half of the whole.
    assert received["concat"] == 4 * (16 * 8 * 512 * 4 // 2 + 16 * 8 * 512 * 4 // 4)
    assert received["attend"] == 0
    check = report["check"]
    assert check["error"] <= check["tolerance"] == 2 * check["unpartitioned_error"]
    assert report["environment"]["torch"] == torch.__version__
    assert [r["rank"] for r in report["ranks"]] == [0, 1, 2, 3]
    assert (report["weights"], [r["weights_read_nbytes"] for r in report["ranks"]]) == (None, [0, 0, 0, 0])


def test_files_in_and_out(tmp_path: Path) -> None:
    """Weights and input from files, each rank reading its regions, give what the same numbers from the seed give."""
    dag = dag_of(SMALL, 2, 2, "layers=2")
    weights = {t.name: seeded_numbers(t, t.full, 9, torch.float32) for t in dag.tensors if t.role == "weight"}
    save_file(weights, tmp_path / "w.safetensors")
    save_file(
        {"input": seeded_numbers(dag.tensor["input"], dag.tensor["input"].full, 9, torch.float32)},
        tmp_path / "x.safetensors",
    )
    path = write(tmp_path / "x.dag.json", 2, 2, "layers=2")
    files = ("--weights", tmp_path / "w.safetensors", "--input", tmp_path / "x.safetensors")
    made = ("--output", tmp_path / "y.safetensors", "--report", tmp_path / "r.json")
    done = helixctl("run", path, *QUICK, "--check", *files, *made)
    assert done.status == 0, done.err
    report = json.loads((tmp_path / "r.json").read_text())
    needed = sum(weight.nbytes for weight in weights.values())
    ranks = [rank["weights_read_nbytes"] for rank in report["ranks"]]
    # Four ranks hold all matrices once, and each all norms: what the check reads is not counted.
    norms = sum(weight.nbytes for weight in weights.values() if weight.dim() == 1)
    assert sum(ranks) == needed + 3 * norms
    assert report["weights"] == {
        "path": str(tmp_path / "w.safetensors"),
        "prefix": None,
        "files": ["w.safetensors"],
        "tensors": len(weights),
        "left_out": {"tensors": 0, "nbytes": 0, "parts": {}},
        "other_files": [],
        "nbytes": needed,
        "read_nbytes_per_rank": max(ranks),
        "read_nbytes": sum(ranks),
    }
    rank, all_ranks, in_file = (human_bytes(nbytes) for nbytes in (max(ranks), sum(ranks), needed))
    assert f"weights: {rank} read a rank at most, {all_ranks} in all, of {in_file} in {tmp_path}" in done.said
    output = load_file(tmp_path / "y.safetensors")["output"]
    expected = run_together(dag, seed=9, steps=1).outputs[0]
    assert torch.allclose(output, expected, rtol=1e-5, atol=1e-6)
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_variables_that_make_float32_less_precise(tmp_path: Path) -> None:
    given = {"NVIDIA_TF32_OVERRIDE": "1", "ONEDNN_DEFAULT_FPMATH_MODE": "BF16"}
    assert less_precise(given, cuda=True) == given
    assert less_precise(given, cuda=False) == {"ONEDNN_DEFAULT_FPMATH_MODE": "BF16"}
    assert less_precise({"NVIDIA_TF32_OVERRIDE": "0", "ONEDNN_DEFAULT_FPMATH_MODE": "strict"}, cuda=True) == {}
    path = write(tmp_path / "x.dag.json", 2, 1, "layers=1")
    done = helixctl("run", path, *QUICK, env={"ONEDNN_DEFAULT_FPMATH_MODE": "BF16"})
    assert (done.status, "warning: ONEDNN_DEFAULT_FPMATH_MODE=BF16 in the environment" in done.err) == (0, True)


def test_a_wrong_weight_file(tmp_path: Path) -> None:
    path = write(tmp_path / "x.dag.json", 2, 1, "layers=1")
    save_file(
        {"l0.w_q": torch.zeros(3, 3), "l0.w_k": torch.zeros(512, 16, 32, dtype=torch.int32)}, tmp_path / "w.safetensors"
    )
    done = helixctl("run", path, *QUICK, "--weights", tmp_path / "w.safetensors")
    assert done.status == 2
    assert "HX507 tensor l0.w_q has shape [3, 3], the model [512, 16, 32]" in done.err
    assert "HX507 tensor l0.w_k is I32" in done.err
    assert "HX507 tensor l0.w_up is missing" in done.err
    (tmp_path / "w.safetensors").write_bytes(b"nothing of the kind")
    done = helixctl("run", path, *QUICK, "--weights", tmp_path / "w.safetensors")
    assert (done.status, "HX507" in done.err, "Traceback" in done.err) == (2, True, False)


def test_nan_in_a_weight_fails_the_check(tmp_path: Path) -> None:
    dag = dag_of(SMALL, 2, 1, "layers=1")
    weights = {t.name: seeded_numbers(t, t.full, 0, torch.float32) for t in dag.tensors if t.role == "weight"}
    weights["l0.w_up"][3, 7] = float("nan")
    save_file(weights, tmp_path / "w.safetensors")
    path = write(tmp_path / "x.dag.json", 2, 1, "layers=1")
    done = helixctl(
        "run", path, *QUICK, "--check", "--weights", tmp_path / "w.safetensors", "--report", tmp_path / "r.json"
    )
    assert done.status == 1
    assert "HX506 the model's own output is not finite" in done.err
    assert json.loads((tmp_path / "r.json").read_text())["check"]["passed"] is False


def test_another_function_fails_the_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check is sharp: a scale that is off by a thousandth is found."""
    from helixctl_runtime import kernels

    plain = kernels.add
    monkeypatch.setattr(kernels, "add", lambda a, b, out, multiplier=1.0: plain(a, b, out, multiplier * 1.001))
    ran = run_together(retyped(dag_of(SMALL, 2, 1, "layers=1"), "float32"), steps=1)
    assert ran.error > 2 * ran.unpartitioned


def test_dry_run_starts_nothing() -> None:
    done = helixctl("run", "plans/small/dense.4x4.plan.json", "--dry-run")
    assert done.status == 0
    assert "16 ranks on cpu" in done.said
    assert "nothing was started" in done.said


def test_without_torch(tmp_path: Path) -> None:
    """`helixctl run` on a machine that plans only says which extra to install."""
    plan = ROOT / "plans/small/dense.4x4.plan.json"
    hook = f"import sys; sys.modules['torch'] = None\nfrom helixctl.cli.main import main\nmain(['run', '{plan}'])"
    done = subprocess.run([sys.executable, "-c", hook], capture_output=True, cwd=tmp_path, check=False)
    assert done.returncode == 2
    assert b"HX501 torch is not installed" in done.stderr
    assert b".[runtime]" in done.stderr


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGKILL, "HX504"), (signal.SIGSTOP, "HX505")])
def test_a_rank_that_dies_or_hangs_ends_the_run(sent: signal.Signals, code: str, tmp_path: Path) -> None:
    path, timeout = write(tmp_path / "x.dag.json", 2, 2), 3 * slowness()
    command = [sys.executable, "-m", "helixctl", "run", str(path), "--iters", "100000000", "--timeout", f"{timeout}"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT, cwd=ROOT) as run:
        ranks = _children(run.pid, 4)
        time.sleep(1)
        os.kill(ranks[2], sent)
        begin = time.monotonic()
        _, err = run.communicate(timeout=300)
    assert time.monotonic() - begin < timeout + 5 * slowness()  # 3 + 2 on a machine that does nothing else
    assert run.returncode == 1
    assert err.count("HX") == 1
    assert f"{code} rank 2 (cpu)" in err
    # Where the machine is busy it may not have begun a step; tests/faults sees to it that one has.
    assert " l" in err or "the start of step" in err or "preparation" in err
    assert "rank-2.log" in err
    assert not any(Path(f"/proc/{pid}").exists() for pid in ranks)


def _children(pid: int, count: int) -> list[int]:
    """The ranks of a launcher, by rank, once they all run: in the order of their start; process numbers wrap around."""
    for _ in range(3000):
        path = Path(f"/proc/{pid}/task/{pid}/children")
        found = [int(p) for p in path.read_text().split()] if path.exists() else []
        if len(found) >= count:
            return found[-count:]
        time.sleep(0.1)
    raise AssertionError("the ranks did not start")


def test_an_output_that_cannot_be_written_is_said_before_the_run(tmp_path: Path) -> None:
    for option in ("--output", "--report"):
        done = helixctl("run", "plans/small/dense.4x4.plan.json", option, tmp_path / "missing" / "x")
        assert done.status == 2
        assert "HX511" in done.err
        assert "create the folder first" in done.err
        assert "running" not in done.err


def test_ranks_that_do_not_hold_the_output() -> None:
    """The check of a dag in which the last add is done on one rank only looks at that rank."""
    dag = dag_of(SMALL, 2, 1, "layers=1")
    last = "l0.feed_forward.add.g1s0"
    dag = replace(
        dag,
        values=tuple(v for v in dag.values if v.id != "output@1"),
        tasks=tuple(t for t in dag.tasks if t.id != last),
        order=(dag.order[0], dag.order[1][:-1]),
    )
    results = run([dag], ["x"], Options(warmup=1, iters=2, check=True), device="cpu", timeout=30)
    assert results is not None
    assert results[0].report["check"]["passed"]


@pytest.mark.parametrize(
    ("groups", "slices", "axes"),
    [
        pytest.param(2, 1, {"pipeline": 2, "microbatches": 2, "combine": "reduce"}, marks=pytest.mark.sweep),
        pytest.param(2, 1, {"data": 2}, marks=pytest.mark.sweep),
        pytest.param(2, 2, {"gather_order": "groups_first", "microbatches": 2}, marks=pytest.mark.sweep),
        (1, 2, {"gather_order": "groups_first", "microbatches": 2, "pipeline": 2, "combine": "reduce"}),
        pytest.param(1, 1, {"pipeline": 2, "data": 2}, marks=pytest.mark.sweep),
        (3, 1, {"residual": "sharded", "combine": "reduce"}),  # uneven shares
        pytest.param(2, 2, {"residual": "sharded"}, marks=pytest.mark.sweep),
    ],
)
def test_other_axes_on_ranks(groups: int, slices: int, axes: dict[str, int | str], tmp_path: Path) -> None:
    """The check holds every rank's pieces, and the file that rank 0 writes holds them all."""
    dag = dag_of(SMALL, groups, slices, **axes)
    (tmp_path / "x.dag.json").write_text(dag.to_json())
    done = helixctl("run", tmp_path / "x.dag.json", *QUICK, "--check", "--output", tmp_path / "y.safetensors")
    assert done.status == 0, done.err
    output = load_file(tmp_path / "y.safetensors")["output"]
    expected = run_together(dag_of(SMALL, 1, 1), steps=1).outputs[0]
    assert torch.allclose(output, expected, rtol=1e-4, atol=1e-5)
