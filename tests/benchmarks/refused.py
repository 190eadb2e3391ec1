"""Head counts that other tools refuse: planned on H100, run on CPU ranks with --check; the table of docs/why.md.

    python tests/benchmarks/refused.py [--update] [--json FILE]

Each case is a published model's attention on a number of devices that does not divide its heads, or is more than its
heads of keys and values. Planned: one team of all devices (no replicas, no stages), 8 sequences of 2,048 tokens, the
best layouts that hold each KV head once beside the best that hold it several times. Run: all of them, with the same
heads in a model of fewer layers and dims.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT))

from helixctl.plan import Layout, Plan, illegalities  # noqa: E402
from helixctl.solve import decide  # noqa: E402
from helixctl.solve.candidate import Candidate  # noqa: E402
from helixctl.spec import ClusterSpec, ModelSpec, WorkloadSpec  # noqa: E402
from helixctl.spec.load import load_cluster  # noqa: E402
from helixctl.units import human_bytes, human_seconds  # noqa: E402
from tests.benchmarks.tables import updated  # noqa: E402

DOC = ROOT / "docs/why.md"
WORK = WorkloadSpec(batch=8, seq_len=2048)


@dataclass(frozen=True)
class Case:
    """Heads of queries and of keys and values, and the model that has them."""

    heads: int
    kv_heads: int
    devices: int
    model: str
    layers: int
    hidden_size: int
    head_dim: int
    intermediate_size: int
    vocabulary: int

    def spec(self) -> ModelSpec:
        return self._spec(self.layers, self.hidden_size, self.head_dim, self.intermediate_size, self.vocabulary)

    def small(self) -> ModelSpec:
        """The same heads, two layers, 8 dims a head."""
        return self._spec(2, 8 * self.heads, 8, 16 * self.heads + 3, 997)

    def _spec(self, layers: int, hidden: int, head_dim: int, ffn: int, vocabulary: int) -> ModelSpec:
        attention = {"heads": self.heads, "kv_heads": self.kv_heads, "head_dim": head_dim, "causal": True, "rotary": {}}
        return ModelSpec.model_validate(
            {
                "name": self.model,
                "layers": layers,
                "hidden_size": hidden,
                "attention": attention,
                "feed_forward": {"intermediate_size": ffn, "activation": "silu", "gated": True},
                "vocabulary": {"size": vocabulary},
                "dtype": "bfloat16",
            }
        )


QWEN_7B = ("Qwen2.5-7B", 28, 3584, 128, 18944, 152064)
LLAMA_13B = ("Llama-2-13B", 40, 5120, 128, 13824, 32000)
CASES = (
    Case(28, 4, 8, *QWEN_7B),
    Case(40, 40, 3, *LLAMA_13B),
    Case(40, 40, 6, *LLAMA_13B),
    Case(40, 40, 16, *LLAMA_13B),
    Case(52, 52, 8, "LLaMA-30B", 60, 6656, 128, 17920, 32000),
    Case(12, 2, 8, "Qwen2.5-1.5B", 28, 1536, 128, 8960, 151936),
    Case(30, 30, 4, "30-heads-of-128", 32, 3840, 128, 10240, 32000),
    Case(64, 8, 16, "Llama-3.1-70B", 80, 8192, 128, 28672, 128256),
    Case(16, 16, 32, "16-heads-of-128", 24, 2048, 128, 8192, 32000),
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--update", action="store_true", help="rewrite the table in docs/why.md")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = [row for case in CASES for row in rows_of(case)]
    text = table(rows)
    print(text)
    if options.update:
        DOC.write_text(updated(DOC.read_text(), {"refused": text}))
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")
    return 0 if all(row["passed"] for row in rows) else 1


def rows_of(case: Case) -> list[dict[str, Any]]:
    """One row for the best layout that slices no head and the best that does, with KV heads held once or several times.

    The fastest first, which is the one that is chosen.
    """
    cluster = h100(case.devices)
    fixed = {"data": 1, "pipeline": 1}
    decision = decide(case.spec(), cluster, WORK, fixed)
    candidates = [row.candidate for row in decision.rows if row.candidate.forecast]
    best: dict[tuple[bool, bool], Candidate] = {}
    for candidate in sorted(candidates, key=step_s):
        best.setdefault((candidate.layout.groups > case.kv_heads, candidate.layout.slices > 1), candidate)
    rows = []
    for candidate in best.values():
        forecast = candidate.forecast
        assert forecast is not None
        rows.append(
            {
                "heads": case.heads,
                "kv_heads": case.kv_heads,
                "devices": case.devices,
                "model": case.model,
                "layout": str(candidate.layout),
                "chosen": candidate.layout == decision.plan.layout,
                "copies_of_a_kv_head": max(1, candidate.layout.groups // case.kv_heads),
                "predicted_step_s": forecast.step_s,
                "predicted_memory_nbytes": forecast.memory_nbytes,
                **run(case, candidate.layout),
            }
        )
        print(rows[-1], flush=True)
    return rows


def step_s(candidate: Candidate) -> float:
    assert candidate.forecast is not None
    return candidate.forecast.step_s


def h100(devices: int) -> ClusterSpec:
    """Hosts of eight, or one host of fewer."""
    cluster = load_cluster(str(ROOT / "plans/paper/h100x16.cluster.yaml"))
    hosts = max(1, devices // 8)
    return cluster.model_copy(update={"hosts": hosts, "devices_per_host": devices // hosts})


def run(case: Case, layout: Layout) -> dict[str, Any]:
    """The small model in this layout on real ranks, against float64 and the unpartitioned float32 run."""
    model, work = case.small().model_copy(update={"dtype": "float32"}), WorkloadSpec(batch=8, seq_len=32)
    cluster = load_cluster(str(ROOT / "plans/small/cpu16.cluster.yaml"))
    cluster = cluster.model_copy(update={"devices_per_host": case.devices})
    if reasons := illegalities(layout, model, work, case.devices):
        raise SystemExit(f"{layout}: {reasons}")
    with tempfile.TemporaryDirectory() as folder:
        plan, report = Path(folder, "x.plan.json"), Path(folder, "r.json")
        plan.write_text(Plan.of(model, cluster, work, layout).to_json())
        command = [sys.executable, "-m", "helixctl", "run", str(plan), "--check", "--warmup", "1", "--iters", "2"]
        done = subprocess.run([*command, "--report", str(report)], capture_output=True, text=True, check=False)
        if done.returncode:
            return {"passed": False, "stderr": done.stderr[-2000:]}
        check = json.loads(report.read_text())["check"]
    return {"passed": check["passed"], "error": check["error"], "unpartitioned_error": check["unpartitioned_error"]}


def table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| heads / KV heads | devices | model | layout | a KV head is on | predicted step | memory | error |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        layout = f"**{row['layout']}**" if row["chosen"] else row["layout"]
        error = f"{row['error'] / row['unpartitioned_error']:.2f}" if row["passed"] else "FAILED"
        copies = row["copies_of_a_kv_head"]
        cells = (
            f"{row['heads']} / {row['kv_heads']}",
            row["devices"],
            row["model"],
            layout,
            "1 group" if copies == 1 else f"{copies} groups",
            human_seconds(row["predicted_step_s"]),
            human_bytes(row["predicted_memory_nbytes"]),
            error,
        )
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
