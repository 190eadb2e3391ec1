"""What engines are told, the rules that they have, and the layout that is found where they refuse one."""

from __future__ import annotations

import shlex
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from helixctl.export.engine import Engine, specs_of
from helixctl.export.engines import ENGINES
from helixctl.export.nearest import nearest
from helixctl.plan import illegalities
from tests.documents import ROOT
from tests.export.commands import starts
from tests.export.plans import LLAMA, PLANS, case, plan_of

FLAGS = Path(__file__).parent / "flags"
CASES = [(name, target) for name, (_, _, targets) in PLANS.items() for target in targets]


def flags(target: str) -> set[str]:
    return set((FLAGS / f"{target}.txt").read_text().splitlines()[1:])


@pytest.mark.parametrize(("name", "target"), CASES)
def test_flags_are_the_engines_own(name: str, target: str, tmp_path: Path) -> None:
    plan, engine = case(name), ENGINES[target]
    assert not illegalities(plan.layout, plan.model, plan.workload, plan.cluster.devices)
    assert engine.unmet(plan.layout, specs_of(plan)) == ()
    hosts = {f"HOST_{host}": f"host-{host}" for host in range(plan.cluster.hosts)}
    known = flags(target) | {"-m"}
    for host in range(plan.cluster.hosts):
        text = engine.write(plan, "a model")
        for program, *words in starts(text, tmp_path, NODE_RANK=str(host), MASTER_ADDR="h", **hosts):
            begin = 0
            if program.startswith("srun"):
                begin = words.index("trtllm-serve")
            elif program.startswith("torchrun"):
                begin = words.index("pretrain_gpt.py" if target == "megatron" else "--module")
            assert "a model" in words or program.startswith("torchrun")
            used = {word for word in words[begin:] if word.startswith("-")}
            assert used
            assert used <= known


@pytest.mark.parametrize("target", ENGINES)
def test_experts_that_replicas_share_are_refused_by_name(target: str) -> None:
    shared: dict[str, Any] = {"groups": 2, "data": 4, "expert_data": 4, "experts": 8}
    plan = plan_of("Mixtral-8x7B-v0.1", "h100:1x8", **shared)
    assert not illegalities(plan.layout, plan.model, plan.workload, plan.cluster.devices)
    unmet = ENGINES[target].unmet(plan.layout, specs_of(plan))
    assert [reason for reason in unmet if "expert_data" in reason or "each cut over all" in reason] == [
        "all experts in each replica: in the plan 4 replicas share them (expert_data)"
    ]


@pytest.mark.parametrize("target", ["vllm", "torchtitan"])
def test_how_experts_are_cut_is_said_of_all_devices_that_share_them(target: str) -> None:
    shared: dict[str, Any] = {"groups": 2, "data": 4, "expert_data": 4, "experts": 4}
    plan = plan_of("Mixtral-8x7B-v0.1", "h100:1x8", **shared)
    unmet = ENGINES[target].unmet(plan.layout, specs_of(plan))
    assert "experts spread over all ranks of a tensor-parallel group, or each cut over all: 4 x 2" in unmet


@pytest.mark.parametrize("target", ENGINES)
def test_engines_say_where_flags_and_rules_are_from(target: str) -> None:
    engine = ENGINES[target]
    assert engine.version
    assert engine.flags
    assert all("/" in rule.source for rule in engine.rules)


def test_the_page_lists_the_rules_with_their_sources() -> None:
    page = (ROOT / "docs/export.md").read_text(encoding="utf-8")
    lines = [line for line in page.partition("<!-- rules -->")[2].partition("<!-- / -->")[0].splitlines() if line]
    due = []
    for engine in ENGINES.values():
        due += [f"**{engine.name}** ({engine.version}):", *(f"- {r.needs} (`{r.source}`)" for r in engine.rules)]
    assert lines == due


