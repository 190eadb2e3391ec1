"""What one GPU can check of the runtime: writes one JSON report. `make gpu` runs it.

    python tests/gpu/one_gpu.py --report FILE [--plan PLAN] [--device cuda]

Kernels at the real shapes of one partition (times, rates, errors against float64), fused attention by backend and
width, the whole dag walked rank by rank on one device against the float64 reference, and that walk as a CUDA graph,
whose replay must be bit-equal to the eager walk; the same of small models with all that real ones have; a generation
whose decode steps are walked, and replayed from a CUDA graph with the same tokens. Times are of
replayed graphs where a kernel can be captured. On CPU (for a
trial of this script) the graph is left out.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from math import prod
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "runtime")]

import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from torch.nn.attention import SDPBackend, sdpa_kernel  # noqa: E402

from helixctl.cli.documents import load_dag  # noqa: E402
from helixctl.dag import Attention, Dag, Linear, Task, Tensor  # noqa: E402
from helixctl.dag.retype import retyped  # noqa: E402
from helixctl.lower import lower  # noqa: E402
from helixctl.plan import Plan  # noqa: E402
from helixctl.program import merged as merged_tasks  # noqa: E402
from helixctl.spec import Dtype  # noqa: E402
from helixctl_runtime import kernels  # noqa: E402
from helixctl_runtime.check.reference import evaluate, relative_error  # noqa: E402
from helixctl_runtime.compile import compile_rank  # noqa: E402
from helixctl_runtime.compile.bound import BoundProgram  # noqa: E402
from helixctl_runtime.dtypes import TORCH  # noqa: E402
from helixctl_runtime.measure.cuda_graph import capture_step  # noqa: E402
from helixctl_runtime.measure.walk import fused, walk_together  # noqa: E402
from helixctl_runtime.report.environment import environment  # noqa: E402
from helixctl_runtime.run import Asked, generate, seeded_prompts  # noqa: E402
from helixctl_runtime.tensors.rotary import rotations  # noqa: E402
from helixctl_runtime.tensors.tensor_source import TensorSource  # noqa: E402
from tests.runtime.models import REAL, merged, plan_for, real  # noqa: E402

REPEATS, CALLS = 20, 5
ATTENTION_TOKENS = (1, 4, 16, 32, 64, 128, 512, 2048, 8192)  # of a sequence; 8,192 together
REAL_HEADS = {"attention": {"head_dim": 16}}  # as the kernels on CUDA want them
BACKENDS = [SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION, SDPBackend.EFFICIENT_ATTENTION]


def main() -> int:
    """Run every check; the exit status is 0 where all passed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--report", type=Path, required=True)
    parser.add_argument("--plan", default=str(ROOT / "plans/paper/dense.4x4.plan.json"))
    parser.add_argument("--device", default="cuda")
    options = parser.parse_args()
    device, dag = torch.device(options.device), load_dag(options.plan)
    warnings.filterwarnings("ignore", category=UserWarning)  # by torch, of kernels that were tried and refused
    started = datetime.now(UTC).isoformat(timespec="seconds")
    report: dict[str, Any] = {
        "started_at": started,
        "environment": environment(),
        "plan": dag.plan.model_dump(mode="json"),
    }
    parts = {
        "kernels": kernel_rows,
        "attention": attention_rows,
        "walk": walk,
        "dtypes": small_walks,
        "real_kernels": real_kernel_rows,
        "real": real_walks,
        "generations": generations,
    }
    for name, part in parts.items():
        begin = time.perf_counter()
        try:
            report[name] = part(dag, device)
        except Exception as error:  # noqa: BLE001  one part that fails must not lose what the others found
            report[name] = {"passed": False, "failed": f"{type(error).__name__}: {error}"}
        report[f"{name}_s"] = round(time.perf_counter() - begin, 1)
        print(name, json.dumps(report[name])[:2000], flush=True)
    report["passed"] = all(passed(report[name]) for name in parts)
    options.report.write_text(json.dumps(report, indent=2) + "\n")
    print("passed" if report["passed"] else "FAILED", "->", options.report)
    return 0 if report["passed"] else 1


