"""Small files for the commands in the pages, and how a command is run among them."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import tokenizers
import torch
from safetensors.torch import save_file

from helixctl.plan import Layout, Plan
from tests.cli.command import ENVIRONMENT, Done, helixctl
from tests.docs.examples import Step
from tests.documents import PAPER, ROOT, SMALL, TINY, plan_of, specs

# What a command is run with in the place of what the page has: a smaller case of the same kind, and no 1,000 steps.
SMALLER: Final = {
    "--batch 8 --seq-len 2048 -v": "--batch 4 --seq-len 16 --set hosts=1 --set devices_per_host=2 -v",
    "--batch 1,2,4,...,256 --input-len 4096": "--set layers=1 --plain --batch 1,2,4 --input-len 64",
}
HERE: Final = Path(sys.executable).parent
SHORTER: Final = ["--warmup", "1", "--device", "cpu"]
FEW_STEPS: Final = ["--iters", "2"]  # of one pass; a generation has as many as tokens
# What a page says of a machine, made true of this one.
MACHINES: Final = {
    "helixctl run plans/small/dense.4x4.plan.json --device cuda": {"CUDA_VISIBLE_DEVICES": ""},
    "helixctl run plans/small/dense.4x4.plan.json": {"PYTHONPATH": "HERE/no-torch"},
    "helixctl visualize plans/small/dense.4x4.plan.json -o x.png": {"PATH": "/nowhere"},
}
_LLAMA: Final = ("FOLDER", "CLUSTER", "--batch", "4", "--seq-len", "16", "-o", "llama.plan.json")
_QWEN: Final = ("layers=1", "hidden_size=896", "attention.heads=14", "attention.head_dim=64", "workload.batch=2",
                "attention.softmax_slices=1", "feed_forward.intermediate_size=16")  # fmt: skip


def make_kit(folder: Path) -> None:
    """Write all files into an empty folder."""
    for name in ("plans", "tests"):
        (folder / name).symlink_to(ROOT / name)
    model, cluster = (Path(path).read_text() for path in SMALL)
    (folder / "MODEL").write_text(_tiny(model))
    (folder / "CLUSTER").write_text(cluster.replace("devices_per_host: 16", "devices_per_host: 2"))
    for path in PAPER:
        (folder / Path(path).name).symlink_to(path)
    (folder / "slips.cluster.yaml").write_text(_slips(Path(PAPER[1]).read_text()))
    (folder / "dense.4x4.plan.json").symlink_to(ROOT / "plans/small/dense.4x4.plan.json")
    plans = {
        "main": plan_of(SMALL, 2, 1, *TINY, "workload.batch=4"),
        "extra": plan_of(SMALL, 2, 1, *TINY),
        "a": plan_of(SMALL, 4, 4),
        "b": plan_of(SMALL, 4, 1),
        "qwen": _qwen(),
    }
    for name, plan in plans.items():
        (folder / f"{name}.plan.json").write_text(plan.to_json())
    report = {"report": "helixctl run", "dag_digest": "sha256:" + "0f1b5c2e7a86" * 5 + "0f1b", "dtype": "float32",
              "step_time_ms": {"mean": 1.0}, "tokens_per_s": 1.0, "sync_overhead_per_token_ms": 1.0}  # fmt: skip
    (folder / "report.json").write_text(json.dumps(report))
    (folder / "notes.txt").write_text("what a user wrote\n")
    (folder / "no-torch").mkdir()
    (folder / "no-torch/torch.py").write_text("raise ModuleNotFoundError('no torch', name='torch')\n")
    _tensors(folder)
    for words in (("MODEL", "CLUSTER", "-o", "x.plan.json"), _LLAMA):
        done = helixctl("plan", *words, "-q", cwd=folder)
        assert done.status == 0, done.err


def _tiny(model: str) -> str:
    """The small model as one layer that fits on a page, as ``TINY`` has it."""
    for old, new in (("layers: 4", "layers: 1"), ("hidden_size: 512", "hidden_size: 8"), ("heads: 16", "heads: 2"),
                     ("head_dim: 32", "head_dim: 4"), ("softmax_slices: 4", "softmax_slices: 2"),
                     ("intermediate_size: 2048", "intermediate_size: 16"), ("batch: 16", "batch: 2"),
                     ("seq_len: 8", "seq_len: 3")):  # fmt: skip
        assert old in model
        model = model.replace(old, new)
    return model


def _slips(cluster: str) -> str:
    """The paper's cluster with what people type wrong."""
    for old, new in (("80 GB\n", "80 GiB\n"), ("    float16: 989 T", "    float16: 1979 T"),
                     ("bfloat16: 989 T", "bfloat16: 989 G"), ("450 GB/s", "900 GB/s"), ("5 us", "5 ns"),
                     ("400 Gb/s\n", "400 GB/s\n")):  # fmt: skip
        assert old in cluster
        cluster = cluster.replace(old, new)
    return cluster


