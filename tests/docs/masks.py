"""Masks for the parts of `helixctl run`'s output that differ between runs or machines; nothing else is masked."""

from __future__ import annotations

import re
from collections.abc import Sequence

# In the order of application. Predictions, bytes, counts and the words of a layout have to be as the page shows them.
_OF_RUNS = (
    (re.compile(r"sharing \d+ cores? \(.*\)"), "sharing CORES"),
    (re.compile(r"/\S*helixctl-logs-\w+"), "LOGS"),
    # Times, rates, shares and errors: every number with a decimal point, an exponent or a percent sign.
    (re.compile(r"[-+]?\d+(\.\d+)?e[-+]\d+|[-+]?\d+\.\d+%?|[-+]?\d+%"), "#"),
    # Columns are as wide as their numbers.
    (re.compile(r"(?<=\S) {2,}"), "  "),
)
# What a terminal shows while the ranks run, and takes away when they have; elsewhere a line every ten seconds.
_PROGRESS = re.compile(r"running: |.*: running, \d+ of \d+ steps done, ")
# The folder in which the reader of a page is.
READER = "/home/you"
MEASURING = ("helixctl run ", ".venv/bin/helixctl run ")


def masked(command: str, lines: Sequence[str]) -> list[str]:
    """The lines of an output, without the parts that may differ between two runs of the command."""
    if not command.startswith(MEASURING):
        return list(lines)
    found = []
    for line in lines:
        if _PROGRESS.match(line):
            continue
        text = line
        for pattern, word in _OF_RUNS:
            text = pattern.sub(word, text)
        found.append(text.rstrip())
    return found
