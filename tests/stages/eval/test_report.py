from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from ftcli.metrics.pages import visible
from ftcli.stages.eval.report import chosen, render_report
from tests.stages.eval.result import small_result, small_samples

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>"


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


def test_what_a_model_wrote_is_text_and_never_markup():
    page = Page(render_report(small_result(), small_samples(HOSTILE)))
    assert HOSTILE in page.text
    assert not {"script", "img", "iframe", "link", "object"} & set(page.tags)
    assert not [name for name, _ in page.attributes if name.startswith("on")]


@pytest.mark.parametrize("where", ["label", "ref", "prompt", "reference", "fact"])
def test_names_and_data_are_escaped_too(where: str):
    result, samples = small_result(), small_samples()
    if where == "label":
        for part in ("models", "artifacts"):
            result[part] = {HOSTILE if key == "lora" else key: value for key, value in result[part].items()}
        result["comparisons"] = [{**entry, "model": HOSTILE} for entry in result["comparisons"]]
        samples = [
            {**row, "models": {"base": row["models"]["base"], HOSTILE: row["models"]["lora"]}} for row in samples
        ]
    elif where == "ref":
        result["data"]["ref"] = HOSTILE
    elif where == "prompt":
        samples[0]["prompt"][0]["content"] = HOSTILE
    elif where == "reference":
        samples[0]["reference"] = HOSTILE
    else:
        result["artifacts"]["lora"]["facts"]["source"] = HOSTILE
    page = Page(render_report(result, samples))
    assert HOSTILE in page.text
    assert not {"script", "img"} & set(page.tags)


def test_the_page_loads_nothing_and_says_so_to_the_browser():
    html = render_report(small_result(), small_samples())
    page = Page(html)
    policy = next(value for _, value in page.attributes if value and "default-src" in value)
    assert "default-src 'none'" in policy
    assert "script-src" not in policy
    assert {name for name, value in page.attributes if value and value.startswith(("http", "//"))} <= {
        "xmlns",
        "xmlns:xlink",
    }
    assert all(
        target.startswith("#") for name, target in page.attributes if target and name in ("href", "src", "xlink:href")
    )
    assert not re.search(r"url\((?!#)|@import", html)


def test_light_and_dark_define_the_same_colours():
    html = render_report(small_result(), small_samples())
    light, dark = (set(re.findall(r"(--\w+):", block)) for block in re.findall(r":root \{(.*?)\}", html, re.DOTALL))
    assert light == dark
    assert set(re.findall(r"var\((--\w+)\)", html)) <= light


def test_figures_intervals_and_verdicts_are_on_the_page():
    text = Page(render_report(small_result(), small_samples())).text
    for found in (
        "45.90",
        "17.10",
        "\u00d70.373 [0.273, 0.473]",
        "within noise, p 0.4",
        "517 MiB",
        "1 min 01 s",
        "sha256:33",
    ):
        assert found in text
    assert "1 better, 0 worse, 1 within noise" in " ".join(text.split())  # headline metrics; empty answers are none


def test_the_policy_panel_shows_what_ppo_measured_and_the_change_from_its_start():
    result = small_result()
    result["artifacts"]["lora"]["facts"] |= {"eval/score_before": -0.6, "eval/score_after": 0.01, "eval/kl": 1.83}
    result["artifacts"]["lora"]["start"] = "base"
    for figures in result["models"].values():
        figures["reward_sampled"] = dict(figures["rougeL"])
    result["comparisons"].append({**result["comparisons"][1], "metric": "reward_sampled", "change": 0.61, "se": 0.07})
    text = " ".join(Page(render_report(result, small_samples())).text.split())
    assert "What reinforcement did: lora" in text
    assert "Mean score before-0.6Mean score after0.01KL from the start, nats an answer1.83" in text
    assert "Here, against base, which it started from Reward, sampled+0.610" in text
    assert "standard error 0.070" in text


def test_no_policy_panel_without_reinforcement():
    assert "What reinforcement did" not in render_report(small_result(), small_samples())


def test_curves_are_drawn_where_facts_have_them():
    result = small_result()
    plain = Page(render_report(result, small_samples())).tags.count("svg")
    result["artifacts"]["lora"]["facts"]["curves"] = {"train/loss": [[1, 4.5], [2, 3.0]]}
    page = Page(render_report(result, small_samples()))
    assert page.tags.count("svg") == plain + 1
    assert "train/loss" in page.text


def test_one_model_alone_has_a_report():
    result = small_result()
    result["models"].pop("lora")
    result["artifacts"].pop("lora")
    result["comparisons"] = []
    samples = [{**row, "models": {"base": row["models"]["base"]}} for row in small_samples()]
    text = Page(render_report(result, samples)).text
    assert "1 model on the same 9 held-out rows" in text
    assert "Differences" not in text


def test_a_report_of_perplexity_alone_has_no_answers_and_no_health():
    result = small_result()
    result["models"] = {label: {"perplexity": own["perplexity"]} for label, own in result["models"].items()}
    result["comparisons"] = result["comparisons"][:1]
    samples = [{**row, "models": {"base": {}, "lora": {}}} for row in small_samples()]
    text = Page(render_report(result, samples)).text
    assert "Answers side by side" not in text
    assert "Health of the answers" not in text


def test_samples_are_taken_at_even_distances_of_the_answered_rows():
    rows = small_samples()
    assert [row["id"] for row in chosen(rows, 8, 4)] == ["row-0", "row-2", "row-4", "row-6"]
    assert [row["id"] for row in chosen(rows, 2, 4)] == ["row-0", "row-1"]
    assert chosen(rows, 8, 0) == []


def test_characters_that_hide_or_turn_text_are_shown():
    assert visible("a\u202eb\x00\tc\n") == "a<U+202E>b<U+0000>\tc\n"
