"""Every kernel of every program as it is compiled for CUDA, called without a GPU; and each kind of fault is found."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend

from helixctl import program
from helixctl.dag import Dag
from helixctl.dag.retype import retyped
from helixctl.errors import HelixError
from helixctl.lower import lower
from helixctl.plan import Layout, Plan, illegalities
from helixctl.spec import ModelSpec, SamplingSpec, StepName, WorkloadSpec
from helixctl.spec.load import load_cluster, load_model
from helixctl_runtime import kernels
from helixctl_runtime.compile import compile_rank
from helixctl_runtime.compile.bound import Exchange
from helixctl_runtime.dtypes import TORCH
from helixctl_runtime.tensors.tensor_source import TensorSource
from tests.documents import PAPER, PAPER_MOE, ROOT, SMALL, SMALL_MOE, dag_of
from tests.runtime import cuda_rules
from tests.runtime.families import FAMILIES
from tests.runtime.models import BIASED, EXPERTS, GROUPED, LATENT, REAL, merged
from tests.runtime.rehearsal import CUDA, Rehearsed, _item, call, empty, exchanged, rehearse, stage
from tests.runtime.unusual import VALID

aten = torch.ops.aten
HALF = ("float16", "bfloat16")
DTYPES = (*HALF, "float32")

# Where the host waits for the device in a step: by what, in tasks of a kind, in models of a dtype. A step that waits
# cannot be captured in a CUDA graph. What stands here must wait; when it no longer does, its line goes. Odd sizes are
# those whose rows are not whole pieces of 16 bytes in half precision, which torch's grouped products do not take.
WAITS = {
    ("experts", "float16"): {"_local_scalar_dense"},
    ("experts", "float32"): {"_local_scalar_dense"},
    ("experts of odd sizes", "float16"): {"_local_scalar_dense"},
    ("experts of odd sizes", "bfloat16"): {"_local_scalar_dense"},
    ("experts of odd sizes", "float32"): {"_local_scalar_dense"},
}


def expected_waits(dag: Dag) -> dict[str, set[str]]:
    """By kind of task, from the table."""
    weights = [
        v
        for t in dag.tasks
        if t.kind == "experts"
        for v in t.inputs
        if dag.tensor[dag.value[v].tensor].role == "weight"
    ]
    odd = any(size % 8 for value in weights for size in dag.value[value].shape[1:])
    found = {}
    for kind in {task.kind for task in dag.tasks}:
        row = "experts of odd sizes" if kind == "experts" and odd else kind
        if ops := WAITS.get((row, dag.plan.model.dtype)):
            found[kind] = ops
    return found


def check(dag: Dag, capability: tuple[int, int] = (9, 0), **how: Any) -> Rehearsed:
    """Nothing is wrong with any program of a dag, and the host waits where the table says, and nowhere else."""
    found = rehearse(dag, capability, **how)
    assert not found.faults, "\n".join(found.faults[:10])
    assert found.waits == expected_waits(dag)
    assert found.kernels > 0
    return found


def sketched(model: ModelSpec, work: WorkloadSpec, groups: int, slices: int, **axes: Any) -> Plan:
    """A plan on as many devices as its layout takes, which must be legal."""
    layout = Layout.model_validate({"groups": groups, "slices": slices, **axes})
    cluster = load_cluster(SMALL[1]).model_copy(update={"devices_per_host": layout.devices})
    assert not illegalities(layout, model, work, layout.devices)
    return Plan.sketch(model, cluster, work, layout)


def real(groups: int, slices: int, changes: dict[str, Any], logits: str = "all", seq_len: int = 8, **axes: Any) -> Dag:
    """A layer of ``REAL``: 7 sequences of 8 tokens or more, heads as all kernels on CUDA take them."""
    model = merged(merged(REAL, {"layers": 1, "attention": {"head_dim": 16}}), changes)
    work = WorkloadSpec.model_validate({"batch": 7, "seq_len": seq_len, "logits": logits})
    return lower(sketched(ModelSpec.model_validate(model), work, groups, slices, **axes))


LAYOUTS: dict[str, tuple[int, int, dict[str, Any]]] = {
    "one": (1, 1, {}),
    "groups": (3, 1, {}),
    "batch": (2, 2, {"slicing": "batch", "reduction_dtype": "model"}),
    "query": (1, 3, {"slicing": "query", "gather_order": "groups_first"}),
    "reduce": (2, 2, {"slicing": "query", "combine": "reduce"}),
    "sharded": (2, 2, {"slicing": "batch", "combine": "reduce", "residual": "sharded"}),
    "in turn": (2, 1, {"microbatches": 2, "interleave": 2, "data": 2, "logits": "last"}),
}
ODD_MIXTURE = {"feed_forward": EXPERTS}
MIXTURE = {"hidden_size": 40, "feed_forward": EXPERTS | {"intermediate_size": 48}}
ROUTED: dict[str, dict[str, Any]] = {
    "groups and a shared expert": GROUPED | {"intermediate_size": 48},
    "biases and a clamp": BIASED | {"intermediate_size": 48},
    "scaled logits and gates": {
        "intermediate_size": 48,
        "experts": {"count": 6, "router": {"logits_scale": 0.3, "gate_scales": True}},
    },
    "two gates of a sparse mixer": {
        "intermediate_size": 48,
        "experts": {"count": 6, "renormalise": False, "router": {"scores": "sparse_mixer", "jitter": 0.01}},
    },
    "gates on inputs": {
        "intermediate_size": 48,
        "experts": {"count": 6, "top_k": 1, "renormalise": False, "gates_on": "input", "router": {"scores": "sigmoid"}},
    },
}


def in_turn(kinds: Sequence[str], names: Iterable[str], also: Sequence[tuple[str, str]] = ()) -> list[Any]:
    """Every name with every kind: in each run with one of them, by turns, ``also`` some; in the sweep the others."""
    return [
        pytest.param(kind, name, marks=() if i % len(kinds) == j or (kind, name) in also else pytest.mark.sweep)
        for i, name in enumerate(names)
        for j, kind in enumerate(kinds)
    ]


UNPADDED, TIED = {"attention": {"head_dim": 10}}, {"vocabulary": {"tied": True}}
# In each run every line and branch of the compiler and of the kernels that the sweep's cases reach is reached by some
# case (measured with coverage.py, by case), and each dtype in some; what differs from those in its sizes is swept.
OFTEN = {("bfloat16", "sharded"), ("float16", "in turn"), ("float32", "batch")}


@pytest.mark.parametrize(
    ("dtype", "layout"),
    [
        pytest.param(dtype, layout, marks=() if (dtype, layout) in OFTEN else pytest.mark.sweep)
        for dtype in DTYPES
        for layout in LAYOUTS
    ],
)
def test_a_model_with_all_that_real_ones_have(dtype: str, layout: str) -> None:
    groups, slices, axes = LAYOUTS[layout]
    check(real(groups, slices, {"dtype": dtype}, **axes))


@pytest.mark.parametrize(
    ("groups", "slices", "axes", "dtype"),
    [
        *((2, 1, {"experts": 2}, dtype) for dtype in DTYPES),
        pytest.param(1, 2, {"slicing": "query"}, "bfloat16", marks=pytest.mark.sweep),
        (1, 1, {"data": 2, "expert_data": 2, "experts": 2}, "bfloat16"),
    ],
)
def test_a_mixture_of_experts(groups: int, slices: int, axes: dict[str, Any], dtype: str) -> None:
    check(real(groups, slices, MIXTURE | {"dtype": dtype}, **axes))


@pytest.mark.parametrize(("dtype", "name"), in_turn(DTYPES, ROUTED))
def test_a_mixture_with_a_router_of_its_own(name: str, dtype: str) -> None:
    """No router asks the host, nor does what stands beside the experts."""
    check(real(2, 1, {"hidden_size": 40, "feed_forward": ROUTED[name], "dtype": dtype}, experts=2, residual="sharded"))


@pytest.mark.parametrize("dtype", HALF)
def test_a_mixture_of_experts_of_odd_sizes(dtype: str) -> None:
    check(real(2, 1, ODD_MIXTURE | {"dtype": dtype}))


def test_heads_that_are_padded_and_a_tied_embedding() -> None:
    check(real(2, 1, UNPADDED | TIED | {"dtype": "float16"}, logits="last"))


@pytest.mark.parametrize(
    ("axes", "dtype"),
    [
        ({}, "float16"),
        ({"combine": "reduce", "residual": "sharded"}, "float32"),
        pytest.param({"combine": "reduce"}, "bfloat16", marks=pytest.mark.sweep),
        pytest.param({"pipeline": 2, "microbatches": 2}, "float16", marks=pytest.mark.sweep),
    ],
    ids=str,
)
def test_heads_cut_by_their_dims(axes: dict[str, Any], dtype: str) -> None:
    check(dag_of(SMALL, 2, 2, "layers=2", f"dtype={dtype}", **axes))


@pytest.mark.parametrize("specs", [PAPER, PAPER_MOE], ids=["dense", "mixture"])
@pytest.mark.parametrize(("groups", "slices", "axes"), [(4, 4, {}), (8, 1, {"pipeline": 2})], ids=["4x4", "tp8-pp2"])
def test_the_plans_of_the_paper_at_their_sizes(
    groups: int, slices: int, axes: dict[str, Any], specs: tuple[str, str]
) -> None:
    layers = axes.get("pipeline", 1)
    check(dag_of(specs, groups, slices, f"layers={layers}", **axes))


PUBLISHED = ("Llama-3.1-8B", "Llama-3.1-405B", "Qwen2.5-7B", "Qwen3-30B-A3B", "Mixtral-8x7B-v0.1")


def published(name: str, groups: int, slices: int, layers: int = 1, **axes: Any) -> Dag:
    """The first layers of a model at its size, in its dtype, with 8 sequences of 2,048 tokens."""
    found = load_model(str(ROOT / "plans/models" / name))
    return lower(sketched(found.model.model_copy(update={"layers": layers}), found.workload, groups, slices, **axes))


@pytest.mark.parametrize(
    ("name", "groups", "slices", "axes"),
    [
        ("Llama-3.1-8B", 2, 2, {"slicing": "batch"}),
        ("Llama-3.1-405B", 8, 1, {"residual": "sharded", "combine": "reduce"}),
        ("Qwen2.5-7B", 1, 2, {"slicing": "query"}),
        ("Qwen3-30B-A3B", 4, 1, {"experts": 4}),
        ("Mixtral-8x7B-v0.1", 2, 2, {"slicing": "batch", "combine": "reduce"}),
    ],
)
def test_published_models_at_their_sizes(name: str, groups: int, slices: int, axes: dict[str, Any]) -> None:
    check(published(name, groups, slices, **axes))


ALWAYS = ("qwen2 tied", "mixtral")


@pytest.mark.parametrize(
    "name", [name if name in ALWAYS else pytest.param(name, marks=pytest.mark.sweep) for name in FAMILIES]
)
def test_the_families_of_transformers(name: str) -> None:
    spec = FAMILIES[name].spec.model_copy(update={"layers": 1, "dtype": "bfloat16"})
    check(lower(sketched(spec, WorkloadSpec(batch=2, seq_len=5), 2, 1)))


def test_numbers_are_made_on_the_device() -> None:
    dag, numbers = dag_of(SMALL, 1, 1, "layers=1"), TensorSource(0, None, None)
    check(dag, load=lambda value: numbers.value(dag, value, TORCH[value.dtype], CUDA))


def test_every_kind_of_computation_is_called() -> None:
    """What ``Kernels`` binds, and copies."""
    dags = [
        real(2, 2, {}, slicing="query", logits="last"),
        real(2, 1, MIXTURE),
        dag_of(SMALL, 2, 2, "layers=1", combine="reduce", residual="sharded"),
    ]
    kinds = {task.kind for dag in dags for task in dag.tasks if not task.is_collective}
    assert kinds == {
        "activation", "add", "attention", "bias", "embed", "experts", "last_token", "linear", "multiply", "narrow",
        "norm", "rotate", "route",
    }  # fmt: skip
    programs = [program.program_of(dag, 0) for dag in dags]
    assert any(isinstance(action, program.Copy) for each in programs for action in each.actions)


@pytest.mark.parametrize("capability", [(8, 0), (9, 0)], ids=str)
def test_every_fused_attention_of_the_table_is_called(capability: tuple[int, int]) -> None:
    """By a case that it is the first to fit; those of newer cards by newer cards alone."""
    called = set()
    for dtype in ("bfloat16", "float32"):
        called |= check(real(1, 2, {"dtype": dtype}, slicing="query"), capability).attention
    called |= check(real(1, 1, UNPADDED | {"dtype": "float16"}), capability).attention
    for axes in ({"slicing": "batch"}, {"slicing": "query"}):  # long sequences, without and with masks
        called |= check(real(1, 2, {"dtype": "bfloat16"}, seq_len=600, **axes), capability).attention
    rows = {row.backend for row in kernels.FUSED_ATTENTION if row.device == "cuda"}
    due = rows - ({SDPBackend.CUDNN_ATTENTION} if capability < (9, 0) else set())
    assert called == due


# --- more of the same ------------------------------------------------------------------------------------------------


def refusals(dag: Dag) -> list[str]:
    """The codes with which a dag is refused; none where it runs, and then nothing is wrong with it."""
    try:
        check(dag)
    except HelixError as error:
        return [found.code for found in error.diagnostics]
    return []


@pytest.mark.sweep
@pytest.mark.parametrize(
    "changes", [{}, MIXTURE, ODD_MIXTURE, UNPADDED | TIED], ids=["dense", "mixture", "odd", "padded"]
)
@pytest.mark.parametrize("devices", [3, 4, 6])
def test_every_mesh(devices: int, changes: dict[str, Any]) -> None:
    """Every m x n in every slicing; dtypes and the other axes take turns. A refusal is that no fused attention fits."""
    work, tried = WorkloadSpec(batch=9, seq_len=9), 0
    for layout, dtype in zip(layouts(devices), itertools.cycle(DTYPES), strict=False):
        merges = ({"layers": 1, "attention": {"head_dim": 16}}, changes, {"dtype": dtype})
        model = ModelSpec.model_validate(functools.reduce(merged, merges, REAL))
        if not illegalities(layout, model, work, devices):
            plan = sketched(model, work, **layout.model_dump())
            unfused = changes == UNPADDED | TIED and (dtype == "float32" or layout.slicing == "query")
            assert refusals(lower(plan)) in ([], ["HX508"] if unfused else [])
            tried += 1
    assert tried > 1


def layouts(devices: int) -> Iterator[Layout]:
    """The layouts of a number of devices; only some of them are legal."""
    others = itertools.cycle(({}, {"combine": "reduce", "residual": "sharded"}, {"residual": "sharded"}))
    for groups in (n for n in range(1, devices + 1) if devices % n == 0):
        for slicing in ("batch", "query") if groups < devices else ("head_dim", "head_dim"):
            axes = {"groups": groups, "slices": devices // groups, "slicing": slicing}
            yield Layout.model_validate(axes | next(others))


@pytest.mark.sweep
@pytest.mark.parametrize("specs", [PAPER, PAPER_MOE, SMALL, SMALL_MOE], ids=["dense", "moe", "small", "small moe"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("groups", "slices", "axes"), [(4, 4, {}), (8, 1, {"pipeline": 2}), (2, 2, {"data": 4})])
def test_the_shipped_plans(groups: int, slices: int, axes: dict[str, Any], dtype: str, specs: tuple[str, str]) -> None:
    check(dag_of(specs, groups, slices, f"dtype={dtype}", **axes))


@pytest.mark.sweep
@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize(
    ("groups", "slices", "axes"),
    [
        (1, 1, {}),
        (4, 2, {"slicing": "query"}),
        (4, 4, {"slicing": "batch"}),
        (2, 2, {"slicing": "batch", "combine": "reduce", "residual": "sharded", "pipeline": 2, "microbatches": 2}),
    ],
    ids=str,
)
def test_published_models_in_more_layouts(name: str, groups: int, slices: int, axes: dict[str, Any]) -> None:
    check(published(name, groups, slices, axes.get("pipeline", 1), **axes))


@pytest.mark.sweep
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", VALID)
def test_unusual_dags(name: str, dtype: Any) -> None:
    case = VALID[name]
    for layout in case.layouts:
        assert refusals(retyped(case.dag(*layout), dtype)) in ([], ["HX508"])  # heads of 2 dims


# --- that it can fail ------------------------------------------------------------------------------------------------


def fake(*shape: int, dtype: torch.dtype = torch.float16, device: Any = CUDA) -> torch.Tensor:
    return torch.empty(shape, dtype=dtype, device=device)


F32, INT = {"dtype": torch.float32}, {"dtype": torch.int64}
REFUSED: dict[str, tuple[Callable[[], object], str]] = {
    "a product of two dtypes": (lambda: fake(4, 4) @ fake(4, 4, **F32), "mm of torch.float16, torch.float32"),
    "a product of whole numbers": (lambda: fake(4, 4, **INT) @ fake(4, 4, **INT), "mm of torch.int64"),
    "a product into another dtype": (
        lambda: torch.mm(fake(4, 4), fake(4, 4), out=fake(4, 4, **F32)),
        "mm.out of torch.float16 into torch.float32",
    ),
    "a wide product of wide numbers": (
        lambda: aten.mm.dtype_out(fake(4, 4, **F32), fake(4, 4, **F32), torch.float64, out=fake(4, 4, **F32)),
        "mm.dtype_out of torch.float32 to torch.float64",
    ),
    "an activation into another dtype": (
        lambda: aten.gelu.out(fake(4, 4), out=fake(4, 4, **F32)),
        "gelu.out of torch.float16 into torch.float32",
    ),
    "rows into another dtype": (
        lambda: torch.index_select(fake(4, 4), 0, fake(4, **INT), out=fake(4, 4, **F32)),
        "index_select.out of torch.float16 into torch.float32",
    ),
    "a sum of two dtypes by index": (
        lambda: fake(4, 4, **F32).index_add_(0, fake(4, **INT), fake(4, 4)),
        "index_add_ of torch.float32, torch.float16",
    ),
    "an output of another shape": (lambda: torch.mm(fake(4, 4), fake(4, 4), out=fake(3, 3)), "resized"),
    "sizes that do not fit": (lambda: fake(4, 3) @ fake(4, 4), "RuntimeError"),
    "strides that do not fit": (lambda: fake(4, 4).t().view(-1), "Cannot view"),
    "two devices": (lambda: fake(4, 4) + fake(4, 4, device="cpu"), "cuda:0"),
    "a kernel of the CPU alone": (
        lambda: aten._scaled_dot_product_flash_attention_for_cpu(*[fake(1, 2, 4, 8)] * 3),
        "_scaled_dot_product_flash_attention_for_cpu has no kernel on CUDA",
    ),
    "attention in a dtype that is not fused": (
        lambda: F.scaled_dot_product_attention(*[fake(1, 2, 4, 8, dtype=torch.float64)] * 3),
        "No available kernel",
    ),
    "attention of fewer rows than keys with the kernel's own mask": (
        lambda: F.scaled_dot_product_attention(fake(1, 2, 3, 4), fake(1, 2, 4, 4), fake(1, 2, 4, 4), is_causal=True),
        "causal, of 3 rows and 4 keys",
    ),
    "attention with a mask of another dtype": (
        lambda: F.scaled_dot_product_attention(*[fake(1, 2, 4, 8)] * 3, attn_mask=fake(4, 4, **F32)),
        "a mask of torch.float32 for torch.float16",
    ),
    "attention that begins between": (
        lambda: F.scaled_dot_product_attention(*[fake(1, 2, 4, 24)[..., 4:12]] * 3),
        "q at [4, ",
    ),
}


@pytest.mark.parametrize(("run", "why"), REFUSED.values(), ids=REFUSED.keys())
def test_what_cuda_would_refuse_is_found(run: Callable[[], object], why: str) -> None:
    with stage() as (checker, _):
        found = call(run, checker)
    assert any(why in each for each in found), found


WAITING: dict[str, tuple[Callable[[], object], str]] = {
    "nonzero": (lambda: fake(4).nonzero(), "nonzero"),
    "where": (lambda: torch.where(fake(4) > 0), "nonzero"),
    "a mask as index": (lambda: fake(4, 4)[fake(4) > 0], "index.Tensor by a mask"),
    "masked select": (lambda: torch.masked_select(fake(4), fake(4) > 0), "masked_select"),
    "bincount": (lambda: torch.bincount(fake(4, **INT), minlength=8), "bincount"),
    "unique": (lambda: torch.unique(fake(4)), "_unique2"),
    "repeats": (lambda: torch.repeat_interleave(fake(4), fake(4, **INT)), "repeat_interleave.Tensor"),
    "item": (lambda: fake(1).item(), "_local_scalar_dense"),
    "int": (lambda: int(fake(1)), "__int__"),
    "bool": (lambda: bool(fake(1) > 0), "_local_scalar_dense"),
    "equal": (lambda: torch.equal(fake(4), fake(4)), "equal"),
    "tolist": (lambda: fake(4).tolist(), "_local_scalar_dense"),
    "cpu": (lambda: fake(4).cpu(), "_to_copy between cpu and cuda"),
    "a copy to the host": (lambda: fake(4, device="cpu").copy_(fake(4)), "copy_ between cpu and cuda"),
    "a copy to the device": (lambda: fake(4).copy_(fake(4, device="cpu")), "copy_ between cpu and cuda"),
    "the whole device": (lambda: torch.cuda.synchronize(CUDA), "synchronize"),
    "a table of the host": (lambda: fake(4, device="cpu").to(CUDA), "_to_copy between cpu and cuda"),
}


@pytest.mark.parametrize(("run", "why"), WAITING.values(), ids=WAITING.keys())
def test_where_the_host_would_wait_is_found(run: Callable[[], object], why: str) -> None:
    with stage() as (checker, _):
        checker.in_step = True
        call(run, checker)
    assert why in checker.waits


def test_what_does_not_make_the_host_wait() -> None:
    def run() -> None:
        fake(4, 4)[1:, None, fake(2, **INT)].contiguous().sort(dim=-1, stable=True)
        torch.searchsorted(fake(4), fake(4))
        torch.repeat_interleave(fake(4), fake(4, **INT), output_size=8)

    with stage() as (checker, _):
        checker.in_step = True
        assert call(run, checker) == []
    assert checker.waits == []


def test_a_fault_is_found_in_a_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is said of the task; and a kernel that writes elsewhere, or not all, is one."""
    dag = dag_of(SMALL, 1, 1, "layers=1", "dtype=float16")

    def found(name: str, kernel: Callable[..., kernels.Step]) -> Rehearsed:
        with monkeypatch.context() as patch:
            patch.setattr(kernels, name, kernel)
            return rehearse(dag)

    wide = found("linear", lambda x, weight, out: lambda: out.copy_(x.float() @ weight))
    assert any(each.startswith("rank 0, linear l0.project") for each in wide.faults)
    assert all(each.endswith("mm of torch.float32, torch.float16") for each in wide.faults)
    host = found("activation", lambda function, x, out: lambda: out.copy_(F.gelu(x.cpu()), non_blocking=True))
    assert set(host.waits) == {"activation"}
    assert host.faults == ["rank 0: on_device is True, and the host waits"]

    both = found("activation", lambda function, x, out: lambda: (x.nonzero(), fake(4, 3) @ fake(4, 4), out.zero_()))
    assert (len(both.faults), both.waits) == (2, {"activation": {"nonzero"}})
    lost = found("add", lambda a, b, out, _: lambda: torch.add(a, b))
    assert lost.faults
    assert all("does not write all" in each for each in lost.faults)
    over = found("norm", lambda op, x, weights, out: lambda: (out.copy_(x), x.zero_()))
    assert over.faults
    assert all("which are not its own" in each for each in over.faults)


