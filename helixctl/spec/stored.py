"""How weights are stored: in numbers of fewer bits than those of the computation, with what scales them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final, Literal, NamedTuple, Self

from pydantic import Field, model_validator

from helixctl.spec.base import Contradiction, Count, Spec, added


class Block(NamedTuple):
    """A GGUF block type: some neighbouring inputs of one output are stored together, scales and all."""

    inputs: int
    nbytes: int


# ggml's table of types (ggml-common.h; the package gguf has it as GGML_QUANT_SIZES).
GGUF_BLOCKS: Final[Mapping[str, Block]] = {
    "q4_0": Block(32, 18),
    "q4_1": Block(32, 20),
    "q5_0": Block(32, 22),
    "q5_1": Block(32, 24),
    "q8_0": Block(32, 34),
    "q2_k": Block(256, 84),
    "q3_k": Block(256, 110),
    "q4_k": Block(256, 144),
    "q5_k": Block(256, 176),
    "q6_k": Block(256, 210),
}
NUMBER_BITS: Final[Mapping[str, int]] = {"float8": 8, "int8": 8, "int4": 4, "float4": 4}
SCALE_NBYTES: Final[Mapping[str, int]] = {"float32": 4, "float16": 2, "bfloat16": 2, "float8": 1, "exponent8": 1}

StoredNumber = Literal[
    "float8", "int8", "int4", "float4",
    "q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "q2_k", "q3_k", "q4_k", "q5_k", "q6_k",
]  # fmt: skip
# What activations are rounded to before a product, which is then of such numbers.
Activations = Literal["int8", "float8", "float4"]
# Kinds of products of such numbers, each with rates of its own; float8_blocks: scales are of blocks of inputs.
Arithmetic = Literal["int8", "float8", "float8_blocks", "float4"]
Scale = Literal["float32", "float16", "bfloat16", "float8", "exponent8"]
# The matrices of a model by their names in a layer; those of the ends belong to no layer.
Matrix = Literal[
    "w_q", "w_k", "w_v", "w_o", "w_q_down", "w_kv_down", "w_k_rope", "w_index_q", "w_index_k", "w_gate", "w_up",
    "w_down", "w_shared_gate", "w_shared_up", "w_shared_down", "w_router", "embedding", "w_head",
]  # fmt: skip
_ENDS: Final = frozenset({"embedding", "w_head"})


class StoredSpec(Spec):
    """How some of a model's matrices are stored.

    Attributes:
        weights: their names in a layer, such as ``w_q`` (docs/formats.md, "Tensors"), or ``embedding`` and ``w_head``.
        number: what one element is: float8 (e4m3), int8, int4, float4 (e2m1), or one of GGUF's block types, which
            hold their scales themselves.
        block: (outputs, inputs) of a matrix that share a scale; null is all of that axis. Left out: one scale for the
            matrix, of every expert by itself.
        scale: the dtype of a scale; exponent8 is a power of two in one byte (e8m0).
        zero_points: with every scale a number of the elements' width that is subtracted from them.
        tensor_scale: of the scales again a scale, one for the matrix (nvfp4).
        activations: what kernels made for the checkpoint round the other factor to. None: weights are dequantised, and
            the product is in the dtype of the model.
    """

    weights: Annotated[tuple[Matrix, ...], Field(min_length=1)]
    number: StoredNumber
    block: tuple[Count | None, Count | None] = (None, None)
    scale: Scale | None = None
    zero_points: Annotated[bool, Field(strict=True)] = False
    tensor_scale: Scale | None = added(None)
    activations: Activations | None = added(None)

    @model_validator(mode="after")
    def _blocks_have_their_scales(self) -> Self:
        if self.number in GGUF_BLOCKS:
            given = self.scale or self.zero_points or self.tensor_scale or self.activations
            if self.block != (None, None) or given:
                message = f"{self.number} holds its scales in blocks of its own; give the number alone"
                raise Contradiction(message, "number")
        elif self.scale is None:
            raise Contradiction(f"{self.number} without the dtype of its scales", "scale")
        return self

    @property
    def of_the_ends(self) -> StoredSpec | None:
        """The same of embedding and head alone; None where it is of neither."""
        ends = tuple(name for name in self.weights if name in _ENDS)
        return self.model_copy(update={"weights": ends}) if ends else None

    def __str__(self) -> str:
        """``float8, a float32 scale for 128 x 128``."""
        if self.number in GGUF_BLOCKS:
            return f"GGUF {self.number.upper()}"
        outputs, inputs = self.block
        if self.block == (None, None):
            of = "a matrix"
        elif inputs is None:
            of = "an output" if outputs == 1 else f"{outputs} outputs"
        else:
            of = f"{inputs} inputs" if outputs == 1 else f"{outputs or 'all'} x {inputs}"
        rounded = f", activations in {self.activations}" if self.activations else ""
        zero = " and a zero point" if self.zero_points else ""
        article = "an" if self.scale == "exponent8" else "a"
        return f"{self.number}, {article} {self.scale} scale{zero} for {of}{rounded}"


def stored_as(stored: tuple[StoredSpec, ...] | None, weight: str) -> StoredSpec | None:
    """How a weight is stored, by its name in its layer; None: in the model's dtype."""
    return next((spec for spec in stored or () if weight in spec.weights), None)
