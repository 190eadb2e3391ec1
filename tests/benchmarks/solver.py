"""How long the search takes, from 16 to 1,024 devices.

    python tests/benchmarks/solver.py [--json FILE]

Seconds are those of ``decide`` alone, the median of five calls in a fresh process; lowering and proving the plan that
is chosen come on top (tests/benchmarks/scale.py).
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
sys.path[:0] = [str(ROOT)]

from helixctl.solve import OBJECTIVES, Objective, decide  # noqa: E402
from helixctl.solve.objective import OF_A_GENERATION  # noqa: E402
from helixctl.spec.load import load_specs  # noqa: E402
from tests.benchmarks.fresh import main  # noqa: E402

CLUSTER = str(ROOT / "plans/paper/h100x16.cluster.yaml")
ROWS = [
    (model, hosts, seq_len, objective)
    for model in ("dense", "moe")
    for hosts in (2, 16, 128)
    for seq_len in (1, 128)
    for objective in OBJECTIVES
    if objective not in OF_A_GENERATION
    if objective == "throughput" or (hosts, seq_len) == (2, 1)
]


def measure(model: str, hosts: int, seq_len: int, objective: Objective) -> dict[str, object]:
    """One row, in this process."""
    sets = (f"hosts={hosts}", "workload.batch=4096", f"workload.seq_len={seq_len}")
    document, cluster = load_specs(str(ROOT / f"plans/paper/{model}.model.yaml"), CLUSTER, sets)
    seconds = []
    for _ in range(5):
        begin = time.perf_counter()
        decision = decide(document.model, cluster, document.workload, None, objective)
        seconds.append(time.perf_counter() - begin)
    return {
        "model": model,
        "devices": hosts * 8,
        "seq_len": seq_len,
        "objective": objective,
        "legal": decision.legal,
        "simulated": decision.simulated,
        "proved_best": decision.open_bound is None,
        "chosen": str(decision.plan.layout),
        "median_s": round(statistics.median(seconds), 3),
        "worst_s": round(max(seconds), 3),
    }


if __name__ == "__main__":
    main("solver.py", __doc__, ROWS, measure)