def _qwen() -> Plan:
    """A plan for a model of Qwen2-0.5B's heads, in which KV heads and biases were forgotten."""
    model, cluster, workload = specs(SMALL, *_QWEN, "devices_per_host=2")
    vocabulary = {"size": 64, "tied": True}
    forgotten = type(model).model_validate(model.model_dump() | {"vocabulary": vocabulary})
    return Plan.of(forgotten, cluster, workload, Layout(groups=2, slices=1))


def _tensors(folder: Path) -> None:
    """Files of weights and inputs: of a tiny Llama, and such as are refused."""
    config = {
        "model_type": "llama",
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 64,
        "tie_word_embeddings": True,
    }
    llama = tensors(hidden=32, keys=16, width=64, more="gate")
    models = {
        "FOLDER": llama,
        "Qwen2-0.5B": tensors(hidden=896, keys=128, width=16, more="qkv"),
        "vlm": {f"language_model.{name}": x for name, x in llama.items()} | {"lm_head.weight": torch.ones(64, 32)},
        "omni": {f"{part}.{name}": x.clone() for part in ("talker", "thinker") for name, x in llama.items()},
    }
    for name, model in models.items():
        (folder / name).mkdir()
        save_file(model, folder / name / "model.safetensors")
    (folder / "FOLDER/config.json").write_text(json.dumps(config | {"torch_dtype": "float32"}))
    _text(folder / "FOLDER")
    (folder / "Llama-3.2-1B").mkdir()
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:" + 64 * "0" + "\nsize 2471645608\n"
    (folder / "Llama-3.2-1B/model.safetensors").write_text(pointer)
    save_file({"l0.w_q": torch.zeros(8, 2, 5), "l0.w_k": torch.zeros(8, 2, 4)}, folder / "w.safetensors")
    ids, mask = torch.arange(64).reshape(4, 16) % 11, torch.ones(4, 16, dtype=torch.int64)
    save_file({"input_ids": ids}, folder / "ids.safetensors")
    mask[1, :5] = 0  # padded on the left, as tokenizers do it
    save_file({"input_ids": ids, "attention_mask": mask}, folder / "batch.safetensors")


def _text(folder: Path) -> None:
    """A tokenizer of a few words, and a chat template."""
    words = ("?", "What", "is", "the", "capital", "of", "France", "Name", "three", "colours", ".")
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="?"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "chat_template.jinja").write_text("{{ messages[0].content }}")


def tensors(*, hidden: int, keys: int, width: int, more: str) -> dict[str, torch.Tensor]:
    """One layer of a model with a tied head; ``more``: biases of the projections (qkv), or a third matrix (gate)."""
    p = "model.layers.0."
    shapes: dict[str, tuple[int, ...]]
    shapes = {"model.embed_tokens.weight": (64, hidden), "model.norm.weight": (hidden,)}
    shapes |= {f"{p}{name}_layernorm.weight": (hidden,) for name in ("input", "post_attention")}
    shapes |= {p + "mlp.up_proj.weight": (width, hidden), p + "mlp.down_proj.weight": (hidden, width)}
    for name, rows in (("q", hidden), ("k", keys), ("v", keys), ("o", hidden)):
        shapes[f"{p}self_attn.{name}_proj.weight"] = (rows, hidden)
        if name in more:
            shapes[f"{p}self_attn.{name}_proj.bias"] = (rows,)
    if more == "gate":
        shapes[p + "mlp.gate_proj.weight"] = (width, hidden)
    made = torch.Generator().manual_seed(0)
    return {name: torch.randn(*shape, generator=made) / hidden**0.5 for name, shape in shapes.items()}


def run(step: Step, folder: Path, call: Callable[..., Done] = helixctl, programs: Path = HERE) -> Done:
    """Run a command of a page among the files of the kit; a script by bash.

    Args:
        step: the command.
        folder: in which it is run.
        call: runs ``helixctl`` with words, ``stdin``, ``cwd`` and ``env``.
        programs: the folder in which a script finds ``helixctl``.
    """
    command = step.command
    for old, new in SMALLER.items():
        command = command.replace(old, new)
    if "\n" in command:
        return _by_bash(command, folder, programs)
    env = {name: value.replace("HERE", str(folder)) for name, value in MACHINES.get(step.command, {}).items()}
    words = shlex.split(command, comments=True)[1:]
    if words[0] == "run" and "--iters" not in words and step.shown is None:
        words += SHORTER if _generates(folder / words[1]) else [*SHORTER, *FEW_STEPS]
    stdin = Path(PAPER[0]).read_bytes() if "-" in words else None
    return call(*words, stdin=stdin, cwd=folder, env=env)


def _generates(document: Path) -> bool:
    """Whether a document is a plan of a generation."""
    return document.is_file() and b'"output_len"' in document.read_bytes()


def _by_bash(script: str, folder: Path, programs: Path) -> Done:
    env = ENVIRONMENT | {"PATH": f"{programs}:{ENVIRONMENT['PATH']}"}
    done = subprocess.run(["bash", "-euc", script], cwd=folder, env=env, check=False, capture_output=True, timeout=110)
    return Done(done.returncode, done.stdout, done.stderr.decode())
