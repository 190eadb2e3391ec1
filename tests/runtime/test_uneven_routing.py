"""Routers of seeded weights choose as unevenly as the workload says, and the model is as ever."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from helixctl.dag import Tensor
from helixctl.verify import verify
from helixctl_runtime.tensors.seeded import seeded_numbers
from helixctl_runtime.tensors.tensor_source import TensorSource
from tests.cli.command import helixctl
from tests.documents import SMALL, SMALL_MOE, dag_of
from tests.interpreter import execute, leaning, place_of, rounded
from tests.runtime.together import run_together

UNEVEN = "workload.routing=power_law(1.2)"
# Its hidden is odd, so that the pattern is not balanced.
ROUTER = Tensor("l0.w_router", "weight", ("hidden", "expert"), (33, 4), (0.0, 0.25), lean=(0.5, -0.25, 0.0, 1.0))
STREAM = Tensor("input", "input", ("batch", "seq", "hidden"), (3, 2, 32), (0.0, 1.0), lean=(0.125,))


@pytest.mark.parametrize("tensor", [ROUTER, STREAM])
def test_what_leans(tensor: Tensor) -> None:
    """Along the pattern +, -, +, - it has its lean and nothing else; a region is a part of the whole."""
    whole = seeded_numbers(tensor, tensor.full, 3, torch.float64)
    axis = tensor.dims.index("hidden")
    signs = torch.tensor([1.0, -1.0] * 17, dtype=torch.float64)[: tensor.shape[axis]]
    along = torch.tensordot(whole, signs, dims=([axis], [0])) / len(signs)
    lean = torch.tensor(tensor.lean, dtype=torch.float64)
    torch.testing.assert_close(along, lean.expand_as(along), atol=1e-12, rtol=0)
    region = [(1, size) for size in tensor.shape]
    part = seeded_numbers(tensor, region, 3, torch.bfloat16)
    assert torch.equal(part, whole[tuple(slice(*its) for its in region)].to(torch.bfloat16))
    # Across the pattern the numbers are those of a tensor that does not lean.
    straight = seeded_numbers(replace(tensor, lean=None), tensor.full, 3, torch.float64)
    off = whole - straight
    assert torch.allclose(
        off, (off.narrow(axis, 0, 1) * signs.view([-1 if i == axis else 1 for i in range(off.dim())]))
    )


def test_a_large_tensor_that_leans_is_made_part_by_part(monkeypatch: pytest.MonkeyPatch) -> None:
    at_once = seeded_numbers(STREAM, ((0, 3), (0, 2), (3, 29)), 0, torch.float32)
    monkeypatch.setattr("helixctl_runtime.tensors.seeded._MOST_IN_A_CACHE", 8)
    assert torch.equal(seeded_numbers(STREAM, ((0, 3), (0, 2), (3, 29)), 0, torch.float32), at_once)


def test_the_formats_say_how() -> None:
    """The interpreter, written from docs/formats.md, has the same numbers, and so the same values."""
    dag = dag_of(SMALL_MOE, 2, 2, UNEVEN, "layers=1", "hidden_size=64", "attention.head_dim=8", "workload.batch=4")
    document = json.loads(dag.to_json())
    tensors = {tensor["name"]: tensor for tensor in document["tensors"]}
    for value in document["values"]:
        if "lean" in tensors[value["tensor"]]:
            place = place_of(value, tensors)
            ours = seeded_numbers(dag.tensor[place.tensor], place.region, 0, torch.float32).numpy()
            assert np.array_equal(ours, rounded(leaning(place, tensors[place.tensor], 0), "float32"))
    ran = run_together(dag)
    assert ran.error <= 2 * ran.unpartitioned
    output = next(iter(ran.programs[0].outputs))
    np.testing.assert_allclose(ran.outputs[0].numpy(), execute(document)[output], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("specs", "sets"), [(SMALL_MOE, ()), (SMALL, (UNEVEN,)), (SMALL_MOE, ("workload.routing=even",))]
)
def test_nothing_leans_where_routing_is_even_or_there_are_no_experts(
    specs: tuple[str, str], sets: tuple[str, ...]
) -> None:
    dag, plain = dag_of(specs, 2, 2, *sets), dag_of(specs, 2, 2)
    assert [t for t in dag.tensors if t.lean is not None] == []
    assert dag.tensors == plain.tensors
    assert '"lean"' not in dag.to_json()


@pytest.mark.parametrize(("name", "lean"), [("l0.w_router", (0.5,)), ("input", None), ("l0.gates", (0.5,))])
def test_a_lean_that_is_not_the_workloads_is_refused(name: str, lean: tuple[float, ...] | None) -> None:
    dag = dag_of(SMALL_MOE, 2, 2, UNEVEN)
    tensors = tuple(replace(its, lean=lean) if its.name == name else its for its in dag.tensors)
    found = [each.code for each in verify(replace(dag, tensors=tensors)) if each.path == name]
    assert found == ["HX411"]


def test_read_weights_choose_as_they_do(tmp_path: Path) -> None:
    """A seeded input beside them does not lean."""
    source = TensorSource(0, str(tmp_path / "w.safetensors"), None)
    made = source.region(STREAM, STREAM.full, torch.float32, torch.device("cpu"))
    assert torch.equal(made, seeded_numbers(replace(STREAM, lean=None), STREAM.full, 0, torch.float32))


def test_a_run_follows_the_law(tmp_path: Path) -> None:
    """Loads of the first layer on 4 ranks, beside the law's, within what chance and the derivation allow.

    A share p of N tokens has a standard deviation of sqrt(p (1 - p) / N) if tokens are independent. Those of a sequence
    are not quite: what attention adds is alike in them; no more is allowed for it than that half of the tokens are.
    Of 8 experts the normal approximation is off by up to 0.023 (by drawing 4,000 tokens), so 0.03 is added. An even
    routing, 1/4 for each expert, is beyond these bounds for the two experts that are wanted most, and for the last.
    """
    path, report = tmp_path / "x.plan.json", tmp_path / "x.json"
    sizes = ("layers=2", "hidden_size=256", "attention.head_dim=16", "feed_forward.intermediate_size=64", UNEVEN)
    sets = [word for text in (*sizes, "workload.batch=16", "workload.seq_len=32") for word in ("--set", text)]
    layout = ("--layout", "groups=2,slices=1,data=2,experts=2")
    done = helixctl("plan", SMALL_MOE[0], "plans/small/cpu4.cluster.yaml", *sets, *layout, "-q", "-o", path)
    assert done.status == 0, done.err
    done = helixctl("run", path, "--warmup", "0", "--iters", "1", "--check", "--json", report)
    assert done.status == 0, done.err
    layers = json.loads(report.read_text())["experts"]
    assert [its["layer"] for its in layers] == [0, 1]
    tokens = 16 * 32
    for its in layers:
        assert sum(its["tokens"]) == 2 * tokens
        assert sum(its["law"]) == pytest.approx(2 * tokens)
    beyond = 0
    for counted, by_law in zip(layers[0]["tokens"], layers[0]["law"], strict=True):
        share = by_law / tokens
        allowed = 3 * math.sqrt(share * (1 - share) / (tokens / 2)) + 0.03
        assert abs(counted / tokens - share) <= allowed
        beyond += abs(1 / 4 - share) > allowed
    assert beyond >= 3
    fullest = max(layers[0]["tokens"])
    assert "the fullest expert has " in done.said
    assert fullest > tokens / 2  # of logits around 0 no expert is chosen by more


@pytest.mark.sweep
def test_a_generation_is_checked_with_the_same_numbers(tmp_path: Path) -> None:
    path = tmp_path / "x.plan.json"
    sizes = (
        "vocabulary.size=512",
        "layers=1",
        "hidden_size=64",
        "attention.head_dim=8",
        "attention.causal=true",
        UNEVEN,
    )
    sets = [word for text in sizes for word in ("--set", text)]
    given = (*sets, "--input-len", "8", "--output-len", "2", "--batch", "4", "--layout", "groups=2,slices=2")
    done = helixctl("plan", SMALL_MOE[0], "plans/small/cpu4.cluster.yaml", *given, "-q", "-o", path)
    assert done.status == 0, done.err
    done = helixctl("run", path, "--check")
    assert done.status == 0, done.err
    assert "check passed" in done.said
