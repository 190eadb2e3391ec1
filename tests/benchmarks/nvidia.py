"""NVIDIA's measured tables in the wheel of `aiconfigurator-core`: products, attention, experts and collectives.

    pip download --no-deps aiconfigurator-core==0.12.0

The wheel is Apache-2.0. Its kernels ran inside three engines; of a shape the median of what is in the tables counts. A
row says nothing of when its clock began, but the least times are those of kernels in a CUDA graph. Needs
pyarrow (the extra `tables`).
"""

from __future__ import annotations

import statistics
import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any, Final

NAME: Final = "aiconfigurator-core 0.12.0"
SHA256: Final = "aadc4aad0a00bf8a61c477c62bef43de479849c3aa0b1c3078068e08309eccc4"
SYSTEMS: Final = {"a100": "a100_sxm", "b200": "b200_sxm", "h100": "h100_sxm", "h200": "h200_sxm", "l40s": "l40s"}
DTYPE: Final = "bfloat16"
DTYPE_NBYTES: Final = 2
# What the tables call products of quantised numbers, and what they are of. SmoothQuant is of int8.
QUANTISED: Final = {"fp8": "float8", "fp8_block": "float8_blocks", "nvfp4": "float4", "sq": "int8"}
COLLECTIVES: Final = {
    "all_gather": "all_gather", "all_reduce": "all_reduce", "alltoall": "all_to_all", "reduce_scatter": "reduce_scatter"
}  # fmt: skip

MOST_SHARED: Final = 32  # query heads of a head of keys, up to which all kernels read it once for all of them
# The routing of experts that is most like an even one, and the rows of an expert at which all are used by it as well:
# on one rank, of engines that have both, it takes 0.92 to 1.14 times as long in the median.
EVEN: Final = "balanced"
NEARLY_EVEN: Final = "power_law_1.01"
ROWS_OF_ALL: Final = 9
# Where SGLang's Triton kernel ran by itself (collector/sglang/collect_moe.py in ai-dynamo/aiconfigurator) one
# of several ranks did not leave out the choices of other ranks' experts: `topk_ids.clamp(min=0)` gave them to its own
# first, with a gate of 0, and the rank computed up to all rows. So it was of all models up to 0.5.10, and in 0.5.14 of
# those whose routing the collector did not know: Mixtral-8x7B and 8x22B, Gemma 4.
TRITON: Final = "sglang_fused_moe_triton"
ALL_OF: Final = "0.5.10"
SOME_OF: Final = "0.5.14"
SOME: Final = {(4096, 14336, 2, 8), (6144, 16384, 2, 8), (2816, 704, 8, 128)}

Shape = tuple[Any, ...]
Row = dict[str, Any]
Seconds = dict[Shape, float]


