"""docs/errors.md: a section for every code, with its title and its exit status; examples are what is really printed."""

from __future__ import annotations

import re

import pytest

from helixctl.errors import CODES
from tests.documents import ROOT

TEXT = (ROOT / "docs/errors.md").read_text(encoding="utf-8")
SECTIONS = {section[:5]: section for section in re.split(r"^## ", TEXT, flags=re.MULTILINE) if section[:2] == "HX"}
# An example that is marked with the file under tests/invalid/ that holds it: whole lines of it, in their order.
QUOTE = re.compile(r"^<!-- (tests/invalid/\S+\.txt) -->\n```\n(.*?\n)```$", re.MULTILINE | re.DOTALL)


def test_every_code_has_its_section_in_order() -> None:
    assert re.findall(r"^## (HX.*)", TEXT, re.MULTILINE) == [f"{code} {row.title}" for code, row in CODES.items()]


@pytest.mark.parametrize("code", CODES)
def test_section(code: str) -> None:
    body = SECTIONS[code]
    assert f"\nExit status {CODES[code].exit_status}.\n" in body
    assert "\nWay out: " in body
    assert re.search(rf"^```(?:\n.*)*?\b{code}\b", body, re.MULTILINE), "no example"
    for path, quote in QUOTE.findall(body):
        printed = (ROOT / path).read_text(encoding="utf-8")
        assert path.startswith(f"tests/invalid/{code}-")
        assert f"\n{quote}" in f"\n{printed}", f"differs from {path}"


def test_every_mark_is_a_quote() -> None:
    assert TEXT.count("<!-- tests/invalid/") == len(QUOTE.findall(TEXT)) > len(CODES) / 2


@pytest.mark.parametrize("code", sorted({path.name[:5] for path in (ROOT / "tests/invalid").glob("HX*.txt")}))
def test_a_code_with_bad_files_quotes_one(code: str) -> None:
    assert QUOTE.search(SECTIONS[code])
