"""helixctl explain, --version, and the headings of --help."""

from __future__ import annotations

import click
import pytest

from helixctl.cli.main import cli
from helixctl.cli.option_groups import grouped
from helixctl.errors import CODES
from tests.cli.command import helixctl, modules
from tests.documents import ROOT


def test_a_code_is_explained_as_the_page_does() -> None:
    said = helixctl("explain", "hx202").said
    assert said.startswith("HX202 the layout asked for is not legal\n")
    assert "Way out: take one of the layouts in the hint, or leave the options out.\n" in said
    assert "Exit status 1." in said
    assert "HX203" not in said
    assert "```" not in said
    assert said == helixctl("explain", "202").said


def test_every_code_has_an_explanation_without_marks() -> None:
    from helixctl.cli.explain import explained

    for code, row in CODES.items():
        text = explained(code)
        assert text.startswith(f"{code} {row.title}\n")
        assert "<!--" not in text
        assert "](" not in text


def test_all_codes_are_listed() -> None:
    lines = helixctl("explain").said.splitlines()
    assert [line.split()[0] for line in lines[1:]] == list(CODES)


def test_an_unknown_code() -> None:
    done = helixctl("explain", "HX999")
    assert done.status == 2
    assert "'HX999' is no code; helixctl explain lists them" in done.err


def test_a_wheel_has_the_page() -> None:
    assert '"docs/errors.md" = "helixctl/errors.md"' in (ROOT / "pyproject.toml").read_text()


def test_the_version_has_that_of_torch_without_importing_it() -> None:
    import torch

    lines = helixctl("--version").said.splitlines()
    assert lines[0].startswith("helixctl, version ")
    assert lines[2] == f"torch {torch.__version__}, " + (
        f"CUDA {torch.version.cuda}" if torch.version.cuda else "without CUDA"
    )
    assert "torch" not in modules("from helixctl.cli.main import _status\n_status(['--version'])")


@pytest.mark.parametrize("name", ["plan", "run"])
def test_every_option_stands_once_below_a_heading(name: str) -> None:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    text = helixctl(name, "--help").said
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            long = next(opt for opt in parameter.opts if opt.startswith("--"))
            assert sum(line.strip().startswith((long, f"-{long[2]}, {long}")) for line in text.splitlines()) >= 1, long
    assert text.index("Workload:" if name == "plan" else "Steps:") < text.index("\nOptions:")


def test_a_heading_of_an_option_that_there_is_not() -> None:
    with pytest.raises(ValueError, match="no such options: --nothing"):
        click.command(cls=grouped({"A": ("--nothing",)}))(lambda: None)
