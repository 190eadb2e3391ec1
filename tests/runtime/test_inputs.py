"""Files for --input: token ids and hidden states, and what is refused."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

from helixctl.dag import Tensor
from helixctl.dag.function import function_of
from helixctl.errors import HelixError
from helixctl.spec import ModelSpec
from helixctl_runtime.tensors.tensor_source import TensorSource
from tests.runtime.families import CPU, HIDDEN, LLAMA, VOCABULARY, WORK, Weights


def numbers(path: Path | str, *, spec: ModelSpec = LLAMA.spec) -> tuple[TensorSource, Tensor]:
    """An input file after its check, and the tensor that it gives."""
    tensors = tuple(function_of(spec, WORK.in_one_pass).tensors.values())
    found = TensorSource(0, None, str(path))
    found.check(SimpleNamespace(tensors=tensors, plan=SimpleNamespace(model=spec)))  # type: ignore[arg-type]
    return found, next(tensor for tensor in tensors if tensor.role == "input")


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32])
def test_token_ids(dtype: torch.dtype, tmp_path: Path) -> None:
    ids = torch.randint(VOCABULARY, (2, 5), dtype=dtype)
    save_file({"input_ids": ids, "attention_mask": torch.ones(2, 5)}, tmp_path / "x.safetensors")
    found, tensor = numbers(tmp_path / "x.safetensors")
    read = found.region(tensor, ((1, 2), (0, 4)), torch.int64, CPU)
    assert torch.equal(read, ids[1:, :4].long())


@pytest.mark.parametrize(
    ("held", "message"),
    [
        ({"input": torch.zeros(2, 5)}, "tensor input_ids is missing"),
        ({"input_ids": torch.zeros(2, 5)}, "tensor input_ids is F32; it must be one of I64, I32"),
        ({"input_ids": torch.zeros(1, 5, dtype=torch.int64)}, "tensor input_ids has shape [1, 5], the plan [2, 5]"),
        ({"input_ids": torch.tensor([[1] * 5, [2, 3, 97, 98, -1]])}, "input_ids is 97 at [1, 2]; the model's token"),
        ({"input_ids": torch.tensor([[1] * 5, [2, 3, -7, 98, -1]])}, "input_ids is -7 at [1, 2]; the model's token"),
    ],
)
def test_bad_token_ids(held: Weights, message: str, tmp_path: Path) -> None:
    save_file(held, tmp_path / "x.safetensors")
    with pytest.raises(HelixError, match="HX507") as caught:
        numbers(tmp_path / "x.safetensors")
    assert message in str(caught.value)
    assert caught.value.exit_status == 2


def test_hidden_states(tmp_path: Path) -> None:
    spec = LLAMA.spec.model_copy(update={"vocabulary": None})
    states = torch.randn(2, 5, HIDDEN).half()
    save_file({"input": states}, tmp_path / "x.safetensors")
    found, tensor = numbers(tmp_path / "x.safetensors", spec=spec)
    assert torch.equal(found.region(tensor, tensor.full, torch.float32, CPU), states.float())
    save_file({"input": states.int()}, tmp_path / "x.safetensors")
    with pytest.raises(HelixError, match="tensor input is I32; it must be one of F16"):
        numbers(tmp_path / "x.safetensors", spec=spec)
    with pytest.raises(HelixError, match="cannot be read"):
        numbers(tmp_path / "nowhere.safetensors", spec=spec)