def passed(part: Any) -> bool:
    """Whether every row of a part passed."""
    return all(row["passed"] for row in (part if isinstance(part, list) else [part]))


def timed(call: Callable[[], object], device: torch.device) -> float:
    """Median seconds of a call on the device, from a graph of some of them; of one that needs the host, with it."""
    if device.type != "cuda":
        call()
        begin = time.perf_counter()
        call()
        return time.perf_counter() - begin
    replay, calls = repeated(call)
    times = []
    for _ in range(REPEATS):
        a, b = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        a.record()
        replay()
        b.record()
        torch.cuda.synchronize()
        times.append(a.elapsed_time(b) * 1e-3 / calls)
    return statistics.median(times)


def repeated(call: Callable[[], object]) -> tuple[Callable[[], object], int]:
    """A call that repeats another one without pauses: as a CUDA graph, if it can be captured."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            for _ in range(CALLS):
                call()
    except RuntimeError:
        torch.cuda.synchronize()
        return call, 1
    return graph.replay, CALLS


def kernel_rows(dag: Dag, device: torch.device) -> list[dict[str, Any]]:
    """Every compute task of rank 0 in layer 0 at its real shape: time, rate, and error against float64."""
    rows, before = [], merged_tasks(dag, 0)
    tasks = [task for task in map(dag.task.__getitem__, dag.order[0]) if not task.layer and not task.is_collective]
    kernels_of = [(task, None) for task in tasks if not isinstance(task.op, Attention)]
    kernels_of += [(task, before[task.id]) for task in tasks if task.id in before]
    for task, its in kernels_of:
        call, out, exact, plain = standalone(dag, task, device) if its is None else gated(dag, task, its, device)
        seconds = timed(call, device)
        error, rounding = relative_error(out, exact), relative_error(plain, exact)
        rows.append({
            "task": task.id, "kind": "gated product" if its else task.kind, "us": seconds * 1e6,
            "tflop_per_s": task.flops / seconds / 1e12,
            "gb_per_s": task.nbytes / seconds / 1e9, "error": error, "error_of_rounding_once": rounding,
            "passed": error <= 1.1 * rounding + accumulation(dag, task),
        })  # fmt: skip
    return rows


def accumulation(dag: Dag, task: Task) -> float:
    """What sums in float32 may add to the error: a few results are rounded the other way than float64 rounds them.

    For a product that is kept in float32 it is the only error: the square root of the number of terms times half an
    epsilon, as rounding errors go either way (Higham and Mary, SIAM J. Sci. Comput. 41, 2019).
    """
    terms = 1
    if isinstance(task.op, Linear):
        x = dag.value[task.inputs[0]]
        sizes = zip(dag.tensor[x.tensor].dims, x.shape, strict=True)
        terms = prod(size for dim, size in sizes if dim in task.op.contract)
    return max(1e-6, terms**0.5 * torch.finfo(torch.float32).eps / 2)


def real_kernel_rows(dag: Dag, device: torch.device) -> list[dict[str, Any]]:
    """The same of a small model with all that real ones have, in half precision."""
    del dag
    return kernel_rows(retyped(real(2, 1, REAL_HEADS), "float16"), device)


def standalone(
    dag: Dag, task: Task, device: torch.device
) -> tuple[kernels.Step, torch.Tensor, torch.Tensor, torch.Tensor]:
    """A task's kernel on random numbers of its shapes: the call, its output, the exact result, that rounded once.

    Of a task with several kernels, the first.
    """
    torch.manual_seed(0)
    values = [dag.value[v] for v in (*task.inputs, *task.outputs)]
    made = [torch.randn(v.shape, device=device).mul_(0.5).to(TORCH[v.dtype]) for v in values]
    ins, outs = made[: len(task.inputs)], made[len(task.inputs) :]
    if task.kind == "embed":
        table, (first, last) = ins[1], values[1].region[0]
        out = outs[0].flatten(0, 1)
        ids = torch.randint(0, 2 * last, out.shape[:1], device=device)
        call = kernels.embed(ids, table, first, out, whole=False)
        held = (ids >= first) & (ids < last)
        exact = torch.where(held.unsqueeze(1), table[(ids - first).clamp(0, last - first - 1)], 0).double()
    elif task.kind == "bias":
        x, bias, out = ins[0], ins[len(outs)], outs[0]
        call, exact = kernels.add(x, bias, out), x.double() + bias.double()
    elif task.kind == "rotate":
        x, out, half = ins[0], outs[0], ins[0].shape[-1] // 2
        tables = rotations(task.op.rotary, 2 * half, values[0].region[1])  # type: ignore[union-attr]
        cos, sin = (t.unsqueeze(1).to(device) for t in tables)
        call = kernels.rotate(x, cos, sin, out)
        a, b = x.double().split(half, dim=-1)
        exact = torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)
    elif task.kind == "multiply":
        out = outs[0]
        call, exact = kernels.multiply(ins[0], ins[1], out), ins[0].double() * ins[1].double()
    elif task.kind == "linear":
        depth = 1
        for dim in task.op.contract:  # type: ignore[union-attr]
            depth *= values[0].shape[dag.tensor[values[0].tensor].dims.index(dim)]
        x, w = ins[0].reshape(-1, depth), torch.cat([w.reshape(depth, -1) for w in ins[1:]], dim=1)
        out = torch.empty(x.shape[0], w.shape[1], dtype=outs[0].dtype, device=device)
        call, exact = kernels.linear(x, w, out), x.double() @ w.double()
    elif task.kind == "norm":
        out, x = outs[0], ins[0].double()
        call = kernels.norm(task.op, ins[0], [ins[1]], out)  # type: ignore[arg-type]
        exact = x / (x.square().mean(-1, keepdim=True) + task.op.eps).sqrt() * ins[1].double()  # type: ignore[union-attr]
    elif task.kind == "activation":
        out = outs[0]
        call, exact = kernels.activation(task.op.function, ins[0], out), getattr(F, task.op.function)(ins[0].double())  # type: ignore[union-attr]
    else:
        out = outs[0]
        call, exact = kernels.add(ins[0], ins[1], out), ins[0].double() + ins[1].double()
    call()
    return call, out, exact, exact.to(out.dtype)


def gated(
    dag: Dag, product: Task, activation: Task, device: torch.device
) -> tuple[kernels.Step, torch.Tensor, torch.Tensor, torch.Tensor]:
    """The kernel of an activation and its product, the same four; it rounds what the activation makes as well.

    Gate and up are columns of one matrix, as a product leaves them.
    """
    torch.manual_seed(0)
    value, function = dag.value[product.outputs[0]], activation.op.function  # type: ignore[union-attr]
    made = torch.randn(*value.shape[:-1], 2 * value.shape[-1], device=device).mul_(0.5).to(TORCH[value.dtype])
    gate, up = made.split(value.shape[-1], dim=-1)
    out = torch.empty(value.shape, dtype=made.dtype, device=device)
    call, activated = kernels.gated(function, gate, up, out), getattr(F, function)(gate.double())
    call()
    return call, out, activated * up.double(), (activated.to(out.dtype).double() * up.double()).to(out.dtype)


def attention_rows(dag: Dag, device: torch.device) -> list[dict[str, Any]]:
    """Fused attention on one partition's heads, by backend, at the slice's width and at the whole head's."""
    attention = dag.plan.model.attention
    heads = attention.heads // dag.plan.layout.groups
    dtype = TORCH[dag.plan.model.dtype]
    rows = []
    for width in dict.fromkeys((attention.softmax_width, attention.head_dim)):
        for tokens in ATTENTION_TOKENS if device.type == "cuda" else [8]:
            sequences = ATTENTION_TOKENS[-1] // tokens if device.type == "cuda" else 2
            chosen = kernels.fused_attention(device.type, dtype, width, rows=tokens)
            q, k, v = torch.randn(3, sequences, heads, tokens, width, device=device).to(dtype)
            exact = None
            for backend in BACKENDS:
                row: dict[str, Any] = {
                    "width": width,
                    "sequences": sequences,
                    "tokens": tokens,
                    "backend": backend.name,
                }
                try:
                    with sdpa_kernel([backend]):
                        out, again = (F.scaled_dot_product_attention(q, k, v) for _ in range(2))
                        seconds = timed(lambda: F.scaled_dot_product_attention(q, k, v), device)  # noqa: B023
                except RuntimeError as error:
                    # Only the kernel of our table has to run.
                    rows.append(row | {"refused": str(error).splitlines()[0], "passed": backend != chosen})
                    continue
                if exact is None:
                    scores = q[:1].double() @ k[:1].double().transpose(-1, -2) / width**0.5
                    exact = torch.softmax(scores, -1) @ v[:1].double()
                flops = 4 * sequences * heads * tokens * tokens * width
                error = relative_error(out[:1], exact)
                rows.append(row | {
                    "chosen": backend == chosen, "us": seconds * 1e6, "tflop_per_s": flops / seconds / 1e12,
                    "error": error, "bit_equal": torch.equal(out, again),
                    "passed": error < 8 * torch.finfo(dtype).eps and torch.equal(out, again),
                })  # fmt: skip
    return rows


