"""Every test begins with the same state of the process, whatever the test before it has changed."""

from __future__ import annotations

import gc
import locale
import os
import random
import resource
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

SEED: Final = 20_261_125
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD, signal.SIGPIPE, signal.SIGUSR1)
_LIMITS: Final = ("AS", "CPU", "CORE", "DATA", "FSIZE", "NOFILE", "STACK")
# Variables of pytest, and of a part of torch that transformers imports late.
_IGNORED_VARIABLES: Final = ("PYTEST_CURRENT_TEST", "TORCHINDUCTOR_CACHE_DIR")

State = dict[str, Any]
_PYTHON_STATE: Final[dict[str, Callable[[], Any]]] = {
    "the environment": lambda: {k: v for k, v in os.environ.items() if k not in _IGNORED_VARIABLES},
    "the working folder": Path.cwd,
    "sys.path": lambda: list(sys.path),
    "modules that cannot be imported": lambda: (  # mostly none of thousands
        [name for name, module in sys.modules.items() if module is None] if None in sys.modules.values() else []
    ),
    "the handlers of signals": lambda: {number.name: signal.getsignal(number) for number in _SIGNALS},
    "limits": lambda: {name: resource.getrlimit(getattr(resource, f"RLIMIT_{name}")) for name in _LIMITS},
    "the folder of temporary files": lambda: tempfile.tempdir,
    "the locale": lambda: locale.setlocale(locale.LC_ALL),
    "garbage collection": gc.isenabled,
    "the recursion limit": sys.getrecursionlimit,
}
_TORCH_STATE: Final[dict[str, Callable[[Any], Any]]] = {
    "torch's threads": lambda torch: torch.get_num_threads(),
    "torch's default dtype": lambda torch: torch.get_default_dtype(),
    "torch's default device": lambda torch: torch.get_default_device(),
    "torch's gradients": lambda torch: (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
    "torch's deterministic algorithms": lambda torch: torch.are_deterministic_algorithms_enabled(),
    "torch's default process group": lambda torch: torch.distributed.is_initialized(),
}


def begin() -> State:
    """Make what is random, and how many threads torch has, the same for every test; the state that it begins with."""
    random.seed(SEED)
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed(SEED)
    if torch := sys.modules.get("torch"):
        # torch.manual_seed asks the devices of every kind too, and takes milliseconds for it.
        torch.default_generator.manual_seed(SEED)
        if torch.cuda.is_initialized():
            torch.cuda.manual_seed_all(SEED)
        torch.set_num_threads(1)  # several test processes share the cores
    return _state()


def changed(before: State) -> list[str]:
    """What a test has changed and not put back."""
    after = _state()
    return [f"{name}: {_difference(old, after[name])}" for name, old in before.items() if old != after[name]]


def _state() -> State:
    state = {name: read() for name, read in _PYTHON_STATE.items()}
    if torch := sys.modules.get("torch"):
        state |= {name: read(torch) for name, read in _TORCH_STATE.items()}
    return state


def _difference(old: Any, new: Any) -> str:
    if isinstance(old, dict):
        return ", ".join(f"{k} was {old.get(k)!r}, is {new.get(k)!r}" for k in old | new if old.get(k) != new.get(k))
    return f"was {old!r}, is {new!r}"
