"""The environment of a measurement: versions, hardware, and variables that make float32 less precise."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch

from helixctl import __version__

_TF32: Final = ("NVIDIA_TF32_OVERRIDE", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE")
_FPMATH: Final = ("ONEDNN_DEFAULT_FPMATH_MODE", "DNNL_DEFAULT_FPMATH_MODE")  # of oneDNN, on CPU


def environment() -> dict[str, Any]:
    """Versions and hardware."""
    cuda = torch.cuda.is_available()
    return {
        "helixctl": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "platform": platform.platform(),
        "processor": _processor(),
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "gpu": torch.cuda.get_device_name(0) if cuda else None,
        "less_precise": less_precise(os.environ, cuda=cuda),
    }


def less_precise(environ: Mapping[str, str], *, cuda: bool) -> dict[str, str]:
    """The variables that make libraries below torch compute float32 with fewer bits, whatever torch's settings are.

    Args:
        environ: the environment.
        cuda: also look at the variables that concern GPUs.
    """
    found = {name: environ[name] for name in (_TF32 if cuda else ()) if environ.get(name) == "1"}
    modes = {name: environ[name] for name in _FPMATH if environ.get(name, "").upper() not in {"", "STRICT"}}
    return found | modes


def _processor() -> str:
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()
