"""The constants of the cost model, each with its source. All are defaults, none is measured on the user's cluster."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

MEASURED_MATMUL = "8192-cube matrix product, 798 of 989 TFLOP/s on an H100 SXM (measured)"
FA3_PAPER = "FlashAttention-3 paper, forward, head_dim 128, 4k tokens: 638 of 989 TFLOP/s"
WIDE_HEAD = "default: stock fused kernels end at head_dim 256; wider heads run at about 200 TFLOP/s"
XLA_TABLE = "alpha-beta fit of XLA's collective table for 8 H100 with NVSwitch, error 12 to 25 %"
NIC_RATE = "default: 46 of 50 GB/s per 400 Gb/s NIC (nccl-tests issue 290)"
NIC_LATENCY = "default: 50 us all-gather, 75 us all-reduce between hosts (nccl issue 1244 gives 47 us)"


@dataclass(frozen=True, slots=True)
class Sourced:
    """A number and where it comes from."""

    value: float
    source: str


MATMUL_SHARE: Final = Sourced(0.807, MEASURED_MATMUL)
ATTENTION_SHARE: Final = Sourced(0.645, FA3_PAPER)
WIDE_ATTENTION_SHARE: Final = Sourced(0.2, WIDE_HEAD)
WIDEST_FUSED_HEAD: Final = 256
MEMORY_SHARE: Final = Sourced(0.9, "default: share of the datasheet's memory bandwidth that streaming kernels reach")
TASK_OVERHEAD_S: Final = Sourced(2e-6, "default: one kernel inside a captured CUDA graph")

# By collective and number of ranks inside one host: (start-up in link latencies, share of the link's bandwidth as bus
# bandwidth). From the fit t = alpha + size / beta on links of 450 GB/s and 5 us: alpha / 5 us, and
# beta * (n - 1) / n (all-gather) or beta * 2 (n - 1) / n (all-reduce) / 450 GB/s.
WITHIN_HOST: Final[dict[str, dict[int, tuple[float, float]]]] = {
    "all_gather": {4: (21.3 / 5, 347 * 3 / 4 / 450), 8: (29.1 / 5, 331 * 7 / 8 / 450)},
    "all_reduce": {4: (40.3 / 5, 182 * 6 / 4 / 450), 8: (47.7 / 5, 187 * 14 / 8 / 450)},
    "broadcast": {4: (21.3 / 5, 347 * 3 / 4 / 450), 8: (29.1 / 5, 331 * 7 / 8 / 450)},  # as the all-gather
    "send_receive": {2: (2.0, 0.8)},  # default: two latencies, four fifths of the link
}
# Between hosts: start-up in latencies of the link between hosts (10 us), and the share of each NIC's rate.
BETWEEN_HOSTS: Final[dict[str, float]] = {"all_gather": 5.0, "all_reduce": 7.5, "broadcast": 5.0, "send_receive": 2.0}
NIC_SHARE: Final = Sourced(0.92, NIC_RATE)
