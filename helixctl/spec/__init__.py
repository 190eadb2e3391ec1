"""What the user writes: model, cluster and workload."""

from helixctl.spec.attention import AttentionSpec, LatentSpec, LinearScaling, Llama3Scaling, RotarySpec
from helixctl.spec.base import DTYPE_NBYTES, Count, Dtype, Spec, accumulator, added
from helixctl.spec.calibration import AttentionTable, CalibrationSpec, CollectiveTable, DecodeTable, MatmulTable
from helixctl.spec.cluster import ClusterSpec, DeviceSpec, LinkSpec, MeasuredSpec
from helixctl.spec.model import (
    BlockSpec,
    ExpertsSpec,
    FeedForwardSpec,
    ModelDocument,
    ModelSpec,
    NormSpec,
    VocabularySpec,
    WorkloadSpec,
)
from helixctl.spec.step import Step, StepName

__all__ = [
    "DTYPE_NBYTES",
    "AttentionSpec",
    "AttentionTable",
    "BlockSpec",
    "CalibrationSpec",
    "ClusterSpec",
    "CollectiveTable",
    "Count",
    "DecodeTable",
    "DeviceSpec",
    "Dtype",
    "ExpertsSpec",
    "FeedForwardSpec",
    "LatentSpec",
    "LinearScaling",
    "LinkSpec",
    "Llama3Scaling",
    "MatmulTable",
    "MeasuredSpec",
    "ModelDocument",
    "ModelSpec",
    "NormSpec",
    "RotarySpec",
    "Spec",
    "Step",
    "StepName",
    "VocabularySpec",
    "WorkloadSpec",
    "accumulator",
    "added",
]
