"""Which model of a checkpoint a plan means: the one that fits it, or the one that the user names by its prefix."""

from __future__ import annotations

from collections.abc import Sequence

from helixctl.dag import Tensor
from helixctl.errors import Diagnostic, HelixError
from helixctl_runtime.tensors.names import (
    HuggingFaceNames,
    Names,
    NativeNames,
    has_native_names,
    prefixes,
)
from helixctl_runtime.tensors.stored_tensor import StoredTensor
from helixctl_runtime.tensors.tensor_files import FLOATS, TensorFiles, abbreviate

OPTION = "--weights-prefix"


def guess_names(files: TensorFiles, requested: str | None) -> Names:
    """The likeliest names of the weights in files, without a plan to compare them with.

    Args:
        files: the checkpoint.
        requested: the prefix of one of its models, as the user wrote it; None for the likeliest model.

    Raises:
        HelixError: HX507, no model has that prefix.
    """
    found = prefixes(files.names)
    if requested is not None:
        return _with_prefix(files, found, requested)
    if has_native_names(files.names) or not found:
        return NativeNames()
    return _names_after(files, found, found[0])


def choose_names(files: TensorFiles, tensors: Sequence[Tensor], requested: str | None) -> Names:
    """The names of a plan's weights in files.

    Args:
        files: the checkpoint.
        tensors: the weights of the plan.
        requested: the prefix of one of its models, as the user wrote it; None for the model that fits the plan.

    Raises:
        HelixError: HX507, several models fit the plan, or none has the requested prefix.
    """
    found = prefixes(files.names)
    if requested is not None or len(found) + has_native_names(files.names) < 2:  # noqa: PLR2004
        return guess_names(files, requested)
    models: list[Names] = [_names_after(files, found, prefix) for prefix in found]
    models += [NativeNames()] if has_native_names(files.names) else []
    fitting = [names for names in models if _fits(files, names, tensors)]
    if len(fitting) > 1:
        raise _several(files, fitting)
    return fitting[0] if fitting else guess_names(files, None)


def misfit(files: TensorFiles, names: Names, stored: StoredTensor, tensor: Tensor, name: str) -> str | None:
    """Why a stored tensor cannot be a weight, or one of its pieces; None if it can.

    Args:
        files: the checkpoint.
        names: the names of the weights in it.
        stored: how the weight is stored.
        tensor: the weight.
        name: the name of the stored tensor.
    """
    shown = names.own_name(tensor)
    if name not in files.names:
        return f"tensor {name}{shown} is missing"
    shape, dtype = files.shape(name), files.dtype(name)
    if shape != stored.shape:
        return f"tensor {name} has shape {list(shape)}, the model {list(stored.shape)}{shown}"
    if dtype not in FLOATS:
        return f"tensor {name}{shown} is {dtype}; it must be one of {', '.join(FLOATS)}"
    return None


def _with_prefix(files: TensorFiles, found: Sequence[str], requested: str) -> HuggingFaceNames:
    prefix = requested if not requested or requested.endswith(".") else f"{requested}."
    if prefix not in found:
        there = f"there are {_quoted(found)}" if found else "it has no names of transformers"
        raise _refused(files, f"no model has the prefix {prefix!r}", f"{OPTION}: {there}")
    return _names_after(files, found, prefix, alone=True)


def _names_after(files: TensorFiles, found: Sequence[str], prefix: str, *, alone: bool = False) -> HuggingFaceNames:
    others = [other for other in found if other != prefix]
    return HuggingFaceNames(files.names, prefix, others, alone=alone, shape=files.shape)


def _fits(files: TensorFiles, names: Names, tensors: Sequence[Tensor]) -> bool:
    """Whether the files hold all weights, and the layers have no others."""
    used: set[str] = set()
    for tensor in tensors:
        stored = names.stored(tensor)
        used.update(stored.names)
        if any(misfit(files, names, stored, tensor, name) for name in stored.names):
            return False
    return not (names.unused if isinstance(names, NativeNames) else names.more_layers)(files.names, used)


def _several(files: TensorFiles, fitting: Sequence[Names]) -> HelixError:
    found = [names.prefix for names in fitting if names.prefix is not None]
    more = " and weights under helixctl's own names" if len(found) < len(fitting) else ""
    message = f"{len(fitting)} models of the plan's shape: with the prefixes {_quoted(found)}{more}"
    return _refused(files, message, f"choose one: {OPTION} {found[0] or repr('')}")


def _refused(files: TensorFiles, message: str, hint: str) -> HelixError:
    return HelixError(Diagnostic("HX507", message, hint, file=files.path))


def _quoted(found: Sequence[str]) -> str:
    return abbreviate([repr(prefix) for prefix in found])
