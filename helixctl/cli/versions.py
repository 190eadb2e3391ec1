"""``helixctl --version``: the versions of helixctl, Python and torch, without the second that importing torch takes."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path

import click

from helixctl import __version__


def print_versions(ctx: click.Context, _: click.Parameter, asked: bool) -> None:
    """The callback of the option: print and end."""
    if asked and not ctx.resilient_parsing:
        for line in versions():
            click.echo(line)
        ctx.exit()


def versions() -> Iterator[str]:
    """A line for each program."""
    yield f"helixctl, version {__version__}"
    yield f"Python {platform.python_version()}"
    try:
        torch = version("torch")
    except PackageNotFoundError:
        yield "torch: not installed; run and calibrate need it"
        return
    cuda = _cuda()
    yield f"torch {torch}, " + (f"CUDA {cuda}" if cuda else "without CUDA")


def _cuda() -> str | None:
    """The CUDA that torch was built for, as its file of versions says."""
    found = find_spec("torch")
    file = Path(found.origin).with_name("version.py") if found and found.origin else None
    spec = spec_from_file_location("helixctl_version_of_torch", file) if file and file.is_file() else None
    if spec is None or spec.loader is None:
        return None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    cuda = getattr(module, "cuda", None)
    return str(cuda) if cuda else None
