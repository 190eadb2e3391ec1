"""`helixctl run` of a plan that generates: text for text what transformers makes, and what is refused."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any, Final

import pytest
import torch
from safetensors.torch import load_file, save_file

from helixctl.cli.documents import load_planned
from helixctl.lower import lower
from helixctl.plan import Plan
from tests.cli.command import Done, helixctl
from tests.cli.small_language_model import LanguageModel, ends_with, written
from tests.documents import SMALL

NEW = 12
QUICK, LONG = "The quick brown fox", "Ein Fuchs läuft über die Brücke und über die"
ROOM = 64  # tokens of a sequence in the cache: a whole number of turns of 2 slices, 16 tokens each


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return written(tmp_path_factory.mktemp("model") / "little")


@pytest.fixture(scope="module")
def plans(known: LanguageModel) -> Path:
    """Plans beside the model's folder: of one prompt on 2 ranks, and others on 4; ``groups``: 4 on the 2 KV heads."""
    folder = known.folder.parent
    for name, layout, batch in (
        ("one", "groups=1,slices=2,slicing=key", 1),
        ("two", "groups=2,slices=2,slicing=key", 2),
        ("groups", "groups=4,slices=1", 1),
        ("replicas", "groups=2,slices=1,data=2", 2),
        ("stages", "groups=1,slices=2,slicing=key,pipeline=2", 2),
    ):
        ranks = 2 if name == "one" else 4
        sizes = ("--batch", batch, "--input-len", ROOM - NEW, "--output-len", NEW, "--layout", layout)
        plan = ("plan", known.folder, SMALL[1], *map(str, sizes), "--set", f"devices_per_host={ranks}", "--quiet")
        done = helixctl(*plan, "-o", folder / f"{name}.plan.json")
        assert done.status == 0, done.err
    return folder


def run(plans: Path, name: str, folder: Path, *options: str | Path, weights: Path | None = None) -> dict[str, Any]:
    """The report of a run, and what it printed under ``said``."""
    report = folder / "r.json"
    given = ("--weights", weights or plans / "little", "--warmup", "0", "--report", report, "--force")
    done = helixctl("run", plans / f"{name}.plan.json", *given, *options)
    assert done.status == 0, done.err
    return json.loads(report.read_text()) | {"said": done.said}


def refused(plans: Path, name: str, *options: str | Path) -> str:
    done = helixctl("run", plans / f"{name}.plan.json", *options)
    assert done.status == 2
    assert done.out == b""
    return done.err


@pytest.mark.parametrize(
    ("prompt", "half"), [(LONG, False), ("x", True), pytest.param(QUICK, False, marks=pytest.mark.sweep)]
)
def test_a_text_is_continued(prompt: str, half: bool, known: LanguageModel, plans: Path, tmp_path: Path) -> None:
    """The text ends where the tokens do, also inside a character."""
    due = known.continued(prompt, NEW)
    assert known.text(due).endswith("\ufffd") == half
    report = run(plans, "one", tmp_path, "--prompt", prompt, "--ignore-eos")
    assert report["tokens"] == [due]
    assert report["text"] == [known.text(due)]
    assert report["said"].startswith(f"{known.text(due)}\n\nTP 2 (1 group x 2 key slices) on 2 CPU ranks, measured: ")
    assert "(predicted " not in report["said"]  # which is of other lengths
    assert report["said"].count(known.text(due)) == 1
    assert report["prompt_tokens"] == [len(known.tokenizer(prompt)["input_ids"])]


def test_the_text_is_printed_as_it_comes(known: LanguageModel, plans: Path, tmp_path: Path) -> None:
    """A run that ends in its third step has printed the two tokens of the steps before."""
    prompt, due = next((p, known.text(t)) for p in "abcdefgh" if whole(known.text(t := known.continued(p, 2))))
    failing = f"from tests.faults.injections import raises; raises('0', {str(tmp_path / 'mark')!r})"
    given = ("--weights", known.folder, "--prompt", prompt, "--warmup", "0", "--ignore-eos")
    done = helixctl("run", plans / "one.plan.json", *given, before=failing)
    assert "HX510 rank 0 (cpu) failed in" in done.err
    assert done.said.rstrip("\n") == due


