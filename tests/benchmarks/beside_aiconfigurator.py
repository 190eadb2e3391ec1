"""Prefill as helixctl predicts it beside NVIDIA's aiconfigurator, for docs/measurements/silicon.md.

    pip install aiconfigurator-core==0.12.0
    python tests/benchmarks/beside_aiconfigurator.py [--update]

Both estimate: neither was measured. Tensor parallelism over 1, 2, 4 and 8 H100 of one host in bfloat16, sums in
bfloat16 too, as engines add them; aiconfigurator for each of its three engines, mixtures with as many tokens for every
expert, as helixctl routes them. Whether the weights fit is asked of neither. Of one prefill the parts are compared too.
Needs no GPU.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

ROOT = Path(__file__).parent.parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "runtime")]

from helixctl.errors import HelixError  # noqa: E402
from helixctl.lower import lower  # noqa: E402
from helixctl.plan import Layout, Plan  # noqa: E402
from helixctl.simulate import simulate  # noqa: E402
from helixctl.solve.candidate import step_forecast  # noqa: E402
from helixctl.spec import ClusterSpec, ModelDocument  # noqa: E402
from helixctl.spec.load import load_specs  # noqa: E402
from tests.benchmarks.tables import updated  # noqa: E402

PAGE: Final = ROOT / "docs/measurements/silicon.md"
ENGINES: Final = ("trtllm", "vllm", "sglang")
GPUS: Final = (1, 2, 4, 8)
WORKLOADS: Final = ((1, 2048), (8, 2048), (4, 4096))
# The config of Qwen2.5-32B, where it is another than that of the 7B.
QWEN_32B: Final = {
    "hidden_size": 5120, "intermediate_size": 27648, "num_hidden_layers": 64, "num_attention_heads": 40,
    "num_key_value_heads": 8, "max_window_layers": 64,
}  # fmt: skip
MODELS: Final = {
    "Llama-3.1-8B": ("Llama-3.1-8B", {}),
    "Llama-3.1-70B": ("Llama-3.1-70B", {}),
    "Qwen2.5-7B": ("Qwen2.5-7B", {}),
    "Qwen2.5-32B": ("Qwen2.5-7B", QWEN_32B),
    "Mixtral-8x7B": ("Mixtral-8x7B-v0.1", {}),
    "Qwen3-30B-A3B": ("Qwen3-30B-A3B", {}),
}  # fmt: skip
MIXTURES: Final = ("Mixtral-8x7B", "Qwen3-30B-A3B")
# The prefill whose parts are compared, on one GPU; of each part our kinds of task by level, and their operations.
SHOWN: Final = ("Llama-3.1-8B", 8, 2048)
PARTS: Final[dict[str, tuple[tuple[str, ...], tuple[str, ...]]]] = {
    "products of the network": (("feed_forward linear",), ("gate_ffn1_gemm", "ffn2_gemm")),
    "products around attention": (("distribute linear", "project linear"), ("qkv_gemm", "proj_gemm")),
    "attention": (("attend attention",), ("attention",)),
    "activation and its product": (("feed_forward activation", "feed_forward multiply"), ("act_gate",)),
    "sums and norms": (
        ("project add", "feed_forward add", "distribute norm", "feed_forward norm"),
        ("add_norm_1", "add_norm_2"),
    ),
    "rotations": (("attend rotate",), ()),
    "embedding and head": (
        ("embed embed", "head last_token", "head norm", "head linear"),
        ("embedding", "logits_gemm"),
    ),
}


@dataclass(frozen=True)
class Compared:
    """One prefill: milliseconds by helixctl, and by aiconfigurator for each engine."""

    model: str
    gpus: int
    batch: int
    seq_len: int
    ours: float
    theirs: Mapping[str, float]

    @property
    def ratio(self) -> float:
        """Ours to the median of theirs."""
        return self.ours / statistics.median(self.theirs.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--update", action="store_true", help="rewrite the table in docs/measurements/silicon.md")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        made = {"beside-aiconfigurator": table(list(compared(Path(folder)))), "parts": parts(Path(folder))}
    print("\n\n".join(made.values()))
    if options.update:
        PAGE.write_text(updated(PAGE.read_text(encoding="utf-8"), made), encoding="utf-8")


def compared(folder: Path) -> Iterator[Compared]:
    """Every model on every number of GPUs of which both have an estimate."""
    for name, (known, other) in MODELS.items():
        config = json.loads((ROOT / "plans/models" / known / "config.json").read_text(encoding="utf-8")) | other
        model = folder / name
        model.mkdir()
        (model / "config.json").write_text(json.dumps(config), encoding="utf-8")
        for gpus in GPUS:
            handles = {engine: estimator(str(model), engine, gpus) for engine in ENGINES}
            for batch, seq_len in WORKLOADS:
                ours = predicted_ms(str(model), gpus, batch, seq_len)
                theirs = {e: h.predict_prefill_latency(batch, seq_len) for e, h in handles.items() if h is not None}
                if ours is not None and theirs:
                    yield Compared(name, gpus, batch, seq_len, ours, theirs)


def specs(model: str, gpus: int, batch: int, seq_len: int) -> tuple[ModelDocument, ClusterSpec, Layout]:
    """What helixctl predicts."""
    sets = [f"workload.batch={batch}", f"workload.seq_len={seq_len}", "workload.logits=last", "dtype=bfloat16"]
    document, cluster = load_specs(model, f"h100:{gpus}", sets)
    return document, cluster, Layout(groups=gpus, slices=1, combine="reduce", reduction_dtype="model")


def predicted_ms(model: str, gpus: int, batch: int, seq_len: int) -> float | None:
    """None: the model has no such layout."""
    document, cluster, layout = specs(model, gpus, batch, seq_len)
    try:
        return step_forecast(document.model, cluster, document.workload, layout, "pass").step_s * 1e3
    except HelixError:
        return None


def estimator(model: str, engine: str, gpus: int) -> Any:
    """What aiconfigurator's command line compiles, with an even routing; None where the engine has no such model."""
    import aiconfigurator_core
    from aiconfigurator_core.sdk import engine as sdk
    from aiconfigurator_core.sdk.config_builders import build_model_config
    from aiconfigurator_core.sdk.models import get_model

    config = build_model_config(gpus, 1, 1, gpus, 1)
    config.workload_distribution = "balanced"
    try:
        its = get_model(model, config, engine)
        version = sdk._literal_backend_version("h100_sxm", engine, None, None, None)
        database = sdk._maybe_load_database("h100_sxm", engine, version, None)
        spec = sdk.build_engine_spec_json(
            its, model_path=model, system="h100_sxm", backend=engine, backend_version=version,
            kv_block_size=None, systems_path=None, nextn=0, database=database,
        )  # fmt: skip
    except (ValueError, AssertionError) as error:
        print(f"{model} on {gpus} with {engine}: {error}", file=sys.stderr)
        return None
    return sdk.EngineHandle(bytes(aiconfigurator_core.engine_spec_bincode_from_json(spec)))


