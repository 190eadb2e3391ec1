"""What a shell completes, asked as bash does it."""

from __future__ import annotations

import pytest

from tests.cli.command import helixctl


@pytest.mark.parametrize(
    ("words", "items"),
    [
        ("helixctl vali", ["plain,validate"]),
        ("helixctl plan llama-3.1-8", ["plain,Llama-3.1-8B", "file,llama-3.1-8"]),
        ("helixctl plan Llama-3.1-8B h100:", ["plain,h100:1x8", "plain,h100:2x8", "file,h100:"]),
        ("helixctl plan a b --layout pip", ["plain,pipeline="]),
        ("helixctl plan a b --layout groups=8,gr", ["plain,groups=8,group_shares="]),
        ("helixctl plan a b --layout pipeline=2,pip", []),
        ("helixctl sweep a b --layout pip", ["plain,pipeline="]),
        ("helixctl plan a b --layout groups=8,micro", ["plain,groups=8,microbatches="]),
        ("helixctl plan a b --obj", ["plain,--objective"]),
        ("helixctl run x", ["file,x"]),
        ("helixctl diff a y", ["file,y"]),
    ],
)
def test_completion(words: str, items: list[str]) -> None:
    number = str(len(words.split()) - 1)
    env = {"_HELIXCTL_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": number}
    done = helixctl(env=env)
    assert (done.status, done.err) == (0, "")
    assert done.said.split() == items


def test_the_script_of_a_shell() -> None:
    assert "_HELIXCTL_COMPLETE=bash_complete" in helixctl(env={"_HELIXCTL_COMPLETE": "bash_source"}).said
