"""torchtitan: its ConfigManager, which loads the configuration that is named and parses the rest over it.

Then what its trainer asks of the result before it touches a device: ParallelDims, the model's own check of heads and
sequences, and the batch.
"""

from __future__ import annotations

from importlib.metadata import version

from answer import Accept, main


def load() -> tuple[str, Accept]:
    from torchtitan.config.manager import ConfigManager
    from torchtitan.distributed import ParallelDims

    def accept(words: list[str], ranks: int) -> None:
        begin = words.index("torchtitan.train")
        found = ConfigManager().parse_args(words[begin + 1 :])
        dims = ParallelDims.from_config(found.parallelism, ranks)
        found.model_spec.model.update_from_config(config=found)
        batch = found.training
        each = batch.local_batch_size * dims.dp_replicate * dims.dp_shard
        if batch.global_batch_size % each:
            raise ValueError(f"global_batch_size {batch.global_batch_size} of {each}")

    return version("torchtitan"), accept


main(load)