def test_an_exchange_with_holes_is_found() -> None:
    """Data that is sent must be contiguous, of the right size and dtype."""
    dag = dag_of(SMALL, 2, 2, "layers=1")
    with stage():
        bound = compile_rank(dag, 0, CUDA, empty)
        exchange = next(action for action in bound.actions if isinstance(action, Exchange))
        assert exchanged(exchange, 0) == []
        count = exchange.send.numel()
        holes = replace(exchange, send=fake(count, 2, dtype=exchange.send.dtype)[:, 0])
        assert exchanged(holes, 0) == ["send has holes"]
        [message] = exchanged(replace(exchange, receive=exchange.receive.half()), 0)
        assert "torch.float16" in message
        [message] = exchanged(replace(exchange, send=fake(count + 1, dtype=exchange.send.dtype)), 0)
        assert f"({count + 1}, " in message


# --- that its rules are torch's --------------------------------------------------------------------------------------

INTO: dict[str, Callable[[torch.Tensor, torch.Tensor], object]] = {
    "add": lambda x, out: torch.add(x, x, out=out),
    "sub": lambda x, out: torch.sub(x, x, out=out),
    "mul": lambda x, out: torch.mul(x, x, out=out),
    "div": lambda x, out: torch.div(x, x, out=out),
    "addcmul": lambda x, out: torch.addcmul(x, x, x, out=out),
    "ne": lambda x, out: torch.ne(x, x, out=out),
    "eq": lambda x, out: torch.eq(x, x, out=out),
    "lt": lambda x, out: torch.lt(x, x, out=out),
    "le": lambda x, out: torch.le(x, x, out=out),
    "gt": lambda x, out: torch.gt(x, x, out=out),
    "ge": lambda x, out: torch.ge(x, x, out=out),
    "cat": lambda x, out: torch.cat([x], out=out),
    "sum": lambda x, out: torch.sum(x, 0, keepdim=True, out=out),
    "cumsum": lambda x, out: torch.cumsum(x, 0, out=out),
    "gelu": lambda x, out: aten.gelu.out(x, out=out),
    "silu": lambda x, out: aten.silu.out(x, out=out),
    "clamp_min": lambda x, out: torch.clamp_min(x, 0, out=out),
    "mm": lambda x, out: torch.mm(x, x, out=out),
    "index_select": lambda x, out: torch.index_select(x, 0, torch.zeros(1, dtype=torch.int64), out=out),
}


