"""Files of another type than safetensors, and indexes that name files outside their folder."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from helixctl.errors import HelixError
from helixctl_runtime.tensors.checkpoint import Checkpoint
from tests.cli.command import helixctl
from tests.runtime.families import LLAMA, check_regions, saved
from tests.runtime.test_checkpoint_refused import refused
from tests.runtime.test_inputs import numbers

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 4877660776\n"
INDEX = "model.safetensors.index.json"


def _torch(**how: bool) -> bytes:
    stream = io.BytesIO()
    torch.save({"a": torch.zeros(2)}, stream, **how)
    return stream.getvalue()


def _numpy() -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.zeros(3))
    return stream.getvalue()


FOREIGN = {
    "a Git LFS pointer, not the file itself": POINTER,
    "empty": b"",
    "a GGUF file": b"GGUF\x03\x00\x00\x00" + bytes(64),
    "a zip archive, as torch.save writes": _torch(),
    "a pickle, as torch.save writes": _torch(_use_new_zipfile_serialization=False),
    "a NumPy array": _numpy(),
    "a page of HTML or XML": b"\n<!DOCTYPE html><html><body>Sign in</body></html>",
    "JSON": b'{"error": "Repository not found"}',
}


@pytest.mark.parametrize("what", FOREIGN)
def test_in_the_place_of_weights(what: str, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(FOREIGN[what])
    for path in (tmp_path, tmp_path / "model.safetensors"):
        text = refused(path, LLAMA.weights)
        assert f"HX507 model.safetensors is {what}; it must be safetensors\n  hint: " in text


@pytest.mark.parametrize("what", FOREIGN)
def test_in_the_place_of_a_shard_and_of_the_input(what: str, tmp_path: Path) -> None:
    saved(LLAMA, tmp_path, max_shard_size="20KB")
    shard = sorted(tmp_path.glob("*.safetensors"))[1]
    shard.write_bytes(FOREIGN[what])
    assert f"HX507 {shard.name} is {what}; it must be safetensors" in refused(tmp_path, LLAMA.weights)
    with pytest.raises(HelixError, match=f"HX507 {shard.name} is {what}"):
        numbers(shard)


def test_pointers_in_the_place_of_an_index_and_of_a_config(tmp_path: Path) -> None:
    (tmp_path / INDEX).write_bytes(POINTER)
    text = refused(tmp_path, LLAMA.weights)
    assert f"HX507 {INDEX} is a Git LFS pointer, not the file itself\n  hint: in the clone: git lfs pull" in text
    for name in ("config.json", "x.plan.json", "x.cluster.yaml"):
        (tmp_path / name).write_bytes(POINTER)
        done = helixctl("validate", tmp_path / name)
        said = done.out.decode() + done.err
        assert (done.status, "is a Git LFS pointer, not the file itself" in said, "git lfs pull" in said) == (
            2,
            True,
            True,
        )


def sharded(folder: Path, change: Callable[[dict[str, str]], object]) -> Path:
    saved(LLAMA, folder, max_shard_size="20KB")
    document = json.loads((folder / INDEX).read_text())
    change(document["weight_map"])
    (folder / INDEX).write_text(json.dumps(document))
    return folder


@pytest.mark.parametrize(
    "shard",
    [
        "../../x.safetensors",
        "/tmp/x.safetensors",
        "sub/x.safetensors",
        "..\\x.safetensors",
        "C:x.safetensors",
        "..",
        "",
    ],
)
def test_an_index_that_names_a_path(shard: str, tmp_path: Path) -> None:
    sharded(tmp_path, lambda names: names.update({"model.norm.weight": shard}))
    text = refused(tmp_path, LLAMA.weights)
    assert f"{INDEX} says that tensor model.norm.weight is in {shard!r}, which is not the name" in text


def test_a_shard_may_be_a_link(tmp_path: Path) -> None:
    """The cache of Hugging Face keeps all files so."""
    held = saved(LLAMA, tmp_path / "snapshot", max_shard_size="20KB")
    (tmp_path / "blobs").mkdir()
    for shard in (tmp_path / "snapshot").glob("*.safetensors"):
        shard.rename(tmp_path / "blobs" / shard.name)
        shard.symlink_to(Path("..", "blobs", shard.name))
    check_regions(tmp_path / "snapshot", LLAMA, held, 4)


def test_a_tensor_in_two_shards(tmp_path: Path) -> None:
    folder = sharded(tmp_path, lambda _: None)
    names = json.loads((folder / INDEX).read_text())["weight_map"]
    other = next(shard for shard in names.values() if shard != names["model.norm.weight"])
    save_file(load_file(folder / other) | {"model.norm.weight": torch.zeros(32)}, folder / other)
    text = refused(folder, LLAMA.weights)
    assert f"HX507 model.norm.weight in {other} and, by the index, in {names['model.norm.weight']}" in text


def test_a_tensor_twice_in_the_index(tmp_path: Path) -> None:
    folder = sharded(tmp_path, lambda _: None)
    text = (folder / INDEX).read_text()
    (folder / INDEX).write_text(text.replace('"weight_map": {', '"weight_map": {"model.norm.weight": "a",'))
    assert "cannot be read: 'model.norm.weight' stands there twice" in refused(folder, LLAMA.weights)


def test_an_adapter_beside_the_weights(tmp_path: Path) -> None:
    saved(LLAMA, tmp_path)
    (tmp_path / "adapter_config.json").write_text("{}")
    assert "the folder holds an adapter, adapter_config.json, and adapters are not read" in refused(
        tmp_path, LLAMA.weights
    )
    assert Checkpoint(str(tmp_path / "model.safetensors")).problems(LLAMA.weights) == []


def test_files_that_are_not_read_are_named(tmp_path: Path) -> None:
    """Of a folder with both, transformers reads model.safetensors."""
    held = saved(LLAMA, sharded(tmp_path, lambda _: None))
    save_file({"a": torch.zeros(1)}, tmp_path / "more.safetensors")
    check_regions(tmp_path, LLAMA, held, 4)
    checkpoint = Checkpoint(str(tmp_path))
    assert checkpoint.problems(LLAMA.weights) == []
    account = checkpoint.account(LLAMA.weights)
    assert account["files"] == ["model.safetensors"]
    assert INDEX in account["other_files"]
    assert "more.safetensors" in account["other_files"]
    assert account["left_out"] == {"tensors": 0, "nbytes": 0, "parts": {}}
