"""Several models in one checkpoint: the one that fits the plan, the one that is asked for, or none."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from helixctl_runtime.tensors.checkpoint import Checkpoint
from tests.cli.command import helixctl
from tests.runtime.families import (
    LLAMA,
    TIED,
    VOCABULARY,
    WORK,
    Family,
    Weights,
    check_regions,
    dag_for,
    expected,
    saved,
)
from tests.runtime.test_heads import said, written


def under(prefix: str, held: Weights, scale: float = 1.0) -> Weights:
    """A model with its head as a part of a larger checkpoint."""
    return {prefix + name: x * scale for name, x in held.items()}


@pytest.fixture
def held(tmp_path: Path) -> Weights:
    return saved(LLAMA, tmp_path / "plain")


def stored(folder: Path, *parts: Weights) -> Path:
    return written(folder, {name: x for part in parts for name, x in part.items()})


def check_asked(path: Path, prefix: str, held: Weights, family: Family = LLAMA) -> None:
    """With this prefix the numbers read are those held."""
    checkpoint = Checkpoint(str(path), prefix)
    assert checkpoint.problems(family.weights) == []
    for tensor in family.weights:
        found = checkpoint.read(tensor, tensor.full, torch.float32, torch.device("cpu"))
        assert torch.equal(found, expected(tensor, held)), tensor.name


@pytest.mark.parametrize(
    ("first", "second"),
    [("thinker.", "talker."), ("", "ema."), ("a.", "a.b."), ("x.y.", "z."), ("model.", "draft.")],
)
def test_two_models_of_the_shape_of_the_plan(first: str, second: str, held: Weights, tmp_path: Path) -> None:
    stored(tmp_path, under(first, held), under(second, held, 2.0))
    text = said(tmp_path, LLAMA)
    assert "HX507 2 models of the plan's shape: with the prefixes " in text
    for prefix, scale in ((f"{first}model.", 1.0), (f"{second}model.", 2.0)):
        assert repr(prefix) in text
        check_asked(tmp_path, prefix, under("", held, scale))
        check_asked(tmp_path, prefix.removesuffix("."), under("", held, scale))
    assert "hint: choose one: --weights-prefix " in text


def test_three_models(held: Weights, tmp_path: Path) -> None:
    stored(tmp_path, under("", held), under("a.", held, 2.0), under("b.", held, 3.0))
    assert "3 models of the plan's shape: with the prefixes 'model.', 'a.model.', 'b.model.'" in said(tmp_path, LLAMA)
    check_asked(tmp_path, "b.model.", under("", held, 3.0))


def test_the_shape_decides(held: Weights, tmp_path: Path) -> None:
    """A model of other layers beside it is not meant, and is counted as left out."""
    other = saved(TIED, tmp_path / "other")
    fewer = {n: x for n, x in held.items() if ".layers.1." not in n}
    for beside in ({n: x[..., :8] for n, x in other.items()}, fewer):
        stored(tmp_path, under("a.", beside), under("thinker.", held))
        check_regions(tmp_path, LLAMA, held, 4)
        checkpoint = Checkpoint(str(tmp_path))
        checkpoint.problems(LLAMA.weights)
        account = checkpoint.account(LLAMA.weights)
        assert (account["prefix"], account["tensors"]) == ("thinker.model.", len(held))
        assert account["left_out"]["parts"] == {"a": len(beside)}
        assert account["left_out"]["nbytes"] == sum(x.nbytes for x in beside.values())


def test_none_fits(held: Weights, tmp_path: Path) -> None:
    stored(
        tmp_path,
        under("a.", {n: x[..., :8] for n, x in held.items()}),
        under("b.", {n: x[..., :9] for n, x in held.items()}),
    )
    text = said(tmp_path, LLAMA)
    assert "tensor a.model.embed_tokens.weight has shape [97, 8], the model [97, 32]" in text
    assert "looked for after the prefix 'a.model.'; --weights-prefix takes another: 'b.model.'" in text


def test_a_draft_beside_the_model(held: Weights, tmp_path: Path) -> None:
    """Tensors beside a model at the root are refused by name until the user names the prefix to read."""
    draft = {"mtp.layers.0.input_layernorm.weight": torch.ones(32), "mtp.fc.weight": torch.ones(32, 64)}
    stored(tmp_path, held, draft, {"v_head.summary.weight": torch.ones(1, 32)})
    text = said(tmp_path, LLAMA)
    assert "does not use: v_head.summary.weight" in text  # layers that predict further tokens are left out
    assert "--weights-prefix 'model.' reads the model alone" in text
    check_asked(tmp_path, "model.", held)


def test_a_head_is_not_dropped_where_a_prefix_is_asked_for(held: Weights, tmp_path: Path) -> None:
    stored(tmp_path, held, {"mtp.fc.weight": torch.ones(32, 64)})
    assert "tensor lm_head.weight is not model.embed_tokens.weight" in said(tmp_path, TIED, "model.")


def test_prefixes_that_are_not_there(held: Weights, tmp_path: Path) -> None:
    stored(tmp_path, under("a.", held))
    text = said(tmp_path, LLAMA, "b.model")
    assert "HX507 no model has the prefix 'b.model.'\n  hint: --weights-prefix: there are 'a.model.'" in text
    save_file({"l0.attention_norm": torch.ones(3)}, tmp_path / "model.safetensors")
    assert "no model has the prefix ''" in said(tmp_path, LLAMA, "")


def test_own_names_beside_those_of_transformers(held: Weights, tmp_path: Path) -> None:
    own = {tensor.name: expected(tensor, held).contiguous() for tensor in LLAMA.weights}
    stored(tmp_path, held, own)
    text = said(tmp_path, LLAMA)
    assert "2 models of the plan's shape: with the prefixes 'model.' and weights under helixctl's own names" in text
    check_asked(tmp_path, "model.", held)


def test_run_reads_the_model_that_is_asked_for_and_says_so(held: Weights, tmp_path: Path) -> None:
    """Beside the logits of transformers."""
    second = saved(replace(LLAMA, config={"attention_dropout": 0.0}), tmp_path / "second")
    second = {name: x.flip(0) for name, x in second.items()}
    stored(tmp_path, under("talker.", held), under("thinker.", second), {"vision.weight": torch.ones(5)})
    ids = torch.randint(VOCABULARY, (WORK.batch, WORK.seq_len), generator=torch.Generator().manual_seed(5))
    save_file({"input_ids": ids}, tmp_path / "ids.safetensors")
    (tmp_path / "x.dag.json").write_text(dag_for(LLAMA, {"groups": 2, "slices": 1}).to_json())
    quick = ("run", tmp_path / "x.dag.json", "--warmup", "1", "--iters", "2", "--weights", tmp_path)
    files = (
        "--input",
        tmp_path / "ids.safetensors",
        "--output",
        tmp_path / "y.safetensors",
        "--report",
        tmp_path / "r",
    )
    refused = helixctl(*quick)
    assert (refused.status, "'talker.model.', 'thinker.model.'" in refused.err) == (2, True)
    done = helixctl(*quick, *files, "--check", "--weights-prefix", "thinker.model.")
    assert done.status == 0, done.err
    model = LLAMA.made()
    model.load_state_dict(second)
    with torch.no_grad():
        logits = model.eval()(ids).logits
    found = load_file(tmp_path / "y.safetensors")["logits"]
    assert float((found - logits).norm() / logits.norm()) < 1e-5
    said = done.out.decode() + done.err
    assert "weights: 21 tensors with the prefix 'thinker.model.' in model.safetensors" in said
    assert "weights: not read: 22 tensors, " in said
    assert "talker (21), vision (1)" in said
    weights = json.loads((tmp_path / "r").read_text())["weights"]
    assert (weights["prefix"], weights["left_out"]["parts"]) == ("thinker.model.", {"talker": 21, "vision": 1})


def test_the_option_is_of_the_weights(tmp_path: Path) -> None:
    done = helixctl("run", "plans/small/dense.4x4.plan.json", "--weights-prefix", "a.")
    assert (done.status, "--weights-prefix is of the files that --weights names" in done.err) == (2, True)
