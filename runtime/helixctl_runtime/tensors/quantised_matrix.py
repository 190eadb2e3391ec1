"""A matrix that is stored quantised: which stored tensors hold it, and how a box of it is dequantised.

docs/formats.md, "Dequantisation", has the formulas. A box is made of the elements in it and of the scales that they
need, and of nothing else. Products are float32.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, prod
from typing import ClassVar, Final

import torch

from helixctl.errors import Diagnostic, HelixError
from helixctl.spec import NUMBER_BITS
from helixctl.spec.hugging_face.quantised import Scheme
from helixctl_runtime.tensors.packed_numbers import AWQ_PLACES, WORD_BITS, float4, power_of_two, unpacked
from helixctl_runtime.tensors.tensor_files import FLOATS, TensorFiles

Range = tuple[int, int]
_FLOAT: Final = tuple(FLOATS)
_WORDS: Final = ("I32",)
_BYTES: Final = ("U8",)


@dataclass(frozen=True)
class QuantisedMatrix(ABC):
    """A matrix, or the stacked matrices of all experts.

    Attributes:
        files: that hold it.
        base: the text with which the names of its stored tensors begin.
        scheme: how it is stored.
    """

    files: TensorFiles
    base: str
    scheme: Scheme

    # What is behind the base in the names of the stored tensors: of the numbers, of what there must be, and of what
    # there may be.
    numbers: ClassVar[str]
    needed: ClassVar[tuple[str, ...]]
    optional: ClassVar[tuple[str, ...]] = ()
    weight: ClassVar[str] = ".weight"

    @property
    def name(self) -> str:
        """The name of the matrix as if it were stored in floats."""
        return self.base + self.weight

    @property
    def bits(self) -> int:
        """Of a number."""
        return NUMBER_BITS[self.scheme.stored["number"]]

    @property
    def members(self) -> list[str]:
        """The stored tensors that are there."""
        ends = (self.numbers, *self.needed, *self.optional)
        return [self.base + end for end in ends if self.base + end in self.files.names]

    @property
    def nbytes(self) -> int:
        """Bytes of all of them."""
        return sum(self.files.nbytes(name) for name in self.members)

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Of the matrix: (outputs, inputs)."""

    @abstractmethod
    def expected(self) -> Mapping[str, tuple[Sequence[tuple[int, ...]], Sequence[str]]]:
        """By the ends of the names, the shapes that a stored tensor may have, and its dtypes."""

    @abstractmethod
    def part(self, ranges: Sequence[Range]) -> torch.Tensor:
        """A box, in float32."""

    def problems(self) -> Iterator[str]:
        """Why it cannot be read."""
        missing = [self.base + end for end in self.needed if self.base + end not in self.files.names]
        if missing:
            yield f"tensor {self.base + self.numbers} is quantised, and {', '.join(missing)} is missing"
            return
        for end, (shapes, dtypes) in self.expected().items():
            name = self.base + end
            if name not in self.files.names:
                continue
            shape, dtype = self.files.shape(name), self.files.dtype(name)
            if shape not in shapes:
                said = f"{self.scheme.stored['number']} with scales for {_said(self.scheme)}"
                yield f"tensor {name} has shape {list(shape)}; it must be {list(shapes[0])} ({said})"
            if dtype not in dtypes:
                yield f"tensor {name} is {dtype}; it must be one of {', '.join(dtypes)}"

    def read(self, end: str, *ranges: Range) -> torch.Tensor:
        """A box of one of the stored tensors."""
        return self.files.part(self.base + end, ranges)

    def scales(self, end: str, *ranges: Range) -> torch.Tensor:
        """A box of the scales, as float32.

        Raises:
            HelixError: HX507, one of them is not finite.
        """
        return self.finite(self.read(end, *ranges).float(), end)

    def finite(self, scales: torch.Tensor, end: str) -> torch.Tensor:
        """The scales, if they are numbers."""
        if not bool(scales.isfinite().all()):
            message = f"tensor {self.base + end} has scales that are not finite numbers"
            raise HelixError(Diagnostic("HX507", message, "get the checkpoint again", file=self.files.path))
        return scales

    def groups(self, inputs: int) -> int:
        """How many groups of inputs have a scale."""
        each = self.scheme.block[1]
        return ceil(inputs / each) if each else 1


