"""Reads what refparity writes, and what it reads, with other people's parsers.

usage: readback_test.py MATRIX_FOLDER REPORTS_FOLDER

The matrix against its JSON Schema (jsonschema), results.json, and junit.xml: with junitparser, and
against the elements and attributes that Jenkins' junit-10.xsd allows.
"""

import json
import re
import sys
from pathlib import Path
from xml.etree import ElementTree

import jsonschema
import junitparser

# junit-10.xsd in short: element -> (allowed attributes, required ones, allowed children)
JUNIT_10 = {
    "testsuites": ({"name", "time", "tests", "failures", "errors"}, set(), {"testsuite"}),
    "testsuite": (
        {"name", "tests", "failures", "errors", "group", "time", "skipped", "timestamp", "hostname", "id"}
        | {"package", "file", "log", "url"},
        {"name", "tests", "failures", "errors"},
        {"testsuite", "properties", "testcase", "system-out", "system-err"},
    ),
    "properties": (set(), set(), {"property"}),
    "property": ({"name", "value"}, {"name", "value"}, set()),
    "testcase": (
        {"name", "time", "classname", "group"},
        {"name"},
        {"skipped", "error", "failure", "system-out", "system-err"},
    ),
    "failure": ({"type", "message"}, set(), set()),
    "error": ({"type", "message"}, set(), set()),
    "skipped": ({"type", "message"}, set(), set()),
    "system-out": (set(), set(), set()),
}
SUREFIRE_TIME = re.compile(r"(([0-9]{0,3},)*[0-9]{3}|[0-9]{0,3})*(\.[0-9]*)?")


def check_schema(folder: Path) -> int:
    """The committed matrix passes its schema, and the schema refuses a misspelt key."""
    schema = json.loads((folder / "matrix.schema.json").read_text())
    matrix = json.loads((folder / "matrix.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    validator.validate(matrix)
    matrix["tests"][0]["n_layres"] = 4
    assert not validator.is_valid(matrix), "the schema lets a misspelt key pass"
    return len(matrix["tests"])


def check_form(element: ElementTree.Element) -> int:
    """Every element below has the form of junit-10.xsd; returns how many there are."""
    allowed, required, children = JUNIT_10[element.tag]
    names = set(element.attrib)
    assert names <= allowed, f"{element.tag}: {names - allowed} is not in junit-10.xsd"
    assert required <= names, f"{element.tag}: {required - names} is missing"
    if "time" in element.attrib and element.tag != "testcase":
        assert SUREFIRE_TIME.fullmatch(element.attrib["time"]), element.attrib["time"]
    n = 1
    for child in element:
        assert child.tag in children, f"{child.tag} in {element.tag}"
        n += check_form(child)
    return n


KINDS = {"PASS": [], "MARGINAL": [], "XFAIL": ["Skipped"], "FAIL": ["Failure"], "ERROR": ["Error"], "SKIP": ["Skipped"]}


def check_entries(suites: dict, results: dict) -> int:
    """An entry's suite has its weights test, and that it is disabled; returns the number of test cases."""
    n_cases = 0
    for entry in results["entries"]:
        tests = {name: entry[name]["verdict"] for name in ("weights", "disabled") if name in entry}
        cases = {case.name: case for case in suites[entry["entry"]]}
        assert tests and list(cases) == list(tests), (entry, list(cases))
        for name, verdict in tests.items():
            assert cases[name].classname == entry["entry"]
            assert [type(result).__name__ for result in cases[name].result] == KINDS[verdict], name
        n_cases += len(cases)
    return n_cases


def check_junit(path: Path, results: dict) -> int:
    """junit.xml says what results.json says; returns the number of test cases."""
    check_form(ElementTree.parse(path).getroot())
    suites = {suite.name: suite for suite in junitparser.JUnitXml.fromfile(str(path))}
    assert list(suites) == [pair["pair"] for pair in results["pairs"]] + [e["entry"] for e in results["entries"]]
    n_cases = check_entries(suites, results)
    for pair in results["pairs"]:
        suite = suites[pair["pair"]]
        cases = list(suite)
        required = [slot for slot in pair["comparison"]["slots"] if slot["required"]]
        n_run = 0 if pair["against"] else 1  # two modes compared with each other have no run of their own
        replayed = pair.get("replay", [])
        assert len(required) == pair["n_layers"] + 3 and len(replayed) in (0, len(required))
        known = pair.get("known", [])  # a property each, and where any is judged a test of what is mended
        judged = any(rule["state"] != "not judged" for rule in known)
        assert len(cases) == len(required) + len(replayed) + 1 + n_run + judged == suite.tests
        verdicts = [pair["engine_test"]["verdict"]] if n_run else []
        verdicts += [pair["comparison"]["tokens"]["verdict"]]
        verdicts += [slot["verdict"] for slot in required + replayed]
        verdicts += [("FAIL" if any(rule["message"] for rule in known) else "PASS")] if judged else []
        for case, verdict in zip(cases, verdicts, strict=True):
            assert case.classname == pair["pair"]
            kinds = [type(result).__name__ for result in case.result]
            assert kinds == KINDS[verdict], (case.name, verdict, kinds)
            output = case.system_out or ""
            assert output.startswith("MARGINAL: " if verdict == "MARGINAL" else ("warning: " if output else ""))
            for result in case.result:
                assert result.message and result.type
                assert (result.type == "xfail") == (verdict == "XFAIL"), (case.name, result.type)
                assert re.match(r".+matrix\.json:\d+: ", result.text), result.text
            n_cases += 1
        assert suite.failures == verdicts.count("FAIL") and suite.errors == verdicts.count("ERROR")
        names = {prop.name for prop in suite.properties()}
        assert {"hf_model", "engine", "line"} <= names
        if pair["comparison"]["n_required_compared"]:
            assert {"h00.L2_rel", "h00.cosine", "logits.cosine", "post_norm.max_abs"} <= names
        assert {f"known.{rule['slot']}" for rule in known} <= names
        slots = {name.rpartition(".")[0] for name in names if not name.startswith("known.")} - {""}
        assert slots <= {case.name for case in cases}, slots
    return n_cases


def main() -> None:
    """Checks everything; an assertion that fails is the report."""
    n_entries = check_schema(Path(sys.argv[1]))
    reports = Path(sys.argv[2])
    results = json.loads((reports / "results.json").read_text())
    assert results["format"] == "refparity-results" and results["pairs"], "no results"
    assert results["summary"]["pairs"] == len(results["pairs"])
    n_cases = check_junit(reports / "junit.xml", results)
    print(f"{n_entries} entries, {len(results['pairs'])} pairs, {n_cases} test cases read back")


main()