@pytest.mark.parametrize("name", INTO)
def test_what_casts_to_its_output_and_what_does_not(name: str) -> None:
    """On CPU, with numbers: the checks of an op's arguments are the same on all devices."""
    assert INTO.keys() >= cuda_rules.CASTS
    x, out = torch.ones(1, 1, dtype=torch.float16), torch.zeros(1, 1)
    if name in cuda_rules.CASTS:
        INTO[name](x, out)
        return
    with pytest.raises(RuntimeError, match=r"dtype|scalar type"):
        INTO[name](x, out)


@pytest.mark.parametrize(
    "index",
    [1, -1, slice(1, 3), (slice(None), 2), (None, 1, ...), (..., slice(2, None, 2)), torch.tensor([2, 0]),
     (torch.tensor([2, 0]), 1), (slice(None), torch.tensor([1]), slice(0, 2)), (..., 1, None), (slice(None, -1),)],
    ids=str,
)  # fmt: skip
def test_indexing_is_as_torch_has_it(index: Any) -> None:
    x = torch.arange(60).view(3, 4, 5)
    found, due = _item(x, index), x[index]
    assert torch.equal(found, due)
    assert found.stride() == due.stride()
    assert found.storage_offset() == due.storage_offset()


def test_kernels_on_cuda_are_read_off_torch() -> None:
    known = [
        aten.add.out,
        aten.mm.dtype_out,
        aten.index_select.out,
        aten.clone.default,
        aten.copy_.default,
        aten.sort.stable,
    ]
    assert all(cuda_rules.on_cuda(op) for op in known)
    unknown = [aten._scaled_dot_product_flash_attention_for_cpu.default, aten.mkldnn_linear.default]
    assert not any(cuda_rules.on_cuda(op) for op in unknown)


