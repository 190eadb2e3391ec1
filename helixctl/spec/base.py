"""What all specs are made of: their base class, counts, names and dtypes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

Dtype = Literal["float16", "bfloat16", "float32", "float64"]
# What products of a device may be of: a model's dtype, or the numbers to which both factors are quantised.
RateDtype = Literal["float16", "bfloat16", "float32", "float64", "int8", "float8", "float4"]
DTYPE_NBYTES: dict[str, int] = {"int64": 8, "float16": 2, "bfloat16": 2, "float32": 4, "float64": 8}


def accumulator(dtype: Dtype) -> Dtype:
    """The dtype of a partial sum: float32, or float64 where the model is float64."""
    return "float64" if dtype == "float64" else "float32"


def in_order(keys: Any) -> AfterValidator:
    """A mapping's keys in the order of their Literal, whatever their order in the file: digests are over content."""
    names = get_args(keys)

    def ordered(found: Mapping[str, Any]) -> dict[str, Any]:
        return {name: found[name] for name in names if name in found}

    return AfterValidator(ordered)


# 2**40 bounds every count, so that no product of a few of them leaves what a 64-bit reader of the JSON can hold.
Count = Annotated[int, Field(strict=True, ge=1, le=2**40)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$", max_length=100)]


def added(default: Any) -> Any:
    """A field that came to a spec after documents of that spec were written.

    While it has its default it is left out of documents, and so of their digests: old documents stay valid.
    """
    return Field(default=default, exclude_if=lambda value: value == default)


class Contradiction(ValueError):  # noqa: N818  it is a ValueError for pydantic; loading turns it into HX109
    """Two fields of one spec that cannot both hold; ``field`` is the one to point at."""

    def __init__(self, message: str, field: str) -> None:
        """Keep the field for loading, which knows its line."""
        super().__init__(message)
        self.field = field


class Spec(BaseModel):
    """Base of all that a user writes: immutable, unknown keys refused, numbers never read from text."""

    # A command reads a few of all kinds of documents: what validates one is made when one is read.
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, defer_build=True)