def test_sizes_of_a_layout_reach_the_engine() -> None:
    words = " ".join(ENGINES["vllm"].write(case("mla-slices"), "m").split())
    for option in ("--tensor-parallel-size 16", "--decode-context-parallel-size 2", "--cp-kv-cache-interleave-size 16",
                   "--enable-expert-parallel", "--max-num-seqs 16", "--max-model-len 1152", "--nnodes 2"):  # fmt: skip
        assert option in words
    words = " ".join(ENGINES["tensorrt-llm"].write(case("helix"), "m").split())
    for option in ("--tp_size 8", "--cp_size 2", "--ep_size 16", '"cp_type": "HELIX"', "srun --nodes 2 --ntasks 16"):
        assert option in words
    words = " ".join(ENGINES["sglang"].write(case("stages"), "m").split())
    assert "export SGLANG_PP_LAYER_PARTITION=9,8,8,7" in words
    assert "--pp-size 4" in words
    words = " ".join(ENGINES["megatron"].write(case("mixture"), "m").split())
    for option in ("--expert-model-parallel-size 4", "--expert-tensor-parallel-size 2", "--sequence-parallel",
                   "--num-experts 8", "--micro-batch-size 16"):  # fmt: skip
        assert option in words
    assert "--pipeline-model-parallel-layout Et*9|t*8|t*8|t*7L" in shlex.join(
        shlex.split(ENGINES["megatron"].write(case("stages"), "m"), comments=True)
    ).replace("'", "")
    set_by = {name: ENGINES["megatron"].write(case(name), "m") for name in ("tp", "pp")}
    assert all("\nexport CUDA_DEVICE_MAX_CONNECTIONS=1\n" in text for text in set_by.values())
    alone = plan_of(*LLAMA, groups=1, data=8)
    blackwell = plan_of("Llama-3.1-8B", "b200:1x8", groups=8)
    assert all("CUDA_DEVICE" not in ENGINES["megatron"].write(plan, "m") for plan in (alone, blackwell))
    words = " ".join(ENGINES["torchtitan"].write(case("pp"), "m").split())
    for option in ("--config llama3_8b", "--parallelism.pipeline_parallel_degree 2",
                   "--parallelism.pipeline_parallel_microbatch_size 8", "--training.local_batch_size 16"):  # fmt: skip
        assert option in words
    graphs = {name: ENGINES["torchtitan"].write(case(name), "m") for name in ("tp", "pp", "experts-trained")}
    assert [name for name, text in graphs.items() if "--training.disable_cuda_graphs" in text] == [
        "pp",
        "experts-trained",
    ]


@pytest.mark.parametrize(
    ("target", "said", "else_said"),
    [
        ("vllm", "--kv-cache-dtype fp8 ", "--kv-cache-dtype auto "),
        ("sglang", "--kv-cache-dtype fp8_e4m3 ", "--kv-cache-dtype auto "),
        ("tensorrt-llm", '"kv_cache_config": { "dtype": "fp8" }', "--tp_size 8"),
    ],
)
def test_the_dtype_of_the_cache(target: str, said: str, else_said: str) -> None:
    for cache_dtype, text in (("float8", said), (None, else_said)):
        sets = (f"workload.cache_dtype={cache_dtype}",) if cache_dtype else ()
        plan = plan_of(*LLAMA, sets=sets, groups=8)
        assert text in " ".join(ENGINES[target].write(plan, "m").replace("\\\n", " ").split())


def test_each_host_starts_its_part_of_the_replicas(tmp_path: Path) -> None:
    """Replicas over two hosts each: number of the host, address of the replica's first, devices."""
    plan = case("replicas")
    text = ENGINES["vllm"].write(plan, "m")
    for host in range(4):
        (words,) = starts(text, tmp_path, NODE_RANK=str(host), HOST_0="a", HOST_1="b")
        replica, node = host % 2, host // 2  # stages are the outermost axis
        assert words[0] == "vllm CUDA=0,1,2,3,4,5,6,7"
        said = dict(pairwise(words))
        assert (said["--node-rank"], said["--master-addr"]) == (str(node), "ab"[replica])
        assert said["--master-port"] == str(29500 + replica)
        assert ("--headless" in words) == (node > 0)


def test_replicas_of_a_host_have_devices_and_ports_of_their_own(tmp_path: Path) -> None:
    text = ENGINES["sglang"].write(case("half-hosts"), "m")
    first, second = starts(text, tmp_path, NODE_RANK="1")
    assert (first[0], second[0]) == ("python CUDA=0,1,2,3", "python CUDA=4,5,6,7")
    assert (first[first.index("--port") + 1], second[second.index("--port") + 1]) == ("30000", "30001")
    assert "--nnodes" not in first


