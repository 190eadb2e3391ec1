"""A small sweep that has every kind of point: planned, over the limit, refused."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from helixctl.sweep import Sweep
from tests.cli.command import helixctl

# On one device of 1.6 GB the largest batch does not fit, and the others take over the limit; on four the largest does.
LIMIT_S = 270e-6
LLAMA = ("Llama-3.1-8B", "h100:1x4", "--set", "layers=2", "--set", "device.memory=1.6 GB", "--plain")
ASKED = (*LLAMA, "--set", "vocabulary.size=4096", "--output-len", "64", "--max-tpot", "270us")


@dataclass(frozen=True)
class Swept:
    """What the command wrote and said."""

    sweep: Sweep
    said: str
    folder: Path


def made(folder: Path) -> Swept:
    files = ("--json", folder / "x.json", "--csv", folder / "x.csv")
    done = helixctl("sweep", *ASKED, "--batch", "1,8,64", "--input-len", "256", "--devices", "1,4", *files)
    assert done.status == 0, done.err
    assert f"wrote {folder / 'x.json'}: 6 points" in done.err
    return Swept(Sweep.model_validate_json((folder / "x.json").read_text()), done.said, folder)