# It is said a thousand times a second how far a run is, in the place of every ten seconds.
_TOLD: Final = """
from helixctl.cli import watching
from helixctl_runtime.ranks.local import processes
watching._BETWEEN_S, watching._says_lines, processes._TICK = 0, lambda: True, 0.001
"""


def test_a_run_says_how_far_it_is_and_its_text_is_left_alone(known: LanguageModel, plans: Path) -> None:
    given = ("--weights", known.folder, "--prompt", QUICK, "--ignore-eos")
    done = helixctl("run", plans / "one.plan.json", *given, before=_TOLD)
    assert re.search(r"after each: decode, \d+ of 11 steps done, \d+ left", done.err)
    text = known.text(known.continued(QUICK, NEW))
    assert done.said.startswith(text)
    assert not [line for line in done.said.splitlines() if "CPU ranks:" in line and "chunk" in line]
    together = helixctl("run", plans / "one.plan.json", *given, before=f"import os; os.dup2(1, 2)\n{_TOLD}")
    assert f"\n{text}\n\nTP 2" in together.said
    assert ": preparing\n" in together.said
    assert " steps done" not in together.said.partition(text)[2]


def test_the_first_line_has_the_prediction_of_the_same_lengths(plans: Path, tmp_path: Path) -> None:
    said = run(plans, "two", tmp_path, "--ignore-eos")["said"]
    time = r"[\d.]+ \w+"
    first = (
        f"first token {time} \\(predicted {time}\\), {time} a token \\(predicted {time}\\), {NEW} tokens a sequence, "
    )
    assert re.match(f"TP 4 .* on 4 CPU ranks, measured: {first}{time} a device\n", said)
    assert re.search(r"\ntime per output token, mean +[\d.]+ ms +[\d.]+ ms\n", said)
    assert f"predicted for prompts of {ROOM - NEW} tokens and {NEW} after each, from " in said


def whole(text: str) -> bool:
    """No character of it waits for another token, and a terminal would show all."""
    return bool(text) and text.isprintable() and "\ufffd" not in text


def test_prompts_of_other_lengths(known: LanguageModel, plans: Path, tmp_path: Path) -> None:
    report = run(plans, "two", tmp_path, "--prompt", LONG, "--prompt", QUICK, "--generate", "5", "--ignore-eos")
    due = [known.continued(prompt, 5) for prompt in (LONG, QUICK)]
    assert report["tokens"] == due
    assert report["text"] == [known.text(tokens) for tokens in due]
    assert report["said"].startswith(f"[1] {LONG}{known.text(due[0])}\n\n[2] {QUICK}")
    assert report["output_tokens"] == 10


def test_a_message_is_put_into_the_template(known: LanguageModel, plans: Path, tmp_path: Path) -> None:
    prompt = f"<s>user: {QUICK}\nbot:"
    due = known.after(known.tokenizer(prompt, add_special_tokens=False)["input_ids"], NEW)
    assert run(plans, "one", tmp_path, "--chat", "--prompt", QUICK, "--ignore-eos")["tokens"] == [due]


def test_token_ids_of_a_file(known: LanguageModel, plans: Path, tmp_path: Path) -> None:
    """Padding on the right is no part of a prompt, whatever ids stand there."""
    torch.manual_seed(0)
    ids, lengths = torch.randint(2, 300, (2, 9)), (4, 9)
    mask = torch.arange(9) < torch.tensor(lengths)[:, None]
    save_file({"input_ids": ids, "attention_mask": mask.long()}, tmp_path / "ids.safetensors")
    made = tmp_path / "tokens.safetensors"
    report = run(plans, "two", tmp_path, "--input", tmp_path / "ids.safetensors", "--output", made, "--ignore-eos")
    due = [known.after(row[:length].tolist(), NEW) for row, length in zip(ids, lengths, strict=True)]
    written = load_file(made)
    assert written.keys() == {"tokens"}
    assert written["tokens"].dtype == torch.int64
    assert written["tokens"].tolist() == report["tokens"] == due
    assert report["input"]["path"] == str(tmp_path / "ids.safetensors")
    assert report["prompt_tokens"] == list(lengths)
    assert "text" not in report


