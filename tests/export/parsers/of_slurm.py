"""SLURM: ``sbatch --test-only`` parses the directives of a script, and then looks for a controller, which is not there.

``sbatch`` is in PATH. PLUGINS names the folder of its plugins, if they are not where the package puts them.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

from answer import Accept, main

CONF = """ClusterName=none
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort=1
AuthType=auth/none
CredType=cred/none
GresTypes=gpu
NodeName=n[1-64] CPUs=64 Gres=gpu:64
PartitionName=all Nodes=ALL Default=YES
"""


def load() -> tuple[str, Accept]:
    def accept(words: list[str], ranks: int) -> None:
        (text,) = words
        said = sbatch("--test-only", text)
        if "Unable to contact slurm controller" not in said:
            raise ValueError(said)

    return sbatch("--version", "").split()[-1], accept


def sbatch(option: str, script: str) -> str:
    """What sbatch prints for a script."""
    with tempfile.TemporaryDirectory() as folder:
        conf, job = Path(folder, "slurm.conf"), Path(folder, "job.sh")
        plugins = os.environ.get("PLUGINS")
        conf.write_text(CONF + (f"PluginDir={plugins}\n" if plugins else ""))
        job.write_text(script)
        env = os.environ | {"SLURM_CONF": str(conf)}
        done = subprocess.run(["sbatch", option, job], env=env, capture_output=True, text=True, check=False)
    return (done.stdout + done.stderr).strip()


main(load)
