"""Layouts in the words of other programs, and in short words."""

from __future__ import annotations

import pytest

from helixctl.plan import Layout
from helixctl.plan.terms import in_field_terms, letters, short


@pytest.mark.parametrize(
    ("axes", "terms", "words"),
    [
        ({}, "one device", "1 x 1"),
        ({"data": 8}, "DP 8", "1 x 1 DP8"),
        ({"groups": 4, "data": 2}, "TP 4 x DP 2", "4 x 1 DP2"),
        ({"groups": 8, "pipeline": 2, "microbatches": 4, "combine": "reduce"}, "TP 8 x PP 2", "8 x 1 PP2 mb4 reduce"),
        (
            {"groups": 2, "slices": 4, "slicing": "key", "key_prefill": "query"},
            "TP 8 (2 groups x 4 key slices)",
            "2 x 4 key prefill-by-query",
        ),
        ({"slices": 2}, "TP 2 (1 group x 2 head_dim slices)", "1 x 2"),
        ({"groups": 8, "experts": 4}, "TP 8 (EP 4)", "8 x 1 EP4"),
        ({"data": 32, "experts": 8, "expert_data": 8}, "DP 32 (EP 8 over 8)", "1 x 1 EP8 DP32 sh8"),
    ],
)
def test_words(axes: dict[str, int | str], terms: str, words: str) -> None:
    layout = Layout.model_validate({"groups": 1, "slices": 1, **axes})
    assert in_field_terms(layout) == terms
    assert short(layout) == words


def test_short_words_say_every_axis() -> None:
    """Two layouts that ``str`` tells apart are told apart in short words, too."""
    fields = Layout.model_fields
    others: dict[str, int | str] = {
        "slicing": "key", "combine": "reduce", "gather_order": "groups_first", "reduction_dtype": "model",
        "stages": "1-1", "batch_shares": "1-1", "group_shares": "1",
        "placement": "groups-slices-data-pipeline", "residual": "sharded", "key_prefill": "query",
        "latent_prefill": "expanded",
    }  # fmt: skip
    for name in fields:
        layout = Layout.model_validate({"groups": 1, "slices": 1, name: others.get(name, 2)})
        assert short(layout) != "1 x 1", name


def test_letters() -> None:
    assert letters(["8 x 1 DP2 mb4", "4 x 1 DP4"]) == "DP replicas, mb microbatches"
    assert not letters(["8 x 1 batch"])