SCALED: dict[str, Any] = {
    "position_scaling": {"factor": 0.1, "tokens": 8},
    "value_scale": 0.7,
    "value_norm": True,
    "values": "keys",
    "output_gate": True,
}
CACHES: dict[str, tuple[int, int, dict[str, Any]]] = {
    "whole": (2, 1, {"combine": "reduce"}),
    "by key": (1, 3, {"slicing": "key"}),
    "by key, reduced": (2, 2, {"slicing": "key", "combine": "reduce", "reduction_dtype": "model"}),
    "by batch": (1, 2, {"slicing": "batch", "residual": "sharded"}),
    "in stages": (1, 2, {"slicing": "key", "pipeline": 2, "microbatches": 2}),
}


def cached(*often: str) -> list[Any]:
    """Both steps on every layout: some of them in each run, all in the sweep."""
    return [
        pytest.param(layout, step, marks=() if f"{layout}, {step}" in often else pytest.mark.sweep)
        for layout in CACHES
        for step in ("prefill", "decode")
    ]


@pytest.mark.parametrize(("layout", "step"), cached("by batch, decode", "in stages, prefill"))
@pytest.mark.parametrize("dtype", ["bfloat16", pytest.param("float32", marks=pytest.mark.sweep)])
def test_steps_with_a_cache(dtype: str, layout: str, step: StepName) -> None:
    """Neither a prefill nor a decode step waits for the host: all lengths are data on the device."""
    groups, slices, axes = CACHES[layout]
    changes = {"layers": 2, "dtype": dtype, "attention": {"head_dim": 16, **SCALED}, "layer_scale": True}
    work = WorkloadSpec(batch=6, seq_len=24, output_len=9, prefill_tokens=48, logits="last")
    plan = sketched(ModelSpec.model_validate(merged(REAL, changes)), work, groups, slices, **axes)
    check(lower(plan, step=step))


