"""What a script starts, seen by programs that write down how they were called."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path


def starts(text: str, tmp_path: Path, **variables: str) -> list[list[str]]:
    """The commands that a script starts: each program's name and arguments."""
    log = tmp_path / "log"
    log.unlink(missing_ok=True)
    for program in ("vllm", "python", "trtllm-serve", "srun", "torchrun"):
        fake = tmp_path / program
        fake.write_text(f'#!/bin/sh\n{{ printf "%s\\n" "{program} CUDA=$CUDA_VISIBLE_DEVICES"; printf "%s\\n" "$@"; '
                        f'echo; }} > {log}.$$; cat {log}.$$ >> {log}; rm {log}.$$\n')  # fmt: skip
        fake.chmod(0o755)
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}", **variables}
    subprocess.run(["sh", "-euc", text], cwd=tmp_path, env=env, check=True, capture_output=True, timeout=60)
    return sorted(one.splitlines() for one in log.read_text().strip("\n").split("\n\n"))
