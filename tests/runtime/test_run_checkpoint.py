"""helixctl run on checkpoints: token ids in, and out come the logits of transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.cli.command import helixctl
from tests.runtime.families import FAMILIES, LLAMA, VOCABULARY, WORK, dag_for, saved

QUICK = ("--warmup", "1", "--iters", "2")


@pytest.mark.parametrize(
    ("name", "layout"),
    [
        ("llama with biases", {"groups": 2, "slices": 2, "slicing": "query"}),
        ("qwen2 tied", {"groups": 2, "slices": 1, "pipeline": 2}),
        ("qwen3", {"groups": 4, "slices": 1}),
        pytest.param(
            "mixtral",
            {"groups": 2, "slices": 2, "slicing": "batch", "experts": 2, "combine": "reduce"},
            marks=pytest.mark.sweep,
        ),
        pytest.param("qwen3_moe", {"groups": 2, "slices": 1}, marks=pytest.mark.sweep),
    ],
)
def test_logits_of_transformers(name: str, layout: dict[str, Any], tmp_path: Path) -> None:
    family, folder = FAMILIES[name], tmp_path / "checkpoint"
    saved(family, folder, max_shard_size="20KB")
    ids = torch.randint(VOCABULARY, (WORK.batch, WORK.seq_len), generator=torch.Generator().manual_seed(5))
    save_file({"input_ids": ids.int()}, tmp_path / "ids.safetensors")
    dag = dag_for(family, layout)
    (tmp_path / "x.dag.json").write_text(dag.to_json())
    files = ("--weights", folder, "--input", tmp_path / "ids.safetensors", "--output", tmp_path / "y.safetensors")
    done = helixctl("run", tmp_path / "x.dag.json", *QUICK, "--check", *files, "--report", tmp_path / "r.json")
    assert done.status == 0, done.err
    with torch.no_grad():
        logits = family.made().eval()(ids).logits
    found = load_file(tmp_path / "y.safetensors")["logits"].double()
    error = float((found - logits).norm() / logits.norm())
    assert error < 1e-4
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["weights"]["nbytes"] <= report["weights"]["read_nbytes"] < 2 * report["weights"]["nbytes"]


def test_a_wrong_checkpoint_is_refused_before_ranks_start(tmp_path: Path) -> None:
    saved(FAMILIES["qwen2"], tmp_path / "checkpoint")
    (tmp_path / "x.dag.json").write_text(dag_for(LLAMA, {"groups": 2, "slices": 1}).to_json())
    done = helixctl("run", tmp_path / "x.dag.json", *QUICK, "--weights", tmp_path / "checkpoint")
    assert done.status == 2
    assert f"{tmp_path / 'checkpoint'}: HX507 tensors that the model does not use: model.layers.0.self_attn" in done.err
