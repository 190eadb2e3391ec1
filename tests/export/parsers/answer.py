"""How the script of a parser answers: command lines in, what the engine says of each out.

The scripts beside this file run in the interpreter that has the engine, which needs neither helixctl nor pytest.
Standard input is a JSON list of objects: ``words``, the arguments of the program, ``ranks``, how many ranks they are
for, and ``variables``, the environment that the script sets. Standard output is one JSON object: ``version`` and
``answers``, null for every command line that was accepted, else what the engine says of it; or ``missing``, why the
engine could not be loaded.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from collections.abc import Callable
from typing import Any

Accept = Callable[[list[str], int], None]


def main(load: Callable[[], tuple[str, Accept]]) -> None:
    """Answer.

    Args:
        load: imports the engine; its version, and a function that raises what the engine raises at a command line.
    """
    cases = json.load(sys.stdin)
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        answer = _answer(load, cases, said)
    print(json.dumps(answer))


def _answer(load: Callable[[], tuple[str, Accept]], cases: list[dict[str, Any]], said: io.StringIO) -> dict[str, Any]:
    try:
        version, accept = load()
    except Exception as error:  # noqa: BLE001 - engines probe devices and patch packages when they are imported
        return {"missing": f"{type(error).__name__}: {error}"}
    return {"version": version, "answers": [_said(accept, case, said) for case in cases]}


def _said(accept: Accept, case: dict[str, Any], said: io.StringIO) -> str | None:
    said.seek(0)
    said.truncate()
    before = dict(os.environ)
    os.environ.update(case["variables"])
    try:
        accept(case["words"], case["ranks"])
    except SystemExit:
        return said.getvalue().strip() or "exit"
    except Exception as error:  # noqa: BLE001
        return f"{type(error).__name__}: {error}"
    finally:
        os.environ.clear()
        os.environ.update(before)
    return None
