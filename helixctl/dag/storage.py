"""The bytes of a weight as it is stored, where that is in other numbers than those of the computation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil, prod
from typing import TYPE_CHECKING, Annotated

from pydantic import ConfigDict, FailFast, Field, with_config

from helixctl.records import record
from helixctl.spec import GGUF_BLOCKS, NUMBER_BITS, SCALE_NBYTES, Count, StoredSpec
from helixctl.spec.stored import Activations, Arithmetic, Scale, StoredNumber

if TYPE_CHECKING:
    from helixctl.dag.document import Tensor, Value

_EACH = "expert"  # every expert has a matrix of its own


@with_config(ConfigDict(extra="forbid"))
@record
class Storage:
    """How a weight is stored: its spec (``StoredSpec``), and which of its dims are inputs of the product.

    The other dims are outputs, or the experts, each of which has a matrix of its own. A cache has no inputs.
    """

    number: StoredNumber
    inputs: Annotated[tuple[str, ...], FailFast()]
    block: tuple[Count | None, Count | None] = (None, None)
    scale: Scale | None = None
    zero_points: Annotated[bool, Field(strict=True)] = False
    tensor_scale: Scale | None = None
    activations: Annotated[Activations | None, Field(exclude_if=lambda activations: activations is None)] = None

    @classmethod
    def of(cls, spec: StoredSpec, inputs: tuple[str, ...]) -> Storage:
        """The storage that a spec says, of a weight with these dims as inputs."""
        return cls(spec.number, inputs, spec.block, spec.scale, spec.zero_points, spec.tensor_scale, spec.activations)

    @property
    def arithmetic(self) -> Arithmetic | None:
        """What a product with the weight is of; None: of the model's dtype."""
        if self.activations == "float8" and self.number == "float8" and self.block[1] is not None:
            return "float8_blocks"
        return self.activations

    def nbytes(self, dims: Sequence[str], shape: Sequence[int]) -> int:
        """Bytes of a region of a weight, with the scales that it needs; docs/formats.md has the formula.

        Args:
            dims: of the weight.
            shape: of the region.
        """
        sizes = dict(zip(dims, shape, strict=True))
        inputs = prod(size for dim, size in sizes.items() if dim in self.inputs)
        outputs = prod(size for dim, size in sizes.items() if dim not in self.inputs and dim != _EACH)
        matrices = sizes.get(_EACH, 1)
        if own := GGUF_BLOCKS.get(self.number):
            return matrices * outputs * ceil(inputs / own.inputs) * own.nbytes
        bits = NUMBER_BITS[self.number]
        scales = prod(ceil(n / (own or max(1, n))) for n, own in zip((outputs, inputs), self.block, strict=True))
        found = outputs * ceil(inputs * bits / 8) + scales * (SCALE_NBYTES[self.scale] if self.scale else 0)
        if self.zero_points:
            found += ceil(scales * bits / 8)
        if self.tensor_scale:
            found += SCALE_NBYTES[self.tensor_scale]
        return matrices * found


def held_nbytes(value: Value, tensors: Mapping[str, Tensor]) -> int:
    """Bytes that a value takes where it lies: of a quantised weight or cache as it is stored, else of its dtype."""
    tensor = tensors[value.tensor]
    return value.nbytes if tensor.storage is None else tensor.storage.nbytes(tensor.dims, value.shape)
