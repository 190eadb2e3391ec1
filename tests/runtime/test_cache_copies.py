"""How often real ranks hold a cache: once with slicing by key, as often as groups share a KV head without."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.command import helixctl
from tests.documents import SMALL as SPECS
from tests.documents import plan_of

SETS = ("layers=2", "attention.heads=16", "attention.head_dim=8", "attention.softmax_slices=1", "dtype=float32",
        "attention.causal=true", "vocabulary.size=97", "hidden_size=64", "feed_forward.intermediate_size=64",
        "workload.batch=2", "workload.seq_len=40", "workload.output_len=8")  # fmt: skip


@pytest.mark.parametrize(
    ("kv_heads", "ranks"), [(2, 8), pytest.param(8, 16, marks=pytest.mark.sweep)], ids=["2 on 8", "8 on 16"]
)
def test_tensor_parallelism_beside_slicing_by_key(kv_heads: int, ranks: int, tmp_path: Path) -> None:
    """The same tokens, checked in float64, from caches of which one holds every key once and the other copies."""
    sets, slices = (*SETS, f"attention.kv_heads={kv_heads}"), ranks // kv_heads
    plans = {
        "tp": plan_of(SPECS, ranks, 1, *sets, combine="reduce"),
        "key": plan_of(SPECS, kv_heads, slices, *sets, slicing="key", combine="reduce"),
    }
    files = [tmp_path / f"{name}.plan.json" for name in plans]
    for file, plan in zip(files, plans.values(), strict=True):
        file.write_text(plan.to_json())
    options = ("--warmup", "0", "--generate", "6", "--check", "--timeout", "120", "--report", tmp_path / "r.json")
    done = helixctl("run", "--compare", *files, *options)
    assert done.status == 0, done.err
    report = json.loads((tmp_path / "r.json").read_text())
    assert [row["parted"] for row in report["comparison"]] == [[], []]
    assert all(method["check"]["passed"] for method in report["methods"])
    of_a_position = 2 * 2 * kv_heads * 8 * 4 * 2  # layers, keys and values, dims, bytes, sequences
    tp, key = (method["cache"] for method in report["methods"])
    room = -(-48 // (16 * slices)) * 16 * slices
    assert tp["cache_nbytes"] == ranks // kv_heads * of_a_position * 48
    assert key["cache_nbytes"] == of_a_position * room
    for cache, method in ((tp, report["methods"][0]), (key, report["methods"][1])):
        held = [rank["cache_nbytes"] for rank in method["ranks"]]
        assert len(held) == ranks
        assert set(held) == {cache["cache_nbytes_per_rank"]}
        assert sum(held) == cache["cache_nbytes"]
