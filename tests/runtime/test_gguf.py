"""GGUF files: the model that their metadata says, the numbers of their blocks on every cut, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from helixctl.errors import HelixError
from helixctl.lower import lower
from helixctl.plan import Layout, Plan
from helixctl.spec.load import load_model
from helixctl_runtime.tensors.checkpoint import Checkpoint
from tests.cli.command import helixctl
from tests.runtime.gguf_files import SIZES, made, write
from tests.runtime.stored_model import holds_in_every_cut
from tests.runtime.test_transformers import WORK, cluster

pytest.importorskip("gguf")
CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("family", "kind"),
    [
        ("llama", "Q4_1"),
        ("llama", "Q4_K"),
        ("qwen3_moe", "Q8_0"),
        pytest.param("llama", "Q8_0", marks=pytest.mark.sweep),
        pytest.param("llama", "Q4_0", marks=pytest.mark.sweep),
        pytest.param("llama", "Q6_K", marks=pytest.mark.sweep),
        pytest.param("llama", "BF16", marks=pytest.mark.sweep),
        pytest.param("llama", "F16", marks=pytest.mark.sweep),
        pytest.param("qwen3", "Q4_K", marks=pytest.mark.sweep),
        pytest.param("qwen3_moe", "Q4_K", marks=pytest.mark.sweep),
    ],
)
def test_logits_of_every_cut(family: str, kind: str, tmp_path: Path) -> None:
    """Against float64 no cut is more than twice as far off as transformers' float32 logits of what the blocks mean."""
    theirs = made(family)
    write(theirs, tmp_path / "m.gguf", kind)
    (tmp_path / "dense").mkdir()
    dense = {n: x.contiguous() for n, x in theirs.state_dict().items()}
    save_file(dense, tmp_path / "dense" / "model.safetensors")
    document = load_model(str(tmp_path / "m.gguf"))
    assert (document.stored is None) is (kind in {"BF16", "F16"})
    model = document.model.model_copy(update={"stored": None, "dtype": "float32", "name": "m"})
    theirs.config.save_pretrained(tmp_path / "dense")
    config = load_model(str(tmp_path / "dense")).model
    assert model == config.model_copy(
        update={"name": "m", "dtype": "float32", "norm": config.norm.model_copy(update={"eps": model.norm.eps})}
    )
    assert model.norm.eps == pytest.approx(config.norm.eps, rel=1e-6)
    holds_in_every_cut(theirs, model, tmp_path / "m.gguf", tmp_path / "dense", SIZES["vocab_size"])


def test_a_run_reads_its_own_share(tmp_path: Path) -> None:
    """MODEL and the weights are one file."""
    theirs = made("llama", tie_word_embeddings=True)
    path = tmp_path / "m.gguf"
    write(theirs, path, "Q4_1")
    ids = torch.randint(3, SIZES["vocab_size"], (2, 5), generator=torch.Generator().manual_seed(5))
    save_file({"input_ids": ids}, tmp_path / "ids.safetensors")
    how = ("--batch", "2", "--seq-len", "5", "--logits", "all", "--layout", "groups=2,slices=1")
    cpus = ("plans/small/cpu16.cluster.yaml", "--set", "devices_per_host=2", "--set", "dtype=float32")
    planned = helixctl("plan", path, *cpus, *how, "-o", tmp_path / "p.json")
    assert planned.status == 0, planned.err
    assert "weights are quantised by GGUF (Q4_1)" in planned.out.decode()
    output = tmp_path / "y.safetensors"
    files = ("--weights", path, "--input", tmp_path / "ids.safetensors", "--output", output)
    done = helixctl(
        "run", tmp_path / "p.json", "--warmup", "1", "--iters", "2", "--check", *files, "--report", tmp_path / "r.json"
    )
    assert done.status == 0, done.err
    assert "as they are stored; this run has them in float32" in " ".join(done.err.split())
    with torch.no_grad():
        logits = theirs(ids).logits.double()
    found = load_file(output)["logits"].double()
    assert float((found - logits).norm() / logits.norm()) < 1e-4
    weights = json.loads((tmp_path / "r.json").read_text())["weights"]
    assert weights["nbytes"] == pytest.approx(path.stat().st_size, rel=0.05)
    # Norms are on both ranks, the rows of the embedding are cut.
    assert weights["nbytes"] <= weights["read_nbytes"] < 1.3 * weights["nbytes"]


