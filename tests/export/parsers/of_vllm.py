"""vLLM: the parser of ``vllm serve``, its check of what was parsed, the fields of AsyncEngineArgs, and ParallelConfig.

The parser asks for the device's platform: it gets one of H100s, which does nothing. All of create_engine_config is not
tried, because it looks into the model's class, which imports the kernels of flash attention.
"""

from __future__ import annotations

from answer import Accept, main


def load() -> tuple[str, Accept]:
    from vllm import platforms
    from vllm.platforms.interface import DeviceCapability, Platform, PlatformEnum

    class H100(Platform):
        _enum = PlatformEnum.CUDA
        device_name = device_type = "cuda"

        @classmethod
        def get_device_capability(cls, device_id: int = 0) -> DeviceCapability:
            return DeviceCapability(9, 0)

        @classmethod
        def device_count(cls) -> int:
            return 8

    platforms.current_platform = H100()
    import vllm
    from vllm.config import ParallelConfig
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.entrypoints.common.cli_args import make_arg_parser, validate_parsed_serve_args
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    parser = make_arg_parser(FlexibleArgumentParser(prog="vllm serve"))
    # ParallelConfig has these under the names that the arguments have.
    same = ("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size", "decode_context_parallel_size",
            "enable_expert_parallel", "nnodes", "node_rank", "master_addr", "master_port",
            "distributed_executor_backend")  # fmt: skip

    def accept(words: list[str], ranks: int) -> None:
        command, *rest = words
        if command != "serve":
            raise ValueError(command)
        arguments = parser.parse_args(rest)
        validate_parsed_serve_args(arguments)
        arguments.model = arguments.model_tag
        engine = AsyncEngineArgs.from_cli_args(arguments)
        interleave = {}
        if engine.decode_context_parallel_size > 1:
            interleave = {"cp_kv_cache_interleave_size": engine.cp_kv_cache_interleave_size}
        found = ParallelConfig(**{name: getattr(engine, name) for name in same}, **interleave)
        if found.world_size_across_dp != ranks:
            raise ValueError(f"{found.world_size_across_dp} ranks for {ranks} devices")

    return vllm.__version__, accept


main(load)
