"""The commands in the pages that no test runs, with the reasons, and those that end with another status than 0."""

from __future__ import annotations

from typing import Final

# By how a command begins.
NOT_RUN: Final = {
    "make ": "a target of the Makefile: the commands beside it are in this table or are run",
    "python3 -m venv": "makes an environment",
    ".venv/bin/pip ": "needs the network",
    ".venv/bin/pytest ": "the whole suite, which holds this test",
    "torchrun ": "needs two hosts with GPUs; its options are held by tests/test_running_doc.py, runs by tests/runtime",
    "srun ": "needs SLURM",
    "python tests/attack/mutants.py ": "2 minutes (make mutants); tests/attack tries one of each kind",
    "python tests/benchmarks/prefill_by_rows.py": "takes minutes",
    "python tests/benchmarks/decode_step.py ": "needs accelerate, and measures what a busy machine does not tell",
    "python tests/benchmarks/engine_parsers.py ": "needs the engines; tests/export/test_parsers.py tries the scripts",
    "python tests/fuzz/fuzz.py ": "10 minutes (make fuzz); tests/fuzz does a few of each way",
}
# Of what takes more than some seconds of a core, by how a command begins: with the marker "sweep".
LONG: Final = {
    "helixctl run --compare plans/small/dense.tp8-pp2": "55 steps of two plans on 16 ranks",
    ".venv/bin/helixctl run small.plan.json": "25 steps on 16 ranks; make demo runs the same",
    "helixctl run plans/small/dense.4x4.plan.json --warmup 5 --iters 20": "25 steps on 16 ranks",
    "helixctl run cpu.plan.json": "a run on four ranks",
    "helixctl export q.plan.json": "a search of layouts each; tests/cli/test_export.py does another",
    "helixctl plan DeepSeek-V3 h200:4x8 --input-len 8192": "a search of a large mixture each",
    "helixctl plan Llama-3.1-8B h100:2x8+l40s:1x4": "8,000 layouts bounded; tests/solve/test_differing.py does fewer",
    "helixctl plan Llama-3.1-70B plans/links/": "a search of 700 layouts; tests/solve/test_links.py does smaller ones",
    "helixctl sweep Qwen2.5-7B": "a page of four points, beside a plan and its page",
    "helixctl sweep Llama-3.1-70B": "a page and a picture, of twelve points; tests/sweep draws others",
    "helixctl plan Llama-3.1-70B h100:2x8 --batch 64 --input-len": "three searches; other pages do one of each kind",
    "helixctl plan Llama-3.1-8B h100:1x8 --batch 8 --seq-len 2048 -o": "two searches; README.md has --check as well",
    "helixctl plan Llama-3.1-8B h100:1x8 --batch 8 --seq-len 2048 --layout": "three searches, as in tests/solve",
    "small=": "three plans on four ranks; plans on 16 ranks and on 8",
}
# Exit status by page and how a command begins, where it is not 0 and no line of its output begins with an error's code.
STATUS: Final = {
    "helixctl diff ": 1,
}
