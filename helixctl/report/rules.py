"""The remedy for each code that the validation of files can give."""

from __future__ import annotations

from typing import Final

# The same texts as in docs/errors.md; a test compares them.
REMEDIES: Final[dict[str, str]] = {
    "HX101": "check the path, or the name of a cluster or of a model; save the file as UTF-8.",
    "HX102": "the line and column are where the reader stopped; the slip is there or just before.",
    "HX103": (
        "the hint has the nearest key, the place where the key belongs, or all keys. docs/formats.md has the formats."
    ),
    "HX104": "add it; the hint says what it holds.",
    "HX105": "the message says what must stand there.",
    "HX106": (
        "write the number with a unit. Bytes: `B`, `kB` to `PB`, `KiB` to `TiB`; bandwidth: those with `/s`, or "
        "bits, `Gb/s`; rates: `GFLOP/s`, `TFLOP/s`, `PFLOP/s`; times: `s`, `ms`, `us` or `µs`, `ns`. "
        "PCIe's GT/s are transfers of one lane, not bytes."
    ),
    "HX107": "remove one.",
    "HX109": (
        "change one of the two. `softmax_slices` divides `head_dim`; `between_hosts` is needed where `hosts` is over 1."
    ),
    "HX110": "give the files in the order of the usage; make a plan of a model first.",
    "HX111": (
        "docs/hugging-face.md says what is modelled. Where the key has no effect on the model that you mean, take "
        "it out of a copy of the config."
    ),
    "HX112": "mend the key, or take it out of a copy of the config if the forward pass does not depend on it.",
    "HX301": "do not write plans by hand; `helixctl plan` makes them.",
    "HX302": "edit the spec files and plan again, or use `--set`.",
    "HX303": "plan again.",
    "HX304": "use the helixctl that wrote it, or plan again.",
    "HX305": (
        "plan for fewer devices, with fewer microbatches, or a part of the layers; draw a layer alone; write the plan "
        "without `--dag`."
    ),
    "HX401": (
        'if a program of yours writes dags, see docs/formats.md, "Dag", and `schemas/dag.schema.json`. Else lower '
        "the plan again: `helixctl visualize X.plan.json -o X.dag.json`."
    ),
    "HX402": "lower the plan again (`helixctl visualize X.plan.json -o X.dag.json`), or plan again with `--dag`.",
    "HX403": "in the program that wrote the dag.",
    "HX404": "move numbers between ranks with a collective; give each value one producer.",
    "HX405": "correct the rank's list under `order`.",
    "HX406": 'docs/formats.md, "Kinds", has the rule of each kind. The first error often explains the others.',
    "HX407": "let each rank make its own part, once.",
    "HX408": "give each rank one region of each weight.",
    "HX409": "let all ranks issue the collectives that they share in one order.",
    "HX410": (
        "more devices, a smaller batch, sequence or dtype. `run --dtype` can lead here too, when the other dtype "
        "is wider."
    ),
    "HX411": "the message ends with the model's equation.",
    "HX412": 'docs/formats.md, "Flops and bytes".',
    "HX413": "do not change dtypes in a dag; `run --dtype` changes all of them.",
    "HX414": 'plan again, and do not edit a dag. docs/formats.md, "Plan", says what is whose.',
    "HX415": 'plan again, and do not edit a dag. docs/formats.md, "Generation", says what a step leaves.',
}
