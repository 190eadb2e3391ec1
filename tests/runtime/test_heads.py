"""A stored head that the model does not read equals the tensor that it reads, in every row, or is refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from helixctl_runtime.tensors import difference as module
from helixctl_runtime.tensors.checkpoint import Checkpoint
from helixctl_runtime.tensors.difference import difference
from helixctl_runtime.tensors.tensor_files import TensorFiles
from tests.runtime.families import LLAMA, TIED, VOCABULARY, Weights, check_regions, saved

PREFIX = "language_model.model."
EMBEDDING = PREFIX + "embed_tokens.weight"
PLACES = ("lm_head.weight", "language_model.lm_head.weight", PREFIX + "lm_head.weight")


def inside(held: Weights, prefix: str = PREFIX) -> Weights:
    """The language model as a part of one that also sees, without its head."""
    found = {prefix + name.removeprefix("model."): x for name, x in held.items() if name != "lm_head.weight"}
    return found | {"vision_tower.layers.0.input_layernorm.weight": torch.ones(3), "projector.weight": torch.ones(2, 2)}


def written(folder: Path, held: Weights) -> Path:
    save_file({name: x.clone().contiguous() for name, x in held.items()}, folder / "model.safetensors")
    return folder


def said(path: Path, family=TIED, prefix: str | None = None) -> str:
    return "\n".join(map(str, Checkpoint(str(path), prefix).problems(family.weights)))


def other(x: torch.Tensor, row: int) -> torch.Tensor:
    x = x.clone()
    x[row, -1] += 1
    return x


@pytest.mark.parametrize("place", PLACES)
def test_another_head_of_a_larger_model(place: str, tmp_path: Path) -> None:
    """transformers reads the stored head where it differs: so does the plan that is not tied."""
    held = saved(TIED, tmp_path)
    head = torch.randn_like(held["lm_head.weight"])
    written(tmp_path, inside(held) | {place: head})
    text = said(tmp_path)
    assert text.startswith(f"{tmp_path}: HX507 tensor {place} is not {EMBEDDING}: row 0 differs")
    assert "transformers reads the stored head where they differ: plan with --set vocabulary.tied=false" in text
    assert text.count("HX507") == 1
    check_regions(tmp_path, LLAMA, held | {"lm_head.weight": head}, 4)


@pytest.mark.parametrize("place", PLACES)
def test_the_same_head_of_a_larger_model(place: str, tmp_path: Path) -> None:
    held = saved(TIED, tmp_path)
    check_regions(written(tmp_path, inside(held) | {place: held["lm_head.weight"]}), TIED, held, 4)


@pytest.mark.parametrize("prefix", [None, PREFIX])
@pytest.mark.parametrize("name", ["output.weight", "language_model.output.weight", "head.weight", "lm_head.weight"])
def test_heads_under_other_names_and_of_other_sizes(name: str, prefix: str | None, tmp_path: Path) -> None:
    """Also where the user says which model to read."""
    held = saved(TIED, tmp_path)
    head = held["lm_head.weight"]
    written(tmp_path, inside(held) | {name: other(head, 3)})
    assert f"tensor {name} is not {EMBEDDING}: row 3 differs" in said(tmp_path, TIED, prefix)
    written(tmp_path, inside(held) | {name: torch.cat([head, head])})
    assert f"tensor {name} is not {EMBEDDING}: its shape is [194, 32], not [97, 32]" in said(tmp_path, TIED, prefix)


@pytest.mark.parametrize("prefix", [None, PREFIX])
def test_a_bias_of_the_head(prefix: str | None, tmp_path: Path) -> None:
    held = saved(TIED, tmp_path)
    written(tmp_path, inside(held) | {"lm_head.bias": torch.ones(VOCABULARY)})
    assert "tensors that the model does not use: lm_head.bias" in said(tmp_path, TIED, prefix)


def test_a_tensor_of_the_shape_of_a_head(tmp_path: Path) -> None:
    """What has the shape of the head may be it, whatever it is called: refused until the user says what to read."""
    held = saved(TIED, tmp_path)
    written(tmp_path, inside(held) | {"text.classes": other(held["lm_head.weight"], 96)})
    assert "tensor text.classes is not language_model.model.embed_tokens.weight: row 96 differs" in said(tmp_path)
    assert said(tmp_path, prefix=PREFIX) == ""
    assert said(written(tmp_path, inside(held) | {"text.classes": held["lm_head.weight"]})) == ""
    held = saved(LLAMA, tmp_path)
    head = {"lm_head.weight": held["lm_head.weight"]}
    assert said(written(tmp_path, inside(held) | head | {"text.classes": held["lm_head.weight"]}), LLAMA) == ""


def test_two_heads_of_a_model_that_has_one(tmp_path: Path) -> None:
    held = saved(LLAMA, tmp_path)
    heads = {
        "language_model.lm_head.weight": held["lm_head.weight"],
        "lm_head.weight": other(held["lm_head.weight"], 7),
    }
    written(tmp_path, inside(held) | heads)
    message = "tensor lm_head.weight is not language_model.lm_head.weight: row 7 differs"
    assert message in said(tmp_path, LLAMA)
    heads["lm_head.weight"] = held["lm_head.weight"]
    check_regions(written(tmp_path, inside(held) | heads), LLAMA, held, 4)


@pytest.mark.parametrize("row", [0, 1, 50, VOCABULARY - 2, VOCABULARY - 1])
def test_every_row_is_compared(row: int, tmp_path: Path) -> None:
    held = saved(TIED, tmp_path)
    held["lm_head.weight"] = other(held["lm_head.weight"], row)
    assert f"tensor lm_head.weight is not model.embed_tokens.weight: row {row} differs" in said(written(tmp_path, held))


@pytest.mark.parametrize("place", ["lm_head.weight", *PLACES])
def test_an_embedding_that_is_stored_as_the_head(place: str, tmp_path: Path) -> None:
    """transformers ties the other way round where the embedding is not stored."""
    held = saved(TIED, tmp_path)
    prefix = PREFIX if place.startswith("language") else "model."
    stored = inside(held, prefix) if prefix == PREFIX else {n: x for n, x in held.items() if n != "lm_head.weight"}
    del stored[prefix + "embed_tokens.weight"]
    written(tmp_path, stored | {place: held["lm_head.weight"]})
    check_regions(tmp_path, TIED, held, 4)
    text = said(tmp_path, LLAMA)
    assert f"tensor {place} is all there is for two weights" in text
    assert "vocabulary.tied" in text


def test_pieces_and_shares_read_every_row_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PIECE_NBYTES", 8 * 5 * 3)
    x = torch.randn(23, 5)
    for row in range(23):
        save_file({"a": x, "b": x.clone(), "c": other(x, row)}, tmp_path / "x.safetensors")
        files = TensorFiles(str(tmp_path / "x.safetensors"))
        found = [difference(files, "a", "c", (i, 4)) for i in range(4)]
        assert [each for each in found if each] == [f"row {row} differs"]
        files.read_nbytes = 0
        assert [difference(files, "a", "b", (i, 4)) for i in range(4)] == [None] * 4
        assert files.read_nbytes == 2 * x.nbytes


def test_what_counts_as_the_same(tmp_path: Path) -> None:
    x = torch.randn(4, 3)
    x[2, 1] = float("nan")
    half = x.bfloat16()
    save_file(
        {"a": x, "b": x.double(), "half": half, "wide": half.float(), "zero": x.nan_to_num()},
        tmp_path / "x.safetensors",
    )
    files = TensorFiles(str(tmp_path / "x.safetensors"))
    assert difference(files, "a", "b") is None
    assert difference(files, "half", "wide") is None
    assert difference(files, "a", "half") == "row 0 differs"
    assert difference(files, "a", "zero") == "row 2 differs"