def test_a_folder_is_not_the_file_in_it(tmp_path: Path) -> None:
    write(made("llama", num_hidden_layers=1), tmp_path / "m.gguf", "Q8_0")
    assert "m.gguf: valid model" in helixctl("validate", tmp_path / "m.gguf").out.decode()
    document = load_model(str(tmp_path / "m.gguf"))
    dag = lower(Plan.of(document.model, cluster(1), WORK, Layout(groups=1, slices=1)))
    (found,) = Checkpoint(str(tmp_path)).problems([t for t in dag.tensors if t.role == "weight"])
    assert found.hint == "give the GGUF file itself"


def test_factors_of_frequencies_are_read(tmp_path: Path) -> None:
    import gguf
    import numpy as np

    theirs = made("llama")
    write(theirs, tmp_path / "m.gguf", "Q8_0")
    reader = gguf.GGUFReader(tmp_path / "m.gguf")
    writer = gguf.GGUFWriter(tmp_path / "f.gguf", "llama")
    for key, field in reader.fields.items():
        if key.startswith("llama."):
            writer.add_key_value(key, field.contents(), field.types[0])
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.add_tensor("rope_freqs.weight", np.linspace(1, 8, 8, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    rotary = load_model(str(tmp_path / "f.gguf")).attention.rotary
    assert rotary is not None
    assert rotary.scaling is not None
    assert rotary.scaling.kind == "longrope"
    assert rotary.scaling.short_factors == rotary.scaling.long_factors == tuple(range(1, 9))
    assert rotary.scaling.attention_factor == 1.0


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        ({"rope.scaling.type": "yarn"}, "llama.rope.scaling.type 'yarn': not modelled of GGUF files"),
        ({"attention.sliding_window": 7}, "llama.attention.sliding_window 7: not modelled"),
        ({"rope.dimension_count": 8}, "llama.rope.dimension_count 8: not modelled"),
    ],
)
def test_metadata_that_is_not_modelled(metadata: dict[str, Any], said: str, tmp_path: Path) -> None:
    write(made("llama", num_hidden_layers=1), tmp_path / "m.gguf", "Q8_0", **metadata)
    assert said in refusal(tmp_path / "m.gguf")


def refusal(path: Path) -> str:
    with pytest.raises(HelixError) as caught:
        load_model(str(path))
    return "\n".join(map(str, caught.value.diagnostics))


def one_tensor(path: Path, architecture: str, kind: str, **numbers: int) -> None:
    import gguf
    import numpy as np

    writer = gguf.GGUFWriter(path, architecture)
    for name, number in numbers.items():
        writer.add_uint16(name.replace("_", "."), number)
    chosen = gguf.GGMLQuantizationType[kind]
    size, nbytes = gguf.GGML_QUANT_SIZES[chosen]
    writer.add_tensor("token_embd.weight", np.zeros((4, 256 // size * nbytes), np.uint8), raw_dtype=chosen)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_what_is_unknown_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    one_tensor(path, "mamba", "Q8_0")
    assert "HX111 general.architecture 'mamba': not modelled of GGUF files; modelled are llama, qwen2" in refusal(path)
    one_tensor(path, "llama", "IQ4_XS")
    assert "HX111 tensor token_embd.weight is IQ4_XS: not modelled; modelled are F32" in refusal(path)
    one_tensor(path, "llama", "Q8_0", split_count=3)
    assert "HX111 is one of 3 files of a model (split.count)" in refusal(path)
    one_tensor(path, "llama", "Q8_0")
    assert "HX104 lacks output_norm.weight: it holds no model" in refusal(path)
    path.write_bytes(path.read_bytes()[:100])
    assert "HX101 cannot be read as GGUF" in refusal(path)
    assert "HX101 cannot be read: no such file" in refusal(tmp_path / "nowhere.gguf")


def test_a_file_of_another_model_is_refused(tmp_path: Path) -> None:
    write(made("llama", num_hidden_layers=2), tmp_path / "two.gguf", "Q8_0")
    write(made("llama", num_hidden_layers=1), tmp_path / "one.gguf", "Q8_0")

    def problems(planned: str, weights: str) -> str:
        model = load_model(str(tmp_path / planned)).model
        dag = lower(Plan.of(model, cluster(1), WORK, Layout(groups=1, slices=1)))
        found = Checkpoint(str(tmp_path / weights)).problems([t for t in dag.tensors if t.role == "weight"])
        assert {item.code for item in found} == {"HX507"}
        return "\n".join(map(str, found))

    assert "does not use: model.layers.1.input_layernorm.weight" in problems("one.gguf", "two.gguf")
    assert "model.layers.1.input_layernorm.weight (l1.attention_norm [256]) is missing" in problems(
        "two.gguf", "one.gguf"
    )
