"""The reports of helixctl validate: each format read by its own reader, where they go, and what CI systems get."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from xml.etree import ElementTree as ET

import pytest

from helixctl.errors import CODES, Diagnostic
from helixctl.report import FORMATS, Outcome, ValidationReport
from helixctl.report.markdown import as_markdown
from helixctl.report.rules import REMEDIES
from tests.cli.command import Done, helixctl
from tests.documents import ROOT

VALID, MODEL = "plans/small/dense.4x4.plan.json", "plans/small/dense.model.yaml"
REFUSED = "tests/invalid/HX406-partial-of-nothing.dag.json"
MALFORMED = "tests/invalid/HX103-unknown-key.model.yaml"
MIXED = (VALID, REFUSED, MALFORMED, "plans/nowhere,100%:x.json")


def report(output_format: str, *files: str, cwd: Path = ROOT, env: dict[str, str] | None = None) -> Done:
    return helixctl("validate", "-f", output_format, *files, cwd=cwd, env=env)


# --- where reports go ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "begins"),
    [
        ("x.sarif", '{\n  "$schema"'),
        ("x.sarif.json", '{\n  "$schema"'),
        ("X.SARIF", '{\n  "$schema"'),
        ("x.json", '{\n  "report"'),
        ("x.xml", "<?xml"),
        ("x.txt", "plans/small"),
    ],
)
def test_the_suffix_tells_the_format(tmp_path: Path, name: str, begins: str) -> None:
    done = helixctl("validate", *MIXED, "-o", tmp_path / name)
    assert done.status == 2
    assert done.err.startswith(f"wrote {tmp_path / name}: the report as ")
    assert done.err.count("\n") == 1
    assert "HX406" in done.said  # the findings are printed as well
    assert (tmp_path / name).read_text().startswith(begins)
    assert list(tmp_path.iterdir()) == [tmp_path / name]


@pytest.mark.parametrize("output_format", FORMATS)
def test_standard_output_carries_the_report_alone(output_format: str) -> None:
    for extra in ((), ("-o", "-")):
        if output_format == "text" and not extra:
            continue
        done = helixctl("validate", "-f", output_format, *extra, *MIXED)
        assert done.status == 2
        assert done.out.count(b"HX406") >= 2
        assert b"documents:" not in done.out or output_format == "text"
        assert ("HX406" in done.err) == (output_format != "text")
    clean = helixctl("validate", "-q", "-f", output_format, "-o", "-", VALID)
    assert (clean.status, clean.err) == (0, "")


def test_text_is_printed_once_whether_it_is_asked_for_or_not() -> None:
    plain, asked = helixctl("validate", "-v", VALID, MODEL), helixctl("validate", VALID, MODEL, "-o", "-")
    assert plain == asked
    assert asked.err == ""
    assert asked.out.decode().splitlines()[1:] == [
        f"{MODEL}: valid model small-dense",
        "2 documents: 2 valid",
    ]


def test_the_same_files_give_the_same_bytes() -> None:
    for output_format in FORMATS:
        runs = [helixctl("validate", "-f", output_format, "-o", "-", *MIXED).out for _ in range(2)]
        assert runs[0] == runs[1]
        assert str(ROOT).encode() not in runs[0]


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (("-o", "x.html"), "does not tell the format"),
        (("-f", "yaml"), "Invalid value"),
        (("-o", "nowhere/x.json"), "HX511"),
        (("-o", "."), "does not tell the format"),
    ],
)
def test_what_cannot_be_written_is_said_before_anything_is_proved(args: tuple[str, str], text: str) -> None:
    done = helixctl("validate", REFUSED, *args)
    assert (done.status, done.out) == (2, b"")
    assert text in done.err
    assert "HX406" not in done.err


# --- json ------------------------------------------------------------------------------------------------------------


def test_json() -> None:
    done = report("json", *MIXED)
    assert done.status == 2
    found = json.loads(done.out)
    assert (found["valid"], found["exit_status"], found["error_count"]) == (False, 2, 6)
    assert [(f["file"], f["kind"], f["valid"], f["verdict"]) for f in found["files"]] == [
        (VALID, "plan", True, "valid"),
        (REFUSED, "dag", False, "refused"),
        (MALFORMED, "model", False, "malformed"),
        (MIXED[3], None, False, "malformed"),
    ]
    assert found["files"][0]["digest"].startswith("sha256:")
    first = found["diagnostics"][0]
    assert (first["severity"], first["code"], first["title"]) == ("error", "HX406", CODES["HX406"].title)
    assert first["summary"].startswith("task l0.feed_forward.down.g0s0: l0.down@0 is declared")
    assert first["hint"].startswith("it stands between")
    assert first["path"] == "l0.down@0"
    assert first["range"] == {"filename": REFUSED, "start": {"line": 66, "column": 1}}
    assert found["diagnostics"][-1]["range"] == {"filename": MIXED[3], "start": None}


def test_json_of_what_is_valid_and_skipped(tmp_path: Path) -> None:
    (tmp_path / "package.json").write_text("{}")
    (tmp_path / "x.plan.json").write_bytes((ROOT / VALID).read_bytes())
    done = report("json", ".", cwd=tmp_path)
    found = json.loads(done.out)
    assert (done.status, found["valid"], found["diagnostics"]) == (0, True, [])
    assert found["skipped"] == ["./package.json"]


# --- sarif -----------------------------------------------------------------------------------------------------------


def sarif(*files: str, cwd: Path = ROOT, env: dict[str, str] | None = None) -> dict[str, Any]:
    found = json.loads(report("sarif", *files, cwd=cwd, env=env).out)
    assert found["version"] == "2.1.0"
    assert "sarif-schema-2.1.0.json" in found["$schema"]
    (run,) = found["runs"]
    return run  # type: ignore[no-any-return]


def test_sarif_has_what_the_standard_and_github_require() -> None:
    """Checked against the official schema when it was written; here by the properties that it and GitHub ask for."""
    run = sarif("plans", "tests/invalid")
    driver = run["tool"]["driver"]
    assert driver["name"] == "helixctl"
    assert re.fullmatch(r"\d+\.\d+\.\d+.*", driver["semanticVersion"])
    rules = driver["rules"]
    assert len({rule["id"] for rule in rules}) == len(rules)
    for rule in rules:
        assert rule["shortDescription"]["text"] == CODES[rule["id"]].title
        assert rule["fullDescription"]["text"]
        assert rule["help"]["text"] == rule["help"]["markdown"]
        assert REMEDIES[rule["id"]] in rule["help"]["text"]
        assert rule["defaultConfiguration"] == {"level": "error"}
    assert len(run["results"]) > 100
    for result in run["results"]:
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"]
        assert result["level"] == "error"
        assert result["message"]["text"]
        (location,) = result["locations"]
        place = location["physicalLocation"]
        assert place["artifactLocation"]["uriBaseId"] in run["originalUriBaseIds"]
        assert (ROOT / unquote(place["artifactLocation"]["uri"])).is_file()
        assert all(isinstance(n, int) and n >= 1 for n in place.get("region", {}).values())
        assert set(result["partialFingerprints"]) == {"findingHash/v1"}
    prints = [result["partialFingerprints"]["findingHash/v1"] for result in run["results"]]
    assert len(set(prints)) == len(prints)
    assert run["invocations"] == [{"executionSuccessful": True, "exitCode": 2}]
    assert len(run["artifacts"]) == len({a["location"]["uri"] for a in run["artifacts"]}) > 60


def test_sarif_paths_are_uris_from_the_root(tmp_path: Path) -> None:
    deep = tmp_path / "a b" / "ü#%"
    deep.mkdir(parents=True)
    (deep / "x.json").write_text("{}")

    def locations(*files: str, **where: Any) -> list[dict[str, str]]:
        results = sarif(*files, **where)["results"]
        return [r["locations"][0]["physicalLocation"]["artifactLocation"] for r in results]

    root = {"uriBaseId": "%SRCROOT%"}
    assert locations("ü#%/x.json", cwd=tmp_path / "a b") == [{"uri": "%C3%BC%23%25/x.json"} | root]
    for name in ("GITHUB_WORKSPACE", "CI_PROJECT_DIR"):
        found = locations("ü#%/x.json", cwd=tmp_path / "a b", env={name: str(tmp_path)})
        assert found == [{"uri": "a%20b/%C3%BC%23%25/x.json"} | root]
    (outside,) = locations("../x.json", cwd=deep)
    assert outside == {"uri": f"file://{tmp_path}/a%20b/x.json"}


def test_fingerprints_stay_where_lines_move(tmp_path: Path) -> None:
    bad = "name: tiny\nlayers: 4\nhidden: 3\n{}attention:\n  haeds: 3\n  heads: 4\n  heads: 4\nzzz: 1\n"

    def prints(text: str) -> list[str]:
        (tmp_path / "x.model.yaml").write_text(text)
        return [r["partialFingerprints"]["findingHash/v1"] for r in sarif("x.model.yaml", cwd=tmp_path)["results"]]

    assert prints(bad.format("")) == prints("# one line\n# and another\n" + bad.format("\n\n"))
    unknown = bad.replace("  heads: 4\n", "", 1)
    before = prints(unknown.format(""))
    assert len(before) > 2
    assert before == prints("\n\n" + unknown.format("# more\n"))
    assert len(set(before)) == len(before)
    assert set(prints(unknown.format("").replace("zzz", "yyy"))) - set(before)


# --- github ----------------------------------------------------------------------------------------------------------


def read_annotations(text: str) -> list[dict[str, str]]:
    """As the runner of GitHub Actions reads workflow commands."""
    found = []
    for line in text.splitlines():
        if not line.startswith("::error "):
            continue
        properties, _, message = line.removeprefix("::error ").partition("::")
        row = dict(pair.split("=", 1) for pair in properties.split(","))
        row = {k: v.replace("%3A", ":").replace("%2C", ",") for k, v in row.items()} | {"message": message}
        found.append({k: re.sub("%(0D|0A|25)", lambda m: chr(int(m[1], 16)), v) for k, v in row.items()})
    return found


def test_github_annotations() -> None:
    done = report("github", *MIXED)
    found = read_annotations(done.out.decode())
    assert len(found) == len(done.out.splitlines()) == 6
    assert found[0]["title"] == f"HX406 {CODES['HX406'].title}"
    assert (found[0]["file"], found[0]["line"], found[0]["col"]) == (REFUSED, "66", "1")
    assert "declared [batch 0:2, seq 0:3, hidden 0:8; summed over x 0:8]" in found[0]["message"]
    assert "\nhint: it stands between" in found[0]["message"]
    assert found[-1]["file"] == MIXED[3]
    assert "line" not in found[-1]


def test_github_escapes_come_back() -> None:
    message = "100% :: a,b: c\r\nnext %0A"
    diagnostic = Diagnostic("HX103", message, "50%, yes", "a,b:c%d.json", 3, 4)
    text = FORMATS["github"](ValidationReport((Outcome("a,b:c%d.json", "model", (diagnostic,)),)), ROOT)
    assert len(text.splitlines()) == 1
    (found,) = read_annotations(text)
    assert found["file"] == "a,b:c%d.json"
    assert found["message"] == f"{message}\nhint: 50%, yes"


def test_in_github_actions_findings_are_annotated_and_summed_up(tmp_path: Path) -> None:
    summary = tmp_path / "summary.md"
    summary.write_text("# before\n")
    env = {"GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": str(summary)}
    done = helixctl("validate", *MIXED, env=env)
    assert done.status == 2
    assert len(read_annotations(done.err)) == len(done.err.splitlines()) == 6
    text = summary.read_text()
    assert text.startswith("# before\n### helixctl validate\n\n4 documents: 1 valid, 1 refused, 2 malformed\n")
    rows = [line for line in text.splitlines() if line.startswith("| ")][1:]
    assert len(rows) == 4
    assert "HX103 line 7: unknown key" in rows[0]
    assert rows[-1] == f"| {VALID} | plan | valid |  |".replace("_", r"\_")
    assert all(len(re.findall(r"(?<!\\)\|", row)) == 5 for row in rows)
    # Once is enough where the report is annotations already.
    done = helixctl("validate", "-f", "github", *MIXED, env=env)
    assert len(read_annotations(done.out.decode())) == 6
    assert read_annotations(done.err) == []
    assert len(read_annotations(helixctl("validate", *MIXED, "-f", "json", env=env).err)) == 6


def test_annotations_name_files_from_the_root_of_the_checkout() -> None:
    env = {"GITHUB_ACTIONS": "true", "GITHUB_WORKSPACE": str(ROOT)}
    done = helixctl("validate", Path(REFUSED).name, cwd=ROOT / "tests/invalid", env=env)
    assert read_annotations(done.err)[0]["file"] == REFUSED
    assert done.said.startswith(f"{Path(REFUSED).name}:66:1: HX406")


@pytest.mark.parametrize("value", ["", "false", "1"])
def test_elsewhere_there_are_no_annotations(tmp_path: Path, value: str) -> None:
    env = {"GITHUB_ACTIONS": value, "GITHUB_STEP_SUMMARY": str(tmp_path / "s.md")}
    assert "::error" not in helixctl("validate", *MIXED, env=env).err
    assert not (tmp_path / "s.md").exists()


def test_a_summary_that_cannot_be_written_does_not_fail_the_job(tmp_path: Path) -> None:
    env = {"GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": str(tmp_path)}
    done = helixctl("validate", VALID, env=env)
    assert done.status == 0
    assert "note: no summary of the job was written" in done.err


def test_a_long_summary_stays_below_github_s_limit() -> None:
    many = tuple(Diagnostic("HX406", "x|y <b> `c`\n" * 100, "z", "f.json", n, 1) for n in range(1, 500))
    outcomes = tuple(Outcome(f"{n}.json", "dag", many) for n in range(300))
    text = as_markdown(ValidationReport(outcomes), ROOT)
    assert len(text.encode()) < 2**20
    assert text.endswith("\nand 100 more\n")
    assert "<b>" not in text


# --- junit -----------------------------------------------------------------------------------------------------------


def test_junit_has_a_case_a_file() -> None:
    root = ET.fromstring(report("junit", *MIXED).out)
    assert root.tag == "testsuites"
    (suite,) = root
    for element in (root, suite):
        assert (element.get("tests"), element.get("failures"), element.get("errors")) == ("4", "1", "2")
    cases = list(suite)
    assert [case.get("name") for case in cases] == list(MIXED)
    assert [case.get("classname") for case in cases][:2] == ["helixctl.plan", "helixctl.dag"]
    assert [[child.tag for child in case] for case in cases] == [[], ["failure"], ["error"], ["error"]]
    refused = cases[1][0]
    assert refused.get("type") == "HX406"
    assert str(refused.get("message")).endswith("(and 1 more)")
    assert str(refused.text).count(": HX406 ") == 2
    assert "[batch 0:2, seq 0:3, hidden 0:8; summed over x 0:8]" in str(refused.text)


def test_junit_holds_what_xml_cannot() -> None:
    bad = Diagnostic("HX103", "a\x00b\x1b <&\"' ]]> \udcff", None, "x\udcff<.json")
    text = FORMATS["junit"](ValidationReport((Outcome("x\udcff<.json", None, (bad,)),)), ROOT)
    (case,) = ET.fromstring(text.encode()).iter("testcase")
    assert case.get("name") == "x�<.json"
    assert case[0].get("message") == "a�b� <&\"' ]]> �"


@pytest.mark.parametrize("output_format", FORMATS)
def test_a_path_that_is_no_text_is_reported(tmp_path: Path, output_format: str) -> None:
    name = os.fsdecode(b"caf\xe9.json")
    (tmp_path / name).write_text("{")
    done = helixctl("validate", name, "-f", output_format, "-o", "-", cwd=tmp_path)
    assert done.status == 2, done.err
    assert b"HX102" in done.out


# --- rules -----------------------------------------------------------------------------------------------------------


def test_ways_out_are_those_of_the_docs() -> None:
    """A code that validate can give has its way out in docs/errors.md and in the rules of SARIF, in the same words."""
    text = (ROOT / "docs/errors.md").read_text()
    for code, remedy in REMEDIES.items():
        section = text.partition(f"\n## {code} ")[2].partition("\n## ")[0]
        found = " ".join(section.partition("\nWay out: ")[2].partition("\n\n")[0].split())
        found = re.sub(r"\[([^]]+)\]\([^)]+\)", r"\1", found)
        assert remedy.replace("docs/", "") == found, code


def test_every_bad_file_that_validate_refuses_has_a_way_out() -> None:
    codes = {path.name[:5] for path in (ROOT / "tests/invalid").glob("HX[134]*.*") if path.suffix != ".txt"}
    assert codes == set(REMEDIES)
