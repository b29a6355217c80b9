from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import shutil
import subprocess
from collections import Counter
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from resiliparse.parse.html import HTMLTree

from ftcli.metrics.pages import visible
from ftcli.stages.eval.report import render_report
from ftcli.stages.eval.tables import STATUSES, amount, number
from tests.stages.eval.result import (
    CHINESE,
    HOSTILE,
    RIGHT_TO_LEFT,
    compared,
    only,
    rich_result,
    rich_samples,
    small_result,
    small_samples,
)

CHROMIUM = shutil.which("chromium")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH")
VOID = {"meta", "br", "line", "circle", "rect", "img", "path", "use"}


class Page(HTMLParser):
    """Tags and attributes of a page, the text between them, and what was not closed in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.pieces: list[str] = []
        self.open: list[str] = []
        self.unclosed: list[str] = []
        self.feed(html)
        self.text = "".join(self.pieces)
        self.words = " ".join(" ".join(self.pieces).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        if tag in VOID:
            return
        if not self.open or self.open.pop() != tag:
            self.unclosed.append(tag)

    def handle_data(self, data: str) -> None:
        self.pieces.append(data)


def dump(folder: Path, name: str, *options: str) -> str:
    """The page's document after its scripts ran."""
    command = [
        str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}",
        "--virtual-time-budget=3000", *options, "--dump-dom", (folder / name).as_uri(),
    ]  # fmt: skip
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120, check=True, env={**os.environ, "HOME": str(folder)}
    )
    return done.stdout


@pytest.fixture(scope="module")
def rich_html() -> str:
    return render_report(rich_result(), rich_samples())


@pytest.fixture(scope="module")
def rich(rich_html: str) -> Page:
    return Page(rich_html)


# ---- nothing that is shown can act


def test_what_a_model_wrote_is_text_and_the_only_script_is_the_pages_own():
    html = render_report(small_result(), small_samples(HOSTILE))
    page = Page(html)
    assert HOSTILE in page.text
    assert page.tags.count("script") == 1
    assert not {"img", "iframe", "link", "object"} & set(page.tags)
    assert not [name for name, _ in page.attributes if name.startswith("on")]


PLACES = {
    "label": None,
    "data": lambda result: result["data"].__setitem__("ref", HOSTILE),
    "fact": lambda result: result["artifacts"]["lora"]["facts"].__setitem__("source", HOSTILE),
    "gate": lambda result: result["gate"]["results"][1].__setitem__("message", HOSTILE),
    "rule": lambda result: result["gate"]["results"][1].__setitem__("text", HOSTILE),
    "reason": lambda result: result["comparisons"][22].update(
        {"reason": HOSTILE, "status": "not evaluable", "ci": None}
    ),
    "metric": lambda result: result["metrics"]["custom.polite"].update({"title": HOSTILE, "help": HOSTILE}),
    "judge": lambda result: result["judges"][1].__setitem__("who", HOSTILE),
    "why": lambda result: result["judges"][1].__setitem__("why", HOSTILE),
    "leakage": lambda result: result["leakage"].__setitem__("unknown", [HOSTILE]),
    "flag": lambda result: result["suites"][0]["uninformative"].__setitem__("general.facts_accuracy", HOSTILE),
    "signature": lambda result: result["models"]["base"]["bleu"].__setitem__("signature", HOSTILE),
    "setting": lambda result: result["settings"].__setitem__("judge_model", HOSTILE),
    "settings": lambda result: result["settings"].__setitem__("fail_if", [HOSTILE]),
}


@pytest.mark.parametrize("where", PLACES)
def test_names_and_data_are_escaped_too(where: str):
    result, samples = only(rich_result(), ("base", "lora")), small_samples()
    change = PLACES[where]
    if change is None:
        result = renamed(result, "lora", HOSTILE)
        samples = [
            {**row, "models": {"base": row["models"]["base"], HOSTILE: row["models"]["lora"]}} for row in samples
        ]
    else:
        change(result)
    page = Page(render_report(result, samples))
    shown = HOSTILE if where != "settings" else HOSTILE.replace("<", "\\u003c").replace(">", "\\u003e")
    assert shown.replace("'", "\\u0027") in page.text if where == "settings" else shown in page.text
    assert page.tags.count("script") == 1
    assert "img" not in page.tags


