"""The compute kernels: one function per op, which binds tensors and returns the call that writes into its output."""

from helixctl_runtime.kernels.basic import (
    Step,
    activation,
    add,
    copy,
    embed,
    head_linear,
    join,
    last_token,
    linear,
    multiply,
    norm,
    rotate,
    route,
)
from helixctl_runtime.kernels.cached import Lane, best, cache_write, choose, merge, rotate_at
from helixctl_runtime.kernels.fused import (
    FUSED_ATTENTION,
    FusedAttention,
    attention,
    backend_of,
    causal_mask,
    fused_attention,
)
from helixctl_runtime.kernels.grouped import experts, on_device
from helixctl_runtime.kernels.lane_attention import cached_attention

__all__ = [
    "FUSED_ATTENTION",
    "FusedAttention",
    "Lane",
    "Step",
    "activation",
    "add",
    "attention",
    "backend_of",
    "best",
    "cache_write",
    "cached_attention",
    "causal_mask",
    "choose",
    "copy",
    "embed",
    "experts",
    "fused_attention",
    "head_linear",
    "join",
    "last_token",
    "linear",
    "merge",
    "multiply",
    "norm",
    "on_device",
    "rotate",
    "rotate_at",
    "route",
]
