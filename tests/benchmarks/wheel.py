"""How long `helixctl plan` takes for one who has the wheel alone, with models and GPUs by name.

    python tests/benchmarks/wheel.py [--json FILE] [--runs N]

Builds the wheel, installs it with its own dependencies (the versions of constraints.txt, from the package index) into a
new virtual environment, and plans there from an empty folder. Wall and processor seconds are of whole commands: other
processes that share the cores lengthen the first, hardly the second.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path
from typing import Any, Final

ROOT = Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT))

from tests.wheel import built  # noqa: E402

COMMANDS: Final = {
    "plan": ("plan", "Llama-3.1-8B", "h100:1x8", "--batch", "8", "--seq-len", "2048"),
    "help": ("--help",),
}
SLOWEST: Final = 12  # imports that are listed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--runs", type=int, default=11)
    parser.add_argument("--imports", action="store_true", help="also list the slowest imports of `plan`")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        program = installed(folder)
        (folder / "empty").mkdir()
        rows: dict[str, Any] = {
            "environment": {
                "python": platform.python_version(),
                "machine": platform.machine(),
                "cores": os.cpu_count(),
            },
            "runs": options.runs,
            "wheel_nbytes": next((folder / "wheel").glob("*.whl")).stat().st_size,
            "packages": packages(folder),
        }
        for label, words in COMMANDS.items():
            command = [str(program), *words]
            timed(command, folder / "empty")  # writes the byte code, as an installation may
            rows[label] = {"command": " ".join(["helixctl", *words])} | spread(command, folder / "empty", options.runs)
        if options.imports:
            rows["slowest_imports_ms"] = slowest_imports(folder)
    print(json.dumps(rows, indent=1))
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


def installed(folder: Path) -> Path:
    """The program `helixctl` of a new environment in the folder, installed from a wheel that is built there."""
    environment = folder / "env"
    venv.create(environment, with_pip=True)
    pip = [str(environment / "bin/pip"), "--quiet", "--disable-pip-version-check"]
    run(*pip, "install", "-c", str(ROOT / "constraints.txt"), str(built(folder / "wheel")))
    return environment / "bin/helixctl"


def packages(folder: Path) -> list[str]:
    """What the environment holds, without what installs."""
    pip = [str(folder / "env/bin/pip"), "--disable-pip-version-check", "list", "--format", "json"]
    found = json.loads(run(*pip, "--exclude", "pip", "--exclude", "setuptools"))
    return [f"{each['name']} {each['version']}" for each in found]


def spread(command: list[str], folder: Path, runs: int) -> dict[str, dict[str, float]]:
    """Wall and processor seconds of a command that is run over and over."""
    found = [timed(command, folder) for _ in range(runs)]
    columns = zip(*found, strict=True)
    return {
        name: {"min": round(min(its), 3), "median": round(statistics.median(its), 3), "max": round(max(its), 3)}
        for name, its in zip(("wall_s", "processor_s"), columns, strict=True)
    }


def timed(command: list[str], folder: Path) -> tuple[float, float]:
    """Wall and processor seconds of a command, run in an empty folder that is empty again afterwards."""
    before, begin = processor_s(), time.perf_counter()
    run(*command, cwd=folder)
    wall = time.perf_counter() - begin
    used = processor_s() - before
    for path in folder.iterdir():
        path.unlink()
    return wall, used


def processor_s() -> float:
    """Seconds that processes which have ended took."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def slowest_imports(folder: Path) -> dict[str, float]:
    """Milliseconds of the modules that take longest by themselves."""
    python = [str(folder / "env/bin/python"), "-X", "importtime", "-m", "helixctl"]
    done = subprocess.run(
        [*python, *COMMANDS["plan"]], cwd=folder / "empty", env=ENVIRONMENT, capture_output=True, text=True, check=True
    )
    lines = [line.removeprefix("import time:").split("|") for line in done.stderr.splitlines() if line.count("|") == 2]
    found = {name.strip(): int(own) / 1e3 for own, _, name in lines if own.strip().isdigit()}
    return dict(sorted(found.items(), key=lambda its: -its[1])[:SLOWEST])


# A path into the checkout would be found before what is installed.
ENVIRONMENT: Final = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}


def run(*command: str, cwd: Path | None = None) -> str:
    """What a command writes to standard output; it must succeed."""
    done = subprocess.run(command, cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)}:\n{done.stderr}")
    return done.stdout


if __name__ == "__main__":
    main()
