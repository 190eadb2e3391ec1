"""Keys and values of every head from the latents of a cache."""

from __future__ import annotations

import torch

from helixctl_runtime.dtypes import HALF
from helixctl_runtime.kernels.basic import Step
from helixctl_runtime.kernels.cached import Lane


def expand(
    x: torch.Tensor,
    weights: tuple[torch.Tensor, torch.Tensor],
    counts: tuple[torch.Tensor, torch.Tensor],
    lane: Lane,
    k: torch.Tensor,
    v: torch.Tensor,
) -> Step:
    """Products of the latents, each beside its rotated key, with the parts of two weights of every head.

    On CPU the host looks at the lengths, and no position beyond a sequence is expanded; on CUDA all are for which there
    is room.

    Args:
        x: (batch, keys, 1, R + P): latents of R elements, and rotated keys of P.
        weights: of keys (R, heads, N) and of values (R, heads, V).
        counts: length and count of each sequence, int64 (batch).
        lane: where the keys stand.
        k: (batch, keys, heads, N + P), contiguous; gets the products, and behind them the rotated key.
        v: (batch, keys, heads, V), contiguous.
    """
    rank, _, width = weights[0].shape
    half = x.device.type == "cpu" and x.dtype in HALF
    of_keys, of_values = (w.flatten(1).float() if half else w.flatten(1) for w in weights)

    def some(latents: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> None:
        """(positions, R + P) -> (positions, heads, N + P) and (positions, heads, V)."""
        own = latents[:, :rank].to(of_keys.dtype)
        keys[..., :width].copy_((own @ of_keys).view(*keys.shape[:2], width))
        keys[..., width:].copy_(latents[:, None, rank:].expand(-1, keys.shape[1], -1))
        if half:
            values.copy_((own @ of_values).view(values.shape))
        else:
            torch.mm(own, of_values, out=values.view(len(values), -1))

    if x.is_cuda:
        flat = x.flatten(0, 2), k.flatten(0, 1), v.flatten(0, 1)
        return lambda: some(*flat)

    def run() -> None:
        length, count = counts
        for b, end in enumerate((length + count).tolist()):
            if keys := lane.keys_below(end):
                some(x[b, :keys, 0], k[b, :keys], v[b, :keys])

    return run