@pytest.mark.parametrize(
    "name", ["replicas", *(pytest.param(name, marks=pytest.mark.sweep) for name in ("two", "stages"))]
)
def test_a_token_ends_its_sequence_alone(name: str, known: LanguageModel, plans: Path, tmp_path: Path) -> None:
    """One sequence ends, and the other goes on; --ignore-eos goes on with both."""
    folder = shutil.copytree(known.folder, tmp_path / "little")
    whole = [known.continued(prompt, NEW) for prompt in (LONG, QUICK)]
    end = next(token for token in whole[0] if token not in whole[1])
    at = whole[0].index(end)
    assert at + 1 < NEW
    for ends in ((end,), (299, end)):
        ends_with(folder, *ends)
        report = run(plans, name, tmp_path, "--prompt", LONG, "--prompt", QUICK, weights=folder)
        assert report["tokens"] == [whole[0][: at + 1] + [-1] * (NEW - at - 1), whole[1]]
        assert report["output_tokens"] == at + 1 + NEW
        assert report["text"][0] == known.text(whole[0][: at + 1])
    report = run(plans, name, tmp_path, "--prompt", LONG, "--prompt", QUICK, "--ignore-eos", weights=folder)
    assert report["tokens"] == whole


def test_nothing_is_computed_when_all_have_ended(known: LanguageModel, plans: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(known.folder, tmp_path / "little")
    whole = known.continued(QUICK, NEW)
    ends_with(folder, whole[2])
    at = whole.index(whole[2])
    report = run(plans, "one", tmp_path, "--prompt", QUICK, weights=folder)
    assert report["output_tokens"] == at + 1
    if at:
        assert report["time_per_output_token_ms"]["n"] == at


@pytest.mark.parametrize(("name", "batch", "copies"), [("one", 1, 1), ("two", 2, 1), ("groups", 1, 2)])
def test_the_cache_holds_each_key_once_unless_groups_share_a_head(
    name: str, batch: int, copies: int, plans: Path, tmp_path: Path
) -> None:
    report = run(plans, name, tmp_path, "--generate", "2", weights=None)
    keys_and_values = 2 * 2 * 2 * 8 * 4 * batch * ROOM  # of layers, KV heads, dims, bytes
    held = [rank["cache_nbytes"] for rank in report["ranks"]]
    assert sum(held) == report["cache"]["cache_nbytes"] == copies * keys_and_values
    assert max(held) == report["cache"]["cache_nbytes_per_rank"]
    assert len(set(held)) == 1


def test_a_report_on_standard_output_is_alone_there(known: LanguageModel, plans: Path) -> None:
    prompt = ("--prompt", QUICK, "--ignore-eos", "--warmup", "0", "--report", "-")
    done = helixctl("run", plans / "one.plan.json", "--weights", known.folder, *prompt)
    assert json.loads(done.out)["tokens"] == [known.continued(QUICK, NEW)]
    assert known.text(known.continued(QUICK, NEW)) in done.err


def test_prompts_that_do_not_fit_are_refused(known: LanguageModel, plans: Path) -> None:
    of = ("--weights", known.folder)
    two = ("--prompt", QUICK, "--prompt", LONG)
    assert "HX507 2 prompts, and the plan is for 1\n  hint: plan again with --batch 2" in refused(
        plans, "one", *of, *two
    )
    assert "HX507 1 prompt, and the plan is for 2" in refused(plans, "two", *of, "--prompt", QUICK)
    said = refused(plans, "one", *of, "--prompt", "1234567890" * 6)
    assert f"HX507 61 tokens and {NEW} after them do not fit: the plan's cache has room for {ROOM} a sequence" in said


def test_what_a_prompt_needs(known: LanguageModel, plans: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(known.folder, tmp_path / "little")
    given = ("--weights", folder, "--prompt", QUICK)
    (folder / "chat_template.jinja").unlink()
    assert "HX507 there is no chat_template.jinja" in refused(plans, "one", *given, "--chat")
    tokenizer = folder / "tokenizer.json"
    made = json.loads(tokenizer.read_text())
    tokenizer.write_text(json.dumps(made | {"added_tokens": [*made["added_tokens"], added("fox", 300)]}))
    assert "HX507 makes token 300; the plan's model has 300 tokens" in refused(plans, "one", *given)
    tokenizer.write_text("{}")
    assert f"{tokenizer}: HX507 cannot be read" in refused(plans, "one", *given)
    tokenizer.unlink()
    assert "HX507 there is no tokenizer.json" in refused(plans, "one", *given)
    assert "HX507 --prompt needs a tokenizer" in refused(plans, "one", "--prompt", QUICK)


@pytest.mark.parametrize(("library", "options"), [("tokenizers", ()), ("jinja2", ("--chat",))])
def test_a_library_that_is_missing(
    library: str, options: tuple[str, ...], known: LanguageModel, plans: Path, tmp_path: Path
) -> None:
    missing = f"import sys; sys.modules[{library!r}] = None"
    given = ("--weights", known.folder, "--prompt", QUICK, *options)
    done = helixctl("run", plans / "one.plan.json", *given, before=missing)
    assert done.status == 2
    assert f"HX501 {library} is not installed\n  hint: in the clone of helixctl: pip install '.[text]'" in done.err


def added(text: str, token: int) -> dict[str, Any]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
    return {"id": token, "content": text, **flags}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--cuda-graph",), "--cuda-graph is for CUDA devices, and these ranks are on cpu"),
        (("--chat",), "--chat is of messages that --prompt gives"),
        (("--prompt", "x", "--input", "y.safetensors"), "--prompt gives the prompts, and so does --input"),
        (("--iters", "3"), "generates, a step for each token: --iters (or --paper) is of one pass"),
        (("--paper",), "generates, a step for each token: --iters (or --paper) is of one pass"),
        (("--seconds", "3"), "generates, a step for each token: --seconds is of one pass"),
        (("--generate", "0"), "Invalid value for '--generate'"),
        (("--temperature", "-1"), "Invalid value for '--temperature'"),
        (("--temperature", "nan"), "Invalid value for --temperature: not a number"),
        (("--top-p", "0"), "Invalid value for '--top-p'"),
        (("--top-k", "-1"), "Invalid value for '--top-k'"),
    ],
)
def test_options_that_a_generation_does_not_have(options: tuple[str, ...], message: str, plans: Path) -> None:
    assert message in refused(plans, "one", *options)


