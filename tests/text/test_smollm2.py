"""A trained model of 135M on 1 to 6 ranks: engines cut its 9 heads and 3 KV heads over 1, 3 or 9 devices alone.

Skipped without the model: ``make text`` fetches it, or HELIXCTL_SMOLLM2 names the folder.
"""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch

from helixctl.plan import Layout, Plan, illegalities
from helixctl.spec import ModelSpec, WorkloadSpec
from helixctl.spec.load import load_model
from helixctl_runtime.generate import Prompts, generate
from helixctl_runtime.generate.chat import chats
from helixctl_runtime.generate.text import encoded
from helixctl_runtime.tensors.tensor_source import TensorSource
from tests.documents import ROOT
from tests.runtime.generation import CPU, session_of
from tests.runtime.test_transformers import cluster

FOLDER = Path(os.environ.get("HELIXCTL_SMOLLM2", ROOT / "out/smollm2"))
# Of 1 to 6 sequences, so that 6 slices have one each where they cut the batch.
QUESTIONS = (
    "What is the capital of France?",
    "Name three colours.",
    "Why is the sky blue? Answer in one sentence.",
    "Write a short poem about the sea.",
    "How many legs does a spider have, and how many has an ant?",
    "Say hello.",
)
NEW = 64
RANKS = (1, 2, 3, 4, 6)
# Groups x slices, and what a group's slices cut: all that is legal for 9 heads on 3 KV heads, either combine in turn.
LAYOUTS = [
    Layout(groups=groups, slices=slices, slicing=slicing, combine=("concat", "reduce")[(groups + slices) % 2])
    for groups, slices in [(1, 1), (2, 1), (3, 1), (6, 1), (1, 2), (1, 3), (2, 2), (1, 4), (3, 2), (2, 3), (1, 6)]
    for slicing in (("batch", "key") if slices > 1 else ("head_dim",))
]

pytestmark = [
    pytest.mark.sweep,
    pytest.mark.skipif(not (FOLDER / "config.json").is_file(), reason="no SmolLM2 here: make text"),
]


@dataclass(frozen=True)
class Known:
    """The model, the prompts, and what transformers makes of each alone: (6, NEW)."""

    model: ModelSpec
    prompts: Prompts
    tokens: torch.Tensor


@pytest.fixture(scope="module")
def known() -> Known:
    transformers = pytest.importorskip("transformers")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = transformers.AutoModelForCausalLM.from_pretrained(FOLDER, dtype="float32").eval()
        tokenizer = transformers.AutoTokenizer.from_pretrained(FOLDER)
        how: dict[str, Any] = {"max_new_tokens": NEW, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
        made = []
        for question in QUESTIONS:
            message = [{"role": "user", "content": question}]
            given = tokenizer.apply_chat_template(message, add_generation_prompt=True, return_tensors="pt")
            ids = given["input_ids"]
            made.append((ids[0], model.generate(ids, attention_mask=torch.ones_like(ids), **how)[0, ids.shape[1] :]))
    prompts = encoded(str(FOLDER / "tokenizer.json"), chats(str(FOLDER), QUESTIONS), whole=True)
    for row, length, (ids, _) in zip(prompts.ids, prompts.lengths, made, strict=True):
        assert row[:length].tolist() == ids.tolist()
    return Known(load_model(str(FOLDER)).model, prompts, torch.stack([tokens for _, tokens in made]))


def workload(known: Known) -> WorkloadSpec:
    return WorkloadSpec(batch=len(QUESTIONS), seq_len=known.prompts.ids.shape[1], output_len=NEW, logits="last")


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_tokens_are_those_of_transformers(layout: Layout, known: Known) -> None:
    numbers = TensorSource(0, str(FOLDER), None)
    plan = Plan.of(known.model, cluster(layout.devices), workload(known), layout)
    session = session_of(plan, lambda dag, value: numbers.value(dag, value, torch.float32, CPU))
    steps, chunk = session.steps, session.dags["prefill"].work.seq_len
    made = generate(steps["prefill"], steps["decode"], known.prompts, chunk=chunk, new=NEW)
    assert torch.equal(made.tokens, known.tokens)


def test_no_legal_cut_is_left_out(known: Known) -> None:
    tried = {(layout.groups, layout.slices, layout.slicing) for layout in LAYOUTS}
    legal = set()
    for ranks, slices in product(RANKS, RANKS):
        for slicing in ("head_dim", "batch", "query", "key") if slices > 1 else ("head_dim",):
            layout = Layout.model_validate({"groups": max(1, ranks // slices), "slices": slices, "slicing": slicing})
            if not illegalities(layout, known.model, workload(known), ranks):
                legal.add((layout.groups, layout.slices, layout.slicing))
    assert legal == tried
