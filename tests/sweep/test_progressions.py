"""Lists of numbers, as they are typed."""

from __future__ import annotations

import pytest

from helixctl.sweep.progressions import numbers


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("8", (8,)),
        ("8, 1,4", (1, 4, 8)),
        ("1,2,4,...,32", (1, 2, 4, 8, 16, 32)),
        ("1,2,4,…,32", (1, 2, 4, 8, 16, 32)),
        ("8,16,24,...,48", (8, 16, 24, 32, 40, 48)),
        ("10,20,...,50", (10, 20, 30, 40, 50)),
        ("8,12,18,...,27", (8, 12, 18, 27)),
        ("1,2,4,8,...,32,40,48,...,64", (1, 2, 4, 8, 16, 32, 40, 48, 56, 64)),
        ("1,2,3,...,6", (1, 2, 3, 4, 5, 6)),
    ],
)
def test_a_list(text: str, found: tuple[int, ...]) -> None:
    assert numbers(text) == found


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1-8", "1-8 is no list: write 1,2,3,...,8"),
        ("1:3", "1:3 is no list: write 1,2,3"),
        ("", "an empty place is no number"),
        ("1,,2", "an empty place is no number"),
        ("1,two", "'two' is no number"),
        ("0,1", "0 is not in 1 to 2^40"),
        ("-1", "'-1' is no number"),
        ("1,...,8", "at least two before it"),
        ("1,2,...", "one behind it"),
        ("...,8", "at least two before it"),
        ("1,2,...,...,8", "at least two before it"),
        ("1,2,4,...,100", "1,2,4,... does not come to 100: before it are 32,64"),
        ("1,2,...,8", "can be read in two ways: write 1,2,3,...,8 or 1,2,4,...,8"),
        ("1,2,5,...,8", "do not grow in equal steps nor by equal factors"),
        ("8,4,...,1", "do not grow"),
        ("1,2,2", "2 is there twice"),
        ("1,2,3,...,100000", "more than 1,000 numbers"),
    ],
)
def test_what_is_refused(text: str, said: str) -> None:
    with pytest.raises(ValueError) as error:
        numbers(text)
    assert said in str(error.value)
