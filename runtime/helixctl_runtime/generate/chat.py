"""Chat: a message becomes the prompt that a model was trained on, by the template beside its weights (jinja2)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from helixctl.errors import Diagnostic, HelixError, fail

if TYPE_CHECKING:
    from jinja2 import Environment

_FILE = "chat_template.jinja"
_CONFIG = "tokenizer_config.json"
_DEFAULT = "default"  # of several templates of one model


def chats(weights: str, texts: Sequence[str]) -> list[str]:
    """The prompts that ask for an answer to messages of a user, each alone.

    Args:
        weights: the folder of a model, or a file in it.
        texts: the messages.

    Raises:
        HelixError: HX501, jinja2 is not installed; HX507, there is no template, or it cannot be rendered.
    """
    path = Path(weights)
    folder = path if path.is_dir() else path.parent
    environment = _environment()
    from jinja2 import TemplateError

    config = _config(folder)
    source, where = _template(folder, config)
    special = {name: _text(token) for name, token in config.items() if name.endswith("_token")}
    # Defined, though there are none: templates ask for it.
    given: dict[str, Any] = {"tools": None, "documents": None, "add_generation_prompt": True, **special}
    try:
        made = environment.from_string(source)
        return [made.render(messages=[{"role": "user", "content": text}], **given) for text in texts]
    except (TemplateError, TypeError) as error:
        message = f"the chat template cannot be rendered: {error}"
        raise HelixError(Diagnostic("HX507", message, "leave out --chat, and give whole prompts", where)) from error


def _template(folder: Path, config: dict[str, Any]) -> tuple[str, str]:
    """The template, and the file that it stands in."""
    path = folder / _FILE
    if path.is_file():
        return path.read_text(encoding="utf-8"), str(path)
    found = config.get("chat_template")
    if isinstance(found, list):
        found = next((each.get("template") for each in found if each.get("name") == _DEFAULT), None)
    if not isinstance(found, str):
        message = f"there is no {_FILE}, and no chat_template in {_CONFIG}"
        hint = "leave out --chat: the model continues texts as they are"
        raise HelixError(Diagnostic("HX507", message, hint, str(folder)))
    return found, str(folder / _CONFIG)


def _config(folder: Path) -> dict[str, Any]:
    path = folder / _CONFIG
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise HelixError(Diagnostic("HX507", f"cannot be read: {error}", None, str(path))) from error
    return found if isinstance(found, dict) else {}


def _text(token: Any) -> Any:
    """A special token is a text, or an object with its content."""
    return token.get("content") if isinstance(token, dict) else token


def _environment() -> Environment:
    """The jinja that templates are written for: what transformers gives them, in a sandbox."""
    try:
        from jinja2 import TemplateError, nodes
        from jinja2.ext import Extension, loopcontrols
        from jinja2.sandbox import ImmutableSandboxedEnvironment
    except ModuleNotFoundError as error:
        hint = "in the clone of helixctl: pip install '.[text]'"
        raise fail("HX501", f"{error.name} is not installed", hint) from error

    class Generation(Extension):
        """``{% generation %}`` marks what an assistant has said, for training; here it changes nothing."""

        tags = {"generation"}  # noqa: RUF012  jinja2's own declaration

        def parse(self, parser: Any) -> list[nodes.Node]:
            next(parser.stream)
            found: list[nodes.Node] = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return found

    def raise_exception(message: str) -> NoReturn:
        raise TemplateError(message)

    def tojson(value: Any, *, ensure_ascii: bool = False, **how: Any) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, **how)

    def strftime_now(form: str) -> str:
        return datetime.now(UTC).astimezone().strftime(form)

    made = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols], autoescape=False
    )
    made.filters["tojson"] = tojson
    made.globals |= {"raise_exception": raise_exception, "strftime_now": strftime_now}
    return made
