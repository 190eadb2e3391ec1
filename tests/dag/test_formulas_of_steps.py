"""Flops and bytes of the tasks of a generation, as docs/formats.md counts them: worked out by hand here."""

from __future__ import annotations

import pytest

from helixctl.dag import Dag
from tests.attack import bases

# 4 sequences, 6 heads of 10 elements on 3 KV heads, a vocabulary of 53, float64; room for 11 positions in blocks of 2.
# Decode: 7 tokens are held. 3 groups of 2 slices: a rank has 2 heads on 1 KV head, 3 cycles of one lane of 2 offsets.
DECODE = {
    # 4 x 2 heads x 10 x 8 pairs of a query and a key, half of them in the lane; 4 of the 6 positions are read.
    "l0.attend.g0s0": (4 * 4 * 2 * 10 * 4, 640 + 2 * 4 * 320 + 2 * 32 + 640 + 64),
    # k and v of one token, half of which goes to the lane.
    "l0.attend.cache.g0s0": (0, 2 * 320 + 320 + 2 * 32),
    # Two lanes of 5 of the elements of 2 heads, with a log-sum-exp of every head.
    "l0.attend.merge.g0s0": (2 * 80, 640 + 128 + 320),
    "l0.attend.rotate.g0s0": (3 * 120, 960 + 32 + 960),
    # 9 of the 53 logits; of every one of the 6 shares a logit and a token.
    "l0.head.best.g0s0": (0, 4 * 9 * 8 + 2 * 32),
    "l0.head.choose.g0s0": (0, 2 * 6 * 32 + 32),
    # Five elements of 2 heads and of a head of keys and values: 320, 160 and 160 bytes from the other slice.
    "l0.exchange.q_k_v.g0": (0, 320 + 160 + 160),
    # Of the parts 5 elements of 2 heads, and their log-sum-exps.
    "l0.attend.part_lse.g0": (0, 320 + 64),
    # A logit and a token of 4 sequences from each of 5 ranks.
    "l0.head.best_logit_best_token": (0, 5 * (32 + 32)),
}
# Prefill, not causal: 2 new tokens, 2 held on the mean of 3 chunks. 2 groups of 2 slices: 4 heads on 2 KV heads.
PREFILL = {
    # Each of 2 queries sees 4 keys, 2 of them in the lane, of which 2 positions are read.
    "l0.attend.g0s0": (4 * 4 * 4 * 10 * 4, 2560 + 2 * 2 * 640 + 2 * 32 + 2560 + 256),
    "l0.attend.cache.g0s0": (0, 2 * 1280 + 1280 + 2 * 32),
}
# All keys in one lane, causal: 7 held and the new one, on a rank that has 2 of the 4 sequences and 2 of 3 KV heads.
WHOLE = {"l0.attend.g0s0": (4 * 2 * 4 * 10 * 8, 640 + 2 * 8 * 320 + 2 * 32 + 640)}
# Latents of 7 elements and rotated keys of 6, float64, 2 new tokens and 2 held on the mean of 3 chunks, 3 of 5 heads.
# By batch: of 2 sequences all 4 positions; by key: of 4 sequences 2 of them, in a lane.
EXPANDED = {
    "l0.attend.expand.g0s0": (
        2 * 2 * 4 * 7 * 3 * (7 + 9), 8 * (2 * 4 * (13 + 3 * 13 + 3 * 9) + 7 * 3 * (7 + 9)) + 2 * 32
    ),
    # Of 2 tokens 7 pairs, causal: 3 and 4 keys.
    "l0.attend.g0s0": (2 * 2 * 3 * (13 + 9) * 7, 8 * (2 * 2 * 3 * (13 + 9) + 2 * 4 * 3 * (13 + 9)) + 2 * 32),
}  # fmt: skip
EXPANDED_BY_KEY = {
    "l0.attend.expand.g0s0": (
        2 * 4 * 2 * 7 * 3 * (7 + 9), 8 * (4 * 2 * (13 + 3 * 13 + 3 * 9) + 7 * 3 * (7 + 9)) + 2 * 32
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "due"),
    [
        ("prefill, latent expanded", EXPANDED),
        ("prefill, latent expanded by key", EXPANDED_BY_KEY),
        ("decode, by key", DECODE),
        ("prefill, by key", PREFILL),
        ("decode, by batch", WHOLE),
    ],
)
def test_flops_and_bytes(name: str, due: dict[str, tuple[int, int]]) -> None:
    dag: Dag = bases.dag(name)
    assert {task: (dag.task[task].flops, dag.task[task].nbytes) for task in due} == due
