"""The constants of the cost model, each with its source. All are defaults; a calibration of the cluster replaces them.

None is fitted to anyone's end-to-end figures: each is measured or published by itself, or derived from one that is.
"""

from __future__ import annotations

from typing import Final

from helixctl.cost.origin import Constant, Rule
from helixctl.records import record

# --- matrix products on CUDA ------------------------------------------------------------------------------------------

_GUIDE: Final = "NVIDIA, Matrix Multiplication Background User's Guide, sections 2.3, 3.1 and 3.2"
# Elements of the output that one streaming multiprocessor (SM) makes at a time, and the part of the largest tile's
# rate: cuBLAS has kernels of all three. Held against NVIDIA's tables (docs/measurements/silicon.md).
TILES: Final = (((128, 256), 1.0), ((128, 192), 0.97), ((128, 128), 0.9))
TILE: Final = TILES[0][0]
SMS: Final = Constant(
    "sms",
    132,
    f"default: SMs of an H100 SXM; each makes output tiles of 128 x 128 to 256, a wave of them at a time ({_GUIDE})",
)
# 8192 x 8192 outputs are 2048 tiles: 16 waves of 132, the last not full. The share counts full waves.
MATMUL_SHARE: Final = Constant(
    "matmul_share",
    798 / 989 * (16 * 132 / 2048),
    "default: 8192-cube product, 798 of 989 TFLOP/s on an H100 SXM (measured), less its unfilled last wave",
)
# Ways to split the depth, so that a product of few tiles keeps more SMs busy; the partial sums go through memory.
SPLITS: Final = (1, 2, 4, 8)
PARTIAL_NBYTES: Final = 4  # float32

# --- attention on CUDA ------------------------------------------------------------------------------------------------

_H200: Final = "measured on an H200 (docs/measurements/gpu.md)"
# By dims of a softmax, of a row of queries with very many keys.
ATTENTION_SHARES: Final = {
    64: Constant("attention_share", 0.45, f"default: cuDNN's kernel, 64 dims, {_H200}"),
    128: Constant("attention_share", 0.63, f"default: cuDNN's kernel, 128 dims, {_H200}"),
    256: Constant("attention_share", 0.69, f"default: cuDNN's kernel, 256 dims, {_H200}"),
}
WIDE_ATTENTION_SHARE: Final = Constant(
    "attention_share", 0.14, f"default: beyond 256 dims torch's memory-efficient kernel, at 512 {_H200}"
)
WIDEST_FLASH_HEAD: Final = 256
# Keys of a row at which half of the share is reached: a tile of queries has to be loaded, started and written.
ATTENTION_HALF_KEYS: Final = Constant("attention_half_keys", 194, f"default: {_H200}, 128 to 8,192 tokens")
ATTENTION_ROWS: Final = 128  # queries of a head that one SM takes together
ATTENTION_TILE: Final = Constant(
    "attention_tile",
    2.6e-6,
    f"default: an SM's time for {ATTENTION_ROWS} queries or fewer, {_H200}, 1 to 16 tokens",
    "s",
)

# Over a cache: a piece of this number of keys of one head is read by one SM at a time.
_DECODE: Final = "held against NVIDIA's tables of five GPUs (docs/measurements/silicon.md)"
DECODE_KEYS: Final = 256
DECODE_SM: Final = Constant("decode_sm", 50e9, f"default: what one SM reads of a cache, {_DECODE}", "B/s")
DECODE_MEMORY_SHARE: Final = Constant(
    "decode_memory_share", 0.8, f"default: of the memory bandwidth, a cache read by attention, {_DECODE}"
)
DECODE_START: Final = Constant(
    "decode_start", 6e-6, f"default: beyond that of a task, two kernels, the pieces and their merge, {_DECODE}", "s"
)

# --- experts on CUDA --------------------------------------------------------------------------------------------------

GROUPED_SHARE: Final = Constant(
    "grouped_share", 0.9, f"default: of a plain product's rate, torch's grouped product in bfloat16, {_H200}"
)
GROUPED_MEMORY_SHARE: Final = Constant(
    "grouped_memory_share", 0.63, f"default: of the memory bandwidth, the weights of a grouped product, {_H200}"
)

SORTED_TOKENS: Final = Constant(
    "sorted_tokens", 1e-4, f"default: sorting the tokens of a batch by expert, {_H200}, 2,048 to 131,072 of them", "s"
)
SORTED_ROW: Final = Constant("sorted_row", 7e-9, f"default: sorting a token's logits, {_H200}, 8 to 128 experts", "s")

# --- drawing a token --------------------------------------------------------------------------------------------------

DRAWN_NBYTES: Final = Constant(
    "drawn_nbytes", 450, "default: read and written by the calls that draw, per token that is kept, counted"
)
SORTED_NBYTES: Final = Constant(
    "sorted_nbytes", 160, "default: read and written per sorted logit, four passes of a radix sort, counted"
)
CPU_SORTED_LOGIT: Final = Constant(
    "cpu_sorted_logit", 67e-9, "default: sorting a logit on a core of an Intel Xeon, 49,152 and 128,256 of them", "s"
)

