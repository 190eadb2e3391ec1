"""Links that differ inside a host: which ranks the search puts into a domain, and that its bounds hold there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from helixctl.lower import lower
from helixctl.plan import Layout, Plan
from helixctl.simulate import forecast
from helixctl.solve import decide, proof
from helixctl.solve.bound import Bounds
from helixctl.solve.candidate import simulated
from helixctl.solve.decide import every_layout
from helixctl.solve.differing import DifferingBounds
from helixctl.solve.near import where_it_exchanges
from helixctl.solve.objective import key, least, simplicity
from helixctl.solve.places import alike
from helixctl.solve.problem import LayoutProblem, Specs
from helixctl.spec import ClusterSpec, HostsSpec, WorkloadSpec
from helixctl.spec.load import load_cluster
from tests.cli.command import helixctl
from tests.documents import LINKS, ROOT, SMALL, specs

LLAMA = str(ROOT / "plans/models/Llama-3.1-8B")
FAST, SLOW = "20 GB/s", "0.4 GB/s"


def cluster(*links: dict[str, Any], devices: int = 4, within: str = SLOW, hosts: int = 1) -> ClusterSpec:
    """Small GPUs, with a link across domains."""
    device = {
        "kind": "cuda",
        "name": "small",
        "memory": "1 GB",
        "memory_bandwidth": "200 GB/s",
        "peak": {"float32": "4 TFLOP/s"},
    }
    data = {"name": "linked", "hosts": hosts, "devices_per_host": devices, "device": device, "links": list(links)}
    link = {"bandwidth": within, "latency": "5 us"}
    return ClusterSpec.model_validate({**data, "within_host": link, "between_hosts": link})


def domain(name: str, devices: int, bandwidth: str, **fields: Any) -> dict[str, Any]:
    return {"name": name, "devices": devices, "bandwidth": bandwidth, "latency": "5 us", **fields}


PAIRS = domain("pair", 2, FAST)
CLUSTERS = {
    "pairs": cluster(PAIRS),
    "three pairs": cluster(domain("pair", 2, FAST, uplinks=1), devices=6),
    "pairs of two hosts": cluster(PAIRS, hosts=2, within="2 GB/s"),
}


def of(its: ClusterSpec, *sets: str) -> Specs:
    model, _, workload = specs(SMALL, *("layers=2", "workload.batch=6", *sets))
    return Specs(model, its, workload)


def test_what_exchanges_most_is_in_a_pair_and_the_report_says_so() -> None:
    """Groups reduce in every layer; stages send once."""
    fixed = {"groups": 2, "slices": 1, "pipeline": 2}
    found = decide(*of(CLUSTERS["pairs"]), fixed)
    assert found.plan.layout.placement == "slices-groups-data-pipeline"
    (said,) = [reason for reason in found.reasons if "exchange" in reason]
    assert said.startswith("groups exchange inside a pair, stages across pairs")
    # The same devices, with the fast link between those that are two apart.
    other = {**fixed, "placement": "pipeline-slices-groups-data"}
    worse = decide(*of(CLUSTERS["pairs"]), other)
    assert worse.forecast.step_s > 1.5 * found.forecast.step_s
    assert any(reason.startswith("groups exchange across pairs, stages inside a pair") for reason in worse.reasons)
    flat = decide(*of(cluster()), fixed)
    assert not any("exchange inside" in reason for reason in flat.reasons)


@pytest.mark.parametrize(("pair", "across"), [(FAST, SLOW), (SLOW, FAST)])
def test_of_two_axes_of_a_team_the_busier_one_is_in_the_faster_link(pair: str, across: str) -> None:
    """Groups exchange more than slices: with prices permuted, the search picks the other order."""
    its = of(cluster(domain("pair", 2, pair), within=across), "workload.seq_len=64", "layers=1")
    fixed: dict[str, int | str] = {"groups": 2, "slices": 2, "combine": "concat", "gather_order": "slices_first"}
    chosen = decide(*its, fixed).plan.layout
    orders = ("slices-groups-data-pipeline", "groups-slices-data-pipeline")
    found = [simulated(*its, chosen.model_copy(update={"placement": order})).forecast for order in orders]
    first, second = (one.step_s for one in found if one)
    assert min(first, second) < 0.95 * max(first, second)
    assert chosen.placement == orders[first > second]
    assert chosen.placement == orders[pair == FAST]


def test_another_price_makes_the_search_pick_another_order() -> None:
    """Replicas lie in different sockets, so that stages do not cross them; with equal links there is no need to."""
    fixed = {"groups": 2, "slices": 1, "pipeline": 2, "data": 2}
    links = [domain("pair", 2, FAST), domain("socket", 4, "2 GB/s")]
    narrow = decide(*of(cluster(*links, devices=8, within="10 MB/s")), fixed)
    assert where_it_exchanges(narrow.plan.layout, narrow.plan.cluster) == (
        "groups exchange inside a pair, stages inside a socket"
    )
    equal = decide(*of(cluster(*links, devices=8, within="2 GB/s")), fixed)
    assert equal.plan.layout.placement == Layout.model_fields["placement"].default
    assert "stages across sockets" in where_it_exchanges(equal.plan.layout, equal.plan.cluster)


@pytest.mark.parametrize("name", ["pairs", *[pytest.param(n, marks=pytest.mark.sweep) for n in [*CLUSTERS][1:]]])
def test_bounds_hold_and_some_ranks_tell_of_all(name: str) -> None:
    its = of(CLUSTERS[name])
    problem = LayoutProblem.of(its, "throughput")
    bounds = problem.bounds
    assert isinstance(bounds, Bounds)
    every = list(every_layout(problem, {}))
    assert len({layout.placement for layout in every}) > 1
    for layout in every[:: max(1, len(every) // 12)]:
        found = forecast(lower(Plan.sketch(*its, layout)))
        for bound in (bounds.quick(layout), bounds(layout), bounds.with_turns(layout)):
            assert least("throughput", bound) <= key("throughput", found), layout
        part = simulated(*its, layout).forecast
        assert part is not None
        assert part.step_s == pytest.approx(found.step_s, rel=1e-9), layout
        assert part.link_nbytes == found.link_nbytes, layout


@pytest.mark.sweep
@pytest.mark.parametrize("name", ["pairs", "three pairs"])
def test_the_optimum_of_brute_force(name: str) -> None:
    its = of(CLUSTERS[name])
    every = sorted(every_layout(LayoutProblem.of(its, "throughput"), {}), key=simplicity)
    forecasts = {layout: forecast(lower(Plan.sketch(*its, layout))) for layout in every}
    best = min(forecasts, key=lambda layout: (key("throughput", forecasts[layout]), simplicity(layout)))
    found = decide(*its, budget=10**9)
    assert found.open_bound is None
    chosen = forecasts[found.plan.layout]
    assert key("throughput", chosen) == pytest.approx(key("throughput", forecasts[best]))


def both() -> ClusterSpec:
    """A host of two pairs, and one of four cards without bridges."""
    device = CLUSTERS["pairs"].only.device.model_dump(mode="json")
    link = {"bandwidth": "2 GB/s", "latency": "5 us"}
    paired = {"count": 1, "devices": 4, "device": device, "within_host": link, "links": [PAIRS]}
    plain = {"count": 1, "devices": 4, "device": device, "within_host": link}
    return ClusterSpec.model_validate({"name": "both", "hosts": [paired, plain], "between_hosts": link})


def test_replicas_on_other_links_are_not_alike() -> None:
    first, second = alike(Layout(groups=2, slices=2, data=2), both(), WorkloadSpec(batch=2))
    assert (first.replicas, second.replicas) == ((0,), (1,))
    assert first.stages[0].domains != second.stages[0].domains


@pytest.mark.sweep
def test_bounds_hold_where_hosts_have_links_of_their_own() -> None:
    problem = LayoutProblem.of(of(both()), "throughput")
    assert isinstance(problem.bounds, DifferingBounds)
    every = list(every_layout(problem, {}))
    for one in every[:: len(every) // 8]:
        found = forecast(lower(Plan.sketch(*problem.specs, one)))
        assert least("throughput", problem.bounds(one)) <= key("throughput", found), one
        part = simulated(*problem.specs, one).forecast
        assert part is not None
        assert part.step_s == pytest.approx(found.step_s, rel=1e-9), one


def test_a_list_with_one_kind_of_hosts_is_as_the_same_hosts_without_a_list() -> None:
    """Also where they share cores."""
    flat = load_cluster(str(ROOT / "plans/small/cpu4.cluster.yaml"))
    its = flat.only
    kind = {"count": 1, "devices": 4, "device": its.device, "within_host": its.within_host, "cores": 2}
    listed = ClusterSpec.model_validate({"name": "cpu4", "hosts": (HostsSpec.model_construct(**kind),)})
    assert listed.only == its
    model, _, workload = specs(SMALL, "layers=2", "workload.batch=4")
    layout = Layout(groups=2, slices=1, data=2, microbatches=2, interleave=2)
    found = [LayoutProblem.of(Specs(model, one, workload), "throughput").bounds for one in (flat, listed)]
    assert found[0].with_turns(layout) == found[1].with_turns(layout)


def test_a_part_of_a_plan_is_proved_on_equal_links() -> None:
    """Of a list with one kind of hosts, too, whose fields are in its item."""
    its = load_cluster(str(LINKS / "l40sx8.cluster.yaml"))
    model, _, workload = specs(SMALL, "layers=8", "workload.batch=64", "dtype=float16")
    found = decide(model, its, workload, {"data": 8, "microbatches": 8})
    assert proof(found.plan).part


def test_the_order_of_ranks_is_planned_proved_run_and_drawn(tmp_path: Path) -> None:
    """Four CPU ranks in two pairs."""
    plan, page, report = (tmp_path / name for name in ("x.plan.json", "x.html", "x.json"))
    (tmp_path / "x.cluster.yaml").write_text(
        Path(ROOT / "plans/small/cpu4.cluster.yaml").read_text()
        + "links:\n  - {name: pair, devices: 2, bandwidth: 2 GB/s, latency: 50 us, uplinks: 1}\n"
    )
    layout = "groups=2,slices=1,pipeline=2"
    args = (SMALL[0], tmp_path / "x.cluster.yaml", "--set", "layers=2", "--layout", layout)
    done = helixctl("plan", *args, "-o", plan)
    assert done.status == 0, done.err
    assert "groups exchange inside a pair, stages across pairs" in done.said
    told = helixctl("simulate", plan, "-v", "--json", report)
    assert told.status == 0, told.err
    assert "of it inside a pair" in told.said
    assert "of it across pairs" in told.said
    (predicted,) = json.loads(report.read_text())["plans"]
    assert predicted["received_nbytes_by_link"]["pair"] > predicted["received_nbytes_by_link"]["within_host"] > 0
    sent = next(kind for kind in predicted["kinds"] if kind["kind"] == "send_receive")
    assert sent["link"] == "within_host"
    assert helixctl("visualize", plan, "-o", page).status == 0
    assert "pair 1" in page.read_text()
    assert "in domains of 2 (pair)" in page.read_text()
    ran = helixctl("run", plan, "--warmup", "0", "--iters", "1", "--check")
    assert ran.status == 0, ran.err
    assert "check passed" in ran.said
