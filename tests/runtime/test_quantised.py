"""Quantised checkpoints: every cut gives the logits of the reference dequantisation, and a rank reads its own share."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from helixctl.dag.retype import dequantised
from helixctl.errors import HelixError
from helixctl.lower import lower
from helixctl.plan import Layout, Plan
from helixctl.spec.load import load_model
from helixctl.verify import verify
from helixctl_runtime.tensors.checkpoint import Checkpoint
from helixctl_runtime.tensors.tensor_source import TensorSource
from tests.cli.command import helixctl
from tests.runtime.quantised import FORMATS, Format, fp8_blocks, quantise, quantise_experts, say
from tests.runtime.small_families import VOCABULARY, written
from tests.runtime.stored_model import holds_in_every_cut
from tests.runtime.test_transformers import WORK, cluster, cuts

CPU = torch.device("cpu")
# Groups of 32 inputs, which neither 3 nor 4 ranks cut between groups.
SIZES = {"hidden_size": 96, "intermediate_size": 160, "head_dim": 16, "num_hidden_layers": 2}
DENSE, EXPERTS = "mistral with a window", "gpt_oss"
_ALWAYS = ("fp8", "gptq, second format, by activations", "awq", "packed with zero points", "mxfp4")
NAMES = (*FORMATS, "mxfp4")


def checkpoint(name: str, folder: Path) -> tuple[Any, dict[str, torch.Tensor]]:
    """A quantised checkpoint; transformers' model with the numbers that it means, and these."""
    if name == "mxfp4":
        model = written(EXPERTS, folder, SIZES | {"intermediate_size": 64})
        meant = quantise_experts(folder)
    else:
        model = written(DENSE, folder, SIZES)
        meant = quantise(folder, FORMATS[name])
    lost = model.load_state_dict(meant, strict=False)
    assert not lost.unexpected_keys
    return model, meant


@pytest.mark.parametrize("name", _ALWAYS)
def test_logits_of_some_cuts(name: str, tmp_path: Path) -> None:
    """Every third of them, beginning with another in each format."""
    no_cut_is_far_off(name, tmp_path, slice(_ALWAYS.index(name) % 3, None, 3))


@pytest.mark.sweep
@pytest.mark.parametrize("name", NAMES)
def test_logits_of_every_cut(name: str, tmp_path: Path) -> None:
    no_cut_is_far_off(name, tmp_path, slice(None))


def no_cut_is_far_off(name: str, tmp_path: Path, cut: slice) -> None:
    """Against float64 no cut is more than twice as far off as transformers' float32 logits of what is meant."""
    theirs, meant = checkpoint(name, tmp_path / "quantised")
    (tmp_path / "dense").mkdir()
    dense = {n: x.contiguous() for n, x in theirs.state_dict().items()}
    save_file(dense, tmp_path / "dense" / "model.safetensors")
    document = load_model(str(tmp_path / "quantised"))
    assert document.stored
    model = document.model.model_copy(update={"stored": None})
    holds_in_every_cut(theirs, model, tmp_path / "quantised", tmp_path / "dense", VOCABULARY, cut)
    assert meant


