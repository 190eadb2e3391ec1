"""The Python that the pages show runs, and prints what is shown; docs/api.md names the whole API and no more."""

from __future__ import annotations

import inspect
import re
import shutil
from pathlib import Path

import pytest

import helixctl
import helixctl.api
from tests.docs.examples import pages
from tests.docs.python import printed, shown
from tests.documents import ROOT

PAGES = [page for page in pages() if shown(page)]
NAMES = re.findall(r"^### `(\w+)(\(.*\))?`$", (ROOT / "docs/api.md").read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_shows(page: Path, kit: Path, tmp_path: Path) -> None:
    folder, examples = tmp_path / "here", shown(page)
    shutil.copytree(kit, folder, symlinks=True)
    for example, lines in zip(examples, printed(examples, folder), strict=True):
        assert example.output == lines, example.place


def test_the_page_of_the_api_is_among_them() -> None:
    assert "api.md" in {page.name for page in PAGES}


def test_the_api_is_what_its_page_names() -> None:
    assert sorted(name for name, _ in NAMES) == sorted(helixctl.__all__) == sorted(helixctl.api.__all__)


@pytest.mark.parametrize(("name", "parameters"), [(n, p) for n, p in NAMES if p])
def test_the_page_has_the_parameters_with_their_defaults(name: str, parameters: str) -> None:
    found = inspect.signature(getattr(helixctl, name)).parameters.values()
    bare = [p.replace(annotation=inspect.Parameter.empty) for p in found]
    assert str(inspect.Signature(bare)).replace("'", '"') == parameters
