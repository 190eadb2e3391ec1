"""Quantities with their unit: "450 GB/s", "400 Gb/s", "80 GiB", "989 TFLOP/s", "5 us".

Inside the program a quantity is a plain number in its base unit (bytes, bytes/s, flop/s, seconds). In a file it is text
with a unit; a bare number is refused, because 400 Gb/s and 400 GB/s differ by a factor of eight.
"""

from __future__ import annotations

import re
import reprlib
from typing import Annotated, Final

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

_SI: Final = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15}
_BINARY: Final = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}
_NUMBER: Final = re.compile(r"\s*([0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?)\s*([A-Za-z/]*|[µμ]s)\s*")

_PERCENT: Final = re.compile(r"\s*([0-9]+(?:\.[0-9]*)?)\s*%\s*")

_BYTES: Final[dict[str, float]] = {f"{p}B": s for p, s in (_SI | _BINARY).items()}
_BANDWIDTH: Final[dict[str, float]] = {f"{u}/s": s for u, s in _BYTES.items()} | {
    f"{p}b/s": s / 8 for p, s in (_SI | _BINARY).items()
}
_FLOPS: Final[dict[str, float]] = {f"{p}FLOP/s": s for p, s in _SI.items()}
_TIME: Final[dict[str, float]] = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}

_TRANSFERS: Final = re.compile(r"[kMGT]?T/s")
# Other spellings of the units, as people write them.
_SPELLINGS: Final = tuple(
    (re.compile(pattern), instead)
    for pattern, instead in (
        (r"(?i)flops?(?:/s(?:ec)?|ps)?$", "FLOP/s"),
        (r"(?i)(?:/sec(?:ond)?s?|(?<!FLO)ps)$", "/s"),
        (r"(?i)bits?(?=/|$)", "b"),
        (r"(?i)bytes?(?=/|$)", "B"),
        (r"^K(?=[bB])", "k"),
        (r"(?i)^(?:micro|u)sec(?:ond)?s?$", "us"),
        (r"(?i)^(?:milli|m)sec(?:ond)?s?$", "ms"),
        (r"(?i)^(?:nano|n)sec(?:ond)?s?$", "ns"),
        (r"(?i)^sec(?:ond)?s?$", "s"),
    )
)


class UnitError(ValueError):
    """A quantity whose unit is missing or wrong; loading turns it into HX106."""

    def __init__(self, message: str, hint: str) -> None:
        """Keep the hint for the diagnostic."""
        super().__init__(message)
        self.hint = hint


def _parse(text: object, units: dict[str, float], example: str) -> float:
    hint = f"write for example {example!r}"
    if text is None:
        raise UnitError("no value is given", hint)
    if isinstance(text, int | float) and not isinstance(text, bool):
        raise UnitError(f"{text} has no unit", hint)
    match = _NUMBER.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise UnitError(f"{reprlib.repr(text)} is not a quantity", hint)  # short: it may be a list of any size
    number, unit = match[1], match[2].replace("µ", "u").replace("μ", "u")  # the micro sign, and the Greek letter
    if not unit:
        raise UnitError(f"{reprlib.repr(text)} has no unit", hint)
    if unit not in units:
        raise UnitError(
            f"{reprlib.repr(text)} has the unit {unit}, which does not fit here",
            _spelling_hint(number, unit, units) or hint,
        )
    value = float(number) * units[unit]
    if not 0 < value < 1e30:  # noqa: PLR2004  no machine has more, so it is a mistake
        raise UnitError(f"{reprlib.repr(text)} is not a positive quantity of a possible size", hint)
    return value


def _spelling_hint(number: str, unit: str, units: dict[str, float]) -> str | None:
    """A hint with the same quantity in a spelling that is read; None if there is none."""
    if _TRANSFERS.fullmatch(unit) and "GB/s" in units:
        return "transfers are no bytes: write GB/s; 16 lanes of PCIe at 16 GT/s (PCIe 4.0) carry 32 GB/s each way"
    spelled = unit
    for pattern, instead in _SPELLINGS:
        spelled = pattern.sub(instead, spelled)
    other = spelled.removesuffix("/s") if spelled.endswith("/s") else f"{spelled}/s"
    return next((f"did you mean '{number} {known}'?" for known in (spelled, other) if known in units), None)


def _format(value: float, units: dict[str, float]) -> str:
    """The shortest text that reads back as the same number; among equally short ones that with the larger unit."""
    texts = [f"{value / scale:.12g} {unit}" for unit, scale in units.items()]
    exact = [t for t in texts if float(t.split()[0]) * units[t.split()[1]] == value and "e" not in t]
    return min(exact or [f"{value!r} {next(iter(units))}"], key=lambda text: (len(text), -units[text.split()[1]]))