@pytest.mark.sweep
@pytest.mark.parametrize("family", ["deepseek_v3", "qwen3_moe with dense layers", "phi3"])
def test_regions_of_other_families(family: str, tmp_path: Path) -> None:
    """In two shards: weights that share a stored matrix, in rows or in every head, and a matrix for each expert."""
    folder, dense = tmp_path / "quantised", tmp_path / "dense"
    written(family, folder)
    held = load_file(folder / "model.safetensors")
    meant = quantise(folder, Format({"quant_method": "fp8", "weight_block_size": [16, 24]}, fp8_blocks(16, 24)))
    dense.mkdir()
    save_file(held | meant, dense / "model.safetensors")
    stored = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    files = {name: f"model-0000{1 + (number % 2)}-of-00002.safetensors" for number, name in enumerate(sorted(stored))}
    for file in sorted(set(files.values())):
        save_file({name: stored[name] for name, its in files.items() if its == file}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": files}))
    model = dequantised(load_model(str(folder)).model)
    one, other = (TensorSource(0, str(path), None) for path in (folder, dense))
    for layout in (layout for devices in (1, 2, 3, 4) for layout in cuts(devices, model)):
        dag = lower(Plan.of(model, cluster(layout.devices), WORK, layout))
        one.check(dag)
        for value in dag.values:
            tensor = dag.tensor[value.tensor]
            if tensor.role == "weight":
                found, due = (its.region(tensor, value.region, torch.float32, CPU) for its in (one, other))
                assert torch.equal(found, due), value.id


@pytest.mark.parametrize("name", ["fp8", "gptq", pytest.param("mxfp4", marks=pytest.mark.sweep)])
def test_a_run_reads_its_own_share(name: str, tmp_path: Path) -> None:
    """A plan of stored weights runs: what is held is the dtype's, what is read is stored, by each rank its share."""
    theirs, _ = checkpoint(name, tmp_path / "c")
    ids = torch.randint(3, VOCABULARY, (2, 5), generator=torch.Generator().manual_seed(5))
    save_file({"input_ids": ids}, tmp_path / "ids.safetensors")
    how = ("--batch", "2", "--seq-len", "5", "--logits", "all", "--layout", "groups=2,slices=1,combine=reduce")
    cpus = ("plans/small/cpu16.cluster.yaml", "--set", "devices_per_host=2", "--set", "dtype=float32")
    planned = helixctl("plan", tmp_path / "c", *cpus, *how, "-o", tmp_path / "p.json")
    assert planned.status == 0, planned.err
    assert "helixctl run dequantises weights to float32 on loading" in planned.out.decode()
    made = tmp_path / "y.safetensors"
    files = ("--weights", tmp_path / "c", "--input", tmp_path / "ids.safetensors", "--output", made)
    done = helixctl(
        "run", tmp_path / "p.json", "--warmup", "1", "--iters", "2", "--check", *files, "--report", tmp_path / "r.json"
    )
    assert done.status == 0, done.err
    with torch.no_grad():
        logits = theirs(ids).logits.double()
    found = load_file(made)["logits"].double()
    assert float((found - logits).norm() / logits.norm()) < 1e-4
    report = json.loads((tmp_path / "r.json").read_text())
    stored = sum(x.nbytes for x in load_file(tmp_path / "c" / "model.safetensors").values())
    assert report["weights"]["nbytes"] == pytest.approx(stored, rel=0.01)
    # Norms and the embedding's rows are on both ranks; gate and up of gpt-oss's experts stand in turn.
    assert report["weights"]["read_nbytes"] < (1.6 if name == "mxfp4" else 1.25) * stored
    assert report["memory"]["allocated_nbytes"] <= report["memory"]["proved_nbytes"]


def messages(folder: Path) -> str:
    document = load_model(str(folder)).model.model_copy(update={"stored": None})
    dag = lower(Plan.of(document, cluster(1), WORK, Layout(groups=1, slices=1)))
    assert not verify(dag)
    found = Checkpoint(str(folder)).problems([tensor for tensor in dag.tensors if tensor.role == "weight"])
    assert {item.code for item in found} == {"HX507"}
    return "\n".join(map(str, found))


Change = Callable[[dict[str, torch.Tensor]], object]
PROJECTION = "model.layers.1.self_attn.q_proj"


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("fp8", lambda h: h.pop(f"{PROJECTION}.weight_scale_inv"), f"{PROJECTION}.weight_scale_inv is missing"),
        (
            "fp8",
            lambda h: h.update({f"{PROJECTION}.weight_scale_inv": torch.ones(1, 2)}),
            f"tensor {PROJECTION}.weight_scale_inv has shape [1, 2]; it must be [3, 4] (float8 with scales for blocks",
        ),
        (
            "fp8",
            lambda h: h.update({f"{PROJECTION}.weight_scale": torch.ones(1)}),
            f"is stored as fp8 says, and beside it is {PROJECTION}.weight_scale",
        ),
        ("fp8", lambda h: h.pop(f"{PROJECTION}.weight"), f"{PROJECTION}.weight is missing, its numbers as fp8"),
        ("gptq", lambda h: h.pop(f"{PROJECTION}.scales"), f"{PROJECTION}.scales is missing"),
        (
            "gptq",
            lambda h: h.update({f"{PROJECTION}.qzeros": h[f"{PROJECTION}.qzeros"][:2].clone()}),
            f"tensor {PROJECTION}.qzeros has shape [2, 12]; it must be [3, 12]",
        ),
        (
            "awq",
            lambda h: h.update({f"{PROJECTION}.g_idx": torch.zeros(96, dtype=torch.int32)}),
            f"is stored as awq says, and beside it is {PROJECTION}.g_idx",
        ),
        (
            "packed",
            lambda h: h.update({f"{PROJECTION}.weight_zero_point": torch.zeros(12, 3, dtype=torch.int32)}),
            f"tensor {PROJECTION}.weight_zero_point is there, and the config says otherwise",
        ),
        ("nvfp4", lambda h: h.pop(f"{PROJECTION}.weight_scale_2"), f"{PROJECTION}.weight_scale_2 is missing"),
        (
            "packed nvfp4",
            lambda h: h.update({f"{PROJECTION}.weight_scale": h[f"{PROJECTION}.weight_scale"].float()}),
            f"tensor {PROJECTION}.weight_scale is F32; it must be one of F8_E4M3",
        ),
        (
            "packed",
            lambda h: h.update({f"{PROJECTION}.weight_g_idx": torch.zeros(96, dtype=torch.int32)}),
            "groups in an order of activations are not read",
        ),
    ],
)
def test_what_does_not_fit_is_refused_by_name(name: str, change: Change, said: str, tmp_path: Path) -> None:
    checkpoint(name, tmp_path)
    held = load_file(tmp_path / "model.safetensors")
    change(held)
    save_file(held, tmp_path / "model.safetensors")
    assert said in messages(tmp_path)


