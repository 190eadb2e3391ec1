"""What a shell completes: names of models and clusters, files, axes of a layout."""

from __future__ import annotations

import click
from click.shell_completion import CompletionItem


def files(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Files, as the shell finds them."""
    return [CompletionItem(incomplete, type="file")]


def models(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Models by name, and files."""
    from helixctl.spec.named_models import model_names

    return [*_of(model_names(), incomplete), *files(ctx, parameter, incomplete)]


def clusters(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Clusters by name, one host of 8 of each GPU and two, and files."""
    from helixctl.spec.named import cluster_names

    names = [f"{gpu}:{size}" for gpu in cluster_names() for size in ("1x8", "2x8")]
    return [*_of(names, incomplete), *files(ctx, parameter, incomplete)]


def axes(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The axes of a layout that are not named yet, behind those that are: ``groups=8,pi`` -> ``groups=8,pipeline=``."""
    from helixctl.plan import Layout

    *before, last = incomplete.split(",")
    named = {part.partition("=")[0].strip() for part in before}
    ahead = "".join(f"{part}," for part in before)
    return _of([f"{ahead}{name}=" for name in Layout.model_fields if name not in named], f"{ahead}{last}")


def _of(names: list[str] | tuple[str, ...], incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(name) for name in names if name.lower().startswith(incomplete.lower())]
