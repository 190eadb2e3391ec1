"""A decode step of a llama, cut n x m, as one writes it in plain torch.distributed without a compiler."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.distributed as dist
import torch.nn.functional as F

from helixctl.dag import Dag
from helixctl_runtime.tensors.rotary import rotations

# torch 2.13 renames it; 2.11 has only the old name.
all_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor


class ByHand:
    """Tensor parallelism over n groups of heads; of m > 1 slices each holds the keys of its blocks of positions.

    One all-reduce behind the embedding, attention and the MLP each; q, k and v side by side in one product, gate and up
    too; cosines and sines once a step. With slices one gather puts q, k and v together, and one exchange carries the
    partial attentions with their log-sum-exps. The largest logits and their tokens are gathered together.
    """

    def __init__(
        self, dag: Dag, rank: int, group: dist.ProcessGroup | None, load: Callable[[str], torch.Tensor]
    ) -> None:
        """Load the weights.

        Args:
            dag: of the decode step; says the sizes, and how they are cut.
            rank: this rank.
            group: of the slices of its head group.
            load: gives this rank's part of a weight, or of a cache, by its name.
        """
        model, layout = dag.plan.model, dag.plan.layout
        self.group, self.eps = group, model.norm.eps
        self.lanes, self.lane, self.block = layout.slices, layout.slice_of(rank), layout.key_block
        self.head_dim = model.attention.head_dim
        self.table, self.head, self.final = load("embedding"), load("w_head"), load("final_norm")
        self.first = rank * self.table.shape[0]
        assert model.attention.rotary is not None
        cos, sin = rotations(model.attention.rotary, self.head_dim, (0, dag.plan.workload.positions))
        self.cos, self.sin = cos.repeat(1, 2), sin.repeat(1, 2)
        self.layers = []
        for i in range(model.layers):
            qkv = torch.cat([load(f"l{i}.w_{name}").flatten(1) for name in "qkv"], 1)
            gate_up = torch.cat([load(f"l{i}.w_gate"), load(f"l{i}.w_up")], 1)
            norms = load(f"l{i}.attention_norm"), load(f"l{i}.feed_forward_norm")
            # (batch, key, head, head_dim)
            caches = [load(f"l{i}.{name}_cache").flatten(1, 3).clone() for name in "kv"]
            self.layers.append((qkv, load(f"l{i}.w_o").flatten(0, 1), gate_up, load(f"l{i}.w_down"), norms, caches))

    def __call__(self, ids: torch.Tensor, position: int) -> torch.Tensor:
        """The next token of every sequence, int64 (batch); ``ids`` (batch, 1) are at ``position`` of all."""
        row = ids[:, 0] - self.first
        elsewhere = (row < 0) | (row >= self.table.shape[0])
        x = F.embedding(row.masked_fill(elsewhere, 0), self.table).masked_fill(elsewhere[:, None], 0)
        dist.all_reduce(x)
        cos, sin = self.cos[position], self.sin[position]
        for qkv, w_o, gate_up, down, (norm, mlp_norm), caches in self.layers:
            h = F.rms_norm(x, norm.shape, norm, self.eps) @ qkv
            o = self._attention(h, position, cos, sin, caches) @ w_o
            dist.all_reduce(o)
            x = x + o
            gate, up = (F.rms_norm(x, norm.shape, mlp_norm, self.eps) @ gate_up).chunk(2, -1)
            y = (F.silu(gate) * up) @ down
            dist.all_reduce(y)
            x = x + y
        best = (F.rms_norm(x, self.final.shape, self.final, self.eps) @ self.head).max(-1)
        pairs = gather(torch.stack([best.values.double(), best.indices.double() + self.first]), None)
        return pairs[:, 1].gather(0, pairs[:, 0].argmax(0, keepdim=True))[0].long()

    def _attention(
        self, qkv: torch.Tensor, position: int, cos: torch.Tensor, sin: torch.Tensor, caches: list[torch.Tensor]
    ) -> torch.Tensor:
        """(batch, 3 x heads x dims) -> (batch, heads x dims), of this slice's dims of every head."""
        batch, lanes = qkv.shape[0], self.lanes
        qkv = qkv.view(batch, 3, -1, self.head_dim // lanes)
        if lanes > 1:
            qkv = gather(qkv, self.group).permute(1, 2, 3, 0, 4).flatten(3)
        q, k, v = qkv[:, :2], qkv[:, 1], qkv[:, 2]
        q, k = (q * cos + torch.cat([-q[..., self.head_dim // 2 :], q[..., : self.head_dim // 2]], -1) * sin).unbind(1)
        cycle, rest = divmod(position, lanes * self.block)
        ahead = rest - self.lane * self.block  # of its keys of this cycle, those that stand before the new one
        if 0 <= ahead < self.block:
            caches[0][:, cycle * self.block + ahead], caches[1][:, cycle * self.block + ahead] = k, v
        keys = cycle * self.block + min(max(ahead + 1, 0), self.block)
        k, v = (cache[:, :keys].transpose(1, 2) for cache in caches)
        if lanes == 1:
            return F.scaled_dot_product_attention(q[:, :, None], k, v, enable_gqa=True).flatten(1)
        part, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q[:, :, None], k, v)
        part = part.view(batch, -1, lanes, self.head_dim // lanes).movedim(2, 0)
        sums = lse.view(1, batch, -1, 1).expand(lanes, -1, -1, -1)
        sent = torch.cat([part, sums], -1)
        got = torch.empty_like(sent)
        dist.all_to_all_single(got, sent, group=self.group)
        return (got[..., :-1] * torch.softmax(got[..., -1:], 0)).sum(0).flatten(1)


def gather(x: torch.Tensor, group: dist.ProcessGroup | None) -> torch.Tensor:
    """All ranks' pieces, (ranks, *piece)."""
    parts = torch.empty(dist.get_world_size(group), *x.shape, dtype=x.dtype)
    all_gather(parts.view(-1), x.contiguous().view(-1), group=group)
    return parts