@pytest.mark.parametrize("name", ["one", "replicas"])
def test_the_logits_of_every_token_are_checked(name: str, plans: Path, tmp_path: Path) -> None:
    """Against one pass of the unpartitioned model in float64, without a cache."""
    prompts = [part for text in (QUICK, LONG)[: 1 if name == "one" else 2] for part in ("--prompt", text)]
    report = run(plans, name, tmp_path, *prompts, "--check", "--generate", "5")
    assert report["check"]["passed"]
    assert 0 < report["check"]["error"] <= report["check"]["tolerance"] == 2 * report["check"]["unpartitioned_error"]
    assert "check passed: relative error" in report["said"]


def test_options_replace_the_choice_of_a_plan(known: LanguageModel, plans: Path, tmp_path: Path) -> None:
    """Of a greedy plan, and of one that draws: the same tokens on other layouts, by the seed alone."""
    how = ("--temperature", "0.9", "--top-k", "50", "--top-p", "0.95")
    given = ("--prompt", QUICK, "--ignore-eos", "--generate", "6", "--seed", "3")
    first = run(plans, "one", tmp_path, *given, *how, "--check")
    assert first["check"]["passed"]
    assert (first["check"]["wrong_tokens"], first["check"]["tokens_unlike_float64"]) == (0, 0)
    assert first["workload"]["sampling"] == {"temperature": 0.9, "top_k": 50, "top_p": 0.95}
    assert "6 tokens of 1 sequence, drawn: temperature 0.9, top_k 50, top_p 0.95, seed 3\n" in first["said"]
    assert "the options replace the plan's choice of tokens (greedy)" in first["said"]
    assert first["tokens"] != [known.continued(QUICK, 6)]
    drawing = tmp_path / "drawing.plan.json"
    sizes = ("--batch", "1", "--input-len", "52", "--output-len", "12", "--layout", "groups=1,slices=3,slicing=key")
    ranks = ("--set", "devices_per_host=3", "-q")
    made = helixctl("plan", known.folder, SMALL[1], *sizes, *ranks, *how, "-o", drawing)
    assert made.status == 0, made.err
    again = run(tmp_path, "drawing", tmp_path, *given, weights=known.folder)
    assert again["tokens"] == first["tokens"]
    assert "replace" not in again["said"]
    greedy = run(tmp_path, "drawing", tmp_path, *given, "--temperature", "0", weights=known.folder)
    assert greedy["tokens"] == [known.continued(QUICK, 6)]
    assert "6 tokens of 1 sequence, greedy\n" in greedy["said"]


