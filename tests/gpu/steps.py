"""Whole steps on one GPU beside their predictions: writes one JSON report. `make gpu` runs it.

    python tests/gpu/steps.py --report FILE [--calibrated CLUSTER]

Each model on one device, layout 1 x 1, its step captured in a CUDA graph and replayed for two seconds, so that the GPU
has the clocks of long work. Predicted twice: from the datasheet and the default constants, and from the rates of a
cluster file that `helixctl calibrate` wrote on the same GPU.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "runtime")]

import torch  # noqa: E402

from helixctl.api import load, lower_plan, make_plan, simulate_step  # noqa: E402
from helixctl.cost.tasks import seconds  # noqa: E402
from helixctl.dag import Dag  # noqa: E402
from helixctl.spec import ClusterSpec  # noqa: E402
from helixctl.spec.load import load_cluster  # noqa: E402
from helixctl.spec.named import cluster_names  # noqa: E402
from helixctl_runtime.compile.bound import Compute  # noqa: E402
from helixctl_runtime.measure.cuda_graph import capture_step  # noqa: E402
from helixctl_runtime.measure.walk import fused, walk_together  # noqa: E402
from helixctl_runtime.report.environment import environment  # noqa: E402
from tests.gpu.one_gpu import compiled, once, timed  # noqa: E402

LAYOUT = "groups=1,slices=1"
PAPER = ("plans/paper/dense.model.yaml", "plans/paper/moe.model.yaml")
# Model, and what is set: of real models some layers, the same as all others.
CASES: tuple[tuple[str, tuple[str, ...]], ...] = (
    (PAPER[0], ()),
    (PAPER[0], ("dtype=bfloat16", "workload.batch=8", "workload.seq_len=2048")),
    (PAPER[1], ("dtype=bfloat16", "layers=1")),
    (PAPER[1], ("layers=1",)),
    ("plans/models/Llama-3.1-8B", ("workload.batch=1", "workload.seq_len=2048")),
    ("plans/models/Llama-3.1-8B", ("layers=8", "workload.batch=8", "workload.seq_len=2048")),
    ("plans/models/Llama-3.1-8B", ("layers=8", "workload.batch=1", "workload.seq_len=16384")),
    ("plans/models/Qwen2.5-7B", ("layers=8", "workload.batch=4", "workload.seq_len=2048")),
    ("plans/models/Mixtral-8x7B-v0.1", ("layers=4", "workload.batch=1", "workload.seq_len=2048")),
    ("plans/models/Mixtral-8x7B-v0.1", ("layers=4", "workload.batch=8", "workload.seq_len=2048")),
    ("plans/models/Qwen3-30B-A3B", ("layers=8", "workload.batch=1", "workload.seq_len=2048")),
    ("plans/models/Qwen3-30B-A3B", ("layers=8", "workload.batch=8", "workload.seq_len=2048")),
)
SMALL: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("plans/small/dense.model.yaml", ()),
    ("plans/small/moe.model.yaml", ("dtype=bfloat16",)),
)


def main() -> int:
    """Measure every case; the exit status is 0 where all ran."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--report", type=Path, required=True)
    parser.add_argument("--calibrated", type=Path, help="a cluster file of this GPU")
    parser.add_argument("--seconds", type=float, default=2.0, help="for which each step is replayed")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true", help="the small twins, for a trial on CPU")
    options = parser.parse_args()
    device, started = torch.device(options.device), datetime.now(UTC).isoformat(timespec="seconds")
    clusters = {"datasheet": datasheet(environment()["gpu"] or "H100")}
    if options.calibrated:
        clusters["calibrated"] = one_device(load(options.calibrated))
    rows = []
    for model, sets in SMALL if options.small else CASES:
        try:
            rows.append(measured(model, sets, clusters, device, options.seconds))
        except Exception as error:  # noqa: BLE001  one model that fails must not lose what the others found
            rows.append({"model": model, "sets": sets, "failed": f"{type(error).__name__}: {error}"})
        print(json.dumps(rows[-1])[:600], flush=True)
        gc.collect()
        torch.cuda.empty_cache()
    report = {"started_at": started, "environment": environment(), "steps": rows}
    options.report.write_text(json.dumps(report, indent=1) + "\n")
    return 1 if any("failed" in row for row in rows) else 0