DRAWN: dict[str, dict[str, Any]] = {
    "of all": {},
    "of nine": {"top_k": 9},
    "of nine or fewer": {"temperature": 0.7, "top_k": 9, "top_p": 0.9},
}


@pytest.mark.parametrize(("dtype", "how"), in_turn(DTYPES, DRAWN))
def test_drawing_a_token(how: str, dtype: str) -> None:
    """No draw waits for the host, and so no rank for another's host."""
    groups, slices, axes = CACHES["in stages"]
    work = WorkloadSpec(batch=6, seq_len=24, output_len=9, sampling=SamplingSpec(**DRAWN[how]))
    model = ModelSpec.model_validate(merged(REAL, {"layers": 2, "dtype": dtype, "attention": {"head_dim": 16}}))
    dag = lower(sketched(model, work, groups, slices, **axes), step="decode")
    assert "sample" in {task.kind for task in dag.tasks}
    check(dag)


# Widths as the kernels take them: rows of whole pieces of 16 bytes.
WIDE_LATENT: dict[str, Any] = merged(
    LATENT,
    {
        "hidden_size": 40,
        "attention": {
            "heads": 6, "head_dim": 24, "v_head_dim": 16, "latent": {"q_rank": 24, "kv_rank": 32, "rope_dim": 8},
            "position_scaling": {"factor": 0.1, "tokens": 5},
        },
    },
)  # fmt: skip


