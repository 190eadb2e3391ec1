"""docs/screens.md shows what commands print."""

from __future__ import annotations

import re

import pytest

from tests.docs.screens import COMMANDS, PAGE, WIDTHS, page


@pytest.mark.sweep
def test_the_page_is_as_commands_print() -> None:
    assert PAGE.read_text(encoding="utf-8") == page()


def test_every_command_is_shown_at_both_widths_and_fits() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert re.findall(r"^## \w+: `(.*)`$", text, flags=re.MULTILINE) == list(COMMANDS)
    screens = re.findall(r"^(\d+) columns:\n\n```text\n(.*?)```$", text, flags=re.MULTILINE | re.DOTALL)
    assert [int(width) for width, _ in screens] == list(WIDTHS) * len(COMMANDS)
    for width, screen in screens:
        assert screen.strip()
        # Commands are to be copied: each is one line.
        assert max(len(line) for line in screen.splitlines() if not line.startswith("  helixctl ")) <= int(width)
