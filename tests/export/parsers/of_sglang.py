"""SGLang: the parser of ``python -m sglang.launch_server``, and the fields of ServerArgs."""

from __future__ import annotations

from importlib.metadata import version

from answer import Accept, main


def load() -> tuple[str, Accept]:
    from sglang.srt.server_args import prepare_server_args

    def accept(words: list[str], ranks: int) -> None:
        option, module, *rest = words
        if (option, module) != ("-m", "sglang.launch_server"):
            raise ValueError(module)
        server = prepare_server_args(rest)
        each = server.tp_size * server.pp_size * server.dp_size
        if each != ranks:
            raise ValueError(f"{each} ranks for {ranks} devices")

    return version("sglang"), accept


main(load)
