"""helixctl: compile two-level attention partition plans into proved execution DAGs, and run them.

The public API (docs/api.md) is what ``__all__`` names. The names are loaded when they are used, so that importing
helixctl costs nothing. Functions are verb and noun where the verb alone, or the noun, is a subpackage.
"""

TYPE_CHECKING = False  # type checkers know the name; importing typing would take longer than everything else here
if TYPE_CHECKING:
    from helixctl.api import (
        ClusterSpec,
        Comparison,
        Dag,
        Diagnostic,
        HelixError,
        ModelDocument,
        Plan,
        Planned,
        Point,
        Prediction,
        Sweep,
        load,
        lower_plan,
        make_plan,
        make_sweep,
        predict_paper,
        simulate_step,
        validate,
    )

__version__ = "0.1.0"
__all__ = [
    "ClusterSpec",
    "Comparison",
    "Dag",
    "Diagnostic",
    "HelixError",
    "ModelDocument",
    "Plan",
    "Planned",
    "Point",
    "Prediction",
    "Sweep",
    "load",
    "lower_plan",
    "make_plan",
    "make_sweep",
    "predict_paper",
    "simulate_step",
    "validate",
]


def __getattr__(name: str) -> object:
    """A name of the public API, loaded at its first use."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from helixctl import api

    found: object = getattr(api, name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    """The public API, also before it is loaded."""
    return sorted({*globals(), *__all__})
