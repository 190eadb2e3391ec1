"""The Triton kernels in Triton's interpreter on CPU, against float64, with every stride that programs have."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch
import torch.nn.functional as F

pytest.importorskip("triton", reason="Triton is made for Linux alone")

# The interpreter cuts float32 to bfloat16 instead of rounding it: that dtype is left to `make gpu`.
DTYPES = [torch.float16, torch.float32]


@pytest.fixture(scope="module")
def kernels() -> ModuleType:
    """Interpreted, as tests/conftest.py says."""
    from helixctl_runtime.kernels import streaming

    return streaming


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def near(actual: torch.Tensor, exact: torch.Tensor) -> None:
    """One rounding, and what float32 does before it."""
    rounded = exact.to(actual.dtype)
    assert torch.allclose(actual.double(), exact, rtol=torch.finfo(actual.dtype).eps, atol=1e-6)
    assert actual.dtype == torch.float32 or (actual == rounded).double().mean() > 0.99


def part(dtype: torch.dtype, *shape: int) -> torch.Tensor:
    """Numbers that are a part of the columns of a matrix, as the outputs of a product are."""
    *leading, width = shape
    return torch.randn(*leading, 2 * width + 8).to(dtype)[..., 3 : 3 + width]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(3, 5, 37), (2, 4, 6, 16), (7, 300), (1, 1, 5000)])
def test_norm(kernels: ModuleType, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    x, weight, out = part(dtype, *shape), (1 + torch.rand(shape[-1]) / 4).to(dtype), part(dtype, *shape)
    kernels.norm(x, weight, 1e-5, out)()
    d = x.double()
    near(out, d / (d.square().mean(-1, keepdim=True) + 1e-5).sqrt() * weight.double())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("over", [False, True])
@pytest.mark.parametrize("shape", [(2, 5, 3, 16), (1, 4, 6, 20), (3, 1, 1, 2)])
def test_rotate(kernels: ModuleType, shape: tuple[int, ...], over: bool, dtype: torch.dtype) -> None:
    """Heads of queries side by side with those of keys; also in place."""
    batch, seq, heads, width = shape
    x = torch.randn(batch, seq, heads + 2, width).to(dtype)[:, :, 1:-1]
    out = x if over else torch.empty(shape, dtype=dtype)
    cos, sin = torch.randn(2, seq, 1, width // 2)
    a, b = x.double().chunk(2, dim=-1)
    exact = torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)
    kernels.rotate(x, cos, sin, out)()
    near(out, exact)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("function", ["gelu", "relu", "silu"])
def test_activation(kernels: ModuleType, function: str, dtype: torch.dtype) -> None:
    x, out = part(dtype, 2, 3, 4100), torch.empty(2, 3, 4100, dtype=dtype)
    x[0, 0, 0], x[1, 2, 1] = float("nan"), -80
    kernels.activation(function, x, out)()
    exact = getattr(F, function)(x.double())
    assert out[0, 0, 0].isnan()
    assert out.isnan().sum() == 1
    near(out.nan_to_num(), exact.nan_to_num())


@pytest.mark.parametrize("dtype", DTYPES)
def test_multiply(kernels: ModuleType, dtype: torch.dtype) -> None:
    a, b = part(dtype, 2, 3, 4100), torch.randn(2, 3, 4100).to(dtype)
    exact = a.double() * b.double()
    kernels.multiply(a, b, b)()
    near(b, exact)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("over", ["nothing", "gate", "up"])
@pytest.mark.parametrize("function", ["gelu", "gelu_tanh", "relu", "relu_squared", "sigmoid", "silu"])
def test_gated(kernels: ModuleType, function: str, over: str, dtype: torch.dtype) -> None:
    """To the bit what the two kernels make; gate and up are columns of one matrix, as a product makes them."""
    matrix = torch.randn(2, 3, 2 * 4100).to(dtype)
    gate, up = matrix.split(4100, dim=-1)
    gate[0, 0, 0], gate[1, 2, 1] = float("nan"), -8
    activated, apart = torch.empty(2, 2, 3, 4100, dtype=dtype)
    kernels.activation(function, gate, activated)()
    kernels.multiply(activated, up, apart)()
    exact = exactly(function, gate.double()) * up.double()
    out = {"nothing": torch.empty_like(apart), "gate": gate, "up": up}[over]
    kernels.gated(function, gate, up, out)()
    assert torch.equal(out.isnan(), apart.isnan())
    assert torch.equal(out.nan_to_num(), apart.nan_to_num())
    assert torch.allclose(out.nan_to_num().double(), exact.nan_to_num(), rtol=2 * torch.finfo(dtype).eps, atol=1e-6)


def exactly(function: str, x: torch.Tensor) -> torch.Tensor:
    match function:
        case "gelu_tanh":
            return F.gelu(x, approximate="tanh")
        case "relu_squared":
            return F.relu(x).square()
        case _:
            made: torch.Tensor = getattr(F, function)(x)
            return made


@pytest.mark.parametrize("dtype", DTYPES)
def test_combine(kernels: ModuleType, dtype: torch.dtype) -> None:
    """Rows without a gate may hold anything, and a gate that is no number is seen."""
    made, place = torch.randn(12, 37).to(dtype), torch.randperm(12).view(4, 3)
    gates, out = torch.rand(4, 3), torch.empty(4, 37, dtype=dtype)
    gates[1, 2], gates[3] = 0, 0
    made[place[1, 2]], made[place[3]] = float("nan"), float("inf")
    kernels.combine(made, place, gates, out)
    exact = (made.double()[place] * gates.double().unsqueeze(2)).masked_fill((gates == 0).unsqueeze(2), 0).sum(1)
    near(out, exact)
    gates[0, 0] = float("nan")
    kernels.combine(made, place, gates, out)
    assert out.isnan().all(dim=1).tolist() == [True, False, False, False]


def test_nothing_beside_the_output_is_written(kernels: ModuleType) -> None:
    whole = torch.full((4, 9), 7.0)
    kernels.activation("relu", torch.ones(4, 5), whole[:, 2:7])()
    assert whole[:, 2:7].eq(1).all()
    assert whole[:, [0, 1, 7, 8]].eq(7).all()


def test_what_does_not_fit_is_left_to_torch(kernels: ModuleType) -> None:
    """Dims that cannot be seen as three, elements that are not neighbours, other dtypes, no elements."""
    x = torch.randn(2, 3, 4, 8)
    weight = torch.ones(8)
    assert kernels.activation("silu", x.transpose(0, 1), x.transpose(0, 1)) is None
    assert kernels.activation("silu", x[..., ::2], x[..., ::2]) is None
    assert kernels.multiply(x.double(), x.double(), x.double()) is None
    assert kernels.gated("silu", x.double(), x.double(), x.double()) is None
    assert kernels.gated("silu", x, x.transpose(0, 1).contiguous().transpose(0, 1), x) is None
    assert kernels.gated("silu", x, x, x) is not None
    assert kernels.norm(x[:0], weight, 1e-5, x[:0]) is None
    assert kernels.norm(torch.ones(1, 2**15 + 1), torch.ones(2**15 + 1), 1e-5, torch.ones(1, 2**15 + 1)) is None
    assert kernels.rotate(x, torch.ones(3, 1, 4).double(), torch.ones(3, 1, 4).double(), x) is None
    assert kernels.norm(x, weight, 1e-5, x) is not None
