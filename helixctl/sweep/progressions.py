"""Lists of numbers as a person writes them: ``1,2,4,...,256``."""

from __future__ import annotations

import re
from fractions import Fraction
from itertools import pairwise
from typing import Final

MOST: Final = 1_000  # numbers of a list
_RANGE: Final = re.compile(r"\s*([0-9]+)\s*(?:-|:|\.\.|to)\s*([0-9]+)\s*")
_DOTS: Final = {"...", "…", ".."}
_LARGEST: Final = 2**40  # as of a spec
_SHOWN: Final = 3


def numbers(text: str) -> tuple[int, ...]:
    """The numbers of a list: ``1,2,4,8``; ``...`` goes on to the number behind it.

    Args:
        text: the list. The up to three numbers before ``...`` say how it goes on: in equal steps, as
            ``8,16,24,...,64``, or by equal factors, as ``1,2,4,...,256``.

    Returns:
        The numbers in ascending order.

    Raises:
        ValueError: what is wrong with the list, and what to write in its place.
    """
    if found := _RANGE.fullmatch(text):
        first, last = sorted(map(int, found.groups()))
        raise ValueError(f"{text.strip()} is no list: write {_written(first, last)}")
    words = [word.strip() for word in text.split(",")]
    made: list[int] = []
    for place, word in enumerate(words):
        if word not in _DOTS:
            made.append(_number(word, text))
            continue
        before, after = words[max(0, place - _SHOWN) : place], words[place + 1 : place + 2]
        if len(before) < 2 or not after or _DOTS & {*before, *after}:  # noqa: PLR2004
            raise ValueError("... stands between numbers: at least two before it, and one behind it")
        made += _between([_number(w, text) for w in before], _number(after[0], text))
        if len(made) > MOST:
            break
    if len(made) > MOST:
        raise ValueError(f"more than {MOST:,} numbers")
    if twice := [one for one, other in pairwise(sorted(made)) if one == other]:
        raise ValueError(f"{twice[0]} is there twice")
    return tuple(sorted(made))


def _number(word: str, text: str) -> int:
    if not re.fullmatch(r"[0-9]+", word, re.ASCII):
        what = "an empty place" if not word else repr(word[:20])
        raise ValueError(f"{what} is no number of {text[:60]!r}: write for example 1,2,4,...,256")
    if not 1 <= int(word[:20]) <= _LARGEST:
        raise ValueError(f"{word[:20]} is not in 1 to 2^40")
    return int(word)


def _between(before: list[int], last: int) -> list[int]:
    """The numbers that ``...`` stands for, without the last.

    Raises:
        ValueError: the numbers before it are no progression, it does not come to the last one, or it comes there in
            two ways.
    """
    ways = [made for made in (_by_steps(before, last), _by_factors(before, last)) if made is not None]
    told = ",".join(map(str, before))
    if not ways:
        raise ValueError(f"{told} do not grow in equal steps nor by equal factors")
    arriving = [made for made in ways if made[-1] == last]
    if not arriving:
        # Of two numbers either way may be meant.
        ends = " or ".join(",".join(map(str, made[-3:-1])) for made in ways)
        raise ValueError(f"{told},... does not come to {last}: before it are {ends}")
    if len(arriving) > 1 and arriving[0] != arriving[1]:
        thirds = [made[0] for made in arriving]
        one, other = (f"{told},{third},...,{last}" for third in thirds)
        raise ValueError(f"{told},...,{last} can be read in two ways: write {one} or {other}")
    return arriving[0][:-1]


def _by_steps(before: list[int], last: int) -> list[int] | None:
    """What follows in equal steps up to the last number, or the first beyond it; None where it does not grow so."""
    step = before[-1] - before[-2]
    if step <= 0 or any(b - a != step for a, b in pairwise(before)):
        return None
    made = [before[-1]]
    if (last - made[0]) // step > MOST:
        raise ValueError(f"more than {MOST:,} numbers")
    while made[-1] < last:
        made.append(made[-1] + step)
    return made[1:] or [before[-1]]


def _by_factors(before: list[int], last: int) -> list[int] | None:
    """The same by equal factors; it ends where the next would be no whole number."""
    factor = Fraction(before[-1], before[-2])
    if factor <= 1 or any(Fraction(b, a) != factor for a, b in pairwise(before)):
        return None
    made = [before[-1]]
    while made[-1] < last and (following := made[-1] * factor).denominator == 1:
        made.append(int(following))
    return made[1:] or [before[-1]]


def _written(first: int, last: int) -> str:
    """The whole numbers from one to another as a list."""
    if last - first <= _SHOWN:
        return ",".join(map(str, range(first, last + 1)))
    return f"{first},{first + 1},{first + 2},...,{last}"
