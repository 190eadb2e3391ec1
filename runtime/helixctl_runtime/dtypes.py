"""Dtypes by the names that documents use."""

from __future__ import annotations

from typing import Final

import torch

TORCH: Final[dict[str, torch.dtype]] = {
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float32": torch.float32,
    "float64": torch.float64,
    "int64": torch.int64,
}
HALF: Final = (torch.float16, torch.bfloat16)
