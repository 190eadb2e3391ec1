"""Lowering and proving large dags: seconds and memory, from 4 to 126 layers and from 16 to 64 devices.

    python tests/benchmarks/scale.py [--json FILE]

The model is as large as Llama 3.1 405B: 126 layers, hidden 16384, 128 heads of 128. Every row is a process of its own.
"""

from __future__ import annotations

import resource
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
sys.path[:0] = [str(ROOT)]

from helixctl.lower import lower  # noqa: E402
from helixctl.plan import Layout, Plan  # noqa: E402
from helixctl.simulate import forecast  # noqa: E402
from helixctl.spec.load import load_specs  # noqa: E402
from helixctl.verify import verify  # noqa: E402
from tests.benchmarks.fresh import main  # noqa: E402

PATHS = (str(ROOT / "plans/paper/dense.model.yaml"), str(ROOT / "plans/paper/h100x16.cluster.yaml"))
SETS = ("hidden_size=16384", "attention.heads=128", "attention.head_dim=128", "attention.softmax_slices=1",
        "feed_forward.intermediate_size=53248", "workload.batch=16", "workload.seq_len=2048",
        "model.name=dense-405b")  # fmt: skip
LARGE = ((4, 2), (32, 2), (126, 2), (126, 4), (126, 8))  # layers, hosts of eight
ROWS = [
    (layers, hosts, axes)
    for layers, hosts in LARGE
    for axes in (
        {"groups": hosts * 8},
        {"groups": 8, "pipeline": hosts, "microbatches": 2 * hosts, "combine": "reduce"},
    )
]


def measure(layers: int, hosts: int, axes: dict[str, int | str]) -> dict[str, object]:
    """One row, in this process."""
    document, cluster = load_specs(*PATHS, (*SETS, f"layers={layers}", f"hosts={hosts}", "device.memory=1 TB"))
    layout = Layout.model_validate({"slices": 1, **axes})
    marks = [time.perf_counter()]
    dag = lower(Plan.of(document.model, cluster, document.workload, layout))
    marks.append(time.perf_counter())
    findings = verify(dag)
    marks.append(time.perf_counter())
    predicted = forecast(dag)
    marks.append(time.perf_counter())
    return {
        "layers": layers,
        "devices": hosts * 8,
        "layout": str(layout),
        "tasks": len(dag.tasks),
        "proved": not findings,
        "lower_s": round(marks[1] - marks[0], 2),
        "prove_s": round(marks[2] - marks[1], 2),
        "lower_and_prove_s": round(marks[2] - marks[0], 2),
        "simulate_s": round(marks[3] - marks[2], 2),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "predicted_step_ms": round(predicted.step_s * 1e3, 2),
    }


if __name__ == "__main__":
    main("scale.py", __doc__, ROWS, measure)
