"""What a calibration measures: kernels and collectives, at which sizes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Final, Literal, get_args

from helixctl.spec import Dtype

Kernel = Literal["task", "copy", "norm", "activation", "add", "matmul", "attention"]
Collective = Literal["broadcast", "all_to_all", "all_gather", "all_reduce", "reduce_scatter", "send_receive"]
COLLECTIVES: Final[tuple[Collective, ...]] = get_args(Collective)
ELEMENTWISE: Final[tuple[Literal["norm", "activation", "add"], ...]] = ("norm", "activation", "add")


@dataclass(frozen=True, slots=True)
class KernelPoint:
    """One kernel at one size.

    Attributes:
        kernel: the kind of kernel.
        dtype: the dtype of its operands.
        shape: matmul: rows, columns, depth; attention: batch, seq_len, heads, width; else the extents of the operand.
    """

    kernel: Kernel
    dtype: Dtype
    shape: tuple[int, ...]

    def __str__(self) -> str:
        """``matmul 8 x 32 x 512 in float32``."""
        return f"{self.kernel} {' x '.join(map(str, self.shape))} in {self.dtype}"


@dataclass(frozen=True, slots=True)
class CollectivePoint:
    """One collective of one size, run at the same time by all groups of neighbouring ranks.

    Attributes:
        kind: the kind of collective.
        ranks: the ranks of a group.
        nbytes: about the bytes that one rank receives.
    """

    kind: Collective
    ranks: int
    nbytes: int

    def __str__(self) -> str:
        """``all_gather of 4 ranks, 1024 bytes``."""
        return f"{self.kind} of {self.ranks} ranks, {self.nbytes} bytes"


@dataclass(frozen=True, slots=True)
class Sizes:
    """The sizes to measure, and the numbers of repetitions.

    Attributes:
        rows, columns, depth: the sizes of matrix products.
        seq_len, width: the sizes of attention: tokens of a sequence, dims of a softmax.
        tokens, hidden: the residual stream, for elementwise work; attention has as many tokens, or one sequence.
        copy_numel: elements of the copy that measures memory bandwidth.
        weights_nbytes: bytes of weights that the products use in turn, so that a product reads its weight from memory,
            as in a step, and not from a cache.
        messages: bytes that a rank receives in a collective.
        kernel_s: seconds for which a kernel is repeated.
        repeat: the least number of repetitions and, on CPU, the largest.
        loops: the number of loops over a collective; their median counts.
        exchanges: the number of collectives in a loop.
    """

    rows: tuple[int, ...]
    columns: tuple[int, ...]
    depth: tuple[int, ...]
    seq_len: tuple[int, ...]
    width: tuple[int, ...]
    tokens: int
    hidden: int
    copy_numel: int
    weights_nbytes: int
    messages: tuple[int, ...] = (2**10, 2**14, 2**17, 2**20, 2**23)
    kernel_s: float = 0.03
    repeat: tuple[int, int] = (5, 25)
    loops: int = 5
    exchanges: int = 8

    def kernels(self, dtypes: Sequence[Dtype]) -> Iterator[KernelPoint]:
        """The kernels to measure: elementwise ones in the first dtype, products and attention in all."""
        yield KernelPoint("task", dtypes[0], (1,))
        yield KernelPoint("copy", dtypes[0], (self.copy_numel,))
        for kernel in ELEMENTWISE:
            yield KernelPoint(kernel, dtypes[0], (self.tokens, self.hidden))
        for dtype in dtypes:
            for shape in product(self.rows, self.columns, self.depth):
                yield KernelPoint("matmul", dtype, shape)
            for seq_len, width in product(self.seq_len, self.width):
                batch, heads = max(1, self.tokens // seq_len), max(1, self.hidden // width)
                yield KernelPoint("attention", dtype, (batch, seq_len, heads, width))

    def collectives(self, ranks_per_host: int) -> Iterator[CollectivePoint]:
        """The collectives to measure: of every number of ranks that divides that of a host; transfers between two."""
        for ranks in (k for k in range(2, ranks_per_host + 1) if ranks_per_host % k == 0):
            for kind in COLLECTIVES:
                if kind != "send_receive" or ranks == 2:  # noqa: PLR2004
                    yield from (CollectivePoint(kind, ranks, nbytes) for nbytes in self.messages)


_CPU_AXIS: Final = (32, 128, 512, 2048)
_CUDA_AXIS: Final = (256, 512, 1024, 2048, 4096, 8192, 16384, 32768)
CPU: Final = Sizes(
    rows=(1, 8, 64, 512),
    columns=_CPU_AXIS,
    depth=_CPU_AXIS,
    seq_len=(8, 32, 128, 512),
    width=(8, 32, 128),
    tokens=128,
    hidden=512,
    copy_numel=2**24,
    weights_nbytes=2**25,
)
CUDA: Final = Sizes(
    rows=(1, 16, 64, 128, 256, 512, 1024, 2048, 8192),
    columns=_CUDA_AXIS,
    depth=_CUDA_AXIS,
    seq_len=(1, 4, 16, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384),
    width=(64, 128, 256, 512),
    tokens=8192,
    hidden=4096,
    copy_numel=2**28,
    weights_nbytes=2**28,
    messages=(2**10, 2**14, 2**17, 2**20, 2**23, 2**26, 2**28),
    exchanges=20,
)
# For a first impression: they take a few seconds.
QUICK: Final = {
    "cpu": Sizes(
        rows=(8, 128),
        columns=(128, 512),
        depth=(128, 512),
        seq_len=(8, 128),
        width=(8, 32),
        tokens=128,
        hidden=512,
        copy_numel=2**22,
        weights_nbytes=2**22,
        messages=(2**10, 2**17, 2**20),
        kernel_s=0.01,
        repeat=(3, 10),
        loops=3,
        exchanges=2,
    ),
    "cuda": Sizes(
        rows=(128, 8192),
        columns=(2048, 8192),
        depth=(2048, 8192),
        seq_len=(512, 2048),
        width=(128,),
        tokens=8192,
        hidden=4096,
        copy_numel=2**26,
        weights_nbytes=2**27,
        messages=(2**10, 2**17, 2**20),
        kernel_s=0.01,
        repeat=(3, 10),
        loops=3,
    ),
}
FULL: Final = {"cpu": CPU, "cuda": CUDA}