# --- quantised weights ------------------------------------------------------------------------------------------------

QUANTISED: Final = Rule(
    "quantised weights",
    "default: read as they are stored, and computed in the model's dtype (weight-only kernels such as Marlin)",
)
QUANTISED_SHARE: Final = Constant(
    "quantised_share",
    0.75,
    "default: of the quotient of the peaks, how much faster products of quantised numbers are, held against NVIDIA's "
    "tables of five GPUs (docs/measurements/silicon.md)",
)
# Rows at which a product is bound by its arithmetic, whatever its weights are stored in.
MANY_ROWS: Final = 4096

# --- everything on CUDA -----------------------------------------------------------------------------------------------

MEMORY_SHARE: Final = Constant(
    "memory_share", 0.9, "default: share of the memory bandwidth that streaming kernels reach"
)
TASK_OVERHEAD: Final = Constant(
    "task_overhead",
    3e-6,
    "default: a task of next to no work inside a captured CUDA graph, 2.8 to 4 us on an H200",
    "s",
)

# --- CPU --------------------------------------------------------------------------------------------------------------

CPU_MATMUL_SHARE: Final = Constant(
    "cpu_matmul_share", 0.8, "default: share of a core's peak that large matrix products reach"
)
CPU_ATTENTION_SHARE: Final = Constant(
    "cpu_attention_share", 0.4, "default: half of a matrix product's, as softmax takes about as long as the products"
)
CPU_TASK_OVERHEAD: Final = Constant("cpu_task_overhead", 10e-6, "default: a call from Python through torch", "s")
COLLECTIVE_LOAD: Final = Constant(
    "collective_load", 0.0, "default: cores per rank inside a collective; gloo's threads mostly wait for data"
)
GLOO: Final = Rule(
    "collectives",
    "default: the cluster's links as they are; a ring of single steps (gloo/allgather.cc, gloo/allreduce.cc), "
    "broadcast along a binomial tree (gloo/broadcast.cc)",
)

# --- collectives on CUDA ----------------------------------------------------------------------------------------------

_XLA: Final = "default: alpha-beta fit of XLA's collective table for 8 H100 with NVSwitch, error 12 to 25 %"


@record
class AlphaBeta:
    """Start-up in latencies of the link, and the share of the link's bandwidth that is reached as bus bandwidth."""

    latencies: float
    share: float
    source: str

    def origin(self, name: str) -> Rule:
        """The line that says so."""
        return Rule(f"{name}: start-up {self.latencies:.3g} latencies, {self.share:.3g} of the link", self.source)


def _fit(ranks: int, alpha_us: float, beta: float, moved: float) -> tuple[int, AlphaBeta]:
    """From t = alpha + size / beta (us, GB/s) on links of 450 GB/s and 5 us; ``moved`` is bytes received by size."""
    return ranks, AlphaBeta(alpha_us / 5, beta * moved / 450, _XLA)


WITHIN_HOST: Final[dict[str, dict[int, AlphaBeta]]] = {
    "all_gather": dict([_fit(4, 21.3, 347, 3 / 4), _fit(8, 29.1, 331, 7 / 8)]),
    # The worst error of this one fit on 8 ranks is 47 %.
    "all_to_all": dict([_fit(4, 33.0, 312, 3 / 4), _fit(8, 25.8, 305, 7 / 8)]),
    "all_reduce": dict([_fit(4, 40.3, 182, 6 / 4), _fit(8, 47.7, 187, 14 / 8)]),
    "reduce_scatter": dict([_fit(4, 21.6, 324, 3 / 4), _fit(8, 20.7, 293, 7 / 8)]),
    "broadcast": dict([_fit(4, 21.3, 347, 3 / 4), _fit(8, 29.1, 331, 7 / 8)]),  # as the all-gather
    "send_receive": {2: AlphaBeta(2.0, 0.8, "default: two latencies, four fifths of the link")},
}
NIC_SHARE: Final = Constant("nic_share", 0.92, "default: 46 of 50 GB/s per 400 Gb/s NIC (nccl-tests issue 290)")
# Between hosts: start-up in latencies of the link between them (10 us).
_NCCL: Final = (
    "default: 50 us all-gather and reduce-scatter, 75 us all-reduce between hosts (nccl issue 1244 gives 47 us for 16 "
    "ranks)"
)
BETWEEN_HOSTS: Final[dict[str, Constant]] = {
    "all_gather": Constant("all_gather_latencies", 5.0, _NCCL),
    "all_to_all": Constant("all_to_all_latencies", 5.0, "default: as the all-gather, for want of a published figure"),
    "all_reduce": Constant("all_reduce_latencies", 7.5, _NCCL),
    "reduce_scatter": Constant("reduce_scatter_latencies", 5.0, _NCCL),
    "broadcast": Constant("broadcast_latencies", 5.0, _NCCL),
    "send_receive": Constant("send_receive_latencies", 2.0, "default: two latencies of the link between hosts"),
}