class Tables:
    """The tables of one GPU, in bfloat16.

    Raises:
        SystemExit: the wheel is another one than the figures here were made with.
    """

    def __init__(self, wheel: Path, gpu: str) -> None:
        if sha256(wheel.read_bytes()).hexdigest() != SHA256:
            raise SystemExit(f"{wheel} is not the wheel of {NAME} with sha256 {SHA256}")
        self._wheel, self._system = wheel, SYSTEMS[gpu]

    def products(self) -> Seconds:
        """By (rows, columns, depth)."""

        def shape(row: Row) -> Shape | None:
            return (row["m"], row["n"], row["k"]) if row["gemm_dtype"] == DTYPE else None

        return self._seconds("gemm", "gemm_perf", shape)

    def quantised_products(self) -> Seconds:
        """The same where both factors are quantised: by (what they are of, rows, columns, depth).

        The engines' kernels of a shape differ by a third (float8) to more than twice (in blocks), so that none is in
        the middle: of these the fastest counts.
        """

        def shape(row: Row) -> Shape | None:
            kind = QUANTISED.get(row["gemm_dtype"])
            return (kind, row["m"], row["n"], row["k"]) if kind else None

        return self._seconds("gemm", "gemm_perf", shape, min)

    def prompts(self) -> Seconds:
        """Causal attention of whole prompts: by (tokens, sequences, heads, heads of keys, width)."""

        def shape(row: Row) -> Shape | None:
            return (row["isl"], *_attention(row)) if _plain(row) and row["step"] == 0 else None

        return self._seconds("attention", "context_attention_perf", shape)

    def decodes(self) -> Seconds:
        """Attention of one new token over a cache: by (keys, sequences, heads, heads of keys, width).

        Where more query heads share a head of keys than some kernels have a fast path for, these read the cache once
        for each of them, and take up to 40 times as long as the others: there the fastest counts.
        """

        def shape(row: Row) -> Shape | None:
            return (row["step"] + row["isl"], *_attention(row)) if _plain(row) and row["isl"] == 1 else None

        found, least = (
            self._seconds("attention", "generation_attention_perf", shape, of_all)
            for of_all in (statistics.median, min)
        )
        return {its: least[its] if its[2] > MOST_SHARED * its[3] else seconds for its, seconds in found.items()}

    def latent_decodes(self) -> Seconds:
        """Latent attention of one new token over a cache of 576 numbers a position: by (keys, sequences, heads)."""

        def shape(row: Row) -> Shape | None:
            if row["mla_dtype"] != DTYPE or row["kv_cache_dtype"] != DTYPE or row["isl"] != 1:
                return None
            return row["step"] + row["isl"], row["batch_size"], row["num_heads"]

        return self._seconds("mla", "generation_mla_perf", shape)

    def experts(self) -> Seconds:
        """Gated experts, from a token's choice to the sum over its experts, where every expert has as many tokens.

        By (tokens, hidden, ffn, experts of a token, experts, cut, parallel): one of ``parallel`` ranks, which share the
        experts, or of ``cut``, which share the width of each, given the tokens of all. A rank without a row is left
        out, and so are models whose experts have two matrices: not every engine's table tells them apart.

        An engine without an even routing counts by the one that is nearly even, where one rank has all experts.
        """
        return self._experts({DTYPE: DTYPE})[DTYPE]

    def quantised_experts(self) -> dict[str, Seconds]:
        """The same where both factors are quantised, by what they are of."""
        return self._experts(QUANTISED)

    def _experts(self, kinds: Mapping[str, str]) -> dict[str, Seconds]:
        plain: set[Shape] = set()

        def shape(row: Row) -> Shape | None:
            model = row["hidden_size"], row["inter_size"], row["topk"], row["num_experts"]
            if "nongated" in row["kernel_source"]:
                plain.add(model)
            tokens, parallel, kind = row["num_tokens"], row["moe_ep_size"], kinds.get(row["moe_dtype"])
            if kind is None or tokens * row["topk"] < parallel:
                return None
            if parallel > 1 and _computes_others(row, model):
                return None
            return kind, tokens, *model, row["moe_tp_size"], parallel

        def even(rows: list[Row]) -> list[Row]:
            found = [row for row in rows if row["distribution"] == EVEN]
            return found or [row for row in rows if row["distribution"] == NEARLY_EVEN and _all_used(row)]

        found = _of_all((even(rows) for rows in self._files("moe", "moe_perf")), shape)
        return by_first({its: seconds for its, seconds in found.items() if its[2:6] not in plain})

    def collectives(self) -> Seconds:
        """NCCL inside a host: by (kind, ranks, bytes that a rank receives).

        ``message_size`` counts elements: of all that is gathered, or of what each rank has.
        """

        def shape(row: Row) -> Shape | None:
            if row["nccl_dtype"] != "half" or row["op_name"] not in COLLECTIVES:
                return None
            ranks, total = row["num_gpus"], row["message_size"] * DTYPE_NBYTES
            kind = COLLECTIVES[row["op_name"]]
            return kind, ranks, total * (ranks - 1) // ranks * (2 if kind == "all_reduce" else 1)

        return self._seconds("comm", "nccl_perf", shape)

    def _seconds(
        self,
        family: str,
        file: str,
        shape: Callable[[Row], Shape | None],
        of_all: Callable[[list[float]], float] = statistics.median,
    ) -> Seconds:
        return _of_all(self._files(family, file), shape, of_all)

    def _files(self, family: str, file: str) -> Iterator[list[Row]]:
        """The rows of every file, one for each version of each engine."""
        import pyarrow.parquet as pq

        with zipfile.ZipFile(self._wheel) as wheel:
            for name in wheel.namelist():
                if f"/{self._system}/{family}/" in name and name.endswith(f"/{file}.parquet"):
                    yield pq.read_table(BytesIO(wheel.read(name))).to_pylist()


def _of_all(
    files: Iterable[list[Row]],
    shape: Callable[[Row], Shape | None],
    of_all: Callable[[list[float]], float] = statistics.median,
) -> Seconds:
    """Seconds by the shape of a row; those of rows without a shape are left out."""
    found: dict[Shape, list[float]] = defaultdict(list)
    for rows in files:
        for row in rows:
            if (its := shape(row)) is not None:
                found[its].append(row["latency"] * 1e-3)
    return {its: of_all(all_) for its, all_ in found.items()}


def _computes_others(row: Row, model: Shape) -> bool:
    """Whether one of several ranks computed the rows of the others' experts too."""
    version = row["version"]
    return row["kernel_source"] == TRITON and (version == ALL_OF or (version == SOME_OF and model in SOME))


def _all_used(row: Row) -> bool:
    """Whether one rank has all experts, and each of them rows enough."""
    return row["moe_ep_size"] == 1 and row["num_tokens"] * row["topk"] >= ROWS_OF_ALL * row["num_experts"]


def by_first(found: Seconds) -> dict[str, Seconds]:
    """Apart by the first part of their shapes, which is left out of them."""
    apart: dict[str, Seconds] = defaultdict(dict)
    for (kind, *its), seconds in found.items():
        apart[kind][tuple(its)] = seconds
    return apart


def _plain(row: Row) -> bool:
    """Neither windows nor a cache of another dtype; one engine's tables have no column for windows."""
    return row.get("window_size", 0) == 0 and row["attn_dtype"] == row["kv_cache_dtype"] == DTYPE


def _attention(row: Row) -> Shape:
    heads = row["num_heads"]
    return row["batch_size"], heads, row["num_key_value_heads"] or heads, row["head_dim"]
