"""Tables that a benchmark writes into a page of docs/."""

from __future__ import annotations

import re


def updated(page: str, made: dict[str, str]) -> str:
    """The page with its tables replaced; each stands between ``<!-- NAME -->`` and ``<!-- / -->``."""
    for name, text in made.items():
        pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- / -->)", re.DOTALL)
        if not pattern.search(page):
            msg = f"the page has no place for the table {name}"
            raise ValueError(msg)
        page = pattern.sub(lambda m, text=text: m.group(1) + "\n" + text + "\n" + m.group(2), page)
    return page
