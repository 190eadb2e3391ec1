"""helixctl export, as a user has it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.command import helixctl
from tests.documents import ROOT
from tests.export.plans import plan_of

PAPER_PLAN = ROOT / "plans/paper/dense.tp8-pp2.plan.json"
CHAKRA = "import sys; sys.modules['google.protobuf'] = None"


@pytest.fixture(scope="module")
def plans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plans")
    made = {
        "llama": plan_of("Llama-3.1-8B", "h100:1x8", groups=8),
        "concat": plan_of("Llama-3.1-8B", "h100:1x8", groups=8, combine="concat"),
        "qwen": plan_of("Qwen2.5-7B", "h100:1x8", groups=4, slices=2, slicing="key"),
    }
    for name, plan in made.items():
        (folder / f"{name}.plan.json").write_text(plan.to_json())
    return folder


@pytest.mark.parametrize("target", ["vllm", "sglang", "tensorrt-llm", "megatron", "torchtitan", "slurm"])
def test_to_standard_output_and_to_a_file(plans: Path, target: str) -> None:
    out = helixctl("export", "llama.plan.json", "--to", target, cwd=plans)
    file = helixctl("export", "llama.plan.json", "--to", target, "-o", f"{target}.sh", cwd=plans)
    assert (out.status, file.status, out.err) == (0, 0, "")
    assert (plans / f"{target}.sh").read_bytes() == out.out
    assert file.err.startswith(f"wrote {target}.sh: for {target}, ")
    assert f"# written by helixctl export --to {target}\n" in out.said


def test_the_model_that_the_engine_loads(plans: Path) -> None:
    done = helixctl("export", "llama.plan.json", "--to", "vllm", "--model", "my models/llama", cwd=plans)
    assert "vllm serve 'my models/llama' \\\n" in done.said


def test_a_refusal_names_the_reason_and_the_best_that_can_be_run(plans: Path) -> None:
    done = helixctl("export", "qwen.plan.json", "--to", "vllm", "-o", "no.sh", cwd=plans)
    assert done.status == 1
    assert "qwen.plan.json: HX601 vLLM needs the heads divided evenly: 28 on 8\n" in done.err
    assert "hint: the best that vLLM can run here: " in done.err
    assert "--nearest writes it" in done.err
    assert not (plans / "no.sh").exists()
    written = helixctl("export", "qwen.plan.json", "--to", "vllm", "--nearest", cwd=plans)
    assert written.status == 0
    assert "note: vLLM needs the heads divided evenly: 28 on 8\n" in written.err
    assert "note: written is the best that it can run: " in written.err
    layout = written.err.partition("best that it can run: ")[2]
    assert f"# layout {layout.rsplit(', ', 1)[0]}\n" in written.said
    assert "--tensor-parallel-size 8" not in written.said


def test_what_the_engine_decides_itself_is_said(plans: Path) -> None:
    done = helixctl("export", "concat.plan.json", "--to", "vllm", cwd=plans)
    assert done.status == 0
    assert "note: vLLM runs this as 8 x 1, reduce; beside the plan predicted: " in done.err


def test_traces_are_a_file_a_rank(tmp_path: Path) -> None:
    done = helixctl("export", PAPER_PLAN, "--to", "chakra", "-o", "t", cwd=tmp_path)
    assert done.status == 0, done.err
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([*(f"t.{r}.et" for r in range(16)), "t.groups.json"])
    assert done.err.startswith("wrote t.0.et to t.15.et and t.groups.json: 16 traces, ")
    assert done.err.count("\n") == 1


def test_traces_need_an_extra(tmp_path: Path) -> None:
    done = helixctl("export", PAPER_PLAN, "--to", "chakra", "-o", "t", cwd=tmp_path, before=CHAKRA)
    assert done.status == 2
    assert "HX602 traces of Chakra need the package protobuf" in done.err
    assert "helixctl[chakra]" in done.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--to", "chakra"), "add -o NAME"),
        (("--to", "chakra", "-o", "-"), "add -o NAME"),
        (("--to", "chakra", "-o", "x", "--step", "prefill"), "is of one pass, without steps"),
        (("--to", "k8s"), "needs --image"),
        (("--to", "vllm", "--image", "x"), "--image: not with --to vllm, but with k8s"),
        (("--to", "slurm", "--nearest"), "--nearest: not with --to slurm"),
        (("--to", "vllm", "--", "--check"), "options of helixctl run: not with --to vllm"),
        (("--to", "vllm", "--objective", "tpot"), "is of a generation"),
        (("--to", "triton"), "'triton' is not one of"),
        ((), "Missing option '--to'"),
    ],
)
def test_usage(args: tuple[str, ...], said: str, tmp_path: Path) -> None:
    done = helixctl("export", PAPER_PLAN, *args, cwd=tmp_path)
    assert done.status == 2
    assert said in done.err
    assert list(tmp_path.iterdir()) == []


def test_a_plan_from_standard_input(plans: Path) -> None:
    text = (plans / "llama.plan.json").read_bytes()
    assert helixctl("export", "-", "--to", "vllm", stdin=text).status == 0
    done = helixctl("export", "-", "--to", "slurm", stdin=text)
    assert (done.status, "give it a name" in done.err) == (2, True)
