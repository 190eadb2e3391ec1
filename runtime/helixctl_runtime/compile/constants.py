"""The numbers of a program's constants."""

from __future__ import annotations

import torch

from helixctl.program import CausalMask, Constant, KeyPositions, QueryScales, RotaryTable
from helixctl_runtime import kernels
from helixctl_runtime.tensors.position_scaling import query_scales
from helixctl_runtime.tensors.rotary import rotations


def fill(constant: Constant, target: torch.Tensor) -> None:
    """Write a constant's numbers into its memory."""
    match constant:
        case RotaryTable(function, rotary, head_dim, positions, long=long):
            cos, sin = rotations(rotary, head_dim, positions, long=long)
            target.copy_((cos if function == "cos" else sin).unsqueeze(1))
        case QueryScales(scaling, positions):
            target.copy_(query_scales(scaling, positions).view(-1, 1, 1))
        case KeyPositions(cycles, lanes, lane, block):
            cycle, offset = torch.arange(cycles).unsqueeze(1), torch.arange(block)
            target.copy_(((cycle * lanes + lane) * block + offset).flatten())
        case CausalMask():
            target.copy_(kernels.causal_mask(constant, target.dtype, target.device))