def test_a_wrong_token_is_no_pass(plans: Path, tmp_path: Path) -> None:
    """Ranks that draw otherwise than the plan says: the logits are right, and the check finds the tokens."""
    report = ("--report", tmp_path / "r.json")
    given = ("--weights", plans / "little", "--prompt", QUICK, "--temperature", "1", "--check", "--warmup", "0")
    done = helixctl("run", plans / "one.plan.json", *given, *report, before=_DRAWS_OTHERWISE)
    assert "tokens that are not those of their logits" in done.err
    assert "HX506" in done.err


# Forked ranks have what this process has: random numbers of another generator.
_DRAWS_OTHERWISE = """
import helixctl_runtime.kernels.sampling as s
uniform = s.uniform
s.uniform = lambda state, number: uniform(state + 1, number)
"""


def test_two_generations_side_by_side(known: LanguageModel, plans: Path, tmp_path: Path) -> None:
    """Both make transformers' tokens of the same prompts, also where one sequence ends and replicas stop apart."""
    folder = shutil.copytree(known.folder, tmp_path / "little")
    whole = [known.continued(prompt, NEW) for prompt in (LONG, QUICK)]
    end = next(token for token in whole[0] if token not in whole[1])
    at = whole[0].index(end)
    ends_with(folder, end)
    both = [plans / f"{name}.plan.json" for name in ("replicas", "two")]
    prompts = ("--weights", folder, "--prompt", LONG, "--prompt", QUICK, "--check", "--report", tmp_path / "r.json")
    done = helixctl("run", "--compare", *both, *prompts)
    assert done.status == 0, done.err
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["generation"]
    due = [whole[0][: at + 1] + [-1] * (NEW - at - 1), whole[1]]
    assert [its["tokens"] for its in report["methods"]] == [due, due]
    assert [its["text"][1] for its in report["methods"]] == [known.text(whole[1])] * 2
    first, second = report["comparison"]
    assert [first["method"], second["method"]] == ["2 x 1, data 2", "2 x 2, slicing key"]
    assert first["parted"] == second["parted"] == []
    assert (first["ttft_change"], first["time_per_output_token_change"]) == (0, 0)
    each = [its["time_per_output_token_ms"] for its in report["methods"]]
    assert [its["n"] for its in each] == [NEW - 1] * 2
    change = each[1]["p50"] / each[0]["p50"] - 1
    assert second["time_per_output_token_change"] == pytest.approx(change)
    assert f"{change:+.1%}" in done.said
    assert "2 x 2, slicing key: the same tokens as 2 x 1, data 2" in done.said
    assert done.said.count("check passed") == 2
    assert done.said.startswith(f"[1] {LONG}{known.text(due[0][: at + 1])}")