def compiled(dag: Dag, device: torch.device) -> tuple[list[BoundProgram], TensorSource]:
    """All ranks of a dag on one device."""
    numbers = TensorSource(0, None, None)
    return [
        compile_rank(dag, rank, device, lambda v: numbers.value(dag, v, TORCH[v.dtype], device))
        for rank in range(len(dag.order))
    ], numbers


def walk(dag: Dag, device: torch.device) -> dict[str, Any]:
    """The dag of all ranks on this device: error against float64, and the CUDA graph of it against the eager walk."""
    programs, numbers = compiled(dag, device)
    step = walk_together(dag, programs)
    found: dict[str, Any] = {"layout": str(dag.plan.layout), "ranks": len(programs)}
    found["on_device"] = all(p.on_device for p in programs)
    found["attention"] = sorted({b.name for p in programs for b in p.attention})
    with torch.inference_mode(), fused(programs):
        step()
        values = [v for p in programs for v in p.outputs]
        outputs = [b.data for p in programs for b in p.outputs.values()]
        eager = [o.clone() for o in outputs]
        if device.type == "cuda":
            found["eager_ms"] = statistics.median(once(step) for _ in range(REPEATS)) * 1e3
            if found["on_device"]:
                # Refused where a bit differs.
                replay = capture_step(step, outputs, "all ranks")
                seconds = statistics.median(once(replay) for _ in range(REPEATS))
                found |= {"graph_bit_equal": True, "graph_ms": seconds * 1e3}
    model = dag.plan.model

    def load(tensor: Tensor) -> torch.Tensor:
        return numbers.region(tensor, tensor.full, TORCH[tensor.given_dtype(model.dtype)], device)

    with torch.inference_mode():
        expected = evaluate(dag.plan, load, torch.float64)
        plain = evaluate(dag.plan, load, TORCH[model.dtype])
    regions = [tuple(slice(*interval) for interval in dag.value[v].region) for v in values]
    found["error"] = max(relative_error(o, expected[region]) for o, region in zip(eager, regions, strict=True))
    found["unpartitioned_error"] = relative_error(plain, expected)
    # Ranks that hold the same region.
    found["ranks_bit_equal"] = all(torch.equal(eager[regions.index(r)], o) for o, r in zip(eager, regions, strict=True))
    found["passed"] = found["error"] <= 2 * found["unpartitioned_error"] and found.get("graph_bit_equal", True)
    if device.type == "cuda":
        found["max_memory_allocated_gb"] = torch.cuda.max_memory_allocated() / 1e9
    return found