def _schema(example: str) -> WithJsonSchema:
    return WithJsonSchema(
        {"type": "string", "pattern": r"^\s*[0-9][0-9.eE+-]*\s*(?:[A-Za-z/]+|[µμ]s)\s*$", "examples": [example]}
    )


_SI_BYTES: Final = {f"{p}B": float(s) for p, s in _SI.items()}
_IEC_BYTES: Final = _SI_BYTES | {f"{p}B": float(s) for p, s in _BINARY.items()}

Bytes = Annotated[
    float,
    BeforeValidator(lambda v: _parse(v, _BYTES, "80 GB")),
    PlainSerializer(lambda v: _format(v, _IEC_BYTES)),
    _schema("80 GB"),
]
BytesPerSecond = Annotated[
    float,
    BeforeValidator(lambda v: _parse(v, _BANDWIDTH, "450 GB/s")),
    PlainSerializer(lambda v: _format(v, {f"{u}/s": s for u, s in _SI_BYTES.items()})),
    _schema("450 GB/s"),
]
FlopPerSecond = Annotated[
    float,
    BeforeValidator(lambda v: _parse(v, _FLOPS, "989 TFLOP/s")),
    PlainSerializer(lambda v: _format(v, _FLOPS)),
    _schema("989 TFLOP/s"),
]
Seconds = Annotated[
    float,
    BeforeValidator(lambda v: _parse(v, _TIME, "5 us")),
    PlainSerializer(lambda v: _format(v, _TIME)),
    _schema("5 us"),
]


Share = Annotated[
    float,
    BeforeValidator(lambda v: _share(v)),  # noqa: PLW0108  defined below
    PlainSerializer(lambda v: f"{v * 100:.12g} %"),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "pattern": r"^\s*[0-9]+(\.[0-9]*)?\s*%\s*$"},
                {"type": "number", "minimum": 0, "exclusiveMaximum": 1},
            ],
            "examples": ["10 %"],
        }
    ),
]


def _share(given: object) -> float:
    """A share from 0 % to below 100 %; a bare number is a fraction."""
    hint = "write for example '10 %', or 0.1"
    match = _PERCENT.fullmatch(given) if isinstance(given, str) else None
    if match is not None:
        share = float(match[1]) / 100
    elif isinstance(given, int | float) and not isinstance(given, bool):
        share = float(given)
    else:
        raise UnitError(f"{reprlib.repr(given)} is not a percentage", hint)
    if not 0 <= share < 1:
        raise UnitError(f"{reprlib.repr(given)} is not a share from 0 % to below 100 %", hint)
    return share


def parse_seconds(text: str) -> float:
    """Seconds of a text with a unit, ``500 ms`` or ``30ms``.

    Raises:
        UnitError: it is none.
    """
    return _parse(text, _TIME, "500 ms")


def human_bytes(nbytes: float) -> str:
    """A byte count for people: three digits and an SI unit, e.g. ``16.8 MB``."""
    return _human(nbytes, "B", ("", "k", "M", "G", "T", "P"), 1000)


def human_flops(flops: float) -> str:
    """A flop count for people, e.g. ``6.44 TFLOP``."""
    return _human(flops, "FLOP", ("", "k", "M", "G", "T", "P", "E"), 1000)


def human_seconds(seconds: float) -> str:
    """A duration for people, e.g. ``853 us``."""
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"


def human_rate(rate: float, decimals: int = 0) -> str:
    """Tokens per second for people: ``7,336``, and of a slow model two digits, ``0.21``, not a whole number.

    Args:
        rate: tokens per second.
        decimals: digits behind the point where two digits do not need more.
    """
    return f"{rate:,.{decimals}f}" if rate * 10**decimals >= 10 else f"{rate:.2g}"  # noqa: PLR2004


def counted(number: int, what: str, several: str | None = None) -> str:
    """A count for people: ``1 group``, ``2,048 groups``; ``several``: the plural, where it is not an s more."""
    return f"{number:,} {what if number == 1 else several or what + 's'}"


def _human(value: float, unit: str, prefixes: tuple[str, ...], step: int) -> str:
    for prefix in prefixes:
        if value < step or prefix == prefixes[-1]:
            return f"{value:.3g} {prefix}{unit}"
        value /= step
    raise AssertionError  # unreachable: the last prefix always returns