def test_drawn_generations_side_by_side(plans: Path, tmp_path: Path) -> None:
    """The same seed gives every plan the same tokens, also in the traced steps, which run after the measured ones."""
    files = [plans / f"{name}.plan.json" for name in ("replicas", "two", "stages")]
    how = ("--temperature", "0.9", "--top-k", "50", "--seed", "5", "--generate", "5", "--ignore-eos", "--check")
    prompts = ("--weights", plans / "little", "--prompt", LONG, "--prompt", QUICK)
    outputs = ("--report", tmp_path / "r.json", "--trace", tmp_path / "t.json")
    done = helixctl("run", "--compare", *files, *prompts, *how, *outputs)
    assert done.status == 0, done.err
    report = json.loads((tmp_path / "r.json").read_text())
    assert [row["parted"] for row in report["comparison"]] == [[]] * 3
    assert [its["check"]["wrong_tokens"] for its in report["methods"]] == [0] * 3
    assert "drawn: temperature 0.9, top_k 50, seed 5; a step of each plan in turn" in done.said
    assert "replace the choice of tokens of 2 x 2, slicing key (greedy)" in done.said
    traced = {event["name"] for event in json.loads((tmp_path / "t.json").read_text())["traceEvents"]}
    assert any("head.sample" in name for name in traced)
    alone = run(plans, "two", tmp_path, "--prompt", LONG, "--prompt", QUICK, *how)
    assert alone["tokens"] == report["methods"][0]["tokens"]


def test_where_drawn_tokens_part_is_said_by_scores(plans: Path, tmp_path: Path) -> None:
    """One plan draws, and the other is greedy: the workloads differ, and each has margins of its own choice."""
    drawing = tmp_path / "drawing.plan.json"
    sizes = ("--batch", "2", "--input-len", "52", "--output-len", "12", "--layout", "groups=4,slices=1")
    sets = ("--set", "devices_per_host=4", "-q", "--temperature", "3")
    made = helixctl("plan", plans / "little", SMALL[1], *sizes, *sets, "-o", drawing)
    assert made.status == 0, made.err
    prompts = ("--weights", plans / "little", "--prompt", LONG, "--prompt", QUICK, "--ignore-eos")
    given = (*prompts, "--generate", "6", "--warmup", "0", "--report", tmp_path / "r.json")
    done = helixctl("run", "--compare", plans / "two.plan.json", drawing, *given)
    assert done.status == 0, done.err
    assert "not the same workload" in done.said
    assert "greedy | drawn: temperature 3, seed 0; a step of each plan in turn" in done.said
    parted = json.loads((tmp_path / "r.json").read_text())["comparison"][1]["parted"]
    assert len(parted) == 2
    assert all(margin > 0 for its in parted for margin in its["margins"])
    assert "there the best two scores are" in done.said


@pytest.mark.parametrize("new", [1, 4])
def test_a_step_of_each_kind_is_traced(new: int, known: LanguageModel, plans: Path, tmp_path: Path) -> None:
    """Every task of every rank once; the tokens are those of the run that is measured."""
    trace = tmp_path / "t.json"
    prompts = ("--prompt", LONG, "--prompt", QUICK, "--ignore-eos", "--generate", str(new), "--trace", trace)
    report = run(plans, "stages", tmp_path, *prompts)
    assert report["tokens"] == [known.continued(prompt, new) for prompt in (LONG, QUICK)]
    found = json.loads(trace.read_text())
    plan = load_planned(str(plans / "stages.plan.json"))
    assert isinstance(plan, Plan)
    dags = [lower(plan, step=step) for step in plan.steps[:new]]
    spans = [(event["pid"], event["name"]) for event in found["traceEvents"] if event["ph"] == "X"]
    due = [
        (4 * which + r, name) for which, dag in enumerate(dags) for r, names in enumerate(dag.order) for name in names
    ]
    assert sorted(spans) == sorted(due)
    titles = [f"little, 1 x 2, slicing key, pipeline 2, reduce: a measured {dag.step} step" for dag in dags]
    assert found["otherData"] == {"times": "measured", "plans": "; ".join(titles)}
    assert all(event["dur"] >= 0 for event in found["traceEvents"] if event["ph"] == "X")


