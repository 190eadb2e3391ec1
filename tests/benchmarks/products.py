"""Products of a CPU in float32: torch's own (MKL) beside oneDNN's, which kernels/product.py picks from.

    python tests/benchmarks/products.py [--json FILE]

One call of the one is followed by a call of the other, on one and on two threads; the weights change from call to
call, as from layer to layer. Prints medians and the ratio oneDNN / torch.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from itertools import cycle
from pathlib import Path
from unittest import mock

ROOT = Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402

from helixctl_runtime.kernels import product  # noqa: E402
from helixctl_runtime.report.environment import environment  # noqa: E402

# Of a weight: K and N. The small twin's up, down and output, then a layer of 1024, and shares of a 7B model's.
WEIGHTS = [(512, 512), (512, 2048), (2048, 512), (1024, 3072), (4096, 1024), (3584, 2368), (4864, 896)]
ROWS = [1, 2, 4, 8, 16, 64, 128, 512]
_LAYERS = 8
_FLOPS = 2**34  # of all calls of a row together, so that large products are called a few times only


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = [row for threads in (1, 2) for weight in WEIGHTS for row in of_weight(threads, *weight)]
    if options.json:
        options.json.write_text(json.dumps({"environment": environment(), "rows": rows}, indent=2) + "\n")


def of_weight(threads: int, depth: int, width: int) -> list[dict[str, object]]:
    """Both libraries' times for every number of rows."""
    torch.set_num_threads(threads)
    weights = [torch.randn(depth, width) for _ in range(_LAYERS)]
    made: list[dict[str, object]] = []
    for rows in ROWS:
        x, out = torch.randn(rows, depth), torch.empty(rows, width)
        times: tuple[list[float], list[float]] = ([], [])
        with torch.inference_mode():
            calls = [cycle([_call(which, x, w, out) for w in weights]) for which in (False, True)]
            for step in range(max(10, min(200, _FLOPS // (2 * rows * depth * width)))):
                for which in (0, 1) if step % 2 else (1, 0):
                    call = next(calls[which])
                    begin = time.perf_counter()
                    call()
                    times[which].append(time.perf_counter() - begin)
        plain, other = (statistics.median(t) * 1e6 for t in times)
        row = {
            "threads": threads,
            "weight": [depth, width],
            "rows": rows,
            "torch_us": round(plain, 1),
            "onednn_us": round(other, 1),
            "ratio": round(other / plain, 2),
            "chosen": "onednn" if product.by_onednn(x, weights[0]) else "torch",
        }
        made.append(row)
        print(", ".join(f"{key} {value}" for key, value in row.items()), flush=True)
    return made


def _call(onednn: bool, x: torch.Tensor, weight: torch.Tensor, out: torch.Tensor) -> object:
    with mock.patch.object(product, "by_onednn", return_value=onednn):
        return product.product(x, weight, out)


if __name__ == "__main__":
    main()
