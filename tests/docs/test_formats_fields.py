"""docs/formats.md names every field of every spec and every axis of a layout, with its default, and no others."""

from __future__ import annotations

import re

import pytest
from pydantic import BaseModel

from helixctl.plan import Layout
from helixctl.spec import ClusterSpec, ModelDocument
from tests.docs.fields import fields, rows
from tests.documents import ROOT

TEXT = (ROOT / "docs/formats.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## ([^\n]+)\n(.*?)(?=^## |\Z)", TEXT, re.MULTILINE | re.DOTALL))


@pytest.mark.parametrize(("section", "cls"), [("Model", ModelDocument), ("Cluster", ClusterSpec), ("Plan", Layout)])
def test_every_field_has_its_row(section: str, cls: type[BaseModel]) -> None:
    # The parts of a block are those of the model, and those of a kind of hosts the cluster's: they are there once.
    of_hosts = ("device", "within_host", "between_hosts", "calibration", "measured")
    again = ("blocks.attention.", "blocks.feed_forward.", "blocks.stored.", *(f"hosts.{part}." for part in of_hosts))
    assert rows(SECTIONS[section]) == {name: its for name, its in fields(cls) if not name.startswith(again)}


def test_every_row_says_what_the_field_is() -> None:
    assert not re.findall(r"^\| `([\w.]+)` \| [^|]* \| *\|$", TEXT, re.MULTILINE)