def test_where_tokens_part_is_said(tmp_path: Path) -> None:
    """Of another model they do; the margins are those of the logits that --check would compare."""
    sizes = ("--input-len", "6", "--output-len", "5", "--batch", "2", "--layout", "groups=4,slices=1", "--quiet")
    sets = ("--set", "vocabulary.size=97", "--set", "layers=2", "--set", "devices_per_host=4")
    files = [tmp_path / f"{name}.plan.json" for name in ("true", "false")]
    for file, causal in zip(files, ("true", "false"), strict=True):
        other = ("--set", f"attention.causal={causal}", "-o", file)
        assert helixctl("plan", *SMALL, *sizes, *sets, *other).status == 0
    done = helixctl("run", "--compare", *files, "--warmup", "0", "--report", tmp_path / "r.json")
    assert done.status == 0, done.err
    assert "not the same model: the methods do different work" in done.said
    report = json.loads((tmp_path / "r.json").read_text())
    mine, others = (its["tokens"] for its in report["methods"])
    parted = report["comparison"][1]["parted"]
    assert [its["sequence"] for its in parted] == [b for b in range(2) if mine[b] != others[b]] != []
    for its in parted:
        b, at = its["sequence"], its["token"]
        assert mine[b][:at] == others[b][:at]
        assert its["chosen"] == [mine[b][at], others[b][at]]
        assert min(its["margins"]) > 0
        assert f"sequence {b}, token {at}: {others[b][at]}, not {mine[b][at]}; there the best two" in done.said


def test_prompts_fit_every_plan_that_is_compared(plans: Path) -> None:
    for names in (("one", "two"), ("two", "one")):
        files = [plans / f"{name}.plan.json" for name in names]
        assert (
            f"HX509 {files[0]} is for {2 if names[0] == 'one' else 4} ranks" in helixctl("run", "--compare", *files).err
        )
    done = helixctl("run", "--compare", plans / "two.plan.json", plans / "groups.plan.json")
    assert "HX507 2 prompts, and the plan is for 1" in done.err
    done = helixctl("run", "--compare", plans / "two.plan.json", "plans/small/dense.4x4.plan.json")
    assert "dense.4x4.plan.json is of one pass, and others have a prefill and a decode step" in done.err


def test_documents_that_make_no_tokens(plans: Path, tmp_path: Path) -> None:
    """One pass, one step of two, and a model of hidden states."""
    done = helixctl("run", "plans/small/dense.4x4.plan.json", "--top-k", "3")
    assert "HX509 plans/small/dense.4x4.plan.json is of one pass without a cache: --temperature, --top-k" in done.err
    for option in (("--prompt", "x"), ("--generate", "3"), ("--ignore-eos",)):
        done = helixctl("run", "plans/small/dense.4x4.plan.json", *option)
        assert "HX509 plans/small/dense.4x4.plan.json is of one pass without a cache" in done.err
    step = tmp_path / "decode.dag.json"
    plan = load_planned(str(plans / "one.plan.json"))
    assert isinstance(plan, Plan)
    step.write_text(lower(plan, step="decode").to_json())
    assert "is the decode step of a plan\n  hint: run the plan" in helixctl("run", step).err
    hidden = tmp_path / "hidden.plan.json"
    made = helixctl("plan", *SMALL, "--input-len", "4", "--output-len", "2", "--batch", "2", "-o", hidden, "--quiet")
    assert made.status == 0, made.err
    for option in ((), ("--dry-run",)):
        done: Done = helixctl("run", hidden, *option)
        assert (done.status, done.out) == (2, b"")
        assert f"HX509 {hidden}: small-dense has no vocabulary: it makes hidden states" in done.err
