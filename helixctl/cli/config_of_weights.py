"""The config.json beside the weights: a checkpoint's function is in it, and a plan was made from some config before.

Weights of equal shapes fit a plan whatever their config says of heads, rotary embedding, activation or norms. So the
config that lies beside them is held against the plan's model.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from helixctl.cli.console import messages
from helixctl.dag.retype import dequantised
from helixctl.errors import Diagnostic, HelixError
from helixctl.plan import Plan
from helixctl.plan.compare import model_differences
from helixctl.spec import ModelSpec
from helixctl.spec.gguf import is_gguf
from helixctl.spec.hugging_face import CONFIG_NAME
from helixctl.spec.load import load_model

# What changes no function: names, the dtype of computing, how weights are stored, the positions of training. Whether a
# head is tied is told by the stored tensors, which are compared.
_NO_FUNCTION: Final = {"name", "dtype", "max_positions", "vocabulary.tied"}
_FEW: Final = 6


def check_config(weights: str | None, plans: Sequence[Plan], *, as_planned: bool) -> None:
    """See that the config beside the weights, if there is one, gives the function of every plan.

    Args:
        weights: the file or folder of the weights; None where they are seeded.
        plans: what is to be run.
        as_planned: the plans' model counts where it is another: say so, and go on.

    Raises:
        HelixError: HX507, with the fields that differ.
    """
    if weights is None:
        return
    path = Path(weights)
    config = path if is_gguf(weights) else (path if path.is_dir() else path.parent) / CONFIG_NAME
    if not config.is_file():
        return
    try:
        model = load_model(str(config)).model
    except HelixError as error:
        note = f"note: {config} is not compared with the plan: {error.diagnostics[0].message}"
        messages().print(note)
        return
    for plan in plans:
        if different := _differences(plan.model, model):
            message = f"gives another function than the plan: {'; '.join(different[:_FEW])}"
            if not as_planned:
                hint = (
                    "plan again from this config, or give --as-planned where the plan's model is the one that is meant"
                )
                raise HelixError(Diagnostic("HX507", message, hint, str(config)))
            messages().print(f"warning: {config} {message}; the plan's counts")


def _differences(planned: ModelSpec, found: ModelSpec) -> list[str]:
    """The fields of the function in which two models differ."""
    both = dequantised(planned), dequantised(found)
    fields = [d for d in model_differences(*both) if d.field not in _NO_FUNCTION]
    return [f"{d.field} {d.values[1]}, planned {d.values[0]}" for d in fields]
