"""A sweep's plots as a PNG, and the library that draws them: vl-convert, which needs no browser and no network."""

from __future__ import annotations

from types import ModuleType
from typing import Final

from helixctl.emit.signature import with_signature
from helixctl.errors import fail
from helixctl.sweep.charts import charts
from helixctl.sweep.document import Sweep

VEGA_LITE: Final = "6.4"
_PIXELS: Final = 1.5  # of the picture for one of the plot


def drawing_library() -> ModuleType:
    """The library that draws Vega-Lite.

    Raises:
        HelixError: HX603, it is not installed, or is too old.
    """
    try:
        import vl_convert
    except ImportError as error:
        raise _missing("is not installed") from error
    if VEGA_LITE not in vl_convert.get_vegalite_versions():
        raise _missing(f"is too old: it lacks Vega-Lite {VEGA_LITE}")
    found: ModuleType = vl_convert
    return found


def _missing(what: str) -> Exception:
    hint = "pip install 'helixctl[plots]'; --json and --csv do not need it"
    return fail("HX603", f"plots need the package vl-convert-python, which {what}", hint)


def png(sweep: Sweep) -> bytes:
    """The plots as a picture.

    Raises:
        HelixError: HX603.
    """
    drawn = drawing_library().vegalite_to_png(charts(sweep), VEGA_LITE, scale=_PIXELS, allowed_base_urls=[])
    return with_signature(drawn, "png")