@pytest.mark.parametrize("layout", ["one", "reduce", pytest.param("batch", marks=pytest.mark.sweep)])
@pytest.mark.parametrize("dtype", ["bfloat16", pytest.param("float32", marks=pytest.mark.sweep)])
def test_a_latent_expanded(dtype: str, layout: str) -> None:
    groups, slices, axes = LAYOUTS[layout]
    model = ModelSpec.model_validate(merged(WIDE_LATENT, {"layers": 1, "dtype": dtype}))
    check(lower(sketched(model, WorkloadSpec(batch=7, seq_len=8), groups, slices, **axes)))


@pytest.mark.parametrize(("layout", "step"), cached("by batch, prefill", "by key, reduced, decode"))
@pytest.mark.parametrize("dtype", ["bfloat16", pytest.param("float32", marks=pytest.mark.sweep)])
def test_a_latent_absorbed(dtype: str, layout: str, step: StepName) -> None:
    """One cache, which is keys and values."""
    groups, slices, axes = CACHES[layout]
    work = WorkloadSpec(batch=6, seq_len=24, output_len=9, prefill_tokens=48, logits="last")
    plan = sketched(ModelSpec.model_validate(merged(WIDE_LATENT, {"dtype": dtype})), work, groups, slices, **axes)
    check(lower(plan, step=step))


