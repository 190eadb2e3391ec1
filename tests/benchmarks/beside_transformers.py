"""What the benchmarks beside transformers' own tensor parallelism share: the model, its checkpoint, and the ranks."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import torch
import transformers

from helixctl.spec import ClusterSpec
from helixctl.spec.load import load_cluster
from helixctl_runtime.ranks import Rank
from tests.documents import SMALL

RANKS, WARMUP = 4, 5
LLAMA: dict[str, Any] = {
    "hidden_size": 1024,
    "intermediate_size": 2816,
    "num_hidden_layers": 8,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
    "vocab_size": 2048,
}


def saved(folder: Path, batch: int, tokens: int) -> torch.Tensor:
    """Write the checkpoint; the token ids of prompts, (batch, tokens)."""
    torch.manual_seed(0)
    transformers.LlamaForCausalLM(transformers.LlamaConfig(**LLAMA)).save_pretrained(folder)
    return torch.randint(LLAMA["vocab_size"], (batch, tokens))


def cluster_of_ranks() -> ClusterSpec:
    """One host with the ranks."""
    return load_cluster(SMALL[1]).model_copy(update={"hosts": 1, "devices_per_host": RANKS})


def tensor_parallel(folder: str, rank: Rank) -> Any:
    """The model of the checkpoint as transformers cuts it for all ranks."""
    os.environ |= {"RANK": str(rank.rank), "LOCAL_RANK": str(rank.rank), "WORLD_SIZE": str(rank.world_size)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return transformers.AutoModelForCausalLM.from_pretrained(folder, tp_plan="auto").eval()