def once(step: Callable[[], object]) -> float:
    """Seconds of a walked step, from its first launch to its last kernel."""
    a, b = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize()
    a.record()
    step()
    b.record()
    torch.cuda.synchronize()
    return a.elapsed_time(b) * 1e-3


def small_walks(dag: Dag, device: torch.device) -> list[dict[str, Any]]:
    """The small twins on this device in every dtype for which the table has a kernel."""
    del dag
    rows = []
    for name in ("dense", "moe"):
        small = load_dag(str(ROOT / f"plans/small/{name}.4x4.plan.json"))
        dtypes: tuple[Dtype, ...] = ("float16", "bfloat16", "float32")
        rows += [{"model": name, "dtype": dtype} | walk(retyped(small, dtype), device) for dtype in dtypes]
    return rows


def real_walks(dag: Dag, device: torch.device) -> list[dict[str, Any]]:
    """Small models with grouped heads, biases, rotary, gates and a vocabulary, with every slicing, in every dtype.

    The long sequences are what cuDNN's attention takes, the even sizes what grouped products take.
    """
    del dag
    rows = []
    short, long = (7, 8), (2, 384)
    experts = {"feed_forward": {"experts": {"count": 4, "top_k": 2, "renormalise": False}}}
    even = merged(experts, {"hidden_size": 64, "feed_forward": {"intermediate_size": 48}})
    wide = {"attention": {"head_dim": 128}}
    cases: tuple[tuple[tuple[int, int], tuple[int, int], dict[str, Any], dict[str, Any]], ...] = (
        ((3, 1), short, {}, {"logits": "last"}),
        ((2, 2), short, {}, {"slicing": "batch"}),
        ((1, 3), short, {}, {"slicing": "query"}),
        ((2, 1), short, {}, {"residual": "sharded"}),
        ((2, 2), short, experts, {"slicing": "batch", "experts": 2}),
        ((2, 2), short, even, {"slicing": "batch", "experts": 2}),
        ((3, 1), long, wide, {}),
        ((1, 3), long, wide, {"slicing": "query"}),
        # All experts compute all tokens: of hundreds some would nearly tie, and in half precision go elsewhere.
        ((2, 1), long, merged(wide, merged(even, {"feed_forward": {"experts": {"top_k": 4}}})), {"combine": "reduce"}),
    )
    for mesh, work, changes, axes in cases:
        small = lower(plan_for(merged(REAL, merged(REAL_HEADS, changes)), work, *mesh, **axes))
        dtypes: tuple[Dtype, ...] = ("float16", "bfloat16", "float32")
        rows += [{"dtype": dtype} | walk(retyped(small, dtype), device) for dtype in dtypes]
    return rows


