from __future__ import annotations

from pathlib import Path
from typing import Any

from ftcli.stages.synth.config import SynthConfig
from ftcli.stages.synth.report import some_of_each, write_report

PROV = {"template": {"id": "augment"}, "seed_ids": ["<i>s</i>"], "gates": {"rouge_l": 0.25}}
ROW = {
    "id": "a",
    "messages": [
        {"role": "user", "content": "<script>alert(1)</script>"},
        {"role": "assistant", "content": "b\u202ec"},
    ],
    "meta": {"prov": PROV},
}


def rejected(number: int, reason: str) -> dict[str, Any]:
    return {
        "number": number,
        "reason": reason,
        "detail": "<b>",
        "raw": "<img src=x>" + "y" * 2000,
        "template": "augment",
    }


def test_the_page_shows_what_was_written_and_runs_none_of_it(tmp_path: Path) -> None:
    facts = {"planned": 9, "asked": 3, "rows": 1, "repairs": 1, "tokens": 1234, "rejected": {"pii": 2}}
    teacher = {"name": "<u>big</u>", "license": None}
    write_report(tmp_path, facts, [ROW], [rejected(1, "pii"), rejected(2, "pii")], SynthConfig(), teacher)
    page = (tmp_path / "report.html").read_text()
    for tag in ("<script", "<img", "<u>", "<i>", "<b>"):
        assert tag not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "b&lt;U+202E&gt;c" in page
    assert "(811 more characters)" in page
    assert "6 of 9 requests were not made" in page
    summary = (tmp_path / "summary.txt").read_text()
    assert "1 rows of 3 replies by <u>big</u> (licence: not known)" in summary
    assert "tokens: 1,234" in summary
    assert "augment   1     2" in summary


def test_some_of_each_reason_are_shown() -> None:
    items = [rejected(n, "pii") for n in range(5)] + [rejected(9, "near_duplicate")]
    assert [item["number"] for item in some_of_each(items)] == [9, 0, 1, 2]