@pytest.mark.parametrize("layout", ["whole", pytest.param("by key", marks=pytest.mark.sweep)])
@pytest.mark.parametrize("dtype", ["bfloat16", pytest.param("float32", marks=pytest.mark.sweep)])
def test_a_cache_of_latents_expanded(dtype: str, layout: str) -> None:
    """Keys and values of all positions for which there is room: nothing waits for the host."""
    groups, slices, axes = CACHES[layout]
    work = WorkloadSpec(batch=6, seq_len=24, output_len=9, prefill_tokens=48, logits="last")
    model = ModelSpec.model_validate(merged(WIDE_LATENT, {"dtype": dtype}))
    plan = sketched(model, work, groups, slices, **axes, latent_prefill="expanded")
    dag = lower(plan, step="prefill")
    assert "expand" in {task.kind for task in dag.tasks}
    check(dag)


WIDE_SPARSE: dict[str, Any] = merged(
    WIDE_LATENT,
    {"attention": {"sparse": {"heads": 4, "head_dim": 16, "top_k": 5}}},
)


@pytest.mark.sweep
@pytest.mark.parametrize("layout", ["one", "batch"])
def test_a_sparse_choice(layout: str) -> None:
    groups, slices, axes = LAYOUTS[layout]
    model = ModelSpec.model_validate(merged(WIDE_SPARSE, {"dtype": "bfloat16"}))
    check(lower(sketched(model, WorkloadSpec(batch=7, seq_len=8), groups, slices, **axes)))