def _said(scheme: Scheme) -> str:
    outputs, inputs = scheme.block
    if outputs is None and inputs is None:
        return "a matrix"
    return f"blocks of {outputs or 'all'} x {inputs or 'all'}"


def _full(shape: Sequence[int]) -> tuple[Range, ...]:
    return tuple((0, size) for size in shape)


def _blocks(span: Range, each: int | None, count: int) -> tuple[Range, torch.Tensor]:
    """The blocks that a span of indices touches, and of every index the place of its block among them."""
    if each is None or count == 1:
        return (0, 1), torch.zeros(span[1] - span[0], dtype=torch.int64)
    first, last = span[0] // each, (span[1] - 1) // each + 1
    return (first, last), torch.arange(*span) // each - first


@dataclass(frozen=True)
class Elements(QuantisedMatrix):
    """One fp8 or int8 number an element: ``w = q s``, or ``(q - z) s``."""

    numbers: ClassVar[str] = ".weight"
    needed: ClassVar[tuple[str, ...]] = (".weight_scale",)
    optional: ClassVar[tuple[str, ...]] = (".weight_zero_point",)

    @property
    def shape(self) -> tuple[int, ...]:
        """(outputs, inputs)."""
        return self.files.shape(self.base + self.numbers)

    def expected(self) -> Mapping[str, tuple[Sequence[tuple[int, ...]], Sequence[str]]]:
        """Scales are a number, or (blocks of outputs, blocks of inputs)."""
        grid = self._grid()
        shapes = [grid, *([(), (1,)] if grid == (1, 1) else []), *([grid[:1]] if grid[1] == 1 else [])]
        number = ("F8_E4M3",) if self.scheme.stored["number"] == "float8" else ("I8",)
        return {
            self.numbers: ([self.shape], number),
            self.needed[0]: (shapes, _FLOAT),
            ".weight_zero_point": (shapes, ("I8", *_FLOAT)),
        }

    def _grid(self) -> tuple[int, int]:
        sizes = zip(self.shape, self.scheme.block, strict=True)
        rows, columns = (ceil(size / each) if each else 1 for size, each in sizes)
        return rows, columns

    def part(self, ranges: Sequence[Range]) -> torch.Tensor:
        """(outputs, inputs) of the box."""
        numbers = self.read(self.numbers, *ranges).float()
        if self.base + ".weight_zero_point" in self.members:
            numbers = numbers - self._spread(".weight_zero_point", ranges)
        return numbers * self._spread(self.needed[0], ranges)

    def _spread(self, end: str, ranges: Sequence[Range]) -> torch.Tensor:
        """What every element of a box is scaled with."""
        each = [_blocks(*its) for its in zip(ranges, self.scheme.block, self._grid(), strict=True)]
        stored = self.files.shape(self.base + end)
        boxes = [span for span, _ in each][: len(stored)]
        found = self.scales(end, *boxes) if stored else self.finite(self.files.scalar(self.base + end).float(), end)
        found = found.reshape([last - first for (first, last), _ in each])
        return found[each[0][1]][:, each[1][1]]


@dataclass(frozen=True)
class InverseScaled(Elements):
    """The same with the names of DeepSeek's checkpoints; the scale is multiplied with, whatever its name says."""

    needed: ClassVar[tuple[str, ...]] = (".weight_scale_inv",)
    optional: ClassVar[tuple[str, ...]] = ()


@dataclass(frozen=True)
class MxFloat8(Elements):
    """The same with a power of two, in a byte, for every 32 inputs of an output (mxfp8)."""

    optional: ClassVar[tuple[str, ...]] = ()

    def expected(self) -> Mapping[str, tuple[Sequence[tuple[int, ...]], Sequence[str]]]:
        """Scales by output and group."""
        return {self.numbers: ([self.shape], ("F8_E4M3",)), self.needed[0]: ([self._grid()], _BYTES)}

    def scales(self, end: str, *ranges: Range) -> torch.Tensor:
        """A box of the scales, as float32."""
        return self.finite(power_of_two(self.read(end, *ranges)), end)


