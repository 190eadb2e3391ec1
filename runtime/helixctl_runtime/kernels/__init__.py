"""The compute kernels: one function per op, which binds tensors and returns the call that writes into its output."""

from helixctl_runtime.kernels.basic import (
    Step,
    activated,
    activation,
    add,
    copy,
    embed,
    gated,
    head_linear,
    join,
    last_token,
    linear,
    multiply,
    multiply_by,
    norm,
    norm_by_sums,
    rotate,
    scale,
    square_sums,
)
from helixctl_runtime.kernels.cached import Lane, best, cache_write, choose, merge, rotate_at, scale_queries
from helixctl_runtime.kernels.expand import expand
from helixctl_runtime.kernels.fused import (
    FUSED_ATTENTION,
    FusedAttention,
    attention,
    backend_of,
    causal_mask,
    fused_attention,
)
from helixctl_runtime.kernels.grouped import ExpertBiases, experts, on_device
from helixctl_runtime.kernels.lane_attention import cached_attention
from helixctl_runtime.kernels.routing import route, token_gate
from helixctl_runtime.kernels.sampling import sample
from helixctl_runtime.kernels.selecting import cached_select, merge_select, select
from helixctl_runtime.kernels.sparse_attention import sparse_attention

__all__ = [
    "FUSED_ATTENTION",
    "ExpertBiases",
    "FusedAttention",
    "Lane",
    "Step",
    "activated",
    "activation",
    "add",
    "attention",
    "backend_of",
    "best",
    "cache_write",
    "cached_attention",
    "cached_select",
    "causal_mask",
    "choose",
    "copy",
    "embed",
    "expand",
    "experts",
    "fused_attention",
    "gated",
    "head_linear",
    "join",
    "last_token",
    "linear",
    "merge",
    "merge_select",
    "multiply",
    "multiply_by",
    "norm",
    "norm_by_sums",
    "on_device",
    "rotate",
    "rotate_at",
    "route",
    "sample",
    "scale",
    "scale_queries",
    "select",
    "sparse_attention",
    "square_sums",
    "token_gate",
]
