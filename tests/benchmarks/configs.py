"""Plan every published config of a folder, on 16 H100 and on 16 B200: which models are modelled, and which refused.

    python tests/benchmarks/configs.py FOLDER [--update]

FOLDER holds configs: the wheel `aiconfigurator-core` (Apache-2.0) has 88 in aiconfigurator_core/model_configs; files
that end in _hf_quant_config.json belong to others and are passed over. Each model is planned for 16 prompts of 4,096
tokens with 512 generated after each. A model that is modelled and does not fit in memory counts as modelled.
``--update`` writes docs/models.md; without it the table is printed. A traceback is an error of ours, and ends the run
with status 1.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

ROOT: Final = Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT))

from helixctl.units import human_bytes, human_seconds  # noqa: E402

PAGE: Final = ROOT / "docs/models.md"
CLUSTERS: Final = ("h100:2x8", "b200:2x8")
WORK: Final = ("--input-len", "4096", "--output-len", "512", "--batch", "16")
_CODE: Final = re.compile(r"\bHX\d{3} ")
MARK: Final = "<!-- tests/benchmarks/configs.py --update -->"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What `helixctl plan` says of a config on a cluster.

    Attributes:
        kind: planned, too large (no layout fits), refused, or traceback.
        text: the layout and the memory of a device, or why not.
        seconds: of the command.
    """

    kind: str
    text: str
    seconds: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--update", action="store_true")
    parser.add_argument("--jobs", type=int, default=2, help="commands at once")
    options = parser.parse_args()
    configs = sorted(p for p in options.folder.glob("*config.json") if not p.name.endswith("_hf_quant_config.json"))
    pairs = [(config, cluster) for config in configs for cluster in CLUSTERS]
    with ThreadPoolExecutor(options.jobs) as pool:
        found = dict(zip(pairs, pool.map(lambda pair: planned(*pair), pairs), strict=True))
    text = page(configs, found)
    if options.update:
        before = PAGE.read_text().partition(MARK)[0]
        PAGE.write_text(f"{before}{MARK}\n\n{text}")
    print(text)
    failed = [pair for pair, outcome in found.items() if outcome.kind == "traceback"]
    for config, cluster in failed:
        print(f"{config.name} on {cluster}: {found[config, cluster].text}", file=sys.stderr)
    sys.exit(bool(failed))


def planned(config: Path, cluster: str) -> Outcome:
    """Run the command as a user would."""
    with TemporaryDirectory() as folder:
        said = Path(folder, "plan.json")
        command = [sys.executable, "-m", "helixctl", "plan", str(config), cluster, *WORK, "--json", str(said)]
        begin = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False, timeout=600)
        seconds = time.perf_counter() - begin
        if done.returncode == 0:
            return Outcome("planned", _chosen(json.loads(said.read_text())), seconds)
    lines = [line for line in done.stderr.splitlines() if _CODE.search(line)]
    if "Traceback" in done.stderr or not lines:
        return Outcome("traceback", done.stderr.strip().splitlines()[-1], seconds)
    kind = "too large" if all("HX203" in line for line in lines) else "refused"
    reasons = (_CODE.split(line)[-1] for line in lines)
    return Outcome(kind, "; ".join(dict.fromkeys(reasons)), seconds)


def _chosen(report: dict[str, Any]) -> str:
    """The layout, what a device holds, and the time per output token."""
    its = report["chosen"]
    held = ("weight", its["weight_nbytes"]), ("cache", its["cache_nbytes"]), ("in all", its["memory_nbytes"])
    sheet = ", ".join(f"{name} {human_bytes(nbytes)}" for name, nbytes in held)
    return f"{its['name']}; {sheet}; {human_seconds(its['time_per_output_token_s'])} a token"


def page(configs: Sequence[Path], found: dict[tuple[Path, str], Outcome]) -> str:
    """The tables in Markdown."""
    kinds = {config: [found[config, cluster].kind for cluster in CLUSTERS] for config in configs}
    modelled = [config for config, its in kinds.items() if set(its) <= {"planned", "too large"}]
    counts = Counter(kind for its in kinds.values() for kind in set(its))
    seconds = sorted(outcome.seconds for outcome in found.values())
    summary = (
        f"Of {len(configs)} configs {len(modelled)} are modelled (planned, or told that they do not fit) and "
        f"{counts['refused']} refused by name. A plan took {seconds[len(seconds) // 2]:.1f} s in the median and "
        f"{seconds[-1]:.1f} s at most."
    )
    lines = [
        summary,
        "",
        "| config | " + " | ".join(CLUSTERS) + " |",
        "|---|" + "---|" * len(CLUSTERS),
    ]
    for config in modelled:
        cells = [found[config, cluster] for cluster in CLUSTERS]
        texts = [its.text if its.kind == "planned" else f"does not fit: {its.text}" for its in cells]
        lines.append(f"| {_name(config)} | {' | '.join(texts)} |")
    lines += ["", "| refused | because |", "|---|---|"]
    for config in configs:
        if config not in modelled:
            lines.append(f"| {_name(config)} | {found[config, CLUSTERS[0]].text} |")
    return "\n".join(lines) + "\n"


def _name(config: Path) -> str:
    return config.name.removesuffix("_config.json").replace("--", "/")


if __name__ == "__main__":
    main()
