"""Plans of a generation on the command line: what is printed, predicted, drawn and refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from helixctl.units import human_bytes
from tests.cli.command import helixctl
from tests.documents import SMALL

MODEL = ("--set", "attention.softmax_slices=1", "--set", "attention.causal=true", "--set", "attention.kv_heads=2",
         "--set", "vocabulary.size=97", "--set", "devices_per_host=4")  # fmt: skip
GENERATION = (*MODEL, "--input-len", "40", "--output-len", "9", "--batch", "4")


def plan(tmp_path: Path, *options: str) -> Path:
    made = tmp_path / "x.plan.json"
    done = helixctl("plan", *SMALL, *GENERATION, *options, "-o", made)
    assert done.status == 0, done.err
    return made


def test_the_answer_has_what_users_of_engines_ask_for() -> None:
    done = helixctl("plan", *SMALL, *GENERATION)
    head, table, sheet, *_ = done.said.split("\n\n")
    assert head.endswith("4 prompts x 40 tokens, 9 generated after each, float32")
    for column in ("TTFT", "per token", "tokens/s", "per user", "per device", "cache", "memory"):
        assert column in table.splitlines()[0]
    assert sheet.splitlines()[0].startswith("memory of the fullest device")
    assert [line.split(":")[0].split("  ")[0] for line in sheet.splitlines()[1:4]] == [
        "weights", "KV cache", "arenas of prefill and decode",
    ]  # fmt: skip
    assert "ownership, state, collectives" in done.said


def test_the_sheet_counts_the_cache_in_whole_blocks() -> None:
    """49 tokens in blocks of 16: 64 places of 4 layers x 2 x 32 dims x 4 bytes of a head, of 2 heads on 4 devices."""
    fixed = ("--layout", "groups=2,slices=1,data=2,pipeline=1,microbatches=1,residual=replicated")
    done = helixctl("plan", *SMALL, *GENERATION, *fixed)
    rows = [line.rsplit("  ", 1) for line in done.said.split("\n\n")[2].splitlines()]
    sheet = {name.strip(): nbytes.strip() for name, nbytes in rows}
    token = 4 * 2 * 32 * 4
    assert sheet["KV cache: 2 sequences x 64 tokens (49 in whole blocks) x 1.02 kB"] == human_bytes(2 * 64 * token)
    ((room, free),) = ((name.split()[3], nbytes) for name, nbytes in sheet.items() if name.startswith("free"))
    assert free.endswith(" MB")
    assert int(room.replace(",", "")) == pytest.approx(1e6 * float(free.split()[0]) / token, rel=0.01)
    one = helixctl("plan", *SMALL, *MODEL, *fixed, "--batch", "2", "--input-len", "8", "--output-len", "8")
    assert "KV cache: 1 sequence x 16 tokens x 1.02 kB" in one.said


def test_the_words_of_engines_are_options() -> None:
    words = ("--isl", "40", "--osl", "9", "--concurrency", "4")
    assert helixctl("plan", *SMALL, *MODEL, *words).out == helixctl("plan", *SMALL, *GENERATION).out


def test_json_has_the_figures_of_a_generation(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    helixctl("plan", *SMALL, *GENERATION, "--json", report, "-q")
    chosen = json.loads(report.read_text())["chosen"]
    assert chosen["step_s"] == pytest.approx(chosen["ttft_s"] + 8 * chosen["time_per_output_token_s"])
    assert chosen["tokens_per_s_per_user"] == pytest.approx(1 / chosen["time_per_output_token_s"])
    assert chosen["output_tokens_per_s"] == pytest.approx(4 * 9 / chosen["step_s"])
    assert chosen["memory_nbytes"] > chosen["weight_nbytes"] + chosen["cache_nbytes"] > chosen["cache_nbytes"] > 0


def test_limits_rule_layouts_out(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    few = (
        *GENERATION,
        "--set",
        "devices_per_host=2",
        "--layout",
        "microbatches=1,residual=replicated",
    )  # layouts enough, searched in a moment
    helixctl("plan", *SMALL, *few, "--objective", "memory", "--json", report, "-q")
    slow = json.loads(report.read_text())["chosen"]["time_per_output_token_s"]
    limited = ("--objective", "memory", "--max-tpot", f"{slow * 990:.6f}ms", "--json", report, "--force")
    done = helixctl("plan", *SMALL, *few, *limited)
    assert done.status == 0, done.err
    assert json.loads(report.read_text())["chosen"]["time_per_output_token_s"] < slow
    helixctl("plan", *SMALL, *few, "--objective", "tpot", "--json", report, "--force", "-q")
    best = json.loads(report.read_text())["chosen"]["time_per_output_token_s"]
    done = helixctl("plan", *SMALL, *few, "--objective", "tpot", "--max-tpot", f"{best * 1010:.6f}ms")
    assert "over the limit: " in done.said
    done = helixctl("plan", *SMALL, *few, "--max-tpot", "1us", "--max-ttft", "1us")
    assert done.status == 1
    assert "HX203 no layout that fits in memory has a time to first token of at most 1 us and a time per" in done.err
    assert "the shortest that were found: first token after" in done.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--max-ttft", "5ms"), "--max-ttft is of a generation; give --output-len N"),
        (("--objective", "tpot"), "--objective tpot is of a generation; give --output-len N"),
        (("--output-len", "4", "--max-ttft", "5"), "--max-ttft: '5' has no unit; write for example 500ms"),
        (("--output-len", "4", "--max-ttft", "5sec"), "which does not fit here; did you mean '5 s'?"),
    ],
)
def test_what_only_a_generation_has(options: tuple[str, ...], message: str) -> None:
    done = helixctl("plan", *SMALL, *options)
    assert done.status == 2
    assert message in done.err


def test_both_steps_are_simulated_validated_and_drawn(tmp_path: Path) -> None:
    made = plan(tmp_path, "--layout", "groups=2,slices=2,slicing=key,key_prefill=key")
    report = tmp_path / "x.json"
    done = helixctl("simulate", made, "--json", report)
    assert "x.plan.json: first token after" in done.said
    beside = helixctl("simulate", made, "plans/small/dense.4x4.plan.json")
    subjects = [line for line in beside.said.splitlines() if ": small-dense on " in line]
    assert [line.split(": ")[0] for line in subjects] == ["x.plan.json", "dense.4x4.plan.json"]
    plans = json.loads(report.read_text())["plans"]
    assert [its["step"] for its in plans] == ["prefill", "decode"]
    assert plans[0]["cache_nbytes"] == plans[1]["cache_nbytes"] > 0
    done = helixctl("validate", made)
    assert done.status == 0, done.err
    for step in ("prefill", "decode"):
        drawn = helixctl("visualize", made, "-f", "dot", "-o", "-", "--step", step)
        assert f"{step} step" in drawn.said
        assert "merge" in drawn.said
    dag = helixctl("visualize", made, "-f", "json", "-o", "-")
    assert json.loads(dag.out)["step"] == "decode"
    (tmp_path / "x.dag.json").write_bytes(dag.out)
    assert helixctl("validate", tmp_path / "x.dag.json").status == 0
    same = helixctl("visualize", tmp_path / "x.dag.json", "-o", "-", "-f", "dot", "--step", "decode")
    assert "decode step" in same.said
    other = helixctl("visualize", tmp_path / "x.dag.json", "-o", "-", "-f", "dot", "--step", "prefill")
    assert other.status == 2
    assert "x.dag.json has no prefill step, but decode" in other.err


def test_a_report_of_a_pass_is_not_held_against_steps(tmp_path: Path) -> None:
    made, report = plan(tmp_path), tmp_path / "r.json"
    report.write_text("{}")
    assert helixctl("simulate", made, "--against", report).status != 0


def test_the_time_per_output_token_grows_with_the_context(tmp_path: Path) -> None:
    """Percentiles over the decode steps: those of as many plans of one decode step, one for each context."""
    many, steps = 9, 8
    layout = "groups=2,slices=2,slicing=key,pipeline=1,data=1,microbatches=1,key_prefill=key,residual=replicated"
    others = "combine=reduce,placement=data-pipeline-groups-slices,interleave=1,gather_order=slices_first"
    fixed = ("--layout", f"{layout},{others}", "--set", "workload.prefill_tokens=160")  # nothing is searched
    document = plan(tmp_path, *fixed, "--json", str(tmp_path / "r.json"))
    found = json.loads((tmp_path / "r.json").read_text())["decode"]
    each = []
    for made in range(steps):
        room = ("--input-len", str(40 + made), "--output-len", "2")
        one = tmp_path / f"{made}.json"
        helixctl("plan", *SMALL, *GENERATION, *fixed, *room, "--json", one, "-q")
        each.append(json.loads(one.read_text())["decode"])
    assert [its["contexts"] for its in each] == [[41 + made] * 2 for made in range(steps)]
    assert all(its["mean_s"] == its["p50_s"] == its["p99_s"] for its in each)
    assert found["contexts"] == [41, 40 + many - 1]
    times = [its["mean_s"] for its in each]
    assert times == sorted(times)
    assert times[0] < times[-1]
    for name, place in (("p50_s", 4), ("p90_s", 7), ("p99_s", 7)):
        assert found[name] == pytest.approx(times[place], rel=1e-9)
    assert found["mean_s"] == found["p50_s"] < found["p90_s"]
    said = helixctl("simulate", document, "--json", tmp_path / "s.json").said
    prefill, decode = json.loads((tmp_path / "s.json").read_text())["plans"]
    assert prefill["time_per_output_token_ms"] is None
    for name in ("mean", "p50", "p90", "p99"):
        assert decode["time_per_output_token_ms"][name] == pytest.approx(found[f"{name}_s"] * 1e3)
    for text in (said, helixctl("plan", *SMALL, *GENERATION, *fixed).said):
        assert "time per output token: mean " in text
        assert "over contexts of 41 to 48 tokens" in text
    helixctl("plan", *SMALL, *GENERATION, *fixed, "--output-len", "1", "--json", tmp_path / "1.json", "-q")
    assert json.loads((tmp_path / "1.json").read_text())["decode"] is None
