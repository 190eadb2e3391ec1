"""The entry point of calibration: measure this machine, or the hosts of an outer launcher."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, Final, Literal

import torch

from helixctl.errors import fail
from helixctl.spec import ClusterSpec, Dtype
from helixctl_runtime.calibrate.cluster_spec import build_cluster_spec
from helixctl_runtime.calibrate.points import FULL, QUICK, Sizes
from helixctl_runtime.calibrate.worker import CalibrationWorker
from helixctl_runtime.ranks import run_ranks
from helixctl_runtime.ranks.launchers.environment import detect
from helixctl_runtime.run import prints_output, starts_ranks

__all__ = ["Request", "calibrate", "prints_output", "starts_ranks"]

_CPU_RANKS: Final = 4
_DTYPES: Final[dict[str, tuple[Dtype, ...]]] = {"cpu": ("float32",), "cuda": ("float16", "bfloat16")}


@dataclass(frozen=True)
class Request:
    """What to calibrate.

    Attributes:
        device: the kind of the devices.
        ranks: the number of ranks that measure at the same time.
        dtypes: the dtypes of the kernels; collectives are measured in float32.
        quick: measure few sizes, with few repetitions.
    """

    device: Literal["cpu", "cuda"]
    ranks: int
    dtypes: tuple[Dtype, ...]
    quick: bool

    @classmethod
    def of(
        cls,
        device: Literal["cpu", "cuda"],
        *,
        ranks: int | None,
        dtypes: Sequence[Dtype],
        base: ClusterSpec | None,
        quick: bool,
    ) -> Request:
        """Fill in what the user has left open.

        Args:
            device: the kind of the devices.
            ranks: the number of ranks. None takes that of the outer launcher, else the devices of a host of ``base``,
                else 4 on CPU and all devices on CUDA.
            dtypes: the dtypes of the kernels. Empty takes float32 on CPU, float16 and bfloat16 on CUDA.
            base: the cluster that gives what is not measured.
            quick: measure few sizes, with few repetitions.

        Raises:
            HelixError: HX502, there is no CUDA device; HX509, the outer launcher has started another number of ranks.
        """
        launched = detect(os.environ)
        if launched and ranks and ranks != launched.world_size:
            message = f"{ranks} ranks were asked for, {launched.launcher} started {launched.world_size}"
            raise fail("HX509", message, "leave --ranks out")
        ranks = ranks or (launched.world_size if launched else base.only.devices_per_host if base else _devices(device))
        return cls(device, ranks, tuple(dict.fromkeys(dtypes)) or _DTYPES[device], quick)

    @property
    def sizes(self) -> Sizes:
        """The sizes to measure."""
        return (QUICK if self.quick else FULL)[self.device]

    @cached_property
    def names(self) -> list[str]:
        """The names of the measurements on one host, in their order."""
        per_host = int(os.environ.get("LOCAL_WORLD_SIZE", self.ranks))
        return [*map(str, self.sizes.kernels(self.dtypes)), *map(str, self.sizes.collectives(per_host))]


def calibrate(
    request: Request,
    base: ClusterSpec | None,
    *,
    timeout: float,
    on_progress: Callable[[str, int, int], None] | None = None,
) -> ClusterSpec | None:
    """Measure, and build a cluster spec from the result; None if another process is rank 0.

    Args:
        request: what to measure.
        base: the cluster that gives what is not measured.
        timeout: seconds that a rank waits for another, and that one measurement may take at most.
        on_progress: called a few times a second with the phase, the number of finished measurements, and 0.

    Raises:
        HelixError: HX5xx, with the rank, the measurement and the log where a rank failed.
    """
    names = request.names
    results = run_ranks(
        CalibrationWorker(request.sizes, tuple(request.sizes.kernels(request.dtypes))),
        world_size=request.ranks,
        device=request.device,
        timeout=timeout,
        task_name=lambda _, index: names[index] if index < len(names) else "a collective",
        on_progress=on_progress and (lambda at: on_progress(at.phase.name.lower(), at.step, at.steps)),
    )
    measured: Any = results[0]
    return measured and build_cluster_spec(measured, base, datetime.now(UTC).date())


def _devices(device: Literal["cpu", "cuda"]) -> int:
    if device == "cpu":
        return _CPU_RANKS
    if not (seen := torch.cuda.device_count()):
        raise fail("HX502", "this machine has no CUDA device", "use --device cpu")
    return seen
