"""What commands print in a terminal of 80 columns and in one of 160: docs/screens.md.

python tests/docs/screens.py            # writes the page anew
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT))

from tests.cli.command import ENVIRONMENT  # noqa: E402

PAGE: Final = ROOT / "docs/screens.md"
WIDTHS: Final = (80, 160)
COMMANDS: Final = (
    "helixctl plan Llama-3.1-8B h100:1x8 --batch 8 --seq-len 2048",
    "helixctl plan Llama-3.1-70B h100:2x8 --input-len 4096 --output-len 512 --batch 64",
    "helixctl simulate plans/paper/dense.4x4.plan.json plans/paper/dense.tp8-pp2.plan.json",
    "helixctl diff plans/paper/dense.4x4.plan.json plans/paper/dense.tp8-pp2.plan.json",
    "helixctl validate tests/invalid/HX406-gather-order.dag.json plans/paper",
    "helixctl sweep Llama-3.1-8B h100:1x8 --batch 8,64 --devices 2,4 --input-len 1024 --output-len 128",
    "helixctl paper",
    "helixctl clusters",
)
_HEAD: Final = """# Screens

What commands print where a terminal has 80 columns, and where it has 160, in a checkout. Columns are dropped by
priority, layouts have short words, sentences go on in the next line, and no word is broken; commands to be copied stay
on one line. Pipes get whole lines and every column. `python tests/docs/screens.py` writes this page, and `make sweep`
holds it.
"""


def page() -> str:
    """The page as it is to be."""
    parts = [_HEAD]
    for command in COMMANDS:
        parts.append(f"## {command.split()[1]}: `{command}`\n")
        parts += [f"{width} columns:\n\n```text\n{printed(command, width)}```\n" for width in WIDTHS]
    return "\n".join(parts)


def printed(command: str, width: int) -> str:
    """What a command prints, errors among it, in a terminal of so many columns."""
    done = subprocess.run(
        [sys.executable, "-m", *command.split()],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=ROOT,
        env=ENVIRONMENT | {"COLUMNS": str(width)},
        text=True,
        check=False,
    )
    return done.stdout


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
