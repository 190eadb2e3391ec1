"""Megatron-LM: the parser of ``pretrain_gpt.py``, and its validation of what was parsed, as on GPUs of the H100's kind.

Its folder stands in PYTHONPATH. It needs ``typing.override`` of Python 3.12, and validation asks for the kind of GPU.
"""

from __future__ import annotations

import os
import sys
import typing
from types import SimpleNamespace

import typing_extensions
from answer import Accept, main


def load() -> tuple[str, Accept]:
    import torch

    typing.override = typing_extensions.override
    torch.cuda.get_device_properties = lambda *_: SimpleNamespace(major=9, minor=0)
    from megatron.core.package_info import __version__
    from megatron.training.arguments import parse_args, validate_args

    def accept(words: list[str], ranks: int) -> None:
        begin = words.index("pretrain_gpt.py")
        os.environ["WORLD_SIZE"] = str(ranks)
        sys.argv = words[begin:]
        arguments = parse_args()
        validate_args(arguments)
        each = arguments.tensor_model_parallel_size * arguments.pipeline_model_parallel_size
        if each * arguments.data_parallel_size != ranks:
            raise ValueError(f"{each} x {arguments.data_parallel_size} ranks for {ranks} devices")

    return __version__, accept


main(load)
