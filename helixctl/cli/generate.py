"""helixctl run of a plan with steps: prompts are continued, token after token."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

from helixctl.cli.generation_measured import print_generation
from helixctl.cli.generation_progress import GenerationWatched, one_stream
from helixctl.cli.generations_compared import print_generations
from helixctl.cli.measured_trace import write_trace
from helixctl.cli.measurements import print_verdicts
from helixctl.cli.sources import print_sources
from helixctl.cli.watching import progress
from helixctl.cli.written import write_report
from helixctl.dag import Dag
from helixctl.errors import Diagnostic, HelixError, fail
from helixctl.plan import Plan
from helixctl.records import record
from helixctl.units import counted

if TYPE_CHECKING:
    from rich.console import Console


@record
class Wanted:
    """What the command line asks of a generation.

    Attributes:
        prompts: texts; none: token ids of ``inputs``, or seeded ones.
        new: tokens after each prompt; None: the plan's.
        chat: the prompts are messages of a user, which the model answers.
        ignore_ends: go on behind a token that ends a sequence.
        inputs: a safetensors file with ``input_ids``.
        weights, weights_prefix, seed, output: as of ``helixctl run``.
        warm: whether a short run comes first.
        check: compare the logits with one pass of the unpartitioned model.
        cuda_graph: replay decode steps from a CUDA graph.
        of_plans: how the file of each plan says that tokens are chosen, None where the options say nothing else.
    """

    prompts: tuple[str, ...] = ()
    new: int | None = None
    chat: bool = False
    ignore_ends: bool = False
    inputs: str | None = None
    weights: str | None = None
    weights_prefix: str | None = None
    seed: int = 0
    output: str | None = None
    warm: bool = True
    check: bool = False
    cuda_graph: bool = False
    of_plans: tuple[str | None, ...] = ()


def generate(
    runtime: ModuleType,
    out: Console,
    plans: Sequence[Sequence[Dag]],
    names: Sequence[str],
    wanted: Wanted,
    *,
    device: Literal["cpu", "cuda"],
    timeout: float,
    log_dir: Path | None,
    report_path: str | None,
    trace_path: str | None,
) -> None:
    """Continue the prompts by one plan, or by several in turn, and print what came of it.

    Args:
        runtime: ``helixctl_runtime.run``.
        out: where the answer goes.
        plans: of each plan the dags of the prefill and of the decode step, proved.
        names: what tells the plans apart.
        wanted: what the command line says.
        device: cpu or cuda.
        timeout: seconds that a rank waits for another.
        log_dir: where the logs of the ranks are kept.
        report_path: where the report is written.
        trace_path: where the timeline of a step of each kind is written.

    Raises:
        HelixError: HX507: the prompts do not fit the plan; HX501: a library is missing; HX506: the check fails; HX5xx:
            the run does.
    """
    asked = _asked(runtime, plans[0][0], wanted, aside="-" in {report_path, trace_path}, trace=trace_path is not None)
    for dags in plans:
        _check_fits(asked, dags[0].plan)
    plan = plans[0][0].plan
    sequences, longest = asked.prompts.ids.shape
    in_turn = f", by {len(plans)} plans in turn" if len(plans) > 1 else ""
    ranks, tokens = counted(plan.layout.devices, f"{device.upper()} rank"), counted(longest, "token")
    what = f"{ranks}, {sequences} x {tokens}, {asked.new} after each{in_turn}"
    beside = asked.tokenizer is not None and one_stream(sys.stderr if asked.aside else sys.stdout, sys.stderr)
    parts = asked.schedule([dags[0].work.seq_len for dags in plans])
    watch = partial(GenerationWatched, what, parts, may_end=bool(asked.ends), beside_text=beside)
    shown = progress(what, watch, live=runtime.starts_ranks()) if runtime.prints_output() else nullcontext()
    on: dict[str, Any] = {"device": device, "timeout": timeout, "log_dir": log_dir}
    with shown as watching:
        found = runtime.generate(plans, names, asked, **on, on_progress=watching)
    if found is None:
        return
    texts = _texts(runtime, asked, wanted, found.reports[0])
    if texts and asked.tokenizer:
        out.out()  # the first has been printed as it came
        for number, text in enumerate(texts[1:], 2):
            out.out(f"\n{_headed(number, wanted)}{text}")
        out.print()
    for its in found.reports if texts else ():
        its["text"] = _texts(runtime, asked, wanted, its)
    if several_plans := len(plans) > 1:
        report = runtime.comparison_of_generations(names, found)
        print_generations(out, report, [dags[0] for dags in plans], device)
    else:
        report = found.reports[0]
        print_generation(out, report, plan, device)
    _print_replaced(out, wanted.of_plans, names)
    print_sources(out, found.reports[0])
    write_report(report_path, report, wanted.output)
    if trace_path:
        each = zip(names, plans, found.spans, strict=True)
        # Of one token after each prompt there is no decode step.
        steps = [(dag, name, its) for name, dags, spans in each for dag, its in zip(dags, spans, strict=False)]
        write_trace(trace_path, *zip(*steps, strict=True))
    print_verdicts(out, found.reports, names if several_plans else None)


def _headed(number: int, wanted: Wanted) -> str:
    """What stands ahead of a text of several: its number and the prompt."""
    return f"[{number}] {wanted.prompts[number - 1]}" + ("\n" if wanted.chat else "")


def _asked(runtime: ModuleType, prefill: Dag, wanted: Wanted, *, aside: bool, trace: bool) -> Any:
    """The prompts as token ids, and what is to be done with them."""
    if wanted.check and not prefill.plan.model.attention.causal:
        message = "--check compares with one pass, where a model that is not causal lets tokens see those after them"
        raise fail("HX509", message, "leave out --check")
    text: Any = runtime.text
    new = wanted.new or prefill.plan.workload.output_len or 1
    tokenizer, source = None, None
    if wanted.prompts:
        if wanted.weights is None:
            raise fail("HX507", "--prompt needs a tokenizer, which lies beside the weights", "give --weights FOLDER")
        tokenizer = text.tokenizer_file(wanted.weights)
        texts = runtime.chats(wanted.weights, wanted.prompts) if wanted.chat else wanted.prompts
        prompts = text.encoded(tokenizer, texts, whole=wanted.chat)
    elif wanted.inputs:
        prompts, notes = runtime.stored_prompts(wanted.inputs, prefill)
        source = {"path": wanted.inputs, "notes": notes}
    else:
        prompts = runtime.seeded_prompts(prefill, wanted.seed)
    ends = () if wanted.ignore_ends or wanted.weights is None else text.ends_of(wanted.weights)
    return runtime.Asked(
        prompts,
        new,
        ends,
        wanted.seed,
        wanted.warm,
        wanted.weights,
        wanted.weights_prefix,
        wanted.output,
        tokenizer,
        _headed(1, wanted) if len(wanted.prompts) > 1 else "",
        aside,
        source,
        check=wanted.check,
        trace=trace,
        cuda_graph=wanted.cuda_graph,
    )


def _check_fits(asked: Any, plan: Plan) -> None:
    """Refuse prompts that the plan has no room for, or with tokens that its model does not know."""
    prompts, new, work, vocabulary = asked.prompts, asked.new, plan.workload, plan.model.vocabulary
    if vocabulary and (largest := int(prompts.ids.max())) >= vocabulary.size:
        if asked.tokenizer:
            message = f"makes token {largest}; the plan's model has {vocabulary.size} tokens"
            hint = "give the tokenizer of the model that the plan is of"
            raise HelixError(Diagnostic("HX507", message, hint, asked.tokenizer))
        message = f"the prompts have token {largest}; {plan.model.name} has {vocabulary.size} tokens"
        raise fail("HX507", message, "compare plans of one vocabulary")
    sequences, longest = len(prompts.ids), int(prompts.lengths.max())
    if sequences != work.batch:
        hint = f"plan again with --batch {sequences}, or give {work.batch} prompts"
        raise fail("HX507", f"{counted(sequences, 'prompt')}, and the plan is for {work.batch}", hint)
    if longest + new > (room := work.seq_len + (work.output_len or 0)):
        message = f"{longest} tokens and {new} after them do not fit: the plan's cache has room for {room} a sequence"
        raise fail("HX507", message, f"plan again with --input-len {longest} --output-len {new}, or ask for less")


def _texts(runtime: ModuleType, asked: Any, wanted: Wanted, report: dict[str, Any]) -> list[str]:
    """What was generated, as text, where the prompts were text."""
    if not wanted.prompts or asked.tokenizer is None:
        return []
    found: list[str] = runtime.text.decoded(asked.tokenizer, report["tokens"])
    return found


def _print_replaced(out: Console, of_plans: Sequence[str | None], names: Sequence[str]) -> None:
    """Name the plans whose choice of tokens the options replace."""
    for choice_of_plan, name in zip(of_plans, names, strict=True):
        whose = "the plan's choice of tokens" if len(names) == 1 else f"the choice of tokens of {name}"
        if choice_of_plan is not None:
            out.print(f"the options replace {whose} ({choice_of_plan}): its steps were lowered and proved so")
