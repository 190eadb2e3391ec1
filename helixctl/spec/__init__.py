"""What the user writes: model, cluster and workload."""

from helixctl.spec.base import DTYPE_NBYTES, Count, Dtype, Spec, accumulator
from helixctl.spec.calibration import AttentionTable, CalibrationSpec, CollectiveTable, MatmulTable
from helixctl.spec.models import (
    AttentionSpec,
    ClusterSpec,
    DeviceSpec,
    ExpertsSpec,
    FeedForwardSpec,
    LinkSpec,
    ModelDocument,
    ModelSpec,
    NormSpec,
    WorkloadSpec,
)

__all__ = [
    "DTYPE_NBYTES",
    "AttentionSpec",
    "AttentionTable",
    "CalibrationSpec",
    "ClusterSpec",
    "CollectiveTable",
    "Count",
    "DeviceSpec",
    "Dtype",
    "ExpertsSpec",
    "FeedForwardSpec",
    "LinkSpec",
    "MatmulTable",
    "ModelDocument",
    "ModelSpec",
    "NormSpec",
    "Spec",
    "WorkloadSpec",
    "accumulator",
]
