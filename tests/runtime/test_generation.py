"""Generation: token for token what transformers makes, and logits that are as near to float64 as its own."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch

from helixctl.dag import Tensor
from helixctl.plan import Layout, Plan, illegalities
from helixctl.spec import ModelSpec, WorkloadSpec
from helixctl.spec.load import load_model
from helixctl.verify import verify
from helixctl_runtime.check.reference import evaluate, relative_error
from helixctl_runtime.generate import Prompts, generate
from helixctl_runtime.tensors.tensor_source import TensorSource
from tests.runtime.generation import CPU, session_of
from tests.runtime.test_transformers import ALWAYS, SIZES, cluster, fill

LENGTHS = (1, 7, 13, 13)
LONG = 64  # tokens after each prompt in the sweep
_MANY = ("llama", "qwen2", "qwen3", "mixtral", "qwen3_moe_", "qwen3_moe")  # of which many layouts are tried


@dataclass(frozen=True)
class Known:
    """A model in a folder, and what transformers makes of four ragged prompts.

    Attributes:
        tokens: (4, LONG), each of the prompts alone, greedily.
        exact, single: logits of every token that is chosen, (4, LONG, vocab), in float64 and in float32.
    """

    folder: Path
    model: ModelSpec
    prompts: Prompts
    tokens: torch.Tensor
    exact: torch.Tensor
    single: torch.Tensor


@pytest.fixture(
    scope="module",
    params=[name if name in ALWAYS else pytest.param(name, marks=pytest.mark.sweep) for name in SIZES],
)
def known(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Known:
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp(request.param)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sizes = {"vocab_size": 301, "num_hidden_layers": 2, "max_position_embeddings": 256, **SIZES[request.param]}
        torch.manual_seed(1)
        config = transformers.AutoConfig.for_model(request.param, **sizes)
        model = transformers.AutoModelForCausalLM.from_config(config).eval()
        fill(model)
        model.save_pretrained(folder)
        ids = torch.randint(1, sizes["vocab_size"], (len(LENGTHS), max(LENGTHS)))
        tokens = []
        how: dict[str, Any] = {"max_new_tokens": LONG, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
        for row, length in zip(ids, LENGTHS, strict=True):
            tokens.append(model.generate(row[None, :length], **how)[0, length:])
        whole = [torch.cat([row[:n], its[:-1]]) for row, n, its in zip(ids, LENGTHS, tokens, strict=True)]
        with torch.no_grad():
            single = torch.stack([model(row[None]).logits[0, -LONG:] for row in whole])
    spec = load_model(str(folder)).model
    exact = torch.stack([in_float64(folder, spec, row)[-LONG:] for row in whole])
    return Known(folder, spec, Prompts(ids, torch.tensor(LENGTHS)), torch.stack(tokens), exact, single)


def in_float64(folder: Path, model: ModelSpec, ids: torch.Tensor) -> torch.Tensor:
    """The logits of one sequence by the unpartitioned reference: one pass without a cache."""
    numbers = TensorSource(0, str(folder), None)
    plan = Plan.sketch(model, cluster(1), WorkloadSpec(seq_len=len(ids)), Layout(groups=1, slices=1))

    def load(tensor: Tensor) -> torch.Tensor:
        return ids[None] if tensor.role == "input" else numbers.region(tensor, tensor.full, torch.float32, CPU)

    return evaluate(plan, load, torch.float64)[0]


def layouts(model: ModelSpec, work: WorkloadSpec, most: int) -> Iterator[Layout]:
    """Legal layouts of up to so many ranks, with all ways of cutting a cache, combines, stages, replicas, residuals."""
    axes: dict[str, tuple[Any, ...]] = {
        "groups": (1, 2, 4, 8, 16),
        "slices": (1, 2, 3, 4),
        "slicing": ("head_dim", "batch", "key"),
        "combine": ("concat", "reduce"),
        "data": (1, 2),
        "pipeline": (1, 2),
        "microbatches": (1, 2),
        "residual": ("replicated", "sharded"),
        "gather_order": ("slices_first", "groups_first"),
        "experts": (1, 2),
        "latent_prefill": ("absorbed", "expanded") if model.attention.latent else ("absorbed",),
    }
    for values in product(*axes.values()):
        chosen = dict(zip(axes, values, strict=True))
        if (chosen["slices"] == 1) != (chosen["slicing"] == "head_dim"):
            continue
        layout = Layout.model_validate({**chosen, "key_block": 4})
        if layout.devices <= most and not illegalities(layout, model, work, layout.devices):
            yield layout


def check(known: Known, layout: Layout, new: int, prefill_tokens: int = 20) -> None:
    work = WorkloadSpec(batch=4, seq_len=max(LENGTHS), output_len=LONG, prefill_tokens=prefill_tokens, logits="last")
    plan = Plan.of(known.model, cluster(layout.devices), work, layout)
    numbers = TensorSource(0, str(known.folder), None)
    session = session_of(plan, lambda dag, value: numbers.value(dag, value, torch.float32, CPU))
    for dag in session.dags.values():
        assert not verify(dag), layout
    logits = torch.full((4, new, known.exact.shape[-1]), float("nan"))
    chunk = session.dags["prefill"].work.seq_len
    steps = session.steps["prefill"], session.steps["decode"]
    tokens = generate(*steps, known.prompts, chunk=chunk, new=new, logits=logits).tokens
    assert torch.equal(tokens, known.tokens[:, :new]), layout
    exact = known.exact[:, :new]
    assert relative_error(logits, exact) <= 2 * relative_error(known.single[:, :new], exact), layout


@pytest.mark.parametrize("count", [6, pytest.param(12, marks=pytest.mark.sweep)])
def test_a_few_layouts(count: int, known: Known) -> None:
    """One in many of all layouts, so that every axis has met every slicing."""
    work = WorkloadSpec(batch=4, seq_len=max(LENGTHS), output_len=LONG, logits="last")
    every = list(layouts(known.model, work, 8))
    assert len(every) > 300
    chosen = every[:: len(every) // count]
    assert {layout.slicing for layout in chosen} == {"head_dim", "batch", "key"}
    for layout in chosen:
        check(known, layout, 10)


def test_prefill_by_query_rows(known: Known) -> None:
    """Slices that share a cache by key prefill by rows: whole prompts, and chunks of which some rows are padding."""
    for prefill_tokens, axes in (
        (8192, {"groups": 1, "slices": 2, "combine": "reduce"}),
        (20, {"groups": 2, "slices": 2, "gather_order": "groups_first"}),
        (20, {"groups": 1, "slices": 4, "combine": "reduce", "residual": "sharded"}),
        (24, {"groups": 1, "slices": 3, "pipeline": 2, "microbatches": 2}),
    ):
        layout = Layout.model_validate({**axes, "slicing": "key", "key_block": 4, "key_prefill": "query"})
        check(known, layout, 6, prefill_tokens)


def test_groups_of_unequal_shares(known: Known) -> None:
    """Fewer heads, and less of all that groups cut, on some ranks: of slices that share a cache by key, too."""
    for axes in (
        {"groups": 2, "slices": 2, "group_shares": "1-3", "slicing": "key", "key_block": 4},
        {"groups": 2, "slices": 1, "group_shares": "5-2", "combine": "reduce", "residual": "sharded"},
    ):
        check(known, Layout.model_validate(axes), 6)


@pytest.mark.sweep
def test_every_layout_up_to_16_ranks(known: Known) -> None:
    work = WorkloadSpec(batch=4, seq_len=max(LENGTHS), output_len=LONG, logits="last")
    every = list(layouts(known.model, work, 16))
    name = known.folder.name.rstrip("0123456789")
    for number, layout in enumerate(every[:: 47 if name in _MANY else 145]):
        check(known, layout, LONG if number % 10 == 0 else 6, prefill_tokens=(4, 20, 8192)[number % 3])


def test_margins(known: Known) -> None:
    """The best two logits are further apart than rounding: else equal tokens would be a matter of chance."""
    best = known.exact.topk(2).values
    assert (best[..., 0] - best[..., 1]).min() > 8 * (known.single - known.exact).abs().max()


@pytest.mark.parametrize(
    ("slices", "block"),
    [
        pytest.param(slices, block, marks=() if (slices, block) in {(2, 3), (3, 16), (4, 1)} else pytest.mark.sweep)
        for slices in (2, 3, 4)
        for block in (1, 3, 16)
    ],
)
def test_each_key_is_held_once(slices: int, block: int, known: Known) -> None:
    """By key every position lies on one slice; whatever the turns, the tokens are the same."""
    layout = Layout(groups=1, slices=slices, slicing="key", key_block=block, combine="reduce")
    check(known, layout, 4)
    work = WorkloadSpec(batch=4, seq_len=13, output_len=LONG, logits="last")
    plan = Plan.of(known.model, cluster(slices), work, layout)
    dag = session_of(plan, lambda _, value: torch.zeros(value.shape), ["decode"]).dags["decode"]
    first = next(t.name for t in dag.tensors if t.role == "state")
    held = [v for v in dag.values if v.tensor == first]
    assert len({v.region for v in held}) == len(held) == slices