@pytest.mark.parametrize(
    ("layout", "step", "dtype"),
    [
        ("by key", "decode", "bfloat16"),
        ("whole", "prefill", "bfloat16"),
        pytest.param("by key", "prefill", "float32", marks=pytest.mark.sweep),
    ],
)
def test_a_sparse_choice_over_a_cache(layout: str, step: StepName, dtype: str) -> None:
    """The keys are collected for every query, or are too many for that."""
    groups, slices, axes = CACHES[layout]
    work = WorkloadSpec(batch=6, seq_len=24, output_len=9, prefill_tokens=48, logits="last")
    plan = sketched(ModelSpec.model_validate(merged(WIDE_SPARSE, {"dtype": dtype})), work, groups, slices, **axes)
    check(lower(plan, step=step))


def test_prefill_by_query_rows() -> None:
    """Over the lanes of all slices, put together."""
    groups, slices, axes = CACHES["by key"]
    work = WorkloadSpec(batch=6, seq_len=24, output_len=9, prefill_tokens=48, logits="last")
    model = ModelSpec.model_validate(merged(REAL, {"dtype": "bfloat16", "attention": {"head_dim": 16}}))
    check(lower(sketched(model, work, groups, slices, **axes, key_prefill="query"), step="prefill"))


# Windows of a few keys of many, sinks, scores of another scale, soft caps, and values of another width.
SCORES: dict[str, dict[str, Any]] = {
    "window": {"sliding_window": 5},
    "window and sinks": {"sliding_window": 5, "sinks": True},
    "chunks": {"chunk": 6},
    "cap": {"scale": 0.3, "soft_cap": 30.0},
    "values": {"v_head_dim": 24},
}


@pytest.mark.parametrize(
    ("at", "name"),
    in_turn(("by key, decode", "whole, prefill"), SCORES, [("by key, decode", "window and sinks")]),
)
def test_other_scores_over_a_cache(name: str, at: str) -> None:
    """What a window reaches is copied together where it lies, and nothing waits for the host."""
    layout, _, step = at.rpartition(", ")
    over_a_cache(name, layout, "decode" if step == "decode" else "prefill")


@pytest.mark.sweep
@pytest.mark.parametrize("name", SCORES)
@pytest.mark.parametrize(("layout", "step"), [("whole", "decode"), ("by key", "prefill")])
def test_other_scores_in_the_other_step(name: str, layout: str, step: StepName) -> None:
    over_a_cache(name, layout, step)


def over_a_cache(name: str, layout: str, step: StepName) -> None:
    groups, slices, axes = CACHES[layout]
    changes = {"layers": 1, "dtype": "bfloat16", "attention": {"head_dim": 16, **SCORES[name]}}
    work = WorkloadSpec(batch=2, seq_len=24, output_len=100, prefill_tokens=16, logits="last")
    plan = sketched(ModelSpec.model_validate(merged(REAL, changes)), work, groups, slices, **axes)
    check(lower(plan, step=step))


@pytest.mark.parametrize(("layout", "name"), in_turn(("query", "groups"), SCORES))
def test_other_scores(name: str, layout: str) -> None:
    groups, slices, axes = LAYOUTS[layout]
    check(real(groups, slices, {"dtype": "bfloat16", "attention": SCORES[name]}, **axes))


def test_a_cache_of_the_paper_s_model() -> None:
    """Softmaxes of a part of a head, and hidden states instead of tokens."""
    changes = {"vocabulary": None, "attention": {"head_dim": 16, "softmax_slices": 2, "rotary": None, "qk_norm": False}}
    work = WorkloadSpec(batch=6, seq_len=24, output_len=9)
    model = ModelSpec.model_validate(merged(merged(REAL, changes), {"layers": 1, "dtype": "bfloat16"}))
    for groups, slices, slicing in ((1, 2, "head_dim"), (1, 2, "key")):
        check(lower(sketched(model, work, groups, slices, slicing=slicing), step="decode"))