@pytest.mark.parametrize(
    ("name", "config", "said"),
    [
        ("fp8", {"weight_block_size": [24, 40]}, "weight_scale_inv has shape"),
        ("fp8", {"modules_to_not_convert": ["q_proj"]}, f"and the config leaves {PROJECTION} as it is"),
        ("gptq", {"group_size": 48}, ".scales has shape [3, 96]; it must be [2, 96]"),
        ("gptq", {"bits": 8}, "has shape"),
        ("gptq", {"bits": 3}, "weights quantised with bits 3: not modelled"),
    ],
)
def test_another_block_than_the_config_says(name: str, config: dict[str, Any], said: str, tmp_path: Path) -> None:
    checkpoint(name, tmp_path)
    document = load_model(str(tmp_path)).model.model_copy(update={"stored": None})
    say(tmp_path, FORMATS[name].config | config)
    dag = lower(Plan.of(document, cluster(1), WORK, Layout(groups=1, slices=1)))
    found = Checkpoint(str(tmp_path)).problems([tensor for tensor in dag.tensors if tensor.role == "weight"])
    assert said in "\n".join(map(str, found))


def test_scales_that_are_no_numbers(tmp_path: Path) -> None:
    checkpoint("fp8", tmp_path)
    held = load_file(tmp_path / "model.safetensors")
    held[f"{PROJECTION}.weight_scale_inv"][0, 0] = torch.nan
    save_file(held, tmp_path / "model.safetensors")
    document = load_model(str(tmp_path)).model.model_copy(update={"stored": None})
    dag = lower(Plan.of(document, cluster(1), WORK, Layout(groups=1, slices=1)))
    tensor = dag.tensor["l1.w_q"]
    with pytest.raises(HelixError, match="scales that are not finite"):
        Checkpoint(str(tmp_path)).read(tensor, tensor.full, torch.float32, CPU)
