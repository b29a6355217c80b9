from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ftcli.metrics.junit import STEP_SUMMARY, append_step_summary, junit_xml, summary_markdown
from ftcli.metrics.rules import Rule
from ftcli.metrics.verdicts import Result, Status, Verdict


def result(status: Status, *, soft: bool = False, message: str = "it was measured", model: str = "lora") -> Result:
    rule = Rule(metric="rougeL", max_drop=0.01, severity="soft" if soft else "hard")
    return Result(rule, model, "base", "rougeL", "proven", status, message)


def verdict(*results: Result) -> Verdict:
    return Verdict(6, "GATE FAILED", results, "proven", 0.05, False)


ALL = verdict(
    result("passed"),
    result("failed"),
    result("not evaluable"),
    result("inconclusive"),
    result("failed", soft=True),
    result("not evaluable", soft=True),
    result("passed", soft=True),
)


def test_each_result_is_a_test_case_of_the_kind_that_a_ci_system_knows() -> None:
    root = ElementTree.fromstring(junit_xml(ALL, "eval"))
    assert root.tag == "testsuite"
    assert root.attrib == {"name": "eval", "tests": "7", "failures": "1", "errors": "1", "skipped": "3"}
    assert [(case.get("classname"), case.get("name")) for case in root] == [("eval.lora", "rougeL max_drop 0.01")] * 7
    assert [case[0].tag for case in root] == [
        "system-out",
        "failure",
        "error",
        "skipped",
        "skipped",
        "skipped",
        "system-out",
    ]
    assert root[1][0].attrib == {"message": "failed: it was measured", "type": "failed"}
    assert root[2][0].get("type") == "not-evaluable"
    assert root[3][0].attrib == {"message": "inconclusive: it was measured"}
    assert root[4][0].get("message") == "warning: failed: it was measured"


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet=st.characters(exclude_categories=[]), max_size=30), st.text(max_size=30))
def test_whatever_a_message_or_label_holds_the_xml_can_be_read(message: str, label: str) -> None:
    text = junit_xml(verdict(result("failed", message=message, model=label or "m"), result("passed", message=message)))
    root = ElementTree.fromstring(text.encode("utf-8"))
    assert root.get("failures") == "1"


def test_characters_that_xml_forbids_are_replaced_and_markup_is_escaped() -> None:
    text = junit_xml(verdict(result("passed", message="a\x00b\x1b[0m \ud800 \uffff <b>&amp;]]>")))
    (case,) = ElementTree.fromstring(text)
    replaced = "\N{REPLACEMENT CHARACTER}"
    assert case[0].text == f"a{replaced}b{replaced}[0m {replaced} {replaced} <b>&amp;]]>"


def test_the_table_has_a_line_for_each_result_and_shows_text_as_it_is() -> None:
    odd = result("failed", message="a | b\nc <script> *x* `y`", model="my|model")
    text = summary_markdown(replace(ALL, results=(*ALL.results, odd), strict=True))
    lines = text.splitlines()
    assert lines[0] == "### GATE FAILED"
    rows = [line for line in lines if line.startswith("| ")][2:]
    assert len(rows) == 8
    assert rows[0] == "| rougeL max\\_drop 0.01 | lora | base | passed | it was measured |"
    assert "| **failed** |" in rows[1]
    assert "| **failed** (soft) |" in rows[4]
    assert rows[7].endswith(r"| a \| b c \<script\> \*x\* \`y\` |")
    assert lines[-1] == "mode proven, alpha 0.05 over all hard rules together (Holm), strict."


def test_the_table_is_appended_to_the_jobs_summary_where_there_is_one(tmp_path: Path) -> None:
    page = tmp_path / "summary.md"
    page.write_text("# before\n")
    assert append_step_summary("table\n\n", {STEP_SUMMARY: str(page)}) == "the job's summary has the gate's table"
    assert page.read_text() == "# before\ntable\n\n"


@pytest.mark.parametrize("environ", [{}, {STEP_SUMMARY: ""}])
def test_without_a_summary_nothing_is_done_or_said(environ: dict[str, str]) -> None:
    assert append_step_summary("table", environ) == ""


def test_a_summary_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    said = append_step_summary("table", {STEP_SUMMARY: str(tmp_path / "none" / "summary.md")})
    assert said == f"the job's summary could not be written: {tmp_path}/none/summary.md: No such file or directory"
