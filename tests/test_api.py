"""The public API: typed results, the same as the commands give, and loaded only when it is used."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import helixctl
from helixctl.dag.document import dag_from_json
from helixctl.lower import lower
from helixctl.plan import Layout, Plan
from helixctl.solve import Proof
from tests.cli.command import helixctl as command
from tests.cli.command import modules
from tests.documents import PAPER, ROOT, SMALL, dag_of, plan_of

FOUR = {"groups": 4, "slices": 4}


def small(*sets: str) -> tuple[helixctl.ModelDocument, helixctl.ClusterSpec]:
    return loaded(SMALL, *sets)


def loaded(specs: tuple[str, str], *sets: str) -> tuple[helixctl.ModelDocument, helixctl.ClusterSpec]:
    model, cluster = helixctl.load(specs[0], sets), helixctl.load(specs[1])
    assert isinstance(model, helixctl.ModelDocument)
    assert isinstance(cluster, helixctl.ClusterSpec)
    return model, cluster


def codes(error: pytest.ExceptionInfo[helixctl.HelixError]) -> list[str]:
    return [diagnostic.code for diagnostic in error.value.diagnostics]


@pytest.mark.parametrize("specs", [SMALL, PAPER], ids=["small", "paper"])
@pytest.mark.parametrize(
    ("plain", "options"),
    [(True, ("--plain", "--groups", "4", "--slices", "4")), (False, ("--layout", "groups=4,slices=4"))],
)
def test_a_plan_is_the_one_that_the_command_writes(
    specs: tuple[str, str], plain: bool, options: tuple[str, ...]
) -> None:
    planned = helixctl.make_plan(*loaded(specs), layout=FOUR, plain=plain)
    assert planned.plan == planned.decision.plan
    written = json.loads(command("plan", *specs, *options, "-o", "-", "-q").out)
    assert written.pop("asked")["layout"] == FOUR
    assert planned.plan.to_json() == json.dumps(written, indent=2) + "\n"


def test_axes_are_read_in_a_mapping_as_in_a_text() -> None:
    """Numbers as texts, and the words of other programs."""
    same = ({"groups": 2, "slices": 2, "data": 4}, {"groups": "2", "slices": "2", "dp": "4"}, "groups=2,slices=2,dp=4")
    layouts = [helixctl.make_plan(*small(), layout=layout, plain=True).plan.layout for layout in same]
    assert layouts == [Layout(groups=2, slices=2, data=4)] * 3
    for layout, code in (({"gruops": 2}, "HX103"), ({"groups": "two"}, "HX105"), ({"combine": 3}, "HX105")):
        with pytest.raises(helixctl.HelixError) as caught:
            helixctl.make_plan(*small(), layout=layout)
        assert codes(caught) == [code]


@pytest.mark.parametrize("function", ["make_plan", "make_sweep"])
def test_what_is_no_model_no_cluster_or_no_objective(function: str) -> None:
    model, cluster = small()
    call = getattr(helixctl, function)
    with pytest.raises(TypeError, match=r"model is a str, not a ModelDocument: helixctl\.load gives one"):
        call("Llama-3.1-8B", cluster)
    with pytest.raises(TypeError, match="cluster is a ModelDocument, not a ClusterSpec"):
        call(model, model)
    with pytest.raises(ValueError, match="no objective 'speed': there are throughput, latency, ttft, tpot, memory"):
        call(model, cluster, objective="speed")


def test_the_paper_s_space_is_another_one() -> None:
    layouts = [helixctl.make_plan(*loaded(PAPER), layout=FOUR, plain=plain).plan.layout for plain in (True, False)]
    assert [layout.microbatches for layout in layouts] == [1, 2]


def test_a_plan_that_a_proof_refuses_is_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    found = helixctl.Diagnostic("HX410", "refused")
    monkeypatch.setattr("helixctl.solve.proof", lambda plan, **_: Proof(plan, dag_of(SMALL, 4, 4), (found,)))
    with pytest.raises(helixctl.HelixError, match="HX410 refused"):
        helixctl.make_plan(*small(), layout=FOUR, plain=True)


@pytest.mark.parametrize("layout", ["groups=4,slices=4,data=1", {"groups": 4, "slices": 4, "data": 1}])
def test_a_layout_is_a_text_or_a_mapping(layout: str | dict[str, int | str]) -> None:
    found = helixctl.make_plan(*small("layers=1"), layout=layout).plan.layout
    assert (found.groups, found.slices, found.data) == (4, 4, 1)


def test_the_dag_is_the_one_that_the_command_writes(tmp_path: Path) -> None:
    planned = helixctl.make_plan(*small(), layout=FOUR, plain=True, whole=True)
    target = tmp_path / "x.dag.json"
    command("plan", *SMALL, "--plain", "--groups", "4", "--slices", "4", "--dag", target, "-q")
    assert helixctl.lower_plan(planned.plan).to_json() == target.read_text()
    assert planned.proof.dag.to_json() == target.read_text()
    assert helixctl.load(target) == dag_from_json(target.read_text())


def test_overrides_are_read_as_on_the_command_line() -> None:
    model, _ = small("layers=2", "workload.batch=32")
    assert (model.layers, model.workload.batch) == (2, 32)
    cluster = helixctl.load(SMALL[1], ["devices_per_host=4"])
    assert isinstance(cluster, helixctl.ClusterSpec)
    assert cluster.devices_per_host == 4


@pytest.mark.parametrize(
    ("path", "text", "message"),
    [
        (SMALL[0], "hosts=2", "names a field of a cluster, and this is a model"),
        (SMALL[1], "layers=2", "names a field of a model, and this is a cluster"),
        (ROOT / "plans/small/dense.4x4.plan.json", "layers=2", "and this is a plan"),
        (SMALL[0], "layer=2", "HX108"),
    ],
)
def test_an_override_of_another_document_is_refused(path: str | Path, text: str, message: str) -> None:
    with pytest.raises(helixctl.HelixError, match=message) as caught:
        helixctl.load(path, [text])
    assert codes(caught) == ["HX108"]


def test_a_value_that_an_override_makes_wrong_is_laid_at_its_door() -> None:
    with pytest.raises(helixctl.HelixError, match="--set hosts=0") as caught:
        helixctl.load(SMALL[1], ["hosts=0"])
    assert codes(caught) == ["HX105"]
    assert caught.value.diagnostics[0].line is None


@pytest.mark.parametrize("model", [ROOT / "plans/models/Qwen2.5-7B", Path(SMALL[0])], ids=lambda path: path.name)
def test_a_model_that_was_loaded_is_planned_as_by_the_command(model: Path) -> None:
    """With the logits of the last token, where nothing says which; what was loaded is not changed."""
    sets = ["workload.seq_len=64", "workload.batch=16", "vocabulary.size=1024"]
    document, cluster = helixctl.load(model, sets), helixctl.load(PAPER[1])
    assert isinstance(document, helixctl.ModelDocument)
    assert isinstance(cluster, helixctl.ClusterSpec)
    before = document.model_copy()
    plan = helixctl.make_plan(document, cluster, layout={"data": 4}).plan
    assert plan.workload.logits == "last"
    assert document == before
    words = [word for text in sets for word in ("--set", text)]
    written = json.loads(command("plan", model, PAPER[1], *words, "--layout", "data=4", "-o", "-", "-q").out)
    assert written.pop("asked") == {"sets": sets, "layout": {"data": 4}}
    assert plan.to_json() == json.dumps(written, indent=2) + "\n"


def test_logits_that_were_asked_for_stay() -> None:
    sets = ["workload.batch=16", "vocabulary.size=1024", "workload.logits=all"]
    model, cluster = helixctl.load(SMALL[0], sets), helixctl.load(PAPER[1])
    assert isinstance(model, helixctl.ModelDocument)
    assert isinstance(cluster, helixctl.ClusterSpec)
    assert helixctl.make_plan(model, cluster, layout={"data": 16}).plan.workload.logits == "all"


def test_what_cannot_be_planned_is_refused_as_by_the_command() -> None:
    model, cluster = small()
    device = cluster.device.model_copy(update={"peak": {"float64": 1e9}})
    with pytest.raises(helixctl.HelixError) as caught:
        helixctl.make_plan(model, cluster.model_copy(update={"device": device}))
    assert codes(caught) == ["HX114"]
    with pytest.raises(helixctl.HelixError) as caught:
        helixctl.make_plan(model, cluster, layout={"groups": 3, "slices": 3})
    assert codes(caught) == ["HX202"]


def test_validate_says_what_is_wrong() -> None:
    plan, dag = plan_of(SMALL, 4, 4), dag_of(SMALL, 4, 4)
    assert helixctl.validate(plan) == helixctl.validate(dag) == ()
    illegal = Plan.of(plan.model, plan.cluster, plan.workload, Layout(groups=3, slices=3))
    assert {d.code for d in helixctl.validate(illegal)} == {"HX303"}
    assert {d.code for d in helixctl.validate(replace(dag, plan_digest="sha256:0"))} == {"HX402"}
    small_device = plan.cluster.device.model_copy(update={"memory": 1_000_000})
    cluster = plan.cluster.model_copy(update={"device": small_device})
    full = Plan.of(plan.model, cluster, plan.workload, plan.layout)
    assert {d.code for d in helixctl.validate(full)} == {"HX410"}
    with pytest.raises(helixctl.HelixError) as caught:
        helixctl.lower_plan(full)
    assert set(codes(caught)) == {"HX410"}


def test_validate_looks_at_the_whole_plan_where_a_part_is_lowered(monkeypatch: pytest.MonkeyPatch) -> None:
    """The part that is lowered has digests of its own."""
    monkeypatch.setattr(sys.modules["helixctl.solve.proof"], "MOST", 1)  # the package has a function of this name
    plan = plan_of(SMALL, 4, 4)
    other = plan.model_copy(update={"model": plan.model.model_copy(update={"hidden_size": 1024})})
    assert helixctl.validate(plan) == ()
    assert {d.code for d in helixctl.validate(other)} == {"HX302"}


def test_a_step_of_a_plan_is_that_of_its_dag() -> None:
    plan = plan_of(PAPER, 4, 4)
    one, other = helixctl.simulate_step(plan), helixctl.simulate_step(lower(plan))
    assert one.forecast == other.forecast
    assert one.plan == other.plan == plan
    assert sum(kind.seconds for kind in one.kinds_on_path) == pytest.approx(one.forecast.step_s)
    assert one.critical_path == other.critical_path


def test_a_step_of_very_many_tasks_is_that_of_a_part(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_of(PAPER, 8, 1, pipeline=2, microbatches=4, combine="reduce")
    whole = helixctl.simulate_step(plan)
    monkeypatch.setattr("helixctl.api.MANY_TASKS", 100)
    part = helixctl.simulate_step(plan)
    assert part.timeline is None
    assert [replace(kind, share=0, seconds=0) for kind in part.kinds_on_path] == [
        replace(kind, share=0, seconds=0) for kind in whole.kinds_on_path
    ]
    assert sum(kind.seconds for kind in part.kinds_on_path) == pytest.approx(part.forecast.step_s)
    assert part.forecast.step_s == pytest.approx(whole.forecast.step_s)
    assert helixctl.simulate_step(plan, whole=True).forecast == whole.forecast
    assert helixctl.lower_plan(plan) == whole.dag
    with pytest.raises(helixctl.HelixError) as caught:
        helixctl.make_plan(*small(), layout=FOUR, plain=True, whole=True)
    assert codes(caught) == ["HX305"]


def test_importing_loads_nothing_until_a_name_is_used() -> None:
    assert not {"pydantic", "click", "yaml", "networkx", "rich"} & modules("import helixctl")
    assert "pydantic" in modules("import helixctl\nhelixctl.Plan")
    code = "import helixctl\nm = helixctl.load('plans/small/dense.model.yaml')"
    assert not {"networkx", "click", "rich", "torch", "numpy"} & modules(code)


def test_a_name_that_is_not_there() -> None:
    with pytest.raises(AttributeError, match="no attribute 'no_such_name'"):
        helixctl.no_such_name  # noqa: B018
    assert set(helixctl.__all__) <= set(dir(helixctl))


@pytest.mark.sweep
def test_a_user_s_types_are_checked(tmp_path: Path) -> None:
    """py.typed is there: a type checker knows what the lazy names are."""
    user = tmp_path / "user.py"
    user.write_text(
        "import helixctl\n"
        "document = helixctl.load('x.plan.json')\n"
        "assert isinstance(document, helixctl.Plan)\n"
        "reveal_type(helixctl.simulate_step(document).forecast.step_s)\n"
        "helixctl.lower_plan('x.plan.json')\n"
    )
    line = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--cache-dir", str(tmp_path), str(user)]
    done = subprocess.run(line, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert 'Revealed type is "float"' in done.stdout
    assert 'Argument 1 to "lower_plan" has incompatible type "str"; expected "Plan"' in done.stdout
    assert "Found 1 error" in done.stdout