def measured(
    model: str, sets: tuple[str, ...], clusters: dict[str, ClusterSpec], device: torch.device, span_s: float
) -> dict[str, Any]:
    """One model's step, its parts, and what was predicted of them."""
    dags = {name: dag_of(model, sets, its) for name, its in clusters.items()}
    dag = dags["datasheet"]
    programs, _ = compiled(dag, device)
    step = walk_together(dag, programs)
    parts: dict[str, float] = {}
    with torch.inference_mode(), fused(programs):
        for action in programs[0].actions:
            if isinstance(action, Compute) and action.place < len(dag.order[0]):
                task = dag.task[dag.order[0][action.place]]
                if task.layer in {0, dag.plan.model.layers - 1}:
                    parts[task.id] = parts.get(task.id, 0.0) + timed(action.run, device)
        graph = device.type == "cuda" and programs[0].on_device
        call = capture_step(step, [*programs[0].outputs.values()], "rank 0") if graph else step
        times = replayed(call, device, span_s)
    return {
        "model": dag.plan.model.name,
        "dtype": dag.plan.model.dtype,
        "layers": dag.plan.model.layers,
        "batch": dag.plan.workload.batch,
        "seq_len": dag.plan.workload.seq_len,
        "attention": sorted(b.name for b in programs[0].attention),
        "cuda_graph": graph,
        "step_ms": statistics.median(times) * 1e3,
        "steps": len(times),
        "predicted_ms": {name: step_ms(its) for name, its in dags.items()},
        "tasks": [
            {
                "task": name,
                "kind": dag.task[name].kind,
                "us": s * 1e6,
                "predicted_us": {source: task_us(its, name) for source, its in dags.items()},
            }
            for name, s in parts.items()
        ],
    }


def dag_of(model: str, sets: Sequence[str], cluster: ClusterSpec) -> Dag:
    """A model's dag on one device."""
    return lower_plan(make_plan(load(ROOT / model, sets), cluster, layout=LAYOUT).plan)


def step_ms(dag: Dag) -> float:
    """Predicted milliseconds of a step."""
    return simulate_step(dag).forecast.step_s * 1e3


def task_us(dag: Dag, task: str) -> float:
    """Predicted microseconds of a task."""
    return seconds(dag, dag.task[task]) * 1e6


def replayed(call: Any, device: torch.device, span_s: float) -> list[float]:
    """The seconds of each step, one after another, for some seconds."""
    times, begin = list[float](), time.perf_counter()
    while time.perf_counter() - begin < span_s or len(times) < 3:
        if device.type == "cuda":
            times.append(once(call))
        else:
            before = time.perf_counter()
            call()
            times.append(time.perf_counter() - before)
    return times[len(times) // 4 :]


def datasheet(gpu: str) -> ClusterSpec:
    """One of these GPUs by its datasheet, without the rates that come with helixctl."""
    return by_name(gpu).model_copy(update={"measured": None})


def by_name(gpu: str) -> ClusterSpec:
    """One of these GPUs as it has a name.

    Raises:
        SystemExit: this GPU has no cluster by name.
    """
    for name in cluster_names():
        if name in gpu.lower():
            return load_cluster(f"{name}:1")
    raise SystemExit(f"no cluster by name is of a {gpu}: helixctl clusters lists them")


def one_device(cluster: Any) -> ClusterSpec:
    """The same with one device."""
    return ClusterSpec.model_validate(
        cluster.model_dump(mode="json", exclude_none=True) | {"hosts": 1, "devices_per_host": 1}
    )


if __name__ == "__main__":
    sys.exit(main())
