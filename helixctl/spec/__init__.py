"""What the user writes: model, cluster and workload."""

from helixctl.spec.models import (
    DTYPE_NBYTES,
    AttentionSpec,
    ClusterSpec,
    DeviceSpec,
    Dtype,
    FeedForwardSpec,
    LinkSpec,
    ModelDocument,
    ModelSpec,
    NormSpec,
    WorkloadSpec,
    accumulator,
)

__all__ = [
    "DTYPE_NBYTES",
    "AttentionSpec",
    "ClusterSpec",
    "DeviceSpec",
    "Dtype",
    "FeedForwardSpec",
    "LinkSpec",
    "ModelDocument",
    "ModelSpec",
    "NormSpec",
    "WorkloadSpec",
    "accumulator",
]
