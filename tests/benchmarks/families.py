"""What a family of models costs in lines, and a feature in files: counted in the source.

    python tests/benchmarks/families.py [--update]

A family is the class that reads its configs; its lines are those without blank ones, comments and docstrings, and
without what it inherits. A feature is a field of a model's spec that was added after the first formats, and its files
are those of the product that name it or the tensors, equations and ops that it alone has.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import re
import textwrap
from pathlib import Path
from statistics import median
from typing import Final

from helixctl.spec.hugging_face.families import FAMILIES

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = ROOT / "docs" / "hugging-face.md"
MARK: Final = "<!-- tests/benchmarks/families.py --update -->\n"
# A feature -> what only it is called by.
FEATURES: Final = {
    "sinks": "sinks", "soft cap": "soft_cap", "chunks": r"(op|spec|attention)\.chunk\b|\"chunk\"",
    "value scale": "value_scale",
    "norm of values": "value_norm", "queries scaled by position": "position_scaling|ScaleQueries|scale_queries",
    "output gate": "output_gate", "norm of q and k over a projection": "qk_norm_over|SquareSums|square_sums",
    "parallel blocks": "side_by_side", "layer scale": "layer_scale|ScaleBy|scale_by", "clamp": "clamp:|ClampSpec",
    "shared experts": "SharedExpertSpec|shared_down", "gates on inputs": "gates_on",
    "sparse choice": "SparseSpec|MergeSelect",
    "latent": "LatentSpec|HeadLinear", "multipliers": "MultipliersSpec",
}  # fmt: skip


def lines_of(family: str) -> int:
    """Lines of a family's class."""
    source = textwrap.dedent(inspect.getsource(FAMILIES[family]))
    left = set(range(1, len(source.splitlines()) + 1))
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node, clean=False) is not None:
            text = node.body[0]
            left -= set(range(text.lineno, (text.end_lineno or text.lineno) + 1))
    lines = source.splitlines()
    return sum(1 for n in left if lines[n - 1].strip() and not lines[n - 1].strip().startswith("#"))


def files_of(pattern: str) -> list[Path]:
    """Files of the product in which a feature is named."""
    found = [*(ROOT / "helixctl").rglob("*.py"), *(ROOT / "runtime").rglob("*.py")]
    return [path for path in found if re.search(pattern, path.read_text(encoding="utf-8"))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--update", action="store_true", help="write the figures into docs/hugging-face.md")
    update = parser.parse_args().update
    lines = {family: lines_of(family) for family in FAMILIES}
    files = {name: len(files_of(pattern)) for name, pattern in FEATURES.items()}
    for name, count in (*lines.items(), *files.items()):
        print(f"{name:36} {count}")
    text = (
        f"A family's class has {median(lines.values()):.0f} lines in the median and {max(lines.values())} at most, of"
        f" {len(lines)};\na feature is named in {median(files.values()):.0f} files in the median and"
        f" {max(files.values())} at most, of {len(files)}.\n"
    )
    print(text)
    if update:
        page = PAGE.read_text(encoding="utf-8")
        before, _, after = page.partition(MARK)
        PAGE.write_text(before + MARK + text + after.split("\n", 2)[2], encoding="utf-8")


if __name__ == "__main__":
    main()
