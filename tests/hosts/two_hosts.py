"""One run over two hosts, which are network namespaces of this machine: with torchrun, gloo, and a cable to cut.

python tests/hosts/two_hosts.py [--update] [--per-host 8] [--timeout 10]

Needs root. --update writes the table into docs/reliability.md. Exit status 1 where a run does not end as it must, 2
where this machine cannot have such hosts.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "runtime")]

from helixctl.plan import Layout, Plan  # noqa: E402
from helixctl.spec import WorkloadSpec  # noqa: E402
from helixctl.spec.load import load_model, load_specs  # noqa: E402
from tests.benchmarks.tables import updated  # noqa: E402
from tests.cli.small_language_model import written  # noqa: E402
from tests.documents import SMALL, dag_of  # noqa: E402
from tests.faults.observed_run import ObservedRun, RunEnd  # noqa: E402
from tests.hosts.network import NAMES, Network, missing  # noqa: E402

PAGE = ROOT / "docs/reliability.md"
LAYOUTS = {2: (2, 2), 8: (4, 4)}  # by ranks per host
PORT = "29500"
PROMPTS, NEW = ("The quick brown fox", "Ein Fuchs läuft über die Brücke und über die"), 12
ROOM = 52  # tokens of a prompt, at most
LONG = 190  # tokens after each prompt, where something happens on the way


@dataclass(frozen=True)
class Case:
    """What happens to a run, and what each host must print; ``{a}`` and ``{b}`` are the ranks of the hosts.

    ``generates``: the plan has a prefill and decode steps, with a KV cache by key; both hosts are given a model with a
    tokenizer and two prompts, and what they make must be the tokens of transformers. ``tokens``: after each prompt.
    """

    name: str
    arguments: tuple[str, ...]
    act: Callable[[Network, ObservedRun, int], object] | None
    status: int
    lines: tuple[str, str]
    waits: bool = False
    generates: bool = False
    tokens: int = NEW


def cut(network: Network, _: ObservedRun, __: int) -> None:
    network.cut()


def kill_last(_: Network, second: ObservedRun, per_host: int) -> None:
    """kill -9 of the last rank of the second host."""
    ranks = sorted(pid for pid in second.pids() if b"\0run\0" in Path(f"/proc/{pid}/cmdline").read_bytes())
    workers = [pid for pid in ranks if b"torch.distributed.run" not in Path(f"/proc/{pid}/cmdline").read_bytes()]
    os.kill(workers[-1], signal.SIGKILL)
    assert len(workers) == per_host


TASK = r"(?:l\d\.\S+(?: \((?:prefill|decode)\))?|the start) of step \d+"
NOT_THERE = (
    rf"HX505 ranks {{b}} on host hostb did not arrive in {TASK} within .*, and cannot be reached",
    rf"HX505 ranks {{a}} on host hosta did not arrive in {TASK} within .*, and cannot be reached",
)
KILLED = (rf"HX504 rank {{last}} \(cpu\) on host hostb ended or cannot be reached; seen in {TASK} by rank ",) * 2
GENERATE = ("--warmup", "0", "--ignore-eos")
CASES = (
    Case("--check", ("--warmup", "1", "--iters", "5", "--check"), None, 0, ("check passed: relative error ", "")),
    Case(
        "two prompts are continued: the tokens of transformers",
        GENERATE,
        None,
        0,
        (f"{2 * NEW} tokens of 2 sequences, greedy", ""),
        generates=True,
    ),
    Case("the link is cut", ("--iters", "1000000"), cut, 1, NOT_THERE, waits=True),
    Case("kill -9 of the last rank", ("--iters", "1000000"), kill_last, 1, KILLED),
    Case("the link is cut while it generates", GENERATE, cut, 1, NOT_THERE, waits=True, generates=True, tokens=LONG),
    Case("kill -9 of the last rank, which generates", GENERATE, kill_last, 1, KILLED, generates=True, tokens=LONG),
)


def run(case: Case, folder: Path, per_host: int, timeout: float) -> tuple[RunEnd, RunEnd]:
    """Run a case on two hosts; how it ends on each."""
    document, stepped = folder / "x.json", folder / "stepped"
    arguments = case.arguments
    if case.generates:
        arguments = (*arguments, *generation(document, folder, per_host, case.tokens))
    else:
        document.write_text(dag_of(SMALL, *LAYOUTS[per_host], "layers=2").to_json())
    stepped.mkdir()
    with Network() as network:
        worker = [sys.executable, "-m", "tests.faults.injections", f"stepped:{stepped}", "run", document]
        made = [
            network.on(host, [*torchrun(host, per_host, network.addresses[0]), *worker, "--timeout", f"{timeout:g}"])
            for host in range(2)
        ]
        # The host names do not resolve to an address here, so gloo needs the name of the interface.
        environ = {"GLOO_SOCKET_IFNAME": network.interface, "OMP_NUM_THREADS": "1"}
        with (
            ObservedRun([*made[0], *arguments], **environ) as a,
            ObservedRun([*made[1], *arguments], **environ) as b,
        ):
            if case.act:
                a.until_files(stepped, 2 * per_host, seconds=180)
                a.fault()
                b.fault()
                case.act(network, b, per_host)
            return a.ended(180), b.ended(180)


def generation(document: Path, folder: Path, per_host: int, new: int) -> list[str]:
    """Write a plan of a small language model, and what transformers makes of the prompts; the options of the run."""
    known = written(folder / "little")
    (folder / "due.json").write_text(json.dumps([known.continued(prompt, new) for prompt in PROMPTS]))
    groups, slices = LAYOUTS[per_host]
    layout = Layout(groups=groups, slices=slices, slicing="key")
    _, cluster = load_specs(*SMALL, (f"devices_per_host={layout.devices}",))
    work = WorkloadSpec(batch=len(PROMPTS), seq_len=ROOM, output_len=new, logits="last")
    document.write_text(Plan.of(load_model(str(known.folder)).model, cluster, work, layout).to_json())
    report = ("--report", str(folder / "r.json"))
    return [*report, "--weights", str(known.folder), *(word for prompt in PROMPTS for word in ("--prompt", prompt))]


def torchrun(host: int, per_host: int, address: str) -> list[str]:
    """The command that docs/running.md gives for each host."""
    nodes = ["--nnodes", "2", "--node-rank", str(host), "--nproc-per-node", str(per_host)]
    return [
        sys.executable,
        "-m",
        "torch.distributed.run",
        *nodes,
        "--master-addr",
        address,
        "--master-port",
        PORT,
        "--no-python",
    ]


def wrong(case: Case, ends: tuple[RunEnd, RunEnd], per_host: int, folder: Path) -> list[str]:
    """How the ends differ from what the case requires, except for the time."""
    found = []
    if case.generates and not ends[0].status:
        tokens, due = (json.loads((folder / name).read_text()) for name in ("r.json", "due.json"))
        if tokens["tokens"] != due:
            found.append(f"tokens {tokens['tokens']}, and transformers makes {due}")
    ranks = {"a": f"0-{per_host - 1}", "b": f"{per_host}-{2 * per_host - 1}", "last": str(2 * per_host - 1)}
    for name, end, line in zip(NAMES, ends, case.lines, strict=True):
        wanted = re.sub(r"\{(\w+)\}", lambda m: ranks[m[1]], line)
        said = spoken(end)
        if end.status != case.status:
            found.append(f"{name}: exit status {end.status}, not {case.status}")
        if end.orphans:
            found.append(f"{name}: {end.orphans} processes are left")
        if len(said) != bool(wanted) or (said and not re.match(wanted, said[0])):
            found.append(f"{name} says {said}")
        # torchrun prints a page after our line, and repeats it in the table at the end.
        if case.status and f"traceback : {said[0] if said else 'HX'}" not in end.text.partition("Failures:")[2]:
            found.append(f"{name}: torchrun does not repeat the line")
    return found


def spoken(end: RunEnd) -> list[str]:
    """The lines that helixctl itself printed."""
    return [line for line in end.sentences if re.match(r"HX\d{3} |check passed|\d+ tokens of ", line)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--update", action="store_true")
    parser.add_argument("--per-host", type=int, default=8, choices=LAYOUTS)
    parser.add_argument("--timeout", type=float, default=10)
    options = parser.parse_args()
    if reason := missing():
        print(f"two hosts cannot be made on this machine: {reason}", file=sys.stderr)
        return 2
    rows, failed = [], 0
    for case in CASES:
        with tempfile.TemporaryDirectory() as folder:
            ends = run(case, Path(folder), options.per_host, options.timeout)
            problems = wrong(case, ends, options.per_host, Path(folder))
        slowest = max(end.seconds for end in ends)
        if case.act and slowest > (options.timeout if case.waits else 0) + 5:
            problems.append(f"{slowest:.1f} s")
        says = "; ".join(f"{name}: `{line}`" for name, end in zip(NAMES, ends, strict=True) for line in spoken(end))
        seconds = ", ".join(f"{end.seconds:.1f} s" for end in ends) + ("" if case.act else "*")
        statuses, left = ", ".join(str(end.status) for end in ends), sum(end.orphans for end in ends)
        rows.append(f"| {case.name} | {seconds} | {statuses} | {says} | {left} |")
        print(rows[-1], *(f"    WRONG: {problem}" for problem in problems), sep="\n", flush=True)
        if problems:
            print(*(end.text for end in ends), sep="\n----\n")
        failed += bool(problems)
    if options.update and not failed:
        head = (
            f"2 hosts x {options.per_host} ranks, torchrun, gloo, `--timeout {options.timeout:g}`. Time and exit "
            "status are those of torchrun on\neach host. A star: the time is that of the whole run.\n\n"
            "| what | ends after | exit status | said | processes left |\n|---|--:|--:|---|--:|\n"
        )
        PAGE.write_text(updated(PAGE.read_text(), {"hosts": head + "\n".join(rows) + "\n"}))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
