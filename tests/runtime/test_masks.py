"""Tensors beside the ids in a file for --input change nothing, or are refused by name."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from helixctl.dag.function import function_of
from helixctl.errors import HelixError
from helixctl_runtime.tensors.inputs import lengths
from helixctl_runtime.tensors.tensor_files import TensorFiles
from helixctl_runtime.tensors.tensor_source import TensorSource
from tests.cli.command import helixctl
from tests.runtime.families import CPU, LLAMA, VOCABULARY, WORK, dag_for, saved

IDS = torch.randint(VOCABULARY, (2, 5), generator=torch.Generator().manual_seed(5))
LAST = WORK.model_copy(update={"logits": "last"})
RIGHT = [[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]]


def look(path: Path, held: dict[str, Any], *, causal: bool = True, last: bool = False) -> TensorSource:
    """The numbers of a file that holds this beside the ids, after its check."""
    save_file({"input_ids": IDS} | {n: torch.as_tensor(x) for n, x in held.items()}, path / "x.safetensors")
    spec = LLAMA.spec
    attention = spec.attention.model_copy(update={"causal": causal})
    spec = spec.model_copy(update={"attention": attention})
    found = TensorSource(0, None, str(path / "x.safetensors"))
    tensors = tuple(function_of(spec, (LAST if last else WORK).in_one_pass).tensors.values())
    found.check(SimpleNamespace(tensors=tensors, plan=SimpleNamespace(model=spec)))  # type: ignore[arg-type]
    return found


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int32, torch.int64, torch.float16, torch.float32])
def test_masks_that_change_nothing(dtype: torch.dtype, tmp_path: Path) -> None:
    assert look(tmp_path, {"attention_mask": torch.ones(2, 5, dtype=dtype)}, causal=False).notes == []
    found = look(tmp_path, {"attention_mask": torch.tensor(RIGHT).to(dtype)})
    note = (
        "attention_mask pads 3 of 10 tokens on the right: no real token sees them, and their own output means nothing"
    )
    assert found.notes == [note]
    assert lengths(TensorFiles(str(tmp_path / "x.safetensors")), 2, 5).tolist() == [5, 2]


@pytest.mark.parametrize(
    ("held", "message"),
    [
        (
            {"attention_mask": [[1] * 5, [0, 0, 1, 1, 1]]},
            "attention_mask hides tokens before real ones: it is 0 at [1, 1]",
        ),
        (
            {"attention_mask": [[1, 0, 1, 1, 1], [1] * 5]},
            "attention_mask hides tokens before real ones: it is 0 at [0, 1]",
        ),
        ({"attention_mask": [[1] * 5, [0] * 5]}, "attention_mask is 0 everywhere in sequence 1"),
        ({"attention_mask": [[1] * 5, [1, 1, 2, 0, 0]]}, "attention_mask is 2 at [1, 2]; it must be 0 or 1"),
        ({"attention_mask": torch.full((2, 5), float("-inf"))}, "attention_mask is -inf at [0, 0]"),
        (
            {"attention_mask": torch.ones(1, 5)},
            "attention_mask has shape [1, 5]; a mask of padding has that of the ids",
        ),
        ({"attention_mask": torch.ones(2, 1, 5, 5)}, "attention_mask has shape [2, 1, 5, 5]"),
        ({"attention_mask": torch.ones(10)}, "attention_mask has shape [10]"),
        ({"position_ids": torch.arange(5).flip(0)}, "position_ids is 4 at [0, 0], where the model counts 0"),
        ({"position_ids": [[0, 1, 2, 3, 4], [0, 1, 2, 0, 1]]}, "position_ids is 0 at [1, 3], where the model counts 3"),
        ({"position_ids": torch.zeros(3, 2, 5)}, "position_ids has shape [3, 2, 5]"),
        ({"attention_mask": RIGHT, "position_ids": [[0, 1, 2, 3, 4], [1, 2, 1, 1, 1]]}, "position_ids is 1 at [1, 0]"),
        ({"token_type_ids": torch.ones(2, 5)}, "token_type_ids is not read, and may change the result"),
        ({"inputs_embeds": torch.zeros(2, 5, 32)}, "inputs_embeds is not read, and may change the result"),
        ({"pixel_values": torch.zeros(1)}, "pixel_values is not read"),
        ({"whatever": torch.zeros(1)}, "whatever is not read"),
    ],
)
def test_what_would_change_the_result(held: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(HelixError) as caught:
        look(tmp_path, held)
    assert f"HX507 tensor {message}" in str(caught.value)
    assert len(caught.value.diagnostics) == 1
    assert caught.value.exit_status == 2


def test_the_way_out_of_padding_on_the_left(tmp_path: Path) -> None:
    with pytest.raises(HelixError, match="hint: no mask is applied: pad on the right"):
        look(tmp_path, {"attention_mask": [[1] * 5, [0, 1, 1, 1, 1]], "position_ids": torch.arange(5)})


def test_padding_where_all_tokens_see_all(tmp_path: Path) -> None:
    with pytest.raises(HelixError, match="attention_mask pads 3 tokens; the model is not causal"):
        look(tmp_path, {"attention_mask": RIGHT}, causal=False)


def test_what_changes_nothing(tmp_path: Path) -> None:
    held = {
        "labels": torch.full((2, 5), -100),
        "token_type_ids": torch.zeros(2, 5),
        "special_tokens_mask": torch.zeros(2, 5),
        "length": torch.tensor([5, 5]),
    }
    notes = look(tmp_path, held).notes
    assert [note.split()[0] for note in notes] == sorted(held)
    for positions in (torch.arange(5), torch.arange(5)[None], torch.arange(5).expand(2, 5).float()):
        assert look(tmp_path, {"position_ids": positions.contiguous()}).notes == []
    assert len(look(tmp_path, {"attention_mask": RIGHT, "position_ids": [[0, 1, 2, 3, 4], [0, 1, 1, 1, 1]]}).notes) == 1


@pytest.mark.parametrize(
    ("held", "expected"),
    [
        ({}, [5, 5]),
        ({"attention_mask": RIGHT}, [5, 2]),
        ({"length": [1, 4]}, [1, 4]),
        ({"attention_mask": RIGHT, "length": [5, 2]}, [5, 2]),
    ],
)
def test_lengths_of_the_last_tokens(held: dict[str, Any], expected: list[int], tmp_path: Path) -> None:
    found = look(tmp_path, held, last=True)
    tensor = function_of(LLAMA.spec, LAST.in_one_pass).tensors["length"]
    assert found.region(tensor, ((0, 2),), torch.int64, CPU).tolist() == expected
    assert found.region(tensor, ((1, 2),), torch.int64, CPU).tolist() == expected[1:]


@pytest.mark.parametrize(
    ("held", "message"),
    [
        ({"length": [0, 4]}, "length is 0 at [0]; it must be from 1 to 5"),
        ({"length": [5, 6]}, "length is 6 at [1]; it must be from 1 to 5"),
        ({"length": [5.0, 2.0]}, "length is F32 [2]; it must be I64 or I32 [2]"),
        ({"length": [5]}, "length is I64 [1]; it must be I64 or I32 [2]"),
        ({"attention_mask": RIGHT, "length": [5, 5]}, "length is 5 at [1], by attention_mask it is 2"),
    ],
)
def test_lengths_that_cannot_be(held: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(HelixError) as caught:
        look(tmp_path, held, last=True)
    assert f"HX507 tensor {message}" in str(caught.value)


@pytest.mark.parametrize("logits", ["all", pytest.param("last", marks=pytest.mark.sweep)])
def test_right_padding_gives_the_logits_of_transformers(logits: str, tmp_path: Path) -> None:
    """Of the real tokens; and padding on the left, which would not, is refused."""
    saved(LLAMA, tmp_path)
    mask = torch.tensor(RIGHT)
    save_file({"input_ids": IDS, "attention_mask": mask}, tmp_path / "ids.safetensors")
    save_file({"input_ids": IDS, "attention_mask": mask.flip(1)}, tmp_path / "left.safetensors")
    dag = dag_for(LLAMA, {"groups": 2, "slices": 1}, logits=logits)
    (tmp_path / "x.dag.json").write_text(dag.to_json())
    quick = ("run", tmp_path / "x.dag.json", "--warmup", "1", "--iters", "2", "--weights", tmp_path, "--check")
    done = helixctl(*quick, "--input", tmp_path / "ids.safetensors", "--output", tmp_path / "y.safetensors")
    assert done.status == 0, done.err
    assert "input: attention_mask pads 3 of 10 tokens" in done.out.decode() + done.err
    with torch.no_grad():
        expected = LLAMA.made().eval()(IDS, attention_mask=mask).logits
    found = load_file(tmp_path / "y.safetensors")["logits"]
    if logits == "last":
        expected = expected[torch.arange(2), mask.sum(1) - 1]
    else:
        found, expected = found[mask.bool()], expected[mask.bool()]
    assert float((found - expected).norm() / expected.norm()) < 1e-5
    refused = helixctl(*quick, "--input", tmp_path / "left.safetensors")
    assert (refused.status, "HX507 tensor attention_mask hides tokens" in refused.err) == (2, True)


def test_ids_among_the_weights(tmp_path: Path) -> None:
    """One file of own names for --weights and --input: a weight beside the ids is no stranger, another tensor is."""
    dag = dag_for(LLAMA, {"groups": 1, "slices": 1})
    own = {t.name: torch.zeros(t.shape) for t in dag.tensors if t.role == "weight"} | {"input_ids": IDS}
    path = str(tmp_path / "x.safetensors")
    save_file(own, path)
    TensorSource(0, path, path).check(dag)
    save_file(own | {"more": torch.zeros(1)}, path)
    with pytest.raises(HelixError, match="tensor more is not read"):
        TensorSource(0, path, path).check(dag)
