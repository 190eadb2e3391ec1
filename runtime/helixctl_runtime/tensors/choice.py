"""Which model of a checkpoint a plan means: the one that fits it, or the one that is asked for by its prefix."""

from __future__ import annotations

from collections.abc import Sequence

from helixctl.dag import Tensor
from helixctl.errors import Diagnostic, HelixError
from helixctl_runtime.tensors.names import (
    HuggingFaceNames,
    Names,
    OwnNames,
    has_own_names,
    prefixes,
)
from helixctl_runtime.tensors.stored import Stored
from helixctl_runtime.tensors.tensor_files import FLOATS, TensorFiles, few

OPTION = "--weights-prefix"


def likely_names(files: TensorFiles, asked: str | None) -> Names:
    """What files call the weights, where nothing is known of the plan.

    Args:
        files: the checkpoint.
        asked: the prefix of one of its models, as the user wrote it.

    Raises:
        HelixError: HX507, no model has that prefix.
    """
    found = prefixes(files.names)
    if asked is not None:
        return _asked(files, found, asked)
    if has_own_names(files.names) or not found:
        return OwnNames()
    return _part(files, found, found[0])


def choose(files: TensorFiles, tensors: Sequence[Tensor], asked: str | None) -> Names:
    """What files call these weights.

    Raises:
        HelixError: HX507, several models fit the plan, or none has the prefix that is asked for.
    """
    found = prefixes(files.names)
    if asked is not None or len(found) + has_own_names(files.names) < 2:  # noqa: PLR2004
        return likely_names(files, asked)
    models: list[Names] = [_part(files, found, prefix) for prefix in found]
    models += [OwnNames()] if has_own_names(files.names) else []
    fitting = [names for names in models if _fits(files, names, tensors)]
    if len(fitting) > 1:
        raise _several(files, fitting)
    return fitting[0] if fitting else likely_names(files, None)


def misfit(files: TensorFiles, names: Names, stored: Stored, tensor: Tensor, name: str) -> str | None:
    """Why a stored tensor is not the weight that it should be, or a piece of it."""
    shown = names.shown(tensor)
    if name not in files.names:
        return f"tensor {name}{shown} is missing"
    shape, dtype = files.shape(name), files.dtype(name)
    if shape != stored.shape:
        return f"tensor {name} has shape {list(shape)}, the model {list(stored.shape)}{shown}"
    if dtype not in FLOATS:
        return f"tensor {name}{shown} is {dtype}; it must be one of {', '.join(FLOATS)}"
    return None


def _asked(files: TensorFiles, found: Sequence[str], asked: str) -> HuggingFaceNames:
    prefix = asked if not asked or asked.endswith(".") else f"{asked}."
    if prefix not in found:
        there = f"there are {_quoted(found)}" if found else "it has no names of transformers"
        raise _refused(files, f"no model has the prefix {prefix!r}", f"{OPTION}: {there}")
    return _part(files, found, prefix, alone=True)


def _part(files: TensorFiles, found: Sequence[str], prefix: str, *, alone: bool = False) -> HuggingFaceNames:
    return HuggingFaceNames(files.names, prefix, [other for other in found if other != prefix], alone=alone)


def _fits(files: TensorFiles, names: Names, tensors: Sequence[Tensor]) -> bool:
    """Whether all weights are there, and the layers have no others."""
    used: set[str] = set()
    for tensor in tensors:
        stored = names.stored(tensor)
        used.update(stored.names)
        if any(misfit(files, names, stored, tensor, name) for name in stored.names):
            return False
    return not (names.unused if isinstance(names, OwnNames) else names.more_layers)(files.names, used)


def _several(files: TensorFiles, fitting: Sequence[Names]) -> HelixError:
    found = [names.prefix for names in fitting if names.prefix is not None]
    more = " and weights under helixctl's own names" if len(found) < len(fitting) else ""
    message = f"{len(fitting)} models of the plan's shape: with the prefixes {_quoted(found)}{more}"
    return _refused(files, message, f"choose one: {OPTION} {found[0] or repr('')}")


def _refused(files: TensorFiles, message: str, hint: str) -> HelixError:
    return HelixError(Diagnostic("HX507", message, hint, file=files.path))


def _quoted(found: Sequence[str]) -> str:
    return few([repr(prefix) for prefix in found])
