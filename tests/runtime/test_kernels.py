"""Kernels: the table of fused attention, and one rounding at the end."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from helixctl.dag import Norm
from helixctl.errors import HelixError
from helixctl_runtime import kernels
from helixctl_runtime.kernels import FUSED_ATTENTION, fused, fused_attention, product

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


@pytest.mark.parametrize("width", [1, 2, 8, 32, 128, 512])
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_table_holds_on_cpu(dtype: torch.dtype, width: int) -> None:
    """torch runs the kernel that the table names, alone."""
    q = torch.randn(1, 2, 4, width).to(dtype)
    with sdpa_kernel([fused_attention("cpu", dtype, width)]):
        F.scaled_dot_product_attention(q, q, q)


@pytest.mark.parametrize(
    ("dtype", "width", "backend"),
    [
        (torch.float16, 128, SDPBackend.FLASH_ATTENTION),
        (torch.bfloat16, 256, SDPBackend.FLASH_ATTENTION),
        (torch.float16, 512, SDPBackend.EFFICIENT_ATTENTION),
        (torch.float32, 128, SDPBackend.EFFICIENT_ATTENTION),
    ],
)
def test_the_table_for_cuda(dtype: torch.dtype, width: int, backend: SDPBackend) -> None:
    assert fused_attention("cuda", dtype, width) == backend


@pytest.mark.parametrize(
    ("device", "dtype", "width", "rows", "mask", "backend"),
    [
        (((9, 0), 91900), torch.float16, 128, 128, False, SDPBackend.CUDNN_ATTENTION),
        (((10, 0), 92000), torch.bfloat16, 256, 4096, False, SDPBackend.CUDNN_ATTENTION),
        (((9, 0), 91900), torch.float16, 128, 127, False, SDPBackend.FLASH_ATTENTION),
        (((9, 0), 91900), torch.float16, 100, 128, False, SDPBackend.FLASH_ATTENTION),
        (((9, 0), 90100), torch.float16, 128, 128, False, SDPBackend.FLASH_ATTENTION),
        (((8, 9), 91900), torch.float16, 128, 128, False, SDPBackend.FLASH_ATTENTION),
        (((9, 0), 91900), torch.float16, 128, 128, True, SDPBackend.CUDNN_ATTENTION),
        (((9, 0), 91900), torch.float16, 128, 4, True, SDPBackend.EFFICIENT_ATTENTION),
        (((9, 0), 91900), torch.float32, 128, 128, False, SDPBackend.EFFICIENT_ATTENTION),
    ],
)
def test_the_table_for_hopper(
    monkeypatch: pytest.MonkeyPatch,
    device: tuple[tuple[int, int], int],
    dtype: torch.dtype,
    width: int,
    rows: int,
    mask: bool,
    backend: SDPBackend,
) -> None:
    """cuDNN's from compute capability 9.0 on, with a cuDNN known to be right, where sequences are long enough."""
    monkeypatch.setattr(fused, "cuda_device", lambda: device)
    assert fused_attention("cuda", dtype, width, rows=rows, mask=mask) == backend


def test_the_unfused_formula_is_in_no_row() -> None:
    assert all(row.backend != SDPBackend.MATH for row in FUSED_ATTENTION)


@pytest.mark.parametrize(("dtype", "width"), [(torch.float64, 128), (torch.float32, 2)])
def test_no_kernel_is_an_error(dtype: torch.dtype, width: int) -> None:
    with pytest.raises(HelixError) as caught:
        fused_attention("cuda", dtype, width)
    assert caught.value.diagnostics[0].code == "HX508"


LIES = {
    "whole": (slice(None), slice(None), slice(None)),
    "columns of a wider one": (slice(None), slice(3, 1203), slice(None)),
    "every other row": (slice(None, None, 2), slice(None), slice(None)),
    "columns of a wider weight": (slice(None), slice(None), slice(5, 1105)),
}


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("lies", LIES)
@pytest.mark.parametrize("rows", [3, 4, 9])
def test_a_large_product_is_exact_however_it_lies(rows: int, lies: str, turned: bool) -> None:
    """Both sides of the number of rows from which oneDNN computes it, and every way in which an operand may lie."""
    torch.manual_seed(rows)
    some_rows, depth, width = LIES[lies]
    x = torch.randn(rows * (some_rows.step or 1), 1210)[some_rows, depth]
    weight = (torch.randn(1203, 1210).t() if turned else torch.randn(1210, 1203))[depth, width]
    wide = torch.full((rows, weight.shape[1] + 2), torch.nan)
    out = wide[:, 1:-1]
    kernels.linear(x, weight, out)()
    exact = x.double() @ weight.double()
    # Of a sum of K products in float32 each rounding adds at most half a unit of the sum of their sizes.
    allowed = x.shape[1] * torch.finfo(torch.float32).eps / 2 * (x.double().abs() @ weight.double().abs())
    assert ((out - exact).abs() <= allowed).all()
    assert wide[:, [0, -1]].isnan().all()