QWEN = ("Qwen2.5-7B", "h100:1x8")
MIXTRAL = ("Mixtral-8x7B-v0.1", "h100:1x8")
UNMET: list[tuple[str, tuple[str, str], dict[str, Any], str]] = [
    ("vllm", QWEN, {"groups": 4, "slices": 2, "slicing": "key"}, "the heads divided evenly: 28 on 8"),
    ("vllm", ("Llama-3.1-8B", "h100:1x3"), {"groups": 1, "data": 3}, ""),
    ("vllm", LLAMA, {"groups": 4, "slices": 2, "slicing": "batch"}, "the plan slices by batch"),
    ("vllm", LLAMA, {"groups": 4, "slices": 2, "slicing": "key"}, "at most 8 // 8 KV heads"),
    ("sglang", LLAMA, {"groups": 4, "slices": 2, "slicing": "key"}, "a latent cache (MLA)"),
    ("vllm", MIXTRAL, {"groups": 8, "experts": 4}, "each cut over all: 4 x 2"),
    ("tensorrt-llm", ("DeepSeek-V3", "h200:2x8"), {"groups": 8, "slices": 2, "slicing": "key"}, "a Blackwell GPU"),
    ("sglang", MIXTRAL, {"groups": 8, "experts": 4}, ""),
    ("torchtitan", ("Qwen2.5-7B", "h100:1x7"), {"groups": 7}, "the KV heads divided: 4 on 7"),
    ("megatron", ("Qwen2.5-7B", "h100:1x7"), {"groups": 7}, "the KV heads divided evenly, or each held equally often"),
    ("megatron", LLAMA, {"groups": 4, "slices": 2, "slicing": "batch"}, "attention cut by heads alone"),
    ("megatron", MIXTRAL, {"groups": 8}, "sequence parallelism (residual sharded)"),
    ("megatron", ("DeepSeek-V3", "h200:2x8"), {"groups": 16}, "is not among them"),
    ("torchtitan", LLAMA, {"groups": 2, "pipeline": 4, "stages": "9-8-8-7"}, "stages as even as can be"),
    ("megatron", LLAMA, {"groups": 2, "data": 4, "batch": 18}, "a batch of 18 in 4"),
    *[
        (name, LLAMA, {"groups": 4, "data": 2, "group_shares": "3-3-1-1"}, "equal shares of the ranks of a tensor-par")
        for name in ("vllm", "sglang", "tensorrt-llm", "megatron", "torchtitan")
    ],
    ("vllm", LLAMA, {"groups": 4, "pipeline": 2, "placement": "pipeline-groups-slices-data"}, "the placement groups-"),
]  # fmt: skip


@pytest.mark.parametrize(("target", "specs", "axes", "text"), UNMET)
def test_what_an_engine_needs(target: str, specs: tuple[str, str], axes: dict[str, Any], text: str) -> None:
    plan = plan_of(*specs, **axes)
    found = "; ".join(ENGINES[target].unmet(plan.layout, specs_of(plan)))
    assert text in found
    assert bool(found) == bool(text)


@pytest.mark.parametrize("target", ["vllm", "torchtitan"])
def test_the_nearest_is_found_under_the_rules(target: str) -> None:
    engine: Engine = ENGINES[target]
    plan = plan_of(*QWEN, groups=4, slices=2, slicing="key")
    found = nearest(engine, plan, "throughput")
    assert found is not None
    layout = found.plan.layout
    assert engine.unmet(layout, specs_of(plan)) == ()
    assert engine.as_run(layout) == layout
    assert layout.devices == plan.layout.devices
    assert " x " in found.beside or "%" in found.beside
    assert found.plan.model == plan.model


def test_nothing_is_found_where_no_layout_will_do() -> None:
    plan = plan_of("Llama-3.1-8B", "h100:1x2", sets=("attention.soft_cap=30.0",), groups=2)
    assert "attention.soft_cap" in ENGINES["megatron"].unmet(plan.layout, specs_of(plan))[0]
    assert nearest(ENGINES["megatron"], plan, "throughput") is None


def test_what_an_engine_decides_itself() -> None:
    plan = plan_of(*LLAMA, groups=8, combine="concat", residual="sharded")
    run = ENGINES["vllm"].as_run(plan.layout)
    assert (run.combine, run.residual) == ("reduce", "replicated")
    alone = plan_of(*LLAMA, groups=1, data=8, combine="concat")
    assert ENGINES["vllm"].as_run(alone.layout) == alone.layout
