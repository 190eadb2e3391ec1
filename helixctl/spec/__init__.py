"""What the user writes: model, cluster and workload."""

from helixctl.spec.attention import (
    AttentionSpec,
    DynamicScaling,
    LatentSpec,
    LinearScaling,
    Llama3Scaling,
    LongRopeScaling,
    PositionScalingSpec,
    ProportionalScaling,
    RotarySpec,
    SparseSpec,
    YarnScaling,
)
from helixctl.spec.base import DTYPE_NBYTES, Count, Dtype, Spec, accumulator, added
from helixctl.spec.calibration import AttentionTable, CalibrationSpec, CollectiveTable, DecodeTable, MatmulTable
from helixctl.spec.cluster import ClusterSpec, DeviceSpec, EqualHosts, HostsSpec, LinkSpec, MeasuredSpec
from helixctl.spec.experts import ClampSpec, ExpertGroupsSpec, ExpertsSpec, RouterSpec, SharedExpertSpec
from helixctl.spec.model import (
    BlockSpec,
    FeedForwardSpec,
    ModelDocument,
    ModelSpec,
    MultipliersSpec,
    NormSpec,
    VocabularySpec,
    WorkloadSpec,
)
from helixctl.spec.sampling import SamplingSpec
from helixctl.spec.step import Step, StepName
from helixctl.spec.stored import GGUF_BLOCKS, NUMBER_BITS, SCALE_NBYTES, StoredSpec, stored_as

__all__ = [
    "DTYPE_NBYTES",
    "GGUF_BLOCKS",
    "NUMBER_BITS",
    "SCALE_NBYTES",
    "AttentionSpec",
    "AttentionTable",
    "BlockSpec",
    "CalibrationSpec",
    "ClampSpec",
    "ClusterSpec",
    "CollectiveTable",
    "Count",
    "DecodeTable",
    "DeviceSpec",
    "Dtype",
    "DynamicScaling",
    "EqualHosts",
    "ExpertGroupsSpec",
    "ExpertsSpec",
    "FeedForwardSpec",
    "HostsSpec",
    "LatentSpec",
    "LinearScaling",
    "LinkSpec",
    "Llama3Scaling",
    "LongRopeScaling",
    "MatmulTable",
    "MeasuredSpec",
    "ModelDocument",
    "ModelSpec",
    "MultipliersSpec",
    "NormSpec",
    "PositionScalingSpec",
    "ProportionalScaling",
    "RotarySpec",
    "RouterSpec",
    "SamplingSpec",
    "SharedExpertSpec",
    "SparseSpec",
    "Spec",
    "Step",
    "StepName",
    "StoredSpec",
    "VocabularySpec",
    "WorkloadSpec",
    "YarnScaling",
    "accumulator",
    "added",
    "stored_as",
]
