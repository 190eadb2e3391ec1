"""The command line as a user has it: a process, its streams and its exit status."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.documents import ROOT
from tests.environment import outer_variables
from tests.fork import fork

ENVIRONMENT = {k: v for k, v in os.environ.items() if k not in outer_variables()}


@dataclass(frozen=True)
class Done:
    status: int
    out: bytes
    err: str

    @property
    def said(self) -> str:
        """What a person reads as the answer: standard output as text."""
        return self.out.decode()


def helixctl(
    *args: str | Path,
    stdin: bytes | None = None,
    cwd: Path = ROOT,
    env: dict[str, str] | None = None,
    timeout: float = 300,
    fresh: bool = False,
    before: str = "",
) -> Done:
    """Run ``helixctl ARGS``; in a new interpreter if it must be ``fresh``, or starts ranks in an ``env`` of its own.

    The command does not see what a test replaces in its own process: ``before`` is Python source that the command's
    process runs first, where it is not a new interpreter.
    """
    arguments, environment = list(map(str, args)), ENVIRONMENT | (env or {})
    ranks = arguments[:1] in (["run"], ["calibrate"])
    if not fresh and not (ranks and env):  # torch reads some variables when it is loaded
        given = stdin or b""
        forked = fork(
            arguments, stdin=given, cwd=cwd, env=environment, seconds=int(timeout), before=before, torch=ranks
        )
        return Done(forked.status, forked.out, forked.err.decode())
    assert not before, "a new interpreter runs nothing first"
    command = [sys.executable, "-m", "helixctl", *arguments]
    done = subprocess.run(
        command,
        input=stdin or b"",
        capture_output=True,
        cwd=cwd,
        env=environment,
        timeout=timeout,
        check=False,
    )
    return Done(done.returncode, done.stdout, done.stderr.decode())


def modules(code: str) -> set[str]:
    """The top-level modules that are loaded once some code has run."""
    script = f"import sys\n{code}\nprint(*sorted({{m.partition('.')[0] for m in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, cwd=ROOT)
    return set(done.stdout.decode().splitlines()[-1].split())
