"""Drawing a token: the distribution, what is kept, the random numbers; and the same tokens on every layout."""

from __future__ import annotations

import json
from itertools import pairwise, product
from typing import Any

import pytest
import torch

from helixctl.plan import Layout, Plan, illegalities
from helixctl.spec import ModelSpec, SamplingSpec, WorkloadSpec
from helixctl_runtime import kernels
from helixctl_runtime.check.choice import chosen
from helixctl_runtime.generate import Prompts, generate
from helixctl_runtime.kernels import sampling
from helixctl_runtime.kernels.sampling import kept, uniform
from helixctl_runtime.splitmix64 import words
from helixctl_runtime.tensors.tensor_source import TensorSource
from tests import interpreter
from tests.runtime.generation import CPU, session_of
from tests.runtime.models import REAL, merged
from tests.runtime.test_transformers import cluster

HOW = [
    SamplingSpec(temperature=temperature, top_k=top_k, top_p=top_p)
    for temperature, top_k, top_p in product((0.3, 1.0, 2.0), (None, 1, 5, 40, 1000), (1.0, 0.9, 0.3, 1e-9))
]


def draw(
    how: SamplingSpec, logits: torch.Tensor, *, seed: int = 0, length: int = 0, count: int = 0, first: int = 0
) -> torch.Tensor:
    """The tokens of rows of logits, as of one step."""
    numbers = [torch.full((len(logits),), number) for number in (seed, length, count)]
    out = torch.empty(len(logits), dtype=torch.int64)
    kernels.sample(how, logits, (numbers[0], numbers[1], numbers[2]), first, out)()
    return out