def table(found: list[Compared]) -> str:
    """A row for each model and number of GPUs: ratios of its workloads, and the range of the engines."""
    head = " | ".join(f"{batch} x {seq_len:,}" for batch, seq_len in WORKLOADS)
    lines = [f"| model | GPUs | {head} | the engines among themselves |", "| --- | --- |" + " --- |" * 4]
    for name in MODELS:
        for gpus in GPUS:
            its = {(c.batch, c.seq_len): c for c in found if (c.model, c.gpus) == (name, gpus)}
            if its:
                cells = [cell(its.get(workload)) for workload in WORKLOADS]
                spread = max(max(c.theirs.values()) / min(c.theirs.values()) for c in its.values())
                lines.append(f"| {name} | {gpus} | {' | '.join(cells)} | up to {spread:.2f} |")
    for kind, chosen in (("dense", False), ("mixtures", True)):
        ratios = [c.ratio for c in found if (c.model in MIXTURES) is chosen]
        said = f"median {statistics.median(ratios):.2f}, {min(ratios):.2f} to {max(ratios):.2f}"
        lines.append(f"| all {kind} | | {said} of {len(ratios)} | | | |")
    return "\n".join(lines)


def parts(folder: Path) -> str:
    """A row for each part of one prefill: milliseconds by helixctl, and by aiconfigurator for each engine."""
    name, batch, seq_len = SHOWN
    document, cluster, layout = specs(str(folder / name), 1, batch, seq_len)
    timeline = simulate(lower(Plan.of(document.model, cluster, document.workload, layout)))
    ours: dict[str, float] = defaultdict(float)
    for task in timeline.dag.tasks:
        ours[f"{task.level} {task.kind}"] += timeline.seconds[task.id] * 1e3
    theirs: dict[str, dict[str, float]] = {}
    for engine in ENGINES:
        handle = estimator(str(folder / name), engine, 1)
        found, _ = handle.run_static_per_op(batch_size=batch, isl=seq_len, osl=1, mode="static_ctx")
        theirs[engine] = {operation.removeprefix("context_"): ms for operation, ms, *_ in found}
    lines = [f"| part, ms | helixctl | {' | '.join(ENGINES)} |", "| --- |" + " --- |" * (1 + len(ENGINES))]
    for part, (kinds, operations) in PARTS.items():
        each = [sum(ours.pop(kind) for kind in kinds)]
        each += [sum(its.pop(operation) for operation in operations) for its in theirs.values()]
        lines.append(f"| {part} | {' | '.join(f'{ms:.1f}' if ms else '-' for ms in each)} |")
    left = [ours, *theirs.values()]
    if any(ms for its in left for ms in its.values()):
        raise SystemExit(f"in no part: {left}")
    return "\n".join(lines)


def cell(found: Compared | None) -> str:
    return f"{found.ours:.1f} ms, {found.ratio:.2f}" if found else "-"


if __name__ == "__main__":
    main()
