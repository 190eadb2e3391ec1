"""helixctl explain: what an error code means, an example of it, and the way out."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Final

import click

import helixctl
from helixctl.cli.console import answers, say, table
from helixctl.cli.tables import Column
from helixctl.errors import CODES

_COMMENT: Final = re.compile(r"^<!--.*-->\n", re.MULTILINE)
_LINK: Final = re.compile(r"\[([^]]*)\]\(([^)#]*)[^)]*\)")


@click.command(name="explain", short_help="Say what an error code means, with an example and the way out.")
@click.argument("code", required=False, metavar="CODE")
def command(code: str | None) -> None:
    """Say what an error CODE means, such as HX202: its cause, an example, the way out. Without CODE: list all codes."""
    if code is None:
        out = answers()
        rows = table("code", Column("meaning", fold=1), ">exit status")
        for name, row in CODES.items():
            rows.add_row(name, row.title, str(row.exit_status))
        out.print(rows)
        return
    known = code.upper() if code.upper() in CODES else f"HX{code}"
    if known not in CODES:
        raise click.BadParameter(f"{code!r} is no code; helixctl explain lists them", param_hint="CODE")
    say(explained(known).splitlines())


def explained(code: str) -> str:
    """The section of docs/errors.md on a code, as plain text."""
    return _LINK.sub(r"\1 (\2)", _COMMENT.sub("", _sections()[code])).replace("```\n", "").strip()


@cache
def _sections() -> dict[str, str]:
    """The sections by code, without the signs of a heading."""
    text = _page().read_text(encoding="utf-8")
    return {section[:5]: section for section in re.split(r"^## ", text, flags=re.MULTILINE) if section[:5] in CODES}


def _page() -> Path:
    """In a wheel it is a file of the package; a checkout has it in docs/, where people look."""
    package = Path(helixctl.__file__).resolve().parent
    inside = package / "errors.md"
    return inside if inside.is_file() else package.parent / "docs" / "errors.md"
