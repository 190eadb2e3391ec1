"""Every legal layout of the small twin, run for real on gloo ranks with --check, in every dtype; one JSON report.

    python tests/benchmarks/all_layouts.py --json FILE [--ranks 1 2 4 8 16]

For softmax_slices 4 (the paper's 4 x 4) and 16 (every n x m of 16 devices is legal). The outputs of all layouts of one
model and dtype are also held against each other.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

from helixctl.plan import illegalities  # noqa: E402
from helixctl.solve import pairs  # noqa: E402
from helixctl_runtime.report.environment import environment  # noqa: E402
from tests.documents import SMALL, dag_of, specs  # noqa: E402


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for slices in (4, 16):
            for dtype in ("float32", "bfloat16", "float16"):
                rows += outputs_agree(one_model(slices, dtype, options.ranks, Path(folder)))
    options.json.write_text(json.dumps({"environment": environment(), "rows": rows}, indent=1) + "\n")
    failed = [row for row in rows if not row["passed"]]
    print(f"{len(rows) - len(failed)} passed, {len(failed)} failed")
    return 1 if failed else 0


def one_model(softmax_slices: int, dtype: str, ranks: list[int], folder: Path) -> list[dict[str, Any]]:
    """A row per legal layout, with its output."""
    rows = []
    for devices in ranks:
        sets = (f"attention.softmax_slices={softmax_slices}", f"devices_per_host={devices}")
        model, _, workload = specs(SMALL, *sets)
        for layout in pairs(devices, {}):
            if illegalities(layout, model, workload, devices):
                continue
            (folder / "x.dag.json").write_text(dag_of(SMALL, layout.groups, layout.slices, *sets).to_json())
            command = [
                sys.executable,
                "-m",
                "helixctl",
                "run",
                "x.dag.json",
                "--warmup",
                "1",
                "--iters",
                "4",
                "--check",
            ]
            files = ["--dtype", dtype, "--report", "r.json", "--output", "y.safetensors"]
            done = subprocess.run([*command, *files], cwd=folder, capture_output=True, text=True, check=False)
            row = {"softmax_slices": softmax_slices, "dtype": dtype, "ranks": devices, "layout": str(layout)}
            if done.returncode:
                rows.append(row | {"passed": False, "stderr": done.stderr})
                continue
            report = json.loads((folder / "r.json").read_text())
            check = {k: v if isinstance(v, bool) else float(f"{v:.4g}") for k, v in report["check"].items()}
            rows.append(row | check | {"output": load_file(folder / "y.safetensors")["output"].double()})
            print(row | check, flush=True)
    return rows


def outputs_agree(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Put each output's distance from the first one's in its place; it may be the sum of two tolerated errors."""
    first = next((row["output"] for row in rows if "output" in row), None)
    for row in rows:
        if "output" in row:
            distance = float(torch.linalg.vector_norm(row.pop("output") - first) / torch.linalg.vector_norm(first))
            row["from_first_layout"] = float(f"{distance:.4g}")
            row["passed"] = row["passed"] and distance <= 2 * row["tolerance"]
    return rows


if __name__ == "__main__":
    sys.exit(main())
