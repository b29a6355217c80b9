from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ftcli.core.stage import Artifact, Kind
from ftcli.models.load import load_tokenizer
from ftcli.rl.judged import Judged
from ftcli.rl.preferences import Comparison
from ftcli.rl.reward_card import reward_card
from ftcli.rl.sequences import Exchange
from ftcli.stages.reward.report import WORST, cut, provenance, summary_text, verdict, write_report

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>"
SAME = {"answers": 8, "pairs": 4, "max_difference": 2e-6, "mean_difference": 1e-7, "order_flips": 0.0}
STABILITY = {"batch": SAME, "format": {**SAME, "own": "fp32", "other": "bf16", "order_flips": 0.25}}


class Page(HTMLParser):
    """Tags and attributes of a page, and the text between them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


def judgements(prompts: int = 40, skill: float = 1.5, *, answers: int = 2, sources: int = 1) -> list[Judged]:
    """Winners score higher by ``skill`` on average; lengths say nothing."""
    generator = np.random.default_rng(4)
    found = []
    for number in range(prompts):
        scores = generator.normal(size=answers)
        scores[0] += skill
        lengths = generator.integers(5, 60, answers).tolist()
        pairs = [(0, loser) for loser in range(1, answers)]
        found.append(Judged(scores.tolist(), lengths, pairs, source=f"file {number % sources}"))
    return found


def card_of(judged: list[Judged], ref: str = "lora.model", **changes: Any) -> dict[str, Any]:
    base = Artifact(Kind.MODEL, "demo:tiny", Path(), "sha256:b")
    about = provenance(
        Artifact(Kind.MODEL, ref, Path(), "sha256:m", base=base),
        Artifact(Kind.DATA, "prep.data", Path(), "sha256:d"),
        {"max_length": 99},
        {"trained": "a new adapter"},
    )
    scoring = {"max_length": 99, "precision": "fp32"}
    return {
        "split": "test",
        **reward_card(judged),
        "scoring": scoring,
        "stability": STABILITY,
        "about": about,
        **changes,
    }


def comparisons_of(
    judged: list[Judged], tokenizer: Any, prompt: str = "What?", answer: str = "the cat"
) -> list[Comparison]:
    row = {"id": "row 1", "prompt": [{"role": "user", "content": prompt}]}
    ids = tokenizer(answer)["input_ids"]
    return [Comparison([Exchange([5], ids, row=row) for _ in one.scores], list(one.pairs)) for one in judged]


def write(
    folder: Path, tiny_model: Path, judged: list[Judged], card: dict[str, Any] | None = None, **texts: str
) -> Page:
    tokenizer = load_tokenizer(tiny_model)
    write_report(folder, card or card_of(judged), comparisons_of(judged, tokenizer, **texts), judged, tokenizer)
    return Page((folder / "report.html").read_text(encoding="utf-8"))


def test_the_verdict_comes_first_and_agrees_with_the_gate(tiny_model: Path, tmp_path: Path) -> None:
    good, bad = judgements(), judgements(skill=0.0)
    assert verdict(card_of(good))[0]
    assert not verdict(card_of(bad))[0]
    assert "Better than judging by length" in write(tmp_path, tiny_model, good).text
    page = write(tmp_path, tiny_model, bad)
    assert page.text.index("Not shown to be better than judging by length") < page.text.index("Pictures")
    assert "is not clearly above" in page.text


def test_what_rows_say_is_text_and_never_markup(tiny_model: Path, tmp_path: Path) -> None:
    judged = judgements(sources=2)
    judged = [
        Judged(one.scores, one.lengths, one.pairs, source=HOSTILE) if number % 2 else one
        for number, one in enumerate(judged)
    ]
    card = card_of(judged, ref=HOSTILE)
    page = write(tmp_path, tiny_model, judged, card, prompt=HOSTILE + "\u202e", answer=HOSTILE)
    assert HOSTILE + "<U+202E>" in page.text
    assert page.text.count(HOSTILE) >= 3
    assert not {"script", "img", "iframe", "link", "object"} & set(page.tags)
    assert not [name for name, _ in page.attributes if name.startswith("on")]


def test_the_page_reaches_nothing_outside_and_every_colour_is_a_variable(tiny_model: Path, tmp_path: Path) -> None:
    write(tmp_path, tiny_model, judgements(sources=2))
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "default-src 'none'" in html
    outside = set(re.findall(r"https?://[^\s\"'<)]+", html))
    assert all(url.startswith("http://www.w3.org/") for url in outside)
    assert set(re.findall(r"var\(--([\w-]+)\)", html)) <= set(re.findall(r"--([\w-]+):", html))
    assert html.count("<svg") == 6  # accuracy, reliability, margins, scores, sources, length


def test_the_pairs_that_are_most_wrong_come_in_that_order_and_none_that_is_right(
    tiny_model: Path, tmp_path: Path
) -> None:
    judged = judgements(60, skill=0.5, answers=3)
    page = write(tmp_path, tiny_model, judged)
    pairs = [json.loads(line) for line in (tmp_path / "pairs.jsonl").read_text().splitlines()]
    assert len(pairs) == 120
    margins = sorted(pair["margin"] for pair in pairs)[:WORST]
    assert margins[-1] < 0
    shown = re.findall(r"People (?:chose|rejected)score (-?[\d.]+)", page.text)
    found = [float(chosen) - float(rejected) for chosen, rejected in zip(shown[::2], shown[1::2], strict=True)]
    assert found == pytest.approx(margins, abs=0.011)


def test_without_a_mistake_there_is_none_to_show(tiny_model: Path, tmp_path: Path) -> None:
    page = write(tmp_path, tiny_model, judgements(skill=50.0))
    assert "No pair has its rejected answer ahead" in page.text
    assert "No temperature improves its probabilities" in page.text


def test_what_cannot_be_computed_is_a_dash(tiny_model: Path, tmp_path: Path) -> None:
    judged = [Judged([1.0, 0.0], [4, 4], [(0, 1)])]
    card = card_of(judged, stability={"batch": {**SAME, "order_flips": None}, "format": None})
    page = write(tmp_path, tiny_model, judged, card)
    assert "took the longer one in - of the pairs; the reward model does in -" in page.text
    assert "weights in 4 bits" in page.text
    assert "Spearman - within prompts" in summary_text(card)


def test_card_json_holds_every_figure_and_the_summary_the_short_form(tiny_model: Path, tmp_path: Path) -> None:
    judged = judgements()
    card = card_of(judged)
    write(tmp_path, tiny_model, judged, card)
    assert json.loads((tmp_path / "card.json").read_text()) == json.loads(json.dumps(card))
    text = (tmp_path / "summary.txt").read_text()
    assert text.startswith("PPO may use it: it orders ")
    assert f"{card['accuracy']:.3f}  ({card['accuracy_low']:.3f} to {card['accuracy_high']:.3f}, wilson)" in text
    assert "batches of 1 and 8 0.0%, fp32 and bf16 25.0%" in text


def test_long_texts_are_cut_and_say_by_how_much() -> None:
    assert cut("x" * 30, 30) == "x" * 30
    assert cut("x" * 37, 30) == "x" * 30 + " … (7 more characters)"
