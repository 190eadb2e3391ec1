"""The entry point: the list of commands, and the one place that turns an error into an exit status."""

from __future__ import annotations

import importlib
import io
import os
import signal
import sys
import traceback
from contextlib import suppress
from typing import Final, NoReturn

import click

from helixctl import collector
from helixctl.cli.console import tell
from helixctl.cli.foreign import command_hint, option_hint
from helixctl.errors import EXIT_BUG, EXIT_CANNOT_BEGIN, EXIT_INTERRUPTED, EXIT_NO, HelixError

# Name -> one line of help. A command's module is imported when the command is used, so that --help stays fast.
COMMANDS: Final = {
    "plan": "Solve for a partition of a model on a cluster, prove it, write plan and dag.",
    "validate": "Prove plans and dags, check specs.",
    "diff": "Say what differs between two plans, and what it is predicted to mean.",
    "visualize": "Draw a plan or a dag.",
    "simulate": "Predict a step of plans, side by side or beside what a run measured.",
    "sweep": "Plan a model for many batches, lengths and numbers of devices: table, data, plots.",
    "export": "Write a plan as engines, job schedulers and simulators take it.",
    "run": "Run a plan or a dag on CPU ranks or GPUs.",
    "calibrate": "Measure this machine for the predictions.",
    "paper": "The paper's table beside ours; --run also runs its small twins here.",
    "clusters": "List the GPUs that CLUSTER may name, with their figures and sources; print one to edit.",
    "models": "List the published models that MODEL may name.",
    "explain": "Say what an error code means, with an example and the way out.",
}

# What a shell says of a process that a signal ended.
_ENDED: Final = {128 + s: s.name for s in (signal.SIGTERM, signal.SIGHUP)}


def _print_versions(ctx: click.Context, parameter: click.Parameter, asked: bool) -> None:
    if asked:
        from helixctl.cli.versions import print_versions

        print_versions(ctx, parameter, asked)


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  click's signature
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:  # noqa: ARG002
        if name not in COMMANDS:
            return None
        with collector.paused():
            command: click.Command = importlib.import_module(f"helixctl.cli.{name}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in COMMANDS and not name.startswith("-"):
            hint = command_hint(name, COMMANDS)
            ctx.fail(f"no such command {name!r}" + (f"; {hint}" if hint else f": {', '.join(COMMANDS)}"))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_versions,
    help="Print the versions of helixctl, Python and torch.",
)
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.pass_context
def cli(ctx: click.Context, *, debug: bool) -> None:
    """Compile two-level attention partition plans into proved execution DAGs, and run them."""
    ctx.obj = debug


def main(argv: list[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 the answer is no, 2 could not begin, 3 a bug, 130 interrupted."""
    status = _status(sys.argv[1:] if argv is None else argv)
    if _watched():
        sys.exit(status)
    _leave(status)


def _watched() -> bool:
    """Whether a profiler, a debugger or a measurement of coverage wants to see the end."""
    found = sys.gettrace() or sys.getprofile()
    if sys.version_info >= (3, 12):
        found = found or any(sys.monitoring.get_tool(number) for number in range(6))
    return bool(found)


def _leave(status: int) -> NoReturn:
    """Exit without taking everything apart.

    What a plan is made of takes up to a tenth of its time to free, torch a second, and longer where connections hang.
    """
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):  # closed, or nobody reads it
            stream.flush()
    os._exit(status)


def _status(args: list[str]) -> int:
    try:
        result = cli.main(args=args, prog_name="helixctl", standalone_mode=False)
    except BaseException as error:  # noqa: BLE001  this is the one place where errors end
        return _end(error, debug="--debug" in args)
    return result if isinstance(result, int) else 0


def _show(error: click.ClickException) -> None:
    """A usage error; of an option that another program has, which of ours does the same."""
    command = error.ctx.command.name if isinstance(error, click.NoSuchOption) and error.ctx else None
    if isinstance(error, click.NoSuchOption) and (hint := option_hint(error.option_name, command or "")):
        click.UsageError(f"no such option {error.option_name}", ctx=error.ctx).show()
        tell(f"  hint: {hint}")
        return
    said = io.StringIO()
    error.show(said)
    tell(said.getvalue().rstrip("\n"))


def _end(error: BaseException, *, debug: bool) -> int:
    """Print what went wrong, if anything, and give the exit status."""
    status = EXIT_BUG
    match error:
        case HelixError():
            if debug:
                traceback.print_exception(error)
            for diagnostic in error.diagnostics:
                tell(str(diagnostic))
            status = error.exit_status
        case click.exceptions.Exit():
            status = error.exit_code
        case click.ClickException():
            _show(error)
            status = EXIT_CANNOT_BEGIN
        case click.Abort() | KeyboardInterrupt():
            click.echo("interrupted", err=True)
            status = EXIT_INTERRUPTED
        case SystemExit():
            status = error.code if isinstance(error.code, int) else EXIT_NO
            if status in _ENDED:
                click.echo(f"ended by {_ENDED[status]}", err=True)
        case BrokenPipeError():
            # The reader of stdout went away (`| head`): the usual silent end. Point stdout elsewhere, so that the
            # interpreter does not complain when it flushes.
            sys.stdout = None
            status = 0
        case _:  # whatever is left is a bug of ours
            traceback.print_exception(error)
            click.echo("helixctl: this is a bug; please report it with the traceback above", err=True)
    return status
