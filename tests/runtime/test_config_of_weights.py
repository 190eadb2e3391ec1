"""The config.json beside the weights is compared with the plan, because equal shapes may be another function."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from helixctl.cli.config_of_weights import check_config
from helixctl.errors import HelixError
from helixctl.plan import Layout, Plan
from helixctl.spec.load import load_cluster, load_model
from helixctl_runtime.ranks.launchers.slurm import expand_hosts
from tests.cli.command import helixctl
from tests.documents import ROOT, SMALL

CONFIG = ROOT / "plans/models/Llama-3.1-8B/config.json"


def plan() -> Plan:
    model = load_model(str(CONFIG))
    return Plan.of(model.model, load_cluster(SMALL[1]), model.workload, Layout(groups=8, slices=1))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copy(CONFIG, tmp_path / "config.json")
    return tmp_path


def changed(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize("given", ["", "model.safetensors"])
@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"rope_theta": 10000.0}, "attention.rotary.theta 10000.0, planned 500000.0"),
        ({"num_attention_heads": 64, "num_key_value_heads": 16, "head_dim": 64}, "attention.heads 64, planned 32"),
        ({"hidden_act": "gelu"}, "feed_forward.activation gelu, planned silu"),
        ({"rms_norm_eps": 1e-3}, "norm.eps 0.001, planned 1e-05"),
        ({"rope_scaling": None}, "attention.rotary.scaling"),
    ],
)
def test_another_function_is_refused(folder: Path, given: str, changes: dict[str, Any], field: str) -> None:
    changed(folder, **changes)
    with pytest.raises(HelixError) as caught:
        check_config(str(folder / given), [plan()], as_planned=False)
    assert field in str(caught.value)
    assert "--as-planned" in str(caught.value)
    check_config(str(folder / given), [plan()], as_planned=True)


def test_what_changes_no_function_is_passed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check_config(None, [plan()], as_planned=False)
    changed(folder, torch_dtype="float32", max_position_embeddings=64, tie_word_embeddings=True)
    check_config(str(folder), [plan()], as_planned=False)
    assert capsys.readouterr().err == ""
    changed(folder, model_type="gpt_oss")
    check_config(str(folder), [plan()], as_planned=False)
    assert "is not compared with the plan" in capsys.readouterr().err
    (folder / "config.json").unlink()
    check_config(str(folder), [plan()], as_planned=False)


@pytest.mark.parametrize("option", ["--weights", "--input"])
def test_an_empty_path_is_no_folder(option: str) -> None:
    done = helixctl("run", "plans/small/dense.4x4.plan.json", option, "")
    assert done.status == 2
    assert "an empty path" in done.err


@pytest.mark.parametrize("text", ["a[2-1]", ",", "a[-1]", "a[1,,3]"])
def test_what_is_no_node_list(text: str) -> None:
    with pytest.raises(HelixError, match=r"HX509 .* is not a SLURM node list"):
        expand_hosts(text)