@pytest.mark.parametrize("rows", [3, 4])
def test_large_products_are_those_of_onednn(rows: int) -> None:
    """From 4 rows on; where torch has both libraries."""
    torch.manual_seed(0)
    x, weight = torch.randn(rows, 1024), torch.randn(1024, 1024)
    found = torch.empty(rows, 1024)
    kernels.linear(x, weight, found)()
    if not (torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()):
        assert torch.equal(found, x @ weight)
        return
    by_onednn = torch.ops.mkldnn._linear_pointwise(x, weight.t(), None, "none", [], "")
    assert product.by_onednn(x, weight) == (rows == 4)
    assert torch.equal(found, by_onednn if rows == 4 else x @ weight)


def test_many_rows_are_multiplied_some_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """No block of what oneDNN makes is larger than its limit; the last one is smaller."""
    monkeypatch.setattr(product, "_MADE", 5 * 1024)
    made: list[int] = []
    multiply = torch.ops.mkldnn._linear_pointwise

    def watched(*operands: object) -> torch.Tensor:
        found = multiply(*operands)
        made.append(found.numel())
        return found

    monkeypatch.setattr(torch.ops.mkldnn, "_linear_pointwise", watched)
    torch.manual_seed(0)
    x, weight, out = torch.randn(13, 1024), torch.randn(1024, 1024), torch.empty(13, 1024)
    kernels.linear(x, weight, out)()
    assert made == [5 * 1024, 5 * 1024, 3 * 1024] or not product.by_onednn(x, weight)
    assert torch.allclose(out.double(), x.double() @ weight.double(), atol=1e-3)


def test_torch_has_what_onednn_would_copy_or_keep() -> None:
    """Rows that do not lie one after the other, and an expert's, whose number changes."""
    torch.manual_seed(0)
    turned, weight = torch.randn(1024, 8).t(), torch.randn(1024, 1024)
    x, found = turned.contiguous(), torch.empty(8, 1024)
    kernels.linear(turned, weight, found)()
    assert torch.equal(found, turned @ weight)
    kernels.linear(x, weight, found, repeated=False)()
    assert torch.equal(found, x @ weight)
    if product.by_onednn(x, weight):
        kernels.linear(x, weight, found)()
        assert not torch.equal(found, x @ weight)  # so that the two above say something


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_onednn_has_products_in_float32_alone(dtype: torch.dtype) -> None:
    assert not product.by_onednn(torch.empty(8, 1024, dtype=dtype), torch.empty(1024, 1024, dtype=dtype))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_rounds_once(dtype: torch.dtype) -> None:
    """Every kernel's result is the rounded float64 result, except for rare ties that float32 rounds the other way."""
    torch.manual_seed(0)
    x, w, b = torch.randn(64, 256).to(dtype), torch.randn(256, 48).to(dtype), torch.randn(64, 256)
    norm_weight = torch.rand(256).to(dtype)
    product, partial = torch.empty(64, 48, dtype=dtype), torch.empty(64, 48)
    normed, activated, summed = (torch.empty(64, 256, dtype=dtype) for _ in range(3))
    kernels.linear(x, w, product)()
    kernels.linear(x, w, partial)()
    kernels.norm(Norm("rms_norm", "hidden", 1e-5), x, [norm_weight], normed)()
    kernels.activation("gelu", x, activated)()
    kernels.add(x, b, summed)()
    d = x.double()
    expected = {
        "product": (product, d @ w.double()),
        "norm": (normed, d / (d.square().mean(-1, keepdim=True) + 1e-5).sqrt() * norm_weight.double()),
        "gelu": (activated, F.gelu(d)),
        "add": (summed, d + b.double()),
    }
    for name, (actual, exact) in expected.items():
        same = (actual == exact.to(dtype)).float().mean()
        assert same > 0.995, f"{name}: {float(same):.4f} of the results are the rounded exact ones"
    assert torch.allclose(partial.double(), d @ w.double(), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("function", ["gelu", "relu", "silu", "sigmoid"])
def test_activations(function: str) -> None:
    x, out = torch.linspace(-5, 5, 101), torch.empty(101)
    kernels.activation(function, x, out)()
    assert torch.allclose(out, getattr(F, function)(x))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("over", ["nothing", "gate", "up"])
@pytest.mark.parametrize("function", ["gelu", "gelu_tanh", "relu", "relu_squared", "sigmoid", "silu"])
@pytest.mark.parametrize("rows", [(7,), (2, 1201, 3)])
def test_an_activation_and_its_product_have_the_bits_of_both_kernels(
    rows: tuple[int, ...], function: str, over: str, dtype: torch.dtype
) -> None:
    """Also where there are more rows than are held at once."""
    torch.manual_seed(0)
    gate, up = torch.randn(*rows, 2 * 33).to(dtype).split(33, dim=-1)
    activated, apart = torch.empty(2, *rows, 33, dtype=dtype)
    kernels.activation(function, gate, activated)()
    kernels.multiply(activated, up, apart)()
    out = {"nothing": torch.empty(*rows, 33, dtype=dtype), "gate": gate, "up": up}[over]
    kernels.gated(function, gate, up, out)()
    assert torch.equal(out, apart)
