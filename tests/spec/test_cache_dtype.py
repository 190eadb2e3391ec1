"""A KV cache in fp8, for planning: its bytes in the proof of memory, and in what tasks read; no run has it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from helixctl.cost.memory import peak_nbytes, state_nbytes
from helixctl.cost.tasks import TaskCosts
from helixctl.dag import Dag
from helixctl.dag.retype import as_run, retyped
from helixctl.errors import HelixError
from helixctl.lower import lower
from helixctl.plan import Layout, Plan
from helixctl.spec.load import load_pair
from helixctl.verify import check_steps, verify
from tests.cli.command import helixctl
from tests.spec.test_quantised import LATENT, LLAMA

WORK = ("workload.batch=4", "workload.seq_len=24", "workload.output_len=8")
_OF_AN_INDEXER = ("index_topk", "index_n_heads", "index_head_dim")
EXPANDED = {key: its for key, its in LATENT.items() if key not in _OF_AN_INDEXER} | {"model_type": "deepseek_v3"}
IN_FP8 = (*WORK, "workload.cache_dtype=float8")


def steps(folder: Path, config: dict[str, Any], sets: tuple[str, ...], **axes: Any) -> tuple[Plan, list[Dag]]:
    (folder / "config.json").write_text(json.dumps(config))
    layout = Layout.model_validate({"groups": 2, "slices": 2, **axes})
    loaded = load_pair(str(folder), "h100:1x4", sets)
    plan = Plan.of(loaded.model.model, loaded.cluster, loaded.model.workload, layout)
    return plan, [lower(plan, step=step) for step in plan.steps]


@pytest.mark.parametrize(
    ("config", "axes"),
    [
        (LLAMA, {"slicing": "key", "key_block": 2}),
        (LLAMA, {"slicing": "batch"}),
        (EXPANDED, {"slicing": "key", "key_block": 2, "latent_prefill": "expanded"}),
        (LATENT, {"slicing": "key", "key_block": 2}),
    ],
    ids=["keys", "batch", "latents", "chosen keys"],
)
def test_half_the_cache(config: dict[str, Any], axes: dict[str, Any], tmp_path: Path) -> None:
    plain_plan, plain = steps(tmp_path, config, WORK, **axes)
    plan, dags = steps(tmp_path, config, IN_FP8, **axes)
    assert not list(check_steps(dags))
    assert as_run(plan) == plain_plan
    for dag, whole in zip(dags, plain, strict=True):
        assert not verify(dag)
        assert [2 * n for n in state_nbytes(dag)] == state_nbytes(whole)
        spared = zip(peak_nbytes(dag), peak_nbytes(whole), state_nbytes(dag), strict=True)
        assert all(before - less == state for less, before, state in spared)
        assert retyped(dag).tasks == whole.tasks
        assert retyped(dag).tensors == whole.tensors
        assert [task.flops for task in dag.tasks] == [task.flops for task in whole.tasks]
        for task, other in zip(dag.tasks, whole.tasks, strict=True):
            its = [dag.tensor[dag.value[value].tensor] for value in (*task.inputs, *task.outputs)]
            less = any(tensor.storage for tensor in its)
            assert (task.nbytes < other.nbytes) is less, task.id


def test_a_long_context_is_read_in_half_the_time(tmp_path: Path) -> None:
    long = ("workload.batch=64", "workload.seq_len=8192", "workload.output_len=8")
    config = LLAMA | {"max_position_embeddings": 16384, "num_attention_heads": 32, "num_key_value_heads": 8,
                      "hidden_size": 4096, "num_hidden_layers": 1}  # fmt: skip
    seconds = []
    for sets in (long, (*long, "workload.cache_dtype=float8")):
        _, dags = steps(tmp_path, config, sets, slicing="batch")
        costs = TaskCosts(dags[1])
        seconds.append(max(costs.seconds(task) for task in dags[1].tasks if task.kind == "cached_attention"))
    assert 1.7 < seconds[0] / seconds[1] < 2.1


def test_without_a_cache_it_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HelixError, match="cache_dtype is of a KV cache, and without output_len there is none"):
        steps(tmp_path, LLAMA, ("workload.cache_dtype=float8",))


@pytest.mark.parametrize(
    ("engine", "said"),
    [
        ("vllm", "--kv-cache-dtype fp8"),
        ("sglang", "--kv-cache-dtype fp8_e4m3"),
        ("tensorrt-llm", '"dtype": "fp8"'),
    ],
)
def test_engines_are_told(engine: str, said: str, tmp_path: Path) -> None:
    for sets, told in ((WORK, False), (IN_FP8, True)):
        plan, _ = steps(tmp_path, LLAMA, sets, slices=1, data=2)
        (tmp_path / "p.json").write_text(plan.to_json())
        done = helixctl("export", tmp_path / "p.json", "--to", engine)
        assert done.status == 0, done.err
        assert (said in done.out.decode()) is told
