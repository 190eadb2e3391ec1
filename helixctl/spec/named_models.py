"""Models by name: the configs of published models that come with helixctl, as plans/models has them."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

_WORD = re.compile(r"[A-Za-z0-9][\w.-]*", re.ASCII)


@cache
def model_names() -> tuple[str, ...]:
    """The models whose configs come with helixctl."""
    return tuple(sorted((folder.name for folder in _folder().iterdir() if folder.is_dir()), key=str.lower))


def named_config(text: str) -> str | None:
    """The config.json of the model that a text names, in capitals or not; None where it names none."""
    if not _WORD.fullmatch(text):
        return None
    name = next((name for name in model_names() if name.lower() == text.lower()), None)
    return str(_folder() / name / "config.json") if name else None


def way_to_a_model(text: str, *, wanted: bool) -> str | None:
    """What was meant by a text that is no file; ``wanted``: a model, whatever it looks like."""
    if not _WORD.fullmatch(text) or re.search(r"\.(?:ya?ml|json)$", text):
        return None
    known = f"models by name: {', '.join(model_names())}; helixctl models lists them"
    if meant := _meant(text):
        return f"did you mean '{meant}'? {known}"
    return known if wanted else None


def of_the_hub(hub_id: str) -> str:
    """What to do where an id of the Hugging Face hub was given for a model."""
    name = hub_id.rpartition("/")[2]
    inside = next((found for found in model_names() if found.lower() == name.lower()), None)
    way = (
        "nothing is fetched from the Hugging Face hub: "
        f"hf download {hub_id} config.json --local-dir {name}, then give ./{name}"
    )
    return f"give {inside}, whose config comes with helixctl; {way}" if inside else way


def _meant(text: str) -> str | None:
    """A name that is like it; never one with other numbers, which is another model."""
    from helixctl.spec.fields import like

    numbers = re.findall("[0-9]+", text)
    names = {name.lower(): name for name in model_names() if re.findall("[0-9]+", name)[: len(numbers)] == numbers}
    close = like(text.lower(), names) if numbers else []
    return names[close[0]] if close else None


@cache
def _folder() -> Path:
    """In a wheel they are files of the package; a checkout has them in plans/, where people look."""
    import helixctl

    package = Path(helixctl.__file__).resolve().parent
    inside = package / "models"
    return inside if inside.is_dir() else package.parent / "plans" / "models"
