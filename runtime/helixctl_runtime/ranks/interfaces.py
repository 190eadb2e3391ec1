"""The network interfaces that the environment names for gloo and NCCL: whether this machine has them."""

from __future__ import annotations

import socket
import sys
from collections.abc import Mapping, Sequence

from helixctl.errors import fail
from helixctl_runtime.ranks.devices import DeviceKind

_GLOO, _NCCL = "GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"


def loopback() -> str:
    """The interface through which a machine reaches itself."""
    return "lo0" if sys.platform == "darwin" else "lo"


def check_interfaces(environ: Mapping[str, str], device: DeviceKind) -> None:
    """Raise HX513 if this machine lacks the interface that the environment names for gloo (CPU) or NCCL (CUDA)."""
    here = [name for _, name in socket.if_nameindex()]
    if device == "cpu":
        _check_gloo(environ.get(_GLOO, ""), here)
    else:
        _check_nccl(environ.get(_NCCL, ""), here)


def _check_gloo(value: str, here: Sequence[str]) -> None:
    """Check a list of whole names; gloo uses all of them."""
    lost = [name for name in value.split(",") if name not in here]
    if value and lost:
        hint = "gloo takes whole names, and NCCL's ^ and = are none of them; " if value[0] in "^=" else ""
        raise _refused(_GLOO, value, lost[0], here, hint)


def _check_nccl(value: str, here: Sequence[str]) -> None:
    """Check a list of prefixes; NCCL needs one that fits. ``=`` asks for whole names, ``^`` excludes what fits."""
    excluded, exact = value.startswith("^"), value.lstrip("^").startswith("=")
    names = [name for name in value.lstrip("^=").split(",") if name]
    fitting = [each for each in here if (each in names if exact else each.startswith(tuple(names)))]
    if names and len(fitting) == (len(here) if excluded else 0):
        raise _refused(_NCCL, value, ", ".join(names), here)


def _refused(variable: str, value: str, name: str, here: Sequence[str], hint: str = "") -> Exception:
    what = (
        "excludes every interface of" if value.startswith("^") and not hint else f"names the interface {name}, not on"
    )
    message = f"{variable}={value} {what} this machine, {socket.gethostname()}"
    return fail("HX513", message, f"{hint}unset {variable}, or name one that is here: {', '.join(here)}")