def generations(dag: Dag, device: torch.device) -> list[dict[str, Any]]:
    """A small model decodes on one rank: checked against float64; replayed from a CUDA graph, the same tokens."""
    del dag
    rows = []
    for dtype in ("bfloat16", "float32"):
        model = merged(REAL, merged(REAL_HEADS, {"dtype": dtype}))
        one = plan_for(model, (3, 40), 1, 1, logits="last")
        plan = Plan.of(one.model, one.cluster, one.workload.model_copy(update={"output_len": 24}), one.layout)
        dags = [lower(plan, step=step) for step in plan.steps]
        asked = Asked(seeded_prompts(dags[0], 0), 24, check=True)

        def run(asked: Asked, dags: list[Dag] = dags) -> dict[str, Any]:
            found = generate([dags], ["one"], asked, device=device.type, timeout=120)  # type: ignore[arg-type]
            assert found
            return found.reports[0]

        walked = run(asked)
        row: dict[str, Any] = {"dtype": dtype, "check": walked["check"], "passed": walked["check"]["passed"]}
        row["walked_ms"] = walked["time_per_output_token_ms"]["p50"]
        if device.type == "cuda":
            replayed = run(replace(asked, cuda_graph=True))
            row["replayed_ms"] = replayed["time_per_output_token_ms"]["p50"]
            row["passed"] &= replayed["cuda_graph"] and replayed["tokens"] == walked["tokens"]
        rows.append(row)
    return rows


if __name__ == "__main__":
    sys.exit(main())
