"""docs/running.md: its commands are commands, its YAML is a Job, and its quoted outputs are printed."""

from __future__ import annotations

import re
import shlex

import pytest
import yaml

from helixctl.cli.plan import command as plan_command
from helixctl.cli.run import command as run_command
from helixctl.errors import CODES
from tests.documents import ROOT

TEXT = (ROOT / "docs/running.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
DOCUMENTS = [document for kind, text in BLOCKS if kind == "yaml" for document in yaml.safe_load_all(text)]
JOB = next(document for document in DOCUMENTS if document["kind"] == "Job")
SHELL = [line for kind, text in BLOCKS if kind == "bash" for line in text.replace("\\\n", "").splitlines() if line]
IN_POD = JOB["spec"]["template"]["spec"]["containers"][0]["args"][0]
COMMANDS = [shlex.split(line) for line in [*SHELL, IN_POD] if not line.startswith("#")]


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_helixctl_takes_the_options(words: list[str]) -> None:
    start = words.index("helixctl")
    assert words[start + 1] == "run"
    with run_command.make_context("run", words[start + 2 :]) as context:
        assert context.params["documents"]


@pytest.mark.parametrize("words", [words for words in COMMANDS if "torchrun" in words], ids=" ".join)
def test_torchrun_takes_the_options(words: list[str]) -> None:
    parser = pytest.importorskip("torch.distributed.run").get_args_parser()
    arguments = words[words.index("torchrun") + 1 :]
    taken = parser.parse_args([word.replace("$JOB_COMPLETION_INDEX", "1") for word in arguments])
    assert (taken.no_python, taken.training_script) == (True, "helixctl")
    assert (taken.nnodes, taken.nproc_per_node) == ("2", "8")


def test_options_in_the_text() -> None:
    """Options that the text names are those of run, plan or torchrun, or srun's where it says so."""
    parser = pytest.importorskip("torch.distributed.run").get_args_parser()
    known = {
        option for each in (*run_command.params, *plan_command.params) for option in (*each.opts, *each.secondary_opts)
    }
    known |= {option for action in parser._actions for option in action.option_strings}
    named = set(re.findall(r"`(--[a-z][a-z0-9-]*)", TEXT))
    assert named - known == {"--kill-on-bad-exit"}
    assert len(named) > 10


def test_the_job_is_one_pod_per_node() -> None:
    service = next(document for document in DOCUMENTS if document["kind"] == "Service")
    spec, pod = JOB["spec"], JOB["spec"]["template"]["spec"]
    words = COMMANDS[-1]
    assert spec["completionMode"] == "Indexed"
    assert spec["completions"] == spec["parallelism"] == int(words[words.index("--nnodes") + 1])
    per_node = int(words[words.index("--nproc-per-node") + 1])
    assert pod["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == per_node
    # Pod 0 of an Indexed Job is JOB-0, and its name leads to it under the Service.
    name = service["metadata"]["name"]
    assert words[words.index("--master-addr") + 1] == f"{JOB['metadata']['name']}-0.{name}"
    assert (pod["subdomain"], service["spec"]["selector"]) == (name, {"job-name": JOB["metadata"]["name"]})
    mounted = {mount["name"] for mount in pod["containers"][0]["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["volumes"]}


def test_codes_are_known() -> None:
    assert set(re.findall(r"HX\d{3}", TEXT)) <= CODES.keys()


def test_default_timeout() -> None:
    default = next(parameter.default for parameter in run_command.params if parameter.name == "timeout")
    assert f"`--timeout` ({default} s)" in TEXT
