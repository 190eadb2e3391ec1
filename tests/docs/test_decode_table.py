"""docs/measurements/decode-table.md and docs/decode.md: their rows are what the layouts are predicted to do."""

from __future__ import annotations

import pytest

from tests.benchmarks import decode
from tests.benchmarks.decode import BATCHES, CLUSTERS, CONTEXTS, DOC, MODELS, SHOWN, row, table

PAGE = DOC.read_text(encoding="utf-8")
FEW = [
    ("Llama-3.1-70B", "h100:2x8", "1M", 1),
    ("Llama-3.1-405B", "b200:1x64", "1M", 8),
]
ALL = [(m, c, context, batch) for m in MODELS for c in CLUSTERS for context in CONTEXTS for batch in BATCHES]
SOME = [
    *ALL[::9],
    ("Llama-3.1-70B", "b200:1x8", "128k", 8),
]  # all of them take four minutes; ``decode.py --update`` makes them again


@pytest.mark.parametrize(("model", "cluster", "context", "batch"), FEW)
def test_a_row(model: str, cluster: str, context: str, batch: int) -> None:
    line = table([row(model, cluster, context, batch)]).splitlines()[-1]
    assert line.startswith(f"| {row_of(cluster)} | {context} | {batch} |")
    assert f"\n{line}\n" in section(model, cluster), "run python tests/benchmarks/decode.py --update"


@pytest.mark.sweep
@pytest.mark.parametrize(("model", "cluster", "context", "batch"), SOME)
def test_more_rows(model: str, cluster: str, context: str, batch: int) -> None:
    made = table([row(model, cluster, context, batch)])
    line = made.splitlines()[-1]
    if "Nothing fits" in line:
        assert f"\n| {row_of(cluster)} | {context} | {batch} |" not in section(model, cluster)
    else:
        assert f"\n{line}\n" in section(model, cluster), "run python tests/benchmarks/decode.py --update"


@pytest.mark.sweep
def test_the_rows_of_the_page_that_explains() -> None:
    made = decode.shown([row(*place) for place in SHOWN])
    assert f"\n{made}\n" in decode.PAGE.read_text(encoding="utf-8"), "run python tests/benchmarks/decode.py --update"


@pytest.mark.sweep
def test_tensor_parallelism_beside_key_slicing() -> None:
    batches = decode.powers(16)
    line = decode.beside_tp([row("Llama-3.1-405B", "b200:8x8", "1M", batch) for batch in batches]).splitlines()[-1]
    assert f"\n{line}\n" in decode.PAGE.read_text(encoding="utf-8"), "run python tests/benchmarks/decode.py --update"


def test_the_sentences_on_latent_caches_agree_with_their_table() -> None:
    """TP is the fastest at 8k and in three of four cases at 128k, key slicing at 1M, with at most half of the cache."""
    made = decode.PAGE.read_text(encoding="utf-8").partition("<!-- latent -->")[2].partition("<!-- / -->")[0]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in made.strip().splitlines()[2:]]
    fastest = {context: [row[4:].index(next(c for c in row[4:] if "**" in c)) for row in rows if row[2] == context]
               for context in CONTEXTS}  # fmt: skip
    assert fastest["8k"] == [0] * 4
    assert sorted(fastest["128k"])[:3] == [0] * 3
    assert fastest["1M"] == [2] * 4
    sizes = [
        [float(cell.split(", ")[1].split(" GB")[0]) for cell in (row[4], row[6])] for row in rows if row[2] == "1M"
    ]
    assert all(2 <= tp / key < 8.1 for tp, key in sizes)


def row_of(cluster: str) -> int:
    """The devices of a cluster by name."""
    hosts, devices = cluster.partition(":")[2].split("x")
    return int(hosts) * int(devices)


def section(model: str, cluster: str) -> str:
    """The table of a model on the clusters of one kind."""
    kind = "domain" if cluster == "b200:1x64" else cluster.partition(":")[0]
    return PAGE.partition(f"<!-- {kind}-{model} -->")[2].partition("<!-- / -->")[0]
