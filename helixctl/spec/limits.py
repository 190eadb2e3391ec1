"""What bounds the reading of a document, so that no file, whatever it is, takes long, much memory or many pages."""

from __future__ import annotations

from typing import Final

# A dag has a line for each of its tasks; of all else a thousandth of this is long.
MAX_NBYTES: Final = 2**20
MAX_DAG_NBYTES: Final = 64 * 2**20
# Characters of YAML: half a second's work. What is longer was written by a program, as JSON.
MAX_YAML: Final = 2**18
MAX_DEPTH: Final = 100
# Findings that are said of one document.
MOST_FINDINGS: Final = 100
_MOST_SHOWN: Final = 60  # characters of a bad value


def not_shown(more: int) -> str:
    """What stands in the place of findings beyond the limit."""
    return f"{more:,} more {'finding is' if more == 1 else 'findings are'} not shown"


def shortened(text: str) -> str:
    """A text that stands in a message, not long."""
    return text if len(text) <= _MOST_SHOWN else f"{text[: _MOST_SHOWN - 3]}..."