def logits_of(rows: int, vocab: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> torch.Tensor:
    return (3 * torch.randn(rows, vocab, generator=torch.Generator().manual_seed(seed))).to(dtype)


# --- what is drawn ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "how",
    [
        SamplingSpec(),
        SamplingSpec(temperature=0.5),
        SamplingSpec(temperature=3.0, top_k=5),
        SamplingSpec(top_p=0.8),
        SamplingSpec(temperature=1.5, top_k=9, top_p=0.9),
    ],
    ids=str,
)
@pytest.mark.parametrize("axis", ["sequences", "positions", "seeds"])
def test_the_distribution_is_the_softmax(how: SamplingSpec, axis: str) -> None:
    """Chi-square of 40,000 draws along each axis of the random numbers: below its 99.9 % point, for one fixed seed."""
    draws, logits = 40_000, logits_of(1, 12, seed=4)
    every, zero = torch.arange(draws), torch.zeros(draws, dtype=torch.int64)
    seed, length = (every if axis == name else zero for name in ("seeds", "positions"))
    sequences = logits.expand(draws, -1)
    out = torch.empty(draws, dtype=torch.int64)
    if axis == "sequences":
        out = draw(how, sequences, seed=7)
    else:  # of sequence 0 alone: every row of its own call would be slow, so the states are made by hand
        state = words(words(seed, zero), length)
        scores, tokens = kept(how, sequences)
        scores = scores - torch.log(-torch.log(uniform(state.unsqueeze(1), tokens)))
        out = tokens.gather(1, scores.argmax(1, keepdim=True)).squeeze(1)
    values, tokens = kept(how, logits)
    expected = torch.zeros(12, dtype=torch.float64).scatter_(0, tokens[0], torch.softmax(values[0], 0)) * draws
    found = out.bincount(minlength=12)
    there = expected > 0
    assert not found[~there].any()
    square = ((found - expected)[there].square() / expected[there]).sum()
    # 99.9 % points of chi-square by degrees of freedom.
    points = {1: 10.83, 2: 13.82, 3: 16.27, 4: 18.47, 5: 20.52, 6: 22.46, 7: 24.32, 8: 26.12, 9: 27.88, 11: 31.26}
    assert square < points[int(there.sum()) - 1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_the_kernel_is_the_page(dtype: torch.dtype) -> None:
    """Beside the interpreter's formula and that of --check, in numbers of every dtype, with ties in half precision."""
    logits = logits_of(3, 64, dtype)
    for number, how in enumerate(HOW):
        at = {"seed": -number * 2**50, "length": number, "count": 1, "first": 5}
        found = draw(how, logits, **at).tolist()
        place = interpreter.Place("logits", ("batch", "vocab"), (9, 64), 0, ((5, 8), (0, 64)), "float32")
        counts = interpreter.Place("seed", ("batch",), (9,), 0, ((5, 8),), "int64")
        given = [torch.full((3,), at[name]).numpy() for name in ("seed", "length", "count")]
        op: dict[str, Any] = {"sampling": json.loads(how.model_dump_json())}
        call = interpreter.Call(op, [logits.double().numpy(), *given], [place, counts, counts, counts], [])
        assert interpreter.KINDS["sample"](call)[0].tolist() == found
        rows = enumerate(logits.double(), 5)
        its = [chosen(row, how, seed=at["seed"], sequence=b, position=number + 1) for b, row in rows]
        assert its == found


def test_the_numbers_of_the_page() -> None:
    """Those that docs/formats.md gives to check against."""
    state = torch.tensor([1])
    for number in (0, 5):
        state = words(state, torch.tensor([number]))
    found = uniform(state.expand(3), torch.arange(3)).tolist()
    assert found == [0.9911237274725585, 0.6857371539755247, 0.8948792241773825]


def test_random_numbers_are_inside_0_and_1(monkeypatch: pytest.MonkeyPatch) -> None:
    """The least and the largest word are half a step from the ends, so that no logarithm is infinite."""
    monkeypatch.setattr(sampling, "words", lambda state, _: state)
    found = uniform(torch.tensor([0, -1]), torch.tensor([0, 0]))
    assert found.tolist() == [2.0**-53, 1 - 2.0**-53]


@pytest.mark.parametrize("seed", range(3))
def test_what_is_kept_is_what_transformers_keeps(seed: int) -> None:
    """Of logits without ties, where its rule and ours are one."""
    transformers = pytest.importorskip("transformers")
    logits = logits_of(4, 500, seed=seed)
    for how in HOW:
        processors = [transformers.TemperatureLogitsWarper(how.temperature)]
        processors += [transformers.TopKLogitsWarper(how.top_k)] if how.top_k else []
        processors += [transformers.TopPLogitsWarper(how.top_p)] if how.top_p < 1 else []
        theirs = logits.double()
        for processor in processors:
            theirs = processor(torch.zeros(4, 1, dtype=torch.int64), theirs)
        values, tokens = kept(how, logits)
        ours = torch.full_like(theirs, float("-inf")).scatter_(1, tokens, values)
        assert torch.equal(ours.isfinite(), theirs.isfinite()), how
        assert torch.allclose(torch.softmax(ours, 1), torch.softmax(theirs, 1), rtol=1e-9, atol=0), how


def test_of_equal_logits_the_lowest_tokens_are_kept() -> None:
    logits = torch.tensor([[0.0, 2.0, 2.0, 2.0, 1.0, 2.0]])
    assert kept(SamplingSpec(top_k=3), logits)[1].tolist() == [[1, 2, 3]]
    values, tokens = kept(SamplingSpec(top_p=0.4), logits)
    assert tokens[values.isfinite()].tolist() == [1, 2]


@pytest.mark.parametrize("temperature", [1e-3, 1e-30, 1e-300])
@pytest.mark.parametrize("how", [{}, {"top_k": 7}, {"top_p": 0.9}])
def test_a_low_temperature_is_greedy(temperature: float, how: dict[str, Any]) -> None:
    """Where the two largest logits differ; whatever is divided, no number is lost."""
    logits = logits_of(200, 300)
    best = logits.topk(2).values
    clear = best[:, 0] - best[:, 1] > 0.05
    found = draw(SamplingSpec(temperature=temperature, **how), logits)
    assert torch.equal(found[clear], logits.argmax(1)[clear])
    assert clear.sum() > 150


def test_each_of_seed_sequence_and_position_matters() -> None:
    how, logits = SamplingSpec(), torch.zeros(64, 1000)
    first = draw(how, logits)
    for other in ({"seed": 1}, {"length": 1}, {"first": 1000}):
        assert int((draw(how, logits, **other) == first).sum()) < 5
    assert torch.equal(draw(how, logits, length=5, count=2), draw(how, logits, length=6, count=1))
    assert torch.equal(draw(how, logits[:60], first=4), first[4:])


# --- the same tokens on every layout ---------------------------------------------------------------------------------

LAYOUTS: dict[str, dict[str, Any]] = {
    "one": {"groups": 1, "slices": 1},
    "two groups": {"groups": 2, "slices": 1},
    "two slices by key": {"groups": 1, "slices": 2, "slicing": "key", "key_block": 4},
    "two replicas": {"groups": 1, "slices": 1, "data": 2},
    "three groups": {"groups": 3, "slices": 1, "combine": "reduce"},
    "three slices by key": {"groups": 1, "slices": 3, "slicing": "key", "key_block": 2},
    "four by batch": {"groups": 2, "slices": 2, "slicing": "batch"},
    "four, sharded": {"groups": 2, "slices": 2, "slicing": "key", "residual": "sharded", "combine": "reduce"},
    "four in stages": {"groups": 1, "slices": 2, "slicing": "key", "pipeline": 2, "microbatches": 2},
    "four, replicas in stages": {"groups": 1, "slices": 1, "data": 2, "pipeline": 2, "microbatches": 2},
}
SEEDS = range(3)  # the first three: none was chosen for what it draws
NEW = 8


@pytest.mark.parametrize(
    "how",
    [pytest.param(SamplingSpec(), marks=pytest.mark.sweep), SamplingSpec(temperature=0.8, top_k=25, top_p=0.9)],
    ids=str,
)
def test_every_layout_draws_the_same_tokens(how: SamplingSpec) -> None:
    """In float32: the logits differ by rounding, and no two scores are as close as that for these seeds."""
    model = ModelSpec.model_validate(merged(REAL, {"layers": 2, "dtype": "float32"}))
    assert model.vocabulary
    ids = torch.randint(model.vocabulary.size, (4, 11), generator=torch.Generator().manual_seed(1))
    prompts, numbers = Prompts(ids, torch.tensor([1, 6, 11, 11])), TensorSource(0, None, None)
    first: list[torch.Tensor] = []
    for name, axes in LAYOUTS.items():
        layout = Layout.model_validate(axes)
        work = WorkloadSpec(batch=4, seq_len=11, output_len=NEW, prefill_tokens=20, sampling=how)
        assert not illegalities(layout, model, work, layout.devices), name
        plan = Plan.of(model, cluster(layout.devices), work, layout)
        session = session_of(plan, lambda dag, value: numbers.value(dag, value, torch.float32, CPU))
        steps, chunk = (session.steps["prefill"], session.steps["decode"]), session.dags["prefill"].work.seq_len
        found = [generate(*steps, prompts, chunk=chunk, new=NEW, seed=seed).tokens for seed in SEEDS]
        first = first or found
        assert all(torch.equal(a, b) for a, b in zip(found, first, strict=True)), name
    assert not any(torch.equal(a, b) for a, b in pairwise(first))
