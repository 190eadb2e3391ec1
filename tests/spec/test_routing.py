"""How uneven routing is said, and what the fullest device of some then has."""

from __future__ import annotations

from itertools import pairwise
from random import Random

import pytest
from pydantic import ValidationError

from helixctl.plan import Layout
from helixctl.plan.steps import step_of, steps_of
from helixctl.spec import WorkloadSpec
from helixctl.spec.routing import PowerLaw, chosen_shares, fullest_load, power_law


@pytest.mark.parametrize(
    ("text", "canonical", "law"),
    [
        ("even", "even", None),
        ("power_law(0)", "even", None),
        ("power_law(1.20)", "power_law(1.2)", PowerLaw(1.2)),
        ("power_law( 1 ,seed 0)", "power_law(1.0)", PowerLaw(1.0)),
        ("power_law(0.5, seed 7)", "power_law(0.5, seed 7)", PowerLaw(0.5, 7)),
    ],
)
def test_texts(text: str, canonical: str, law: PowerLaw | None) -> None:
    work = WorkloadSpec(routing=text)
    assert work.routing == canonical
    assert power_law(canonical) == law
    assert WorkloadSpec(routing=canonical) == work


@pytest.mark.parametrize("text", ["", "zipf", "power_law", "power_law()", "power_law(-1)", "power_law(11)", "even(1)"])
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(ValidationError, match="power_law"):
        WorkloadSpec(routing=text)


def test_a_document_without_it_is_as_before() -> None:
    assert "routing" not in WorkloadSpec().model_dump()
    assert WorkloadSpec(routing="power_law(1.2)").model_dump()["routing"] == "power_law(1.2)"


@pytest.mark.parametrize("output_len", [None, 4])
def test_every_step_has_it(output_len: int | None) -> None:
    work = WorkloadSpec(batch=2, seq_len=3, output_len=output_len, routing="power_law(1.2)")
    layout = Layout(groups=1, slices=1)
    assert {step_of(work, layout, name).routing for name in steps_of(work)} == {"power_law(1.2)"}


def test_shares_of_experts_are_those_of_draws() -> None:
    """By many draws of different experts, one after the other, with the weights of the law."""
    count, top_k, draws = 64, 4, 20_000
    shares, random = chosen_shares(1.2, count, top_k), Random(5)
    weights = [(i + 1) ** -1.2 for i in range(count)]
    counts = [0] * count
    for _ in range(draws):
        rings = sorted((random.expovariate(weight), i) for i, weight in enumerate(weights))
        for _, i in rings[:top_k]:
            counts[i] += 1
    assert sum(shares) == pytest.approx(top_k)
    assert all(a > b for a, b in pairwise(shares))
    for drawn, share in zip(counts, shares, strict=True):
        assert drawn / draws == pytest.approx(share, abs=0.06)


@pytest.mark.parametrize("exponent", [0.3, 1.2, 10])
def test_all_experts_of_a_token_are_chosen_by_all(exponent: float) -> None:
    assert chosen_shares(exponent, 4, 4) == [1, 1, 1, 1]
    assert sum(chosen_shares(exponent, 16, 15)) == pytest.approx(15)


def test_the_fullest_device() -> None:
    """Of all experts it has all work, whatever the routing; of fewer the more, the steeper the law."""
    loads = [fullest_load(routing, 64, 4, 8) for routing in ("even", "power_law(0.5)", "power_law(1.2)")]
    assert loads[0] == 4 * 8 / 64
    assert loads[0] < loads[1] < loads[2] < 4
    assert fullest_load("power_law(1.2)", 64, 4, 64) == 4
    assert fullest_load("power_law(1.2)", 64, 4, 1) == pytest.approx(chosen_shares(1.2, 64, 4)[0])
    assert fullest_load("power_law(1.2, seed 1)", 64, 4, 8) != loads[2]
    assert fullest_load("power_law(1.2, seed 1)", 64, 4, 8) == pytest.approx(loads[2], rel=0.1)


def test_the_fullest_of_few_experts_is_the_mean_over_orders() -> None:
    """The orders are of the seed: the same numbers in each process."""
    assert fullest_load("power_law(1.2)", 8, 2, 2) == fullest_load("power_law(1.2)", 8, 2, 2)
    most = sum(sorted(chosen_shares(1.2, 8, 2))[-2:])
    assert fullest_load("power_law(1.2)", 8, 2, 2) < most
