"""Kernels of real models against plain formulas in float64: within rounding in float64 and float32, rounded in half."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch.nn.attention import sdpa_kernel

from helixctl.dag import Attention, Experts, Norm
from helixctl.program import row_blocks
from helixctl.program.row_blocks import mask_of
from helixctl.spec import RotarySpec
from helixctl_runtime import kernels
from helixctl_runtime.kernels import grouped
from helixctl_runtime.tensors.rotary import rotations

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
WIDE = {torch.bfloat16: torch.float32, torch.float16: torch.float32}


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def near(actual: torch.Tensor, exact: torch.Tensor) -> None:
    """As near as one rounding of each number brings it, up to the sums of float32 and the rare tie."""
    assert actual.dtype in DTYPES
    eps = torch.finfo(actual.dtype).eps
    error = (actual.double() - exact).abs()
    if actual.dtype in WIDE:
        assert float((actual == exact.to(actual.dtype)).double().mean()) > 0.99
        assert bool((error <= eps * exact.abs().clamp(min=2**-10)).all())
    else:
        assert float(error.max()) <= 16 * eps * float(exact.abs().max())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("first", "last"), [(0, 50), (0, 17), (17, 40), (40, 50)])
def test_embed(first: int, last: int, dtype: torch.dtype) -> None:
    """A part of the table gives its tokens and zero for the others, also where what is there before is not a number."""
    table, ids = torch.randn(50, 8).to(dtype), torch.randint(0, 50, (40,))
    out = torch.full((40, 8), float("nan"), dtype=dtype)
    kernels.embed(ids, table[first:last], first, out, whole=last - first == 50)()
    held = (ids >= first) & (ids < last)
    assert int(held.sum()) > 0
    assert torch.equal(out[held], table[ids[held]])
    assert not out[~held].any()


@pytest.mark.parametrize("dtype", DTYPES)
def test_bias(dtype: torch.dtype) -> None:
    """Of a view with holes, and of a partial sum in float32."""
    joint = torch.randn(3, 5, 4, 10).to(dtype)
    x, bias, out = joint[..., 2:8], torch.randn(4, 6).to(dtype), torch.empty(3, 5, 4, 6, dtype=dtype)
    kernels.add(x, bias, out)()
    near(out, x.double() + bias.double())
    partial = torch.randn(3, 5, 4, 6, dtype=WIDE.get(dtype, dtype))
    kernels.add(partial, bias, out)()
    near(out, partial.double() + bias.double())


@pytest.mark.parametrize("dtype", DTYPES)
def test_multiply(dtype: torch.dtype) -> None:
    joint, out = torch.randn(7, 12).to(dtype), torch.empty(7, 6, dtype=dtype)
    a, b = joint.chunk(2, dim=1)
    kernels.multiply(a, b, out)()
    near(out, a.double() * b.double())


@pytest.mark.parametrize("dtype", DTYPES)
def test_rotate(dtype: torch.dtype) -> None:
    """Every pair is a complex number that is turned; x is a view, and begins at position 5."""
    x, out = torch.randn(2, 9, 3, 20).to(dtype)[..., 4:16], torch.empty(2, 9, 3, 12, dtype=dtype)
    cos, sin = (t.unsqueeze(1).to(WIDE.get(dtype, dtype)) for t in rotations(RotarySpec(theta=100.0), 12, (5, 14)))
    kernels.rotate(x, cos, sin, out)()
    turned = torch.view_as_complex(torch.stack((x[..., :6], x[..., 6:]), dim=-1).double().contiguous())
    turned = turned * torch.complex(cos.double(), sin.double())
    near(out, torch.cat((turned.real, turned.imag), dim=-1))
    assert torch.allclose(out.double().norm(dim=-1), x.double().norm(dim=-1), rtol=0.02)


def by_the_formula(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, op: Attention, start: int = 0) -> torch.Tensor:
    """Head by head and part by part, in float64."""
    out = torch.empty(q.shape, dtype=torch.float64)
    for head in range(q.shape[2]):
        kv = head // (q.shape[2] // k.shape[2])
        for part in range(0, q.shape[3], op.softmax_width):
            cut = slice(part, part + op.softmax_width)
            a, b, c = q[:, :, head, cut].double(), k[:, :, kv, cut].double(), v[:, :, kv, cut].double()
            scores = a @ b.transpose(1, 2) / math.sqrt(op.softmax_width)
            if op.causal:
                row = torch.arange(start, start + q.shape[1]).unsqueeze(1)
                scores = scores.masked_fill(torch.arange(k.shape[1]) > row, float("-inf"))
            out[:, :, head, cut] = torch.softmax(scores, -1) @ c
    return out


def attention_is_right(op: Attention, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, start: int) -> None:
    out = torch.empty(q.shape, dtype=q.dtype)
    mask = mask_of(op, start, q.shape[1], "") is not None
    with sdpa_kernel([kernels.fused_attention("cpu", q.dtype, op.softmax_width, mask=mask)]):
        kernels.attention(op, (q, k, v), start, out)()
    exact = by_the_formula(q, k, v, op, start)
    # The kernels round their weights to the dtype of q before the second product.
    assert float((out.double() - exact).abs().max()) <= 4 * torch.finfo(q.dtype).eps * float(exact.abs().max())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("width", [8, 4])
@pytest.mark.parametrize(("heads", "kv_heads"), [(6, 6), (6, 3), (6, 2), (6, 1)])
def test_attention_with_fewer_heads_of_keys(
    heads: int, kv_heads: int, width: int, causal: bool, dtype: torch.dtype
) -> None:
    joint = torch.randn(2, 7, heads + 2 * kv_heads, 8).to(dtype)
    q, k, v = joint.split([heads, kv_heads, kv_heads], dim=2)
    attention_is_right(Attention(width, causal), q, k, v, 0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kv_heads", [4, 2])
@pytest.mark.parametrize(("start", "stop"), [(0, 4), (4, 9), (9, 10), (3, 4), (0, 1), (0, 10)])
@pytest.mark.parametrize("causal", [False, True])
def test_attention_of_some_rows(causal: bool, start: int, stop: int, kv_heads: int, dtype: torch.dtype) -> None:
    """Of the keys behind the last row a causal attention reads nothing: they are not numbers here."""
    q, k, v = (torch.randn(2, 10, n, 8).to(dtype) for n in (4, kv_heads, kv_heads))
    op = Attention(8, causal)
    if not causal:
        attention_is_right(op, q[:, start:stop], k, v, start)
        return
    exact, out = by_the_formula(q[:, start:stop], k, v, op, start), torch.empty(2, stop - start, 4, 8, dtype=dtype)
    k[:, stop:], v[:, stop:] = float("nan"), float("nan")
    kernels.attention(op, (q[:, start:stop], k, v), start, out)()
    assert float((out.double() - exact).abs().max()) <= 4 * torch.finfo(dtype).eps * float(exact.abs().max())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("block", [1, 2, 3, 4, 7])
def test_rows_under_a_mask_are_computed_in_blocks(
    block: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_blocks, "MASKED_ROWS", block)
    q, k, v = (torch.randn(2, 12, n, 8).to(dtype) for n in (4, 2, 2))
    for start, stop in (5, 12), (1, 8), (4, 6):
        attention_is_right(Attention(8, causal=True), q[:, start:stop], k, v, start)
    made = mask_of(Attention(8, causal=True), 5, 7, "")
    if block == 1:  # one row sees all keys that it is given
        assert made is None
        return
    assert made is not None
    assert kernels.causal_mask(made, dtype, torch.device("cpu")).shape == made.shape
    assert made.rows == block


@pytest.mark.parametrize(("start", "rows", "needed"), [(0, 8, False), (3, 5, True), (7, 1, False)])
def test_rows_that_need_a_mask(start: int, rows: int, needed: bool) -> None:
    assert (mask_of(Attention(8, causal=True), start, rows, "") is not None) is needed
    assert mask_of(Attention(8, causal=False), start, rows, "") is None


@pytest.mark.parametrize("renormalise", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_route(dtype: torch.dtype, renormalise: bool) -> None:
    x, weight = torch.randn(20, 16).to(dtype), torch.randn(16, 6).to(dtype)
    out = torch.empty(20, 6, dtype=WIDE.get(dtype, dtype))
    kernels.route(x, weight, 2, out, renormalise=renormalise)()
    exact = torch.softmax(x.double() @ weight.double(), dim=-1)
    best = exact.topk(2, dim=-1)
    gates = best.values / best.values.sum(-1, keepdim=True) if renormalise else best.values
    assert torch.allclose(out.double(), torch.zeros(20, 6).double().scatter_(1, best.indices, gates), atol=1e-5)
    assert (float(out.sum()) == pytest.approx(20, abs=1e-4)) is renormalise


@pytest.mark.parametrize("function", ["gelu", "relu", "silu"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_gated_experts(dtype: torch.dtype, function: str) -> None:
    x, gates = torch.randn(20, 16).to(dtype), torch.rand(20, 3).to(WIDE.get(dtype, dtype))
    gates[gates < 0.4] = 0
    w_up, w_gate, w_down = (torch.randn(3, *dims).to(dtype) / 4 for dims in ((16, 12), (16, 12), (12, 16)))
    out = torch.empty(20, 16, dtype=dtype)
    kernels.experts(Experts(function, 3), x, gates, (w_up, w_down, w_gate), out)()
    act, exact = getattr(F, function), torch.zeros(20, 16, dtype=torch.float64)
    for e in range(3):
        inner = act(x.double() @ w_gate[e].double()) * (x.double() @ w_up[e].double())
        exact += gates[:, e : e + 1].double() * (inner @ w_down[e].double())
    near(out, exact)


def test_experts_without_tokens_and_tokens_without_experts() -> None:
    """A token may be routed to none of the experts that are held here: its row is zero, and no other row changes."""
    x, gates = torch.randn(6, 8), torch.zeros(6, 4)
    gates[1, 2], gates[4, 0], gates[4, 2] = 0.5, 0.25, 0.75
    w_up, w_down, out = torch.randn(4, 8, 12), torch.randn(4, 12, 8), torch.full((6, 8), 7.0)
    kernels.experts(Experts("relu", 2), x, gates, (w_up, w_down), out)()
    exact = [(gates[:, e : e + 1] * (torch.relu(x @ w_up[e]) @ w_down[e])) for e in range(4)]
    near(out, sum(exact))
    assert not out[[0, 2, 3, 5]].any()


def test_a_gate_that_is_not_a_number_is_seen() -> None:
    x, gates, out = torch.randn(2, 8), torch.tensor([[1.0, 0.0], [float("nan"), 0.0]]), torch.empty(2, 8)
    kernels.experts(Experts("relu", 1), x, gates, (torch.randn(2, 8, 4), torch.randn(2, 4, 8)), out)()
    assert out.isfinite().all(dim=1).tolist() == [True, False]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_grouped_products_are_those_of_one_expert_after_another(dtype: torch.dtype) -> None:
    """Idle experts, and rows behind the last end, which nobody computes."""
    rows, weights = torch.randn(10, 16).to(dtype), torch.randn(5, 16, 8).to(dtype)
    ends = torch.tensor([0, 3, 3, 7, 8], dtype=torch.int32)
    plain, made = (f(rows, weights, ends, dtype)[:8] for f in (grouped._one_by_one, grouped._grouped))
    assert torch.allclose(plain, made, rtol=torch.finfo(dtype).eps, atol=torch.finfo(dtype).eps)


@pytest.mark.parametrize("dtype", DTYPES)
def test_norm_of_heads(dtype: torch.dtype) -> None:
    """Over head_dim, of a view with holes."""
    x, weight = torch.randn(2, 5, 6, 8).to(dtype)[:, :, 1:4], (1 + torch.rand(8) / 4).to(dtype)
    out = torch.empty(2, 5, 3, 8, dtype=dtype)
    kernels.norm(Norm("rms_norm", "head_dim", 1e-6), x, (weight,), out)()
    d = x.double()
    near(out, d / (d.square().mean(-1, keepdim=True) + 1e-6).sqrt() * weight.double())