@dataclass(frozen=True)
class Float4(QuantisedMatrix):
    """Two e2m1 numbers a byte with a scale for every group of inputs, and one for the matrix (nvfp4)."""

    numbers: ClassVar[str] = ".weight"
    needed: ClassVar[tuple[str, ...]] = (".weight_scale", ".weight_scale_2")
    scale_dtypes: ClassVar[tuple[str, ...]] = ("F8_E4M3",)

    @property
    def shape(self) -> tuple[int, ...]:
        """(outputs, inputs)."""
        outputs, pairs = self.files.shape(self.base + self.numbers)
        return outputs, pairs * 2

    def expected(self) -> Mapping[str, tuple[Sequence[tuple[int, ...]], Sequence[str]]]:
        """Scales by output and group, and one number."""
        outputs, inputs = self.shape
        found: dict[str, tuple[Sequence[tuple[int, ...]], Sequence[str]]] = {
            self.numbers: ([(outputs, inputs // 2)], _BYTES),
            ".weight_scale": ([(outputs, self.groups(inputs))], self.scale_dtypes),
        }
        return found | {end: ([(), (1,)], ("F32",)) for end in self.needed[1:]}

    def part(self, ranges: Sequence[Range]) -> torch.Tensor:
        """(outputs, inputs) of the box."""
        outputs, (begin, end) = ranges
        pairs = begin // 2, ceil(end / 2)
        numbers = float4(self.read(self.numbers, outputs, pairs))[:, begin - 2 * pairs[0] :][:, : end - begin]
        touched, group = _blocks((begin, end), self.scheme.block[1], self.groups(self.shape[1]))
        return self.scaled(numbers, self.scales(".weight_scale", outputs, touched)[:, group])

    def scaled(self, numbers: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
        """Numbers times their scales and that of the matrix."""
        return numbers * scales * self._of_the_matrix

    @property
    def _of_the_matrix(self) -> torch.Tensor:
        return self.finite(self.files.scalar(self.base + self.needed[1]).reshape(()), self.needed[1])


@dataclass(frozen=True)
class PackedFloat4(Float4):
    """The same as compressed-tensors stores it: the number of the matrix divides the scales."""

    numbers: ClassVar[str] = ".weight_packed"
    needed: ClassVar[tuple[str, ...]] = (".weight_scale", ".weight_global_scale")

    def scaled(self, numbers: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
        """Numbers times their scales, divided by the number of the matrix: rounded once, as the product is exact."""
        return numbers * scales / self._of_the_matrix


@dataclass(frozen=True)
class PackedMxfp4(Float4):
    """compressed-tensors' mxfp4: scales are powers of two, and the matrix has none."""

    numbers: ClassVar[str] = ".weight_packed"
    needed: ClassVar[tuple[str, ...]] = (".weight_scale",)
    scale_dtypes: ClassVar[tuple[str, ...]] = _BYTES

    def scales(self, end: str, *ranges: Range) -> torch.Tensor:
        """A box of the scales, as float32."""
        return self.finite(power_of_two(self.read(end, *ranges)), end)

    def scaled(self, numbers: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
        """Numbers times their scales."""
        return numbers * scales


@dataclass(frozen=True)
class Gptq(QuantisedMatrix):
    """GPTQ: (inputs / 8, outputs) of words, zero points packed along the outputs, the group of an input in g_idx."""

    numbers: ClassVar[str] = ".qweight"
    needed: ClassVar[tuple[str, ...]] = (".qzeros", ".scales")
    optional: ClassVar[tuple[str, ...]] = (".g_idx",)

    @property
    def _each(self) -> int:
        return WORD_BITS // self.bits

    @property
    def shape(self) -> tuple[int, ...]:
        """(outputs, inputs)."""
        rows, outputs = self.files.shape(self.base + self.numbers)
        return outputs, rows * self._each

    def expected(self) -> Mapping[str, tuple[Sequence[tuple[int, ...]], Sequence[str]]]:
        """Scales by group and output."""
        outputs, inputs = self.shape
        groups = self.groups(inputs)
        return {
            ".qweight": ([(inputs // self._each, outputs)], _WORDS),
            ".qzeros": ([(groups, ceil(outputs / self._each))], _WORDS),
            ".scales": ([(groups, outputs)], _FLOAT),
            ".g_idx": ([(inputs,)], _WORDS),
        }

    def part(self, ranges: Sequence[Range]) -> torch.Tensor:
        """(outputs, inputs) of the box."""
        (first, last), (begin, end) = ranges
        words = begin // self._each, ceil(end / self._each)
        numbers = unpacked(self.read(".qweight", words, (first, last)), self.bits, 0)
        numbers = numbers[begin - words[0] * self._each :][: end - begin]
        group = self._groups_of((begin, end))
        touched = int(group.min()), int(group.max()) + 1
        scales = self.scales(".scales", touched, (first, last))
        columns = first // self._each, ceil(last / self._each)
        zeros = unpacked(self.read(".qzeros", touched, columns), self.bits, 1)
        zeros = zeros[:, first - columns[0] * self._each :][:, : last - first]
        if self.scheme.one_less:
            zeros = (zeros + 1) & ((1 << self.bits) - 1)
        group = group - touched[0]
        return ((numbers - zeros[group]).float() * scales[group]).T

    def _groups_of(self, inputs: Range) -> torch.Tensor:
        if self.base + ".g_idx" not in self.members:
            return torch.arange(*inputs) // (self.scheme.block[1] or self.shape[1])
        found = self.read(".g_idx", inputs).long()
        count = self.groups(self.shape[1])
        if bool(((found < 0) | (found >= count)).any()):
            message = f"tensor {self.base}.g_idx names a group beyond the {count} there are"
            raise HelixError(Diagnostic("HX507", message, "get the checkpoint again", file=self.files.path))
        return found


@dataclass(frozen=True)
class Awq(QuantisedMatrix):
    """AWQ: (inputs, outputs / 8) of words, in which columns have an order of their own."""

    numbers: ClassVar[str] = ".qweight"
    needed: ClassVar[tuple[str, ...]] = (".qzeros", ".scales")

    @property
    def _each(self) -> int:
        return WORD_BITS // self.bits

    @property
    def shape(self) -> tuple[int, ...]:
        """(outputs, inputs)."""
        inputs, words = self.files.shape(self.base + self.numbers)
        return words * self._each, inputs

    def expected(self) -> Mapping[str, tuple[Sequence[tuple[int, ...]], Sequence[str]]]:
        """Scales by group and output."""
        outputs, inputs = self.shape
        groups, words = self.groups(inputs), outputs // self._each
        return {
            ".qweight": ([(inputs, words)], _WORDS),
            ".qzeros": ([(groups, words)], _WORDS),
            ".scales": ([(groups, outputs)], _FLOAT),
        }

    def part(self, ranges: Sequence[Range]) -> torch.Tensor:
        """(outputs, inputs) of the box."""
        (first, last), inputs = ranges
        columns = first // self._each, ceil(last / self._each)
        own = slice(first - columns[0] * self._each, last - columns[0] * self._each)
        touched, group = _blocks(inputs, self.scheme.block[1], self.groups(self.shape[1]))
        numbers = unpacked(self.read(".qweight", inputs, columns), self.bits, 1, AWQ_PLACES)[:, own]
        zeros = unpacked(self.read(".qzeros", touched, columns), self.bits, 1, AWQ_PLACES)[:, own]
        scales = self.scales(".scales", touched, (first, last))
        return ((numbers - zeros[group]).float() * scales[group]).T


@dataclass(frozen=True)
class PackedIntegers(QuantisedMatrix):
    """compressed-tensors, pack-quantized: (outputs, inputs / 8) of words, numbers and zero points with an offset."""

    numbers: ClassVar[str] = ".weight_packed"
    needed: ClassVar[tuple[str, ...]] = (".weight_scale", ".weight_shape")
    optional: ClassVar[tuple[str, ...]] = (".weight_zero_point", ".weight_g_idx")

    @property
    def _each(self) -> int:
        return WORD_BITS // self.bits

    @property
    def shape(self) -> tuple[int, ...]:
        """(outputs, inputs)."""
        outputs, words = self.files.shape(self.base + self.numbers)
        said = tuple(int(n) for n in self.files.part(f"{self.base}.weight_shape", ((0, 2),)))
        # The last word of a row may be filled up.
        return said if said[0] == outputs and ceil(said[1] / self._each) == words else (outputs, words * self._each)

    def expected(self) -> Mapping[str, tuple[Sequence[tuple[int, ...]], Sequence[str]]]:
        """Scales by output and group."""
        outputs, inputs = self.shape
        groups = self.groups(inputs)
        return {
            ".weight_packed": ([(outputs, ceil(inputs / self._each))], _WORDS),
            ".weight_scale": ([(outputs, groups)], _FLOAT),
            ".weight_shape": ([(2,)], ("I64", "I32")),
            ".weight_zero_point": ([(ceil(outputs / self._each), groups)], _WORDS),
            ".weight_g_idx": ([(inputs,)], _WORDS),
        }

    def problems(self) -> Iterator[str]:
        """Those of all, and that it has zero points where the config says so."""
        yield from super().problems()
        has = f"{self.base}.weight_zero_point" in self.members
        if has is not bool(self.scheme.stored.get("zero_points")):
            said = "there" if has else "missing"
            yield f"tensor {self.base}.weight_zero_point is {said}, and the config says otherwise"
        if f"{self.base}.weight_g_idx" in self.members:
            yield f"tensor {self.base}.weight_g_idx: groups in an order of activations are not read"

    def part(self, ranges: Sequence[Range]) -> torch.Tensor:
        """(outputs, inputs) of the box."""
        outputs, (begin, end) = ranges
        words = begin // self._each, ceil(end / self._each)
        numbers = unpacked(self.read(".weight_packed", outputs, words), self.bits, 1)
        numbers = numbers[:, begin - words[0] * self._each :][:, : end - begin]
        touched, group = _blocks((begin, end), self.scheme.block[1], self.groups(self.shape[1]))
        zeros = torch.full((1, 1), 1 << (self.bits - 1), dtype=torch.int32)
        if f"{self.base}.weight_zero_point" in self.members:
            rows = outputs[0] // self._each, ceil(outputs[1] / self._each)
            stored = unpacked(self.read(".weight_zero_point", rows, touched), self.bits, 0)
            zeros = stored[outputs[0] - rows[0] * self._each :][: outputs[1] - outputs[0]][:, group]
        return (numbers - zeros).float() * self.scales(".weight_scale", outputs, touched)[:, group]


@dataclass(frozen=True)
class Mxfp4Experts(QuantisedMatrix):
    """gpt-oss: of all experts (experts, outputs, groups, 16) bytes; the matrix is (experts, inputs, outputs)."""

    numbers: ClassVar[str] = "_blocks"
    needed: ClassVar[tuple[str, ...]] = ("_scales",)
    weight: ClassVar[str] = ""
    _IN_A_GROUP: ClassVar[int] = 32

    @property
    def shape(self) -> tuple[int, ...]:
        """(experts, inputs, outputs)."""
        stored = self.files.shape(self.base + self.numbers)
        return stored[0], prod(stored[2:]) * 2, stored[1]

    def expected(self) -> Mapping[str, tuple[Sequence[tuple[int, ...]], Sequence[str]]]:
        """One scale a group of 32 inputs."""
        experts, inputs, outputs = self.shape
        groups = inputs // self._IN_A_GROUP
        return {
            "_blocks": ([(experts, outputs, groups, self._IN_A_GROUP // 2)], _BYTES),
            "_scales": ([(experts, outputs, groups)], _BYTES),
        }

    def part(self, ranges: Sequence[Range]) -> torch.Tensor:
        """(experts, inputs, outputs) of the box; of a group that it cuts all bytes are read."""
        experts, (begin, end), outputs = ranges
        groups = begin // self._IN_A_GROUP, ceil(end / self._IN_A_GROUP)
        numbers = float4(self.read("_blocks", experts, outputs, groups, (0, self._IN_A_GROUP // 2)))
        scales = self.finite(power_of_two(self.read("_scales", experts, outputs, groups)), "_scales")
        found = (numbers * scales.unsqueeze(-1)).flatten(-2)
        return found[..., begin - groups[0] * self._IN_A_GROUP :][..., : end - begin].transpose(1, 2)


LAYOUTS: Final[Mapping[str, type[QuantisedMatrix]]] = {
    "fp8": InverseScaled,
    "plain": Elements,
    "gptq": Gptq,
    "awq": Awq,
    "packed": PackedIntegers,
    "mxfp4": Mxfp4Experts,
    "mxfp4-packed": PackedMxfp4,
    "mxfp8": MxFloat8,
    "nvfp4": Float4,
    "nvfp4-packed": PackedFloat4,
}
