"""A verdict for CI systems: JUnit XML, a Markdown table, and the page that GitHub shows of a job.

JUnit has no word for a warning or for "cannot tell": a broken soft rule and an inconclusive one are *skipped*, with the reason.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from xml.etree import ElementTree

from ftcli.metrics.verdicts import Result, Verdict

STEP_SUMMARY = "GITHUB_STEP_SUMMARY"
_ILLEGAL = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 cannot hold, escaped or not (its section 2.2)."""


def junit_xml(verdict: Verdict, name: str = "eval") -> str:
    """One test case for each rule and model: failed is a failure, not evaluable an error; ``name`` is the suite's."""
    suite = ElementTree.Element("testsuite", name=_legal(name), tests=str(len(verdict.results)))
    counts = {"failure": 0, "error": 0, "skipped": 0}
    for one in verdict.results:
        case = ElementTree.SubElement(
            suite, "testcase", classname=_legal(f"{name}.{one.model or 'gate'}"), name=_legal(str(one.rule)), time="0"
        )
        if kind := _kind(one):
            counts[kind] += 1
            warning = "warning: " if one.severity == "soft" else ""
            found = ElementTree.SubElement(case, kind, message=_legal(f"{warning}{one.status}: {one.message}"))
            if kind != "skipped":
                found.set("type", one.status.replace(" ", "-"))
        else:
            ElementTree.SubElement(case, "system-out").text = _legal(one.message)
    for attribute, kind in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        suite.set(attribute, str(counts[kind]))
    ElementTree.indent(suite)
    text = ElementTree.tostring(suite, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{text}\n'


def _kind(one: Result) -> str:
    """The element that says how a test case ended; empty for one that passed."""
    if one.status == "passed":
        return ""
    if one.severity == "soft":
        return "skipped"
    return {"failed": "failure", "not evaluable": "error", "inconclusive": "skipped"}[one.status]


def _legal(text: str) -> str:
    return _ILLEGAL.sub("\N{REPLACEMENT CHARACTER}", text)


def summary_markdown(verdict: Verdict) -> str:
    """The headline and one line of a table for each rule and model."""
    lines = [
        f"### {_plain(verdict.headline)}",
        "",
        "| rule | model | against | result | what was measured |",
        "| --- | --- | --- | --- | --- |",
    ]
    for one in verdict.results:
        result = f"**{one.status}**" if one.status in ("failed", "not evaluable") else one.status
        result += " (soft)" if one.severity == "soft" else ""
        cells = (_plain(str(one.rule)), _plain(one.model), _plain(one.against), result, _plain(one.message))
        lines.append(f"| {' | '.join(cells)} |")
    terms = f"mode {verdict.mode}, alpha {verdict.alpha:g} over all hard rules together (Holm)"
    return "\n".join([*lines, "", f"{terms}{', strict' if verdict.strict else ''}.", ""])


def _plain(text: str) -> str:
    """Text that Markdown shows as it is, in one line: labels and messages may hold anything."""
    return re.sub(r"([\\`*_{}\[\]<>#|~&!])", r"\\\1", " ".join(text.split()))


def append_step_summary(markdown: str, environ: Mapping[str, str]) -> str:
    """Append to the file that GitHub Actions names for a job's summary; say in a line what was done, nothing without such a file.

    A verdict must not be lost for a page that could not be written, so that is said and not raised.
    """
    name = environ.get(STEP_SUMMARY, "")
    if not name:
        return ""
    try:
        with Path(name).open("a", encoding="utf-8") as file:
            file.write(f"{markdown.rstrip()}\n\n")
    except OSError as error:
        return f"the job's summary could not be written: {name}: {error.strerror}"
    return "the job's summary has the gate's table"
