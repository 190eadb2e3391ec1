"""Every command of README.md and docs/ as a new user has them: helixctl from its wheel, outside the checkout.

    python tests/docs/new_user.py [PAGE ...] [--long] [--keep FOLDER]

A wheel is built and installed without its dependencies in a new virtual environment, which finds those of this one;
helixctl itself, its models and its errors are the wheel's. The commands of a page are run in its order, in one
empty folder, and must end and print as the page shows. The folder gets a file only when a command names it:

- MODEL, CLUSTER, FOLDER and other files of the reader's own, small ones (tests/docs/kit.py);
- plans/ and tests/, if the page says that its commands are run "in a checkout".

Printed is a line for every command that fails, and for every page how many were run, how many of them name files of the
reader's own, and how many are not run, which tests/docs/not_run.py explains. ``--long`` runs those of more than some
seconds too. The exit status is 1 where a command fails.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import site
import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT))

from tests.cli.command import ENVIRONMENT, Done  # noqa: E402
from tests.docs.examples import Step, examples, pages  # noqa: E402
from tests.docs.kit import make_kit, run  # noqa: E402
from tests.docs.not_run import LONG  # noqa: E402
from tests.docs.test_commands import RUN, difference  # noqa: E402
from tests.wheel import built  # noqa: E402

OF_THE_CHECKOUT = ("plans", "tests")


def installed(folder: Path) -> Path:
    """The programs of a new environment in ``folder`` that has the wheel."""
    venv.create(folder / "venv", with_pip=True)
    programs = folder / "venv/bin"
    pip = [programs / "pip", "install", "--quiet", "--no-deps", "--no-index", "--disable-pip-version-check"]
    subprocess.run([*pip, built(folder / "wheel")], check=True)
    (own,) = (folder / "venv").glob("lib/python*/site-packages")
    # The folders that hold the dependencies here; of an editable helixctl in them no .pth is read.
    others = [path for path in (*site.getsitepackages(), *sys.path) if path.endswith("site-packages")]
    (own / "dependencies.pth").write_text("\n".join(dict.fromkeys(others)) + "\n")
    where = "import helixctl, helixctl_runtime; print(helixctl.__file__); print(helixctl_runtime.__file__)"
    found = subprocess.run([programs / "python", "-c", where], check=True, capture_output=True, text=True, cwd=folder)
    assert all(path.startswith(str(own)) for path in found.stdout.split()), found.stdout
    return programs


class Reader:
    """Someone with a page before them, in an empty folder.

    Args:
        programs: the folder of ``helixctl``.
        kit: files of the reader's own, by the names that the pages give them.
        folder: the empty folder.
    """

    def __init__(self, programs: Path, kit: Path, folder: Path) -> None:
        self.programs, self.kit, self.folder = programs, kit, folder

    def call(self, *words: str, stdin: bytes | None, cwd: Path, env: dict[str, str]) -> Done:
        path = {"PATH": f"{self.programs}:{ENVIRONMENT['PATH']}"}
        command = [self.programs / "helixctl", *words]
        done = subprocess.run(
            command, input=stdin or b"", cwd=cwd, env=ENVIRONMENT | path | env, capture_output=True, check=False
        )
        return Done(done.returncode, done.stdout, done.stderr.decode())

    def bring(self, step: Step, page: str) -> tuple[list[str], str]:
        """Put the files in the folder that a command names and nothing has made; their names, and what is wrong."""
        brought = []
        for word in re.split(r"[\s=,\"']+", step.command):
            name = Path(word).parts[0] if word and not word.startswith(("-", "/")) else ""
            if not name or not (self.kit / name).exists() or (self.folder / name).exists():
                continue
            if name in OF_THE_CHECKOUT:
                if "in a checkout" not in page.lower():
                    return brought, f"{word} is a file of the checkout, and the page does not say so"
                (self.folder / name).symlink_to(ROOT / name)
            elif (self.kit / name).is_dir():
                shutil.copytree(self.kit / name, self.folder / name)
                brought.append(name)
            else:
                shutil.copy(self.kit / name, self.folder / name)
                brought.append(name)
        return brought, ""

    def tries(self, step: Step) -> str:
        """What is wrong with a command's end or with what it printed."""
        return difference(step, run(step, self.folder, self.call, self.programs), str(self.folder))


def read(page: Path, reader: Reader, *, long: bool) -> dict[str, Any]:
    """Run the commands of a page: how many, with which files of the reader's own, and what fails."""
    name, text = str(page.relative_to(ROOT)), page.read_text(encoding="utf-8")
    found: dict[str, Any] = {"page": name, "run": 0, "own files": 0, "not run": 0, "failed": 0}
    for example in examples(page):
        left_out = False
        for step in example.steps:
            # What follows in the block may need the files of a command that is left out.
            left_out = left_out or (not long and step.command.startswith(tuple(LONG)))
            if left_out or not step.command.startswith(RUN):
                found["not run"] += 1
            else:
                _follow(step, reader, text, found)
    return found


def _follow(step: Step, reader: Reader, page: str, found: dict[str, Any]) -> None:
    """Run one command and count it."""
    brought, problem = reader.bring(step, page)
    problem = problem or reader.tries(step)
    found["run"] += 1
    found["own files"] += bool(brought)
    found["failed"] += bool(problem)
    if problem:
        print(f"{found['page']}:{step.line}: $ {step.command[:300]}\n{problem}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", nargs="*", type=Path, help="all pages by default")
    parser.add_argument("--long", action="store_true", help="also those that take more than some seconds")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="work in this folder, and leave it")
    given = parser.parse_args()
    chosen = [page.resolve() for page in given.page] or [page for page in pages() if examples(page)]
    with tempfile.TemporaryDirectory() as temporary:
        folder = (given.keep or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        programs, kit = installed(folder), folder / "kit"
        kit.mkdir()
        make_kit(kit)
        rows = []
        for number, page in enumerate(chosen):
            here = folder / "pages" / f"{number}-{page.stem}"
            here.mkdir(parents=True)
            shutil.copytree(kit / "no-torch", here / "no-torch")  # for what a page says of a machine without torch
            rows.append(read(page, Reader(programs, kit, here), long=given.long))
            print(rows[-1], flush=True)
    total = {key: sum(row[key] for row in rows) for key in rows[0] if key != "page"}
    print(f"{len(rows)} pages: {total}")
    return int(total["failed"] > 0)


if __name__ == "__main__":
    os.chdir(ROOT)
    raise SystemExit(main())
