"""What the README and the page on plans show is what the commands print."""

from __future__ import annotations

import re

from tests.cli.command import helixctl
from tests.documents import PAPER, ROOT

README = (ROOT / "README.md").read_text()


def lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def test_the_plan_that_is_shown() -> None:
    shown = lines((ROOT / "docs" / "plan.md").read_text())
    assert all(line in shown for line in lines(helixctl("plan", *PAPER, "--plain").said))


def test_the_refusal_that_is_shown() -> None:
    shown = lines(README)
    assert all(line in shown for line in lines(helixctl("validate", "tests/invalid/HX406-gather-order.dag.json").said))


def test_it_is_short() -> None:
    assert len(README.splitlines()) <= 150


def test_links_lead_somewhere() -> None:
    for path in (
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        ROOT / "tests/README.md",
        *(ROOT / "docs").rglob("*.md"),
    ):
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", path.read_text()):
            assert target.startswith("http") or (path.parent / target).exists(), f"{path}: {target}"


def test_the_page_of_the_tests_has_a_row_for_every_folder() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (.+?) \|", (ROOT / "tests/README.md").read_text(), re.MULTILINE)
    folders = {path.name for path in (ROOT / "tests").iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert sorted(name for name, _ in rows) == sorted(folders)
