"""Words of other programs on the command line, and ours for them."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Final

# Option of ours -> those that vLLM, SGLang, TensorRT-LLM, torchrun and Megatron-LM have for it.
_OPTIONS: Final = {
    "--layout tp=N: the product of head groups and slices": """
        tp tp-size tensor-parallel tensor-parallel-size tensor-model-parallel-size attn-tp-size
    """,
    "--layout pp=N": "pp pp-size pipeline-parallel pipeline-parallel-size pipeline-model-parallel-size pipeline stages",
    "--layout dp=N": "dp dp-size data-parallel data-parallel-size replicas data",
    "--layout ep=N": """
        ep ep-size expert-parallel expert-parallel-size expert-model-parallel-size enable-expert-parallel experts
        moe-ep-size
    """,
    "--layout microbatches=N": "microbatches micro-batches num-microbatches",
    "--layout slices=N,slicing=query shares the query rows; there is no ring attention": """
        cp cp-size context-parallel context-parallel-size sp sp-size sequence-parallel
    """,
    "--layout slices=N,slicing=key shares the positions of the KV cache": """
        dcp dcp-size decode-context-parallel-size kvp kvp-size kv-parallel-size
    """,
    "--input-len L": """
        input-length input-seq-len prompt-len prompt-length max-model-len max-seq-len max-seq-length
        max-input-len seqlen seq-length sequence-length context-length context-len random-input-len input-tokens
    """,
    "--batch N": """
        bs batch-size global-batch-size max-batch-size max-num-seqs max-concurrency num-prompts
    """,
    "--output-len N": """
        output-length output-tokens max-tokens max-new-tokens random-output-len max-output-len
    """,
    "--set hosts=N": "hosts host nodes nnodes num-nodes num-hosts",
    "--set devices_per_host=N, and --set hosts=N; or a CLUSTER such as h100:2x8, 2 hosts of 8": """
        gpus gpu ngpus num-gpus n-gpus gpus-per-node devices num-devices world-size nproc-per-node ranks
    """,
    "--set dtype=float16 (bfloat16, float32, float64)": "dtype torch-dtype precision",
    "--set device.memory=80 GB or --set device.reserve=10 %": "gpu-memory-utilization mem-fraction-static memory",
    "give it as an argument: helixctl plan MODEL CLUSTER": "model model-path model-name cluster config checkpoint",
}
_OF_RUN: Final = {"ranks", "dtype", "device", "gpus", "devices", "cluster"}
_FOR: Final = {name: ours for ours, names in _OPTIONS.items() for name in names.split()}
_COMMANDS: Final = {
    "validate": "check verify prove lint test",
    "plan": "solve search compile optimize optimise partition shard",
    "visualize": "draw show view plot viz render visualise graph",
    "simulate": "predict estimate forecast price",
    "run": "exec execute launch bench benchmark serve start",
    "calibrate": "measure profile tune",
    "diff": "compare",
    "paper": "reproduce experiment",
    "sweep": "pareto grid scan explore tradeoff",
    "export": "emit convert deploy flags chakra",
    "models": "zoo configs",
    "explain": "error errors why codes",
    "clusters": "gpus devices hardware presets systems",
}
_COMMAND_FOR: Final = {name: ours for ours, names in _COMMANDS.items() for name in names.split()}


def option_hint(option: str, command: str) -> str | None:
    """Which option of ours does what an unknown one does in other programs, if one does."""
    name = option.lstrip("-").replace("_", "-").lower()
    if command in {"plan", "sweep"}:
        return _FOR.get(name)
    if command in {"run", "simulate", "validate", "visualize"} and name in _FOR and name not in _OF_RUN:
        return "the plan says that: make another with helixctl plan"
    return None


def command_hint(name: str, commands: Iterable[str]) -> str | None:
    """The command that a word was meant for."""
    word = name.lower()
    meant = _COMMAND_FOR.get(word) or next(iter(get_close_matches(word, list(commands), n=1)), None)
    return f"did you mean {meant!r}?" if meant else None
