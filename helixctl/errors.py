"""Errors as data: the catalogue of codes, the diagnostic, and the exception that carries diagnostics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from helixctl.records import record

# Exit statuses of the command line (docs/errors.md).
EXIT_NO: Final = 1  # the answer is no: an invalid plan, nothing feasible, numbers differ, a rank died
EXIT_CANNOT_BEGIN: Final = 2  # usage, unreadable or malformed input, a missing extra
EXIT_BUG: Final = 3
EXIT_INTERRUPTED: Final = 130

_LONGEST_MESSAGE: Final = 1_000  # characters
_LONGEST_HINT: Final = 10_000  # --set has many fields


@record
class Code:
    """A row of the catalogue: the meaning of a code, and the exit status that it causes."""

    title: str
    exit_status: int


CODES: Final[dict[str, Code]] = {
    "HX101": Code("file cannot be read", EXIT_CANNOT_BEGIN),
    "HX102": Code("not well-formed YAML or JSON", EXIT_CANNOT_BEGIN),
    "HX103": Code("unknown key", EXIT_CANNOT_BEGIN),
    "HX104": Code("missing key", EXIT_CANNOT_BEGIN),
    "HX105": Code("wrong type or value", EXIT_CANNOT_BEGIN),
    "HX106": Code("quantity without a unit, or with a wrong one", EXIT_CANNOT_BEGIN),
    "HX107": Code("duplicate key", EXIT_CANNOT_BEGIN),
    "HX108": Code("--set names no field", EXIT_CANNOT_BEGIN),
    "HX109": Code("the spec contradicts itself", EXIT_CANNOT_BEGIN),
    "HX110": Code("not a document that helixctl knows", EXIT_CANNOT_BEGIN),
    "HX111": Code("the model has a feature that is not modelled", EXIT_CANNOT_BEGIN),
    "HX112": Code("unknown key of a Hugging Face config", EXIT_CANNOT_BEGIN),
    "HX113": Code("the report is of another dag", EXIT_NO),
    "HX114": Code("the cluster has no rate for the model's dtype", EXIT_CANNOT_BEGIN),
    "HX201": Code("no legal layout", EXIT_NO),
    "HX202": Code("the layout asked for is not legal", EXIT_NO),
    "HX203": Code("no legal layout fits in device memory", EXIT_NO),
    "HX204": Code("the plan is not what the specs give now", EXIT_NO),
    "HX301": Code("malformed plan", EXIT_CANNOT_BEGIN),
    "HX302": Code("a spec in the plan does not match its digest", EXIT_NO),
    "HX303": Code("the plan's layout is not legal for its model and cluster", EXIT_NO),
    "HX304": Code("format version not supported", EXIT_CANNOT_BEGIN),
    "HX305": Code("the plan is too large to be lowered", EXIT_NO),
    "HX401": Code("malformed dag", EXIT_CANNOT_BEGIN),
    "HX402": Code("the dag's plan does not match its digest", EXIT_NO),
    "HX403": Code("an id is used twice or is not declared", EXIT_NO),
    "HX404": Code("a value has no producer, two producers, or is used on another rank", EXIT_NO),
    "HX405": Code("a task is issued before its inputs, twice, or never", EXIT_NO),
    "HX406": Code("a declared region is not the one the task produces", EXIT_NO),
    "HX407": Code("a tensor is not tiled exactly once", EXIT_NO),
    "HX408": Code("a weight is not owned exactly once", EXIT_NO),
    "HX409": Code("ranks do not meet a collective: deadlock", EXIT_NO),
    "HX410": Code("a device's memory does not hold the plan", EXIT_NO),
    "HX411": Code("the dag does not compute the model's function", EXIT_NO),
    "HX412": Code("declared flops or bytes are wrong", EXIT_NO),
    "HX413": Code("a dtype is not the one the task produces", EXIT_NO),
    "HX414": Code("the dag is not laid out as its plan says", EXIT_NO),
    "HX415": Code("a step does not leave what the next one takes", EXIT_NO),
    "HX501": Code("the runtime extra is not installed", EXIT_CANNOT_BEGIN),
    "HX502": Code("not enough devices", EXIT_CANNOT_BEGIN),
    "HX503": Code("ranks hold different documents, files or options", EXIT_NO),
    "HX504": Code("a rank died", EXIT_NO),
    "HX505": Code("a rank did not arrive in time", EXIT_NO),
    "HX506": Code("the output differs from the reference", EXIT_NO),
    "HX507": Code("a tensor file lacks a tensor, or holds another shape or dtype", EXIT_CANNOT_BEGIN),
    "HX508": Code("no fused attention kernel for this device, dtype and width", EXIT_CANNOT_BEGIN),
    "HX509": Code("the number of ranks is not the plan's", EXIT_CANNOT_BEGIN),
    "HX510": Code("a task failed", EXIT_NO),
    "HX511": Code("an output cannot be written", EXIT_CANNOT_BEGIN),
    "HX512": Code("a drawing tool is missing", EXIT_CANNOT_BEGIN),
    "HX513": Code("ranks have no place to meet", EXIT_CANNOT_BEGIN),
    "HX514": Code("a step cannot be a CUDA graph", EXIT_NO),
    "HX601": Code("an engine cannot run the layout", EXIT_NO),
    "HX602": Code("the chakra extra is not installed", EXIT_CANNOT_BEGIN),
    "HX603": Code("the plots extra is not installed", EXIT_CANNOT_BEGIN),
}


def one_line(text: str, longest: int = _LONGEST_HINT) -> str:
    """The text on one line of bounded length: a quoted line break could pass for a line of helixctl, or steer a CI.

    Args:
        text: the text, which may quote anything.
        longest: the largest number of characters.
    """
    if len(text) > longest:
        text = f"{text[: longest - 3]}..."
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


@record
class Diagnostic:
    """One thing that is wrong.

    Attributes:
        code: a key of ``CODES``.
        message: the thing and the cause, in one line.
        hint: how to correct it, if that is known.
        file: the path as the user gave it ("-" for standard input).
        line, col: the position in the file, counted from 1.
        path: the dotted path inside the document, such as ``attention.heads``, or the id of a row of a dag.
    """

    code: str
    message: str
    hint: str | None = None
    file: str | None = None
    line: int | None = None
    col: int | None = None
    path: str | None = None

    def at(self, file: str, line: int | None = None, col: int | None = None) -> Diagnostic:
        """The same diagnostic with a position: the file, and the line and the column if they are known."""
        return replace(self, file=file, line=line, col=col)

    def __str__(self) -> str:
        """``file:line:col: HX105 message`` and, on a second line, the hint."""
        place = ":".join(str(part) for part in (self.file, self.line, self.col) if part is not None)
        message = f"{self.code} {one_line(self.message, _LONGEST_MESSAGE)}"
        text = f"{one_line(place)}: {message}" if place else message
        return f"{text}\n  hint: {one_line(self.hint)}" if self.hint else text


class HelixError(Exception):
    """Everything that is wrong with one input or one run; it is never raised without a diagnostic."""

    def __init__(self, diagnostics: Sequence[Diagnostic] | Diagnostic) -> None:
        """Keep the diagnostics in the order in which they were found."""
        self.diagnostics = (diagnostics,) if isinstance(diagnostics, Diagnostic) else tuple(diagnostics)
        super().__init__("\n".join(str(d) for d in self.diagnostics))

    @property
    def exit_status(self) -> int:
        """The highest exit status among the diagnostics: EXIT_CANNOT_BEGIN outranks EXIT_NO."""
        return max(CODES[d.code].exit_status for d in self.diagnostics)

    def __reduce__(self) -> tuple[type[HelixError], tuple[tuple[Diagnostic, ...]]]:
        """Pickle by diagnostics: ranks send their errors to the launcher."""
        return (HelixError, (self.diagnostics,))


def fail(code: str, message: str, hint: str | None = None) -> HelixError:
    """A HelixError with one diagnostic, for the caller to raise.

    Args:
        code: a key of ``CODES``.
        message: the thing and the cause, in one line.
        hint: how to correct it.
    """
    return HelixError(Diagnostic(code, message, hint))
