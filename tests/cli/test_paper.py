"""`helixctl paper`: the table has the figures of both, its commands give its rows, its twins are the shipped ones."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from helixctl.cost.collectives import collective_cost
from helixctl.dag import Task
from helixctl.dag.ops import AllReduce
from helixctl.paper import MEASURED, REPORTED, Case, comparisons
from helixctl.paper.between_hosts import BEST, WORST
from helixctl.paper.twins import TWINS, Ended, compared, twin_plans
from helixctl.plan import Plan
from helixctl.spec import ClusterSpec
from tests.cli.command import Done, helixctl
from tests.documents import ROOT


@pytest.fixture(scope="module")
def done() -> Done:
    done = helixctl("paper")
    assert (done.status, done.err) == (0, "")
    return done


def rows(said: str) -> list[list[str]]:
    """The cells of the table, of the gain those without the model."""
    return [re.split(r"  +", line.strip()) for line in said.splitlines() if re.match(r"(dense|MoE|  +gain)", line)]


def test_the_table_has_the_papers_figures_and_ours(done: Done) -> None:
    found = rows(done.said)[:9]
    for each, (base, helix, gain) in zip(comparisons(), (found[i : i + 3] for i in (0, 3, 6)), strict=True):
        for way, row in (("base", base), ("helix", helix)):
            tps, overhead = REPORTED[each.case.name, way]  # type: ignore[index]
            ours = each.rows[way].forecast  # type: ignore[index]
            assert row[0] == each.model
            assert row[2:6] == [f"{tps:,}", f"{overhead:.2f} ms", f"{ours.tokens_per_s:,.0f}",
                                f"{ours.sync_overhead_per_token_ms:.2f} ms"]  # fmt: skip
        assert gain == ["gain of Helix", f"{each.reported_gain:+.1%}", f"{each.gain:+.1%}"]
    assert "not measured" in done.said


def test_a_prediction_is_a_range_over_what_is_published_between_hosts(done: Done) -> None:
    """The single figure lies in it; both ends have the gain of their own constants."""
    assert re.search(r"worst: 80% of a NIC, .* 113 us\nbest: 96% of a NIC, .* 47 us\n", done.said)
    both = zip(comparisons(), comparisons(MEASURED), strict=True)
    for pair, three in zip(both, (rows(done.said)[9:][i : i + 3] for i in (0, 3, 6)), strict=True):
        for way, row in zip(("base", "helix"), three, strict=False):
            cells = []
            for each in pair:
                best, worst = (end[way].forecast.tokens_per_s for end in each.ends)  # type: ignore[index]
                assert worst < each.rows[way].forecast.tokens_per_s < best  # type: ignore[index]
                cells.append(f"{worst:,.0f} to {best:,.0f}")
            assert [row[2], row[4]] == cells
        for each, cell in zip(pair, three[2][1:], strict=True):
            least, most = each.gains
            assert least < each.gain < most
            assert cell == f"{least:+.1%} to {most:+.1%}"


def test_an_end_is_reached_by_its_options() -> None:
    """A collective of many bytes takes the share of the NIC, one of none the start-up."""
    for end in (BEST, WORST):
        link = Case("dense").specs.cluster.only.between_hosts
        assert link is not None
        cluster = Case("dense", *end.sets(link)).specs.cluster
        seconds = [_all_reduce_s(cluster, nbytes) for nbytes in (0, 10**12)]
        assert seconds[0] == pytest.approx(end.all_reduce_s, rel=1e-3)
        assert 10**12 / (seconds[1] - seconds[0]) == pytest.approx(end.nic_share * link.bandwidth, rel=1e-3)


def _all_reduce_s(cluster: ClusterSpec, nbytes: int) -> float:
    """Of one rank on each host, so that the link between hosts alone decides."""
    task = Task("t", 0, "project", AllReduce(), (0, 8), (), (), 0, nbytes)
    return collective_cost(task, cluster).seconds


def test_the_papers_figures_are_those_of_the_paper() -> None:
    """Its gains follow from its table: +31.7 and +35.3 % tokens/s."""
    assert [f"{each.reported_gain:.1%}" for each in comparisons()] == ["31.7%", "35.3%", "35.3%"]


def test_the_commands_give_the_rows(done: Done, tmp_path: Path) -> None:
    (tmp_path / "plans").symlink_to(ROOT / "plans")
    commands = [shlex.split(line)[1:] for line in done.said.splitlines() if line.startswith("  helixctl")]
    assert len(commands) == 6
    predicted = []
    for command in commands:
        if command[0] == "simulate":
            made = helixctl(*command, "--json", "-", cwd=tmp_path)
            predicted += [plan["tokens_per_s"] for plan in json.loads(made.out)["plans"]]
        else:
            made = helixctl(*command, cwd=tmp_path)
        assert made.status == 0, made.err
    assert [f"{tps:,.0f}" for tps in predicted] == [row[4] for row in rows(done.said)[:9] if row[0].startswith("MoE")]


@pytest.mark.parametrize(("model", "name"), TWINS.items())
def test_the_twins_have_the_layouts_of_the_shipped_plans(model: str, name: str, tmp_path: Path) -> None:
    for path in twin_plans(model, tmp_path):
        assert path.name.startswith(f"{name}.")
        made, shipped = (Plan.model_validate_json(p.read_text()) for p in (path, ROOT / "plans/small" / path.name))
        assert (made.layout, made.model, made.workload) == (shipped.layout, shipped.model, shipped.workload)


def test_a_run_that_fails_ends_with_its_status(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(Ended) as end:
        compared([tmp_path / "a.plan.json", tmp_path / "b.plan.json"], 0, 1)
    assert end.value.status == 2
    assert "HX101" in capfd.readouterr().err


@pytest.mark.sweep
def test_the_dense_twin_runs_here() -> None:
    before = "import helixctl.paper.twins as t; del t.TWINS['MoE top-2']"
    done = helixctl("paper", "--run", "--warmup", "0", "--iters", "1", before=before)
    assert done.status == 0, done.err
    assert "small-dense (dense), 16 sequences x 8 tokens" in done.said
    assert done.said.count("passed, error") == 2
    assert "these times say nothing of GPUs" in done.said
