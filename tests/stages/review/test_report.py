from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from ftcli.stages.review.figures import forbids_trade, licences
from ftcli.stages.review.report import SHOWN, row_text
from tests.stages.review.reviewing import TEACHER, data_folder, review, row, vote, votes_file, with_answer

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)> \u202eabc"


class Page(HTMLParser):
    """Tags of a page, and the text between them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture
def report(tmp_path: Path) -> Path:
    """Of 14 rows that ann judged, four of them with bob: one edited, ten rejected, and texts that attack the page."""
    rows = [
        row(0),
        with_answer(row(1), "It is three."),
        *(with_answer(row(number), HOSTILE) for number in range(2, 14)),
    ]
    votes = [
        vote("r0", "accept", seconds=2.0),
        vote("r1", "edit", edited=with_answer(row(1), "It is two."), note=HOSTILE, seconds=8.0),
        *(vote(f"r{number}", "accept") for number in (2, 3)),
        *(vote(f"r{number}", "reject", reason="unsafe", note=HOSTILE) for number in range(4, 14)),
        *(vote(f"r{number}", "accept", "bob") for number in (0, 2, 3)),
        vote("r4", "reject", "bob", reason="wrong"),
    ]
    data = data_folder(tmp_path / "data", rows)
    return review(tmp_path, data, votes=votes_file(tmp_path, votes))[0].out / "report"


def test_the_summary_tells_counts_rate_reasons_reviewers_agreement_and_teacher(report: Path) -> None:
    lines = [re.sub(" +", " ", line).strip() for line in (report / "summary.txt").read_text().splitlines()]
    assert lines[0].startswith("People judged 14 of 14 rows: 3 of 14 accepted as they are (21.4%, 95% interval ")
    for line in (
        "rows 14 in, 4 out",
        "edited 1",
        "rejected 10",
        "unsafe 10",
        "reviewer ann judged 14, rejected 10",
        "reviewer bob judged 4, rejected 1",
        "ann and bob the same of 100.0% of 4 rows, Cohen's kappa 1.00",
        f"teacher {TEACHER['name']}, 14 rows; licence apache-2.0",
    ):
        assert line in lines


def test_the_page_marks_the_words_that_an_edit_changed(report: Path) -> None:
    html = (report / "report.html").read_text()
    assert re.findall("<del>(.*?)</del>", html) == ["three"]
    assert re.findall("<ins>(.*?)</ins>", html) == ["two"]


def test_the_page_lets_no_text_of_rows_or_people_act(report: Path) -> None:
    html = (report / "report.html").read_text()
    page = Page(html)
    assert not {"script", "img", "link", "iframe"} & set(page.tags)
    assert "<script>alert(1)</script>" in page.text
    assert "\u202e" not in html
    assert "<U+202E>" in page.text
    assert "default-src 'none'" in html


def test_the_page_shows_a_few_rejected_rows_and_says_of_how_many(report: Path) -> None:
    page = Page((report / "report.html").read_text())
    assert len(re.findall(r"r\d+: unsafe", page.text)) == SHOWN
    assert f"{SHOWN} of 10; rejected.jsonl has all." in page.text
    assert len((report / "rejected.jsonl").read_text().splitlines()) == 10


def test_the_page_tells_how_far_reviewers_agree_and_on_how_many_rows(report: Path) -> None:
    page = Page((report / "report.html").read_text())
    assert "alpha = 1.00: graders agree. Its 95% interval over 4 rows is 1.00 to 1.00." in page.text
    assert "built-in" not in page.text


def test_seconds_are_the_median_of_those_that_were_told(report: Path) -> None:
    ann, bob = json.loads((report / "figures.json").read_text())["reviewers"]
    assert (ann["name"], ann["accept"], ann["edit"], ann["reject"], ann["seconds"]) == ("ann", 3, 1, 10, 5.0)
    assert bob["seconds"] is None


def test_the_page_of_a_review_by_nobody_says_so(tmp_path: Path) -> None:
    context, _ = review(tmp_path, data_folder(tmp_path / "data", [row(0)]), mode="none")
    page = Page((context.out / "report" / "report.html").read_text())
    assert "Nobody looked at these rows" in page.text


def test_rows_are_counted_by_teacher_and_licence() -> None:
    prov = [
        {"teacher": {"name": "a", "license": "mit"}},
        {"teacher": {"name": "a", "license": "mit"}},
        {"teacher": {"name": "a", "license": None}, "source_license": "cc-by-nc-4.0"},
        {"teacher": "b"},
        {"origin": "human"},
    ]
    found = licences([{"id": "x", "text": "", "meta": {"prov": one}} for one in prov] + [{"id": "y", "text": ""}])
    assert [tuple(one.values()) for one in found] == [
        ("a", "mit", "not told", 2),
        ("a", "not told", "cc-by-nc-4.0", 1),
        ("b", "not told", "not told", 1),
    ]


@pytest.mark.parametrize(
    ("name", "forbids"),
    [("CC-BY-NC-4.0", True), ("cc-by-nc-sa-3.0", True), ("cc-by-4.0", False), ("ncsa", False), ("not told", False)],
)
def test_a_licence_is_non_commercial_if_it_calls_itself_so(name: str, forbids: bool) -> None:
    assert forbids_trade({"license": name, "source_license": "mit"}) is forbids
    assert forbids_trade({"license": "mit", "source_license": name}) is forbids


def test_a_row_reads_part_by_part() -> None:
    prompt = [{"role": "user", "content": "Hi"}]
    assert row_text({"id": "a", "text": "Once."}) == "Once."
    assert row_text(row(1)) == "user: What is 1 + 1?\n\nassistant: It is 2."
    pair = {
        "prompt": prompt,
        "chosen": [{"role": "assistant", "content": "A"}],
        "rejected": [{"role": "assistant", "content": "B"}],
    }
    assert row_text(pair) == "user: Hi\n\nchosen: A\n\nrejected: B"
    ranking = {"prompt": prompt, "candidates": [{"content": "x", "rank": 1}, {"content": "y", "rank": 2}]}
    assert row_text(ranking) == "user: Hi\n\nrank 1: x\n\nrank 2: y"
    unpaired = {"prompt": prompt, "completion": [{"role": "assistant", "content": "A"}], "label": False}
    assert row_text(unpaired) == "user: Hi\n\ncompletion: A\n\nlabel: false"