def renamed(result: dict[str, Any], old: str, new: str) -> dict[str, Any]:
    for part in ("models", "artifacts", "work"):
        result[part] = {new if label == old else label: value for label, value in result[part].items()}
    result["comparisons"] = [{**one, "model": new} for one in result["comparisons"]]
    result |= {"gate": None, "clean": None, "judges": []}
    return result


def test_the_page_loads_nothing_and_lets_run_its_own_script_alone(rich_html: str, rich: Page):
    html, page = rich_html, rich
    policy = next(value for _, value in page.attributes if value and "default-src" in value)
    (script,) = re.findall(r"<script>(.*?)</script>\n</body>", html, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy.split("; ") == [
        "default-src 'none'", "style-src 'unsafe-inline'", f"script-src 'sha256-{digest}'", "base-uri 'none'",
        "form-action 'none'",
    ]  # fmt: skip
    assert {name for name, value in page.attributes if value and value.startswith(("http", "//"))} <= {
        "xmlns",
        "xmlns:xlink",
    }
    assert all(
        target.startswith("#") for name, target in page.attributes if target and name in ("href", "src", "xlink:href")
    )
    assert not re.search(r"url\((?!#)|@import", html)


@needs_chromium
def test_no_script_of_a_model_runs_in_a_browser(tmp_path: Path, rich_html: str):
    (tmp_path / "report.html").write_text(rich_html, encoding="utf-8")
    dom = dump(tmp_path, "report.html")
    assert "<title>Evaluation of base, lora, ppo</title>" in dom
    assert dom.count("<script") == 1
    assert "<img" not in dom
    assert "&lt;script&gt;" in dom


def test_characters_that_hide_or_turn_text_are_shown():
    assert visible("a\u202eb\x00\tc\n") == "a<U+202E>b<U+0000>\tc\n"
    page = Page(render_report(small_result(), small_samples("pay\u202e1 dollar")))
    assert "pay<U+202E>1 dollar" in page.text


# ---- a page that is well made


@pytest.mark.parametrize("name", ["rich", "two", "small", "one"])
def test_every_element_is_closed_and_a_browser_moves_none(name: str):
    html = PAGES[name]()
    page = Page(html)
    assert not page.unclosed
    assert not page.open
    # a parser that repairs a page drops, moves or adds elements
    tree = HTMLTree.parse(html).document
    assert len(tree.query_selector_all("*")) == len(page.tags)
    assert {tag: len(tree.query_selector_all(tag)) for tag in page.tags} == Counter(page.tags)


PAGES = {
    "rich": lambda: render_report(rich_result(), rich_samples()),
    "two": lambda: render_report(only(rich_result(), ("base", "lora")), rich_samples()),
    "small": lambda: render_report(small_result(), small_samples()),
    "one": lambda: render_report(only(small_result(), ("base",)), small_samples()),
}


def test_no_name_of_an_element_is_given_twice(rich_html: str):
    ids = re.findall(r'<(?:h2|table|section)[^>]* id="([^"]*)"', rich_html)
    assert len(ids) == len(set(ids))


def test_light_and_dark_and_print_define_the_colours_that_are_used(rich_html: str):
    blocks = [set(re.findall(r"(--\w+):", block)) for block in re.findall(r":root \{(.*?)\}", rich_html, re.DOTALL)]
    assert len(blocks) == 3
    assert all(block == blocks[0] for block in blocks)
    assert set(re.findall(r"var\((--\w+)\)", rich_html)) <= blocks[0] | {"--tone"}


# ---- in a browser

ORDER = "[...d.querySelectorAll('#all tbody th code')].map(x => x.textContent)"
MARKED = "[...d.querySelectorAll('[aria-sort]')].map(x => x.cellIndex + x.getAttribute('aria-sort'))"
CLICK = """(() => {
    const seen = [];
    for (const turn of [1, 2]) {
        const button = d.querySelector('#cost thead th:nth-child(5) button');
        button.click();
        seen.push([button.type, w.location.hash, ...[...d.querySelectorAll('#cost tbody th')].map(x => x.textContent)]);
    }
    return seen;
})()"""
SORTED = {f"{column},{way}": f"#sort=all,{column},{way}" for column in (0, 3, 4) for way in ("ascending", "descending")}
WRONG = ("#sort=all,2,ascending", "#sort=none,0,ascending", "#sort=all,99,ascending", "#x")
ASKED = {
    "width": ("", "d.documentElement.scrollWidth"),
    "click": ("", CLICK),
    **{name: (fragment, f"[{ORDER}, {MARKED}]") for name, fragment in SORTED.items()},
    **{fragment: (fragment, f"[{ORDER}, {MARKED}]") for fragment in WRONG},
}
"""What a browser is asked: a fragment of the page's address, and an expression over its window ``w`` and document ``d``."""


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Each question of `ASKED` in a frame of its own, as wide as a phone."""
    if CHROMIUM is None:
        pytest.skip("no chromium on PATH")
    folder = tmp_path_factory.mktemp("browser")
    (folder / "report.html").write_text(render_report(demanding_result(), demanding_samples()), encoding="utf-8")
    questions = json.dumps([[name, fragment] for name, (fragment, _) in ASKED.items()])
    functions = ", ".join(f"(w, d) => {expression}" for _, expression in ASKED.values())
    (folder / "frames.html").write_text(f"""<!doctype html><title></title><script>
const functions = [{functions}];
const found = {{}};
const load = ([name, fragment], place) => new Promise((done) => {{
    const frame = document.createElement("iframe");
    frame.style = "width: 390px; height: 800px";
    frame.onload = () => {{
        found[name] = functions[place](frame.contentWindow, frame.contentDocument);
        frame.remove();
        done();
    }};
    frame.src = "report.html" + fragment;
    document.body.append(frame);
}});
onload = async () => {{
    for (const [place, question] of {questions}.entries()) await load(question, place);
    document.body.textContent = JSON.stringify(found);
}};
</script><body></body>""")
    dom = dump(folder, "frames.html", "--allow-file-access-from-files", "--virtual-time-budget=60000")
    return dict(json.loads(unescape(re.findall(r"<body>(.*)</body>", dom, re.DOTALL)[0])))


def demanding_result() -> dict[str, Any]:
    """Names and paths without a space to break at, and one change that is surer than all others in either direction."""
    result = rich_result()
    result["metrics"]["custom.polite"]["title"] = "custom.a_function_with_a_very_long_name_without_a_single_space"
    result["data"]["ref"] = "/a/very/long/path" * 20
    for one in result["comparisons"]:
        if (one["metric"], one["model"]) == ("general.nll", "lora"):
            one |= {"change": 0.5, "ci": [0.499, 0.501]}
        if (one["metric"], one["model"], one["against"]) == ("reward_sampled", "ppo", "base"):
            one |= {"change": 5.0, "ci": [4.99, 5.01]}
    return result


def demanding_samples() -> list[dict[str, Any]]:
    samples = rich_samples()
    samples[0]["models"]["lora"]["greedy"]["text"] = "x" * 600
    return samples


def test_a_phone_shows_the_page_without_scrolling_sideways(answers: dict[str, Any]):
    assert answers["width"] <= 390


@pytest.mark.parametrize(
    ("column", "first"),
    [
        ("0,ascending", "general.nll"),
        ("0,descending", "general.kl"),
        ("3,ascending", "general.nll"),
        ("4,descending", "reward_sampled"),
    ],
)  # "All probes" and "Token KL" by name; by a model the surest loss or gain
def test_tables_sort_as_the_address_says(answers: dict[str, Any], column: str, first: str):
    order, marked = answers[column]
    assert order[0] == first
    assert sorted(order) == sorted(rich_result()["metrics"])
    assert marked == [column.replace(",", "")]


@pytest.mark.parametrize("column", ["3,ascending", "3,descending", "4,ascending", "4,descending"])
def test_what_has_nothing_to_sort_by_stays_last(answers: dict[str, Any], column: str):
    order, _ = answers[column]
    label = {"3": "lora", "4": "ppo"}[column[0]]
    metrics = rich_result()["metrics"]
    known = {
        one["metric"]
        for one in rich_result()["comparisons"]
        if (one["model"], one["against"]) == (label, "base")
        and one["ci"]
        and metrics[one["metric"]]["higher_is_better"] is not None
    }
    assert set(order[: len(known)]) == known


def test_a_click_sorts_and_a_second_one_turns_the_order(answers: dict[str, Any]):
    # 22 MiB twice, which keep their order, and 517 MiB
    assert answers["click"] == [
        ["button", "#sort=cost,4,ascending", "lora", "ppo", "base"],
        ["button", "#sort=cost,4,descending", "base", "lora", "ppo"],
    ]


@pytest.mark.parametrize("fragment", WRONG)
def test_an_address_that_names_no_sortable_column_changes_nothing(answers: dict[str, Any], fragment: str):
    assert answers[fragment] == [list(rich_result()["metrics"]), []]


def test_without_scripts_the_heads_are_plain_text(rich: Page):
    assert "button" not in rich.tags


# ---- the figures


def test_every_value_and_every_change_of_the_result_is_on_the_page(rich: Page):
    result, words = rich_result(), rich.words
    for own in result["models"].values():
        for name, figure in own.items():
            assert number(result["metrics"][name], figure["value"]) in words
    for one in result["comparisons"]:
        if one["change"] is not None:
            metric = result["metrics"][one["metric"]]
            low, high = (amount(one, metric, value).lstrip("\u00d7") for value in one["ci"])
            assert f"{amount(one, metric, one['change'])} [{low}, {high}]" in words


def test_figures_that_were_worked_out_by_hand_are_on_the_page(rich: Page):
    words = rich.words
    for found in (
        "\u00d70.373 [0.351, 0.398]",
        "+0.067 [+0.024, +0.110]",
        "p 0.0021",
        "200 rows show a change of 9.0 % or more.",
        "A change of the margin, 0.010, needs about 961 rows.",
        "517 MiB",
        "1 min 01 s",
        "30 min 34 s",
        "sha256:33",
        "0 computed, 300 from the cache",
        "3 rows left out",
        "10,000 bootstrap draws",
    ):
        assert found in words, found


@pytest.mark.parametrize("status", STATUSES)
def test_every_status_is_shown_in_words_and_by_its_class(status: str, rich_html: str):
    assert f'<li class="{status.replace(" ", "-")}">' in rich_html
    assert f'<span class="chip {status.replace(" ", "-")}">{status}</span>' in rich_html


def test_the_verdict_is_the_first_thing_after_the_heading(rich: Page):
    words = rich.words
    assert "Gate failed Of 5 checks: 2 failed, 1 not evaluable, 1 inconclusive, 1 passed." in words
    assert words.index("Gate failed") < words.index("What this run can and cannot detect") < words.index("Changes")


def test_without_a_gate_the_counts_say_how_it_went():
    words = Page(render_report(small_result(), small_samples())).words
    assert "No gate was set" in words
    assert "lora 2 improved 1 regressed 1 inconclusive 1 changed" in words


def test_the_suite_shows_loss_beside_accuracy_and_what_says_nothing(rich: Page):
    words = rich.words
    assert "What was forgotten: general 250 items" in words
    assert (
        "Facts accuracy is uninformative: base at chance (0.27 of 0.25) 1.010 [0.950, 1.070] 1.180 ▼ regressed" in words
    )
    assert "Code 0.880 [0.840, 0.920] 0.881 = equivalent 0.870 [0.830, 0.910] -" in words
    assert "lora 0.0312, ppo 0.1875" in words


def test_an_unfit_judge_is_shown_with_its_reason(rich: Page):
    words = rich.words
    assert "Judge: language model unfit position consistency 0.10, at least 0.60 needed. Its verdicts decide" in words
    assert "62.0% [57.0%, 67.0%] · at equal length 51%" in words
    assert "Same verdict in both orders 10%" in words
    assert "Rank correlation with length +0.31" in words


def test_leakage_is_told_with_the_same_changes_on_clean_rows(rich: Page):
    words = rich.words
    assert "No held-out row is in the known training data word for word. 2 overlap" in words
    assert "The same on 180 clean rows" in words
    assert "ROUGE-L lora +0.049 [+0.028, +0.071] improved +0.012 [-0.011, +0.036] inconclusive" in words
    result = only(rich_result(), ("base", "lora"))
    result["leakage"] |= {"exact": 3, "near": 0, "examples": []}
    assert "3 of 200 held-out rows are in the training data." in Page(render_report(result, rich_samples())).words


def test_what_was_not_checked_for_leakage_is_not_called_clean():
    result = small_result()
    result["leakage"] = {"checked": [], "exact": 0, "near": 0, "examples": [], "unknown": ["base: from elsewhere"]}
    words = Page(render_report(result, small_samples())).words
    assert "Nothing could be checked: what the models were trained on is not known. Not known base: from" in words
    assert "No held-out row" not in words


def test_rows_that_lost_most_stand_with_marked_words(rich_html: str):
    assert "With <del>readline</del>().</p>" in rich_html
    assert "With <ins>readlines</ins>().</p>" in rich_html
    assert "row-0</code>, shown above" in rich_html


def test_scripts_of_either_direction_are_set_as_they_are_read(rich_html: str):
    assert f'<p class="text" dir="auto">{RIGHT_TO_LEFT}</p>' in rich_html
    assert f'<p class="text" dir="auto">{CHINESE}</p>' in rich_html


def test_the_policy_panel_shows_what_ppo_measured_and_the_change_from_its_start(rich: Page):
    words = rich.words
    assert "What reinforcement did: ppo Here, against lora, which it started from Reward, sampled" in words
    assert "Mean score before -0.6 Mean score after 0.01 KL from the start, nats an answer 1.83" in words
    assert "What reinforcement did" not in Page(render_report(small_result(), small_samples())).words


def test_curves_are_drawn_where_facts_have_them():
    result = only(rich_result(), ("base", "ppo"))
    having = Page(render_report(result, rich_samples()))
    del result["artifacts"]["ppo"]["facts"]["curves"]
    without = Page(render_report(result, rich_samples()))
    assert having.tags.count("svg") == without.tags.count("svg") + 1
    assert "train/reward" in having.text
    assert "train/reward" not in without.text


# ---- less than everything


def test_one_model_alone_has_a_report():
    words = Page(render_report(only(small_result(), ("base",)), small_samples())).words
    assert "1 model on 200 held-out rows" in words
    assert "Changes" not in words
    assert "What this run can and cannot detect" not in words


def test_the_same_model_twice_is_drawn_in_the_middle():
    result = small_result()
    for one in result["comparisons"]:
        nothing = 1.0 if one["scale"] == "ratio" else 0.0
        one |= {
            "change": nothing,
            "ci": [nothing, nothing],
            "se": 0.0,
            "p": 1.0,
            "mde": nothing,
            "status": "equivalent",
        }
    html = render_report(result, small_samples())
    assert set(re.findall(r'<circle cx="([\d.]+)%"', html)) == {"50.00"}
    assert 'data-order="0.0"' in html


def test_a_report_of_perplexity_alone_has_no_answers_and_no_health():
    result = small_result()
    result["models"] = {label: {"perplexity": own["perplexity"]} for label, own in result["models"].items()}
    result["metrics"] = {"perplexity": result["metrics"]["perplexity"]}
    result["comparisons"] = result["comparisons"][:1]
    samples = [{**row, "models": {"base": {}, "lora": {}}} for row in small_samples()]
    words = Page(render_report(result, samples)).words
    assert "Health of the answers" not in words
    assert "Rows that lost most" not in words


def test_values_that_do_not_exist_are_a_dash():
    result = small_result()
    result["models"]["lora"]["rougeL"] |= {"value": None, "ci": None, "se": None}
    nothing = compared("lora", "base", "rougeL", None, None, None, None, "not evaluable") | {"reason": "NaN"}
    result["comparisons"] = [nothing if one["metric"] == "rougeL" else one for one in result["comparisons"]]
    words = Page(render_report(result, small_samples())).words
    assert "ROUGE-L NaN not evaluable" in words


def test_the_same_result_gives_the_same_bytes(rich_html: str):
    assert render_report(rich_result(), rich_samples()) == rich_html
