from __future__ import annotations

import copy
import json
import os
import re
import shutil
import subprocess
import tracemalloc
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from ftcli.core.errors import BadData
from ftcli.metrics.pages import visible
from ftcli.metrics.plots import histogram, tick_values
from ftcli.stages.prep.report.lights import lights
from ftcli.stages.prep.report.markdown import escape, markdown
from ftcli.stages.prep.report.masking import masked
from ftcli.stages.prep.report.shown import choose
from ftcli.stages.prep.report.text import count, one_line, share, tally
from ftcli.stages.prep.report.write import write_report
from tests.stages.prep.report_folder import CONFLICTS, FLAGS, PAIRS, REJECTS, STATS, Json, pair, stats, write_folder

HOSTILE = "<script>document.title='x'</script><img src=x onerror=alert(2)>"
CHROMIUM = shutil.which("chromium")


class Page(HTMLParser):
    """Tags and attributes of a page, and the text between them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.pieces: list[str] = []
        self.feed(html)
        self.text = "".join(self.pieces)
        self.words = " ".join(" ".join(self.pieces).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.pieces.append(data)


def html_of(folder: Path, *arguments: Any, **records: Any) -> str:
    write_report(write_folder(folder, *arguments, **records))
    return (folder / "report.html").read_text(encoding="utf-8")


# ---- nothing that is shown can act


def put(figures: Json, *path: Any, text: str = HOSTILE) -> Json:
    """``figures`` with a text at ``path``."""
    *parents, last = path
    inner: Any = figures
    for name in parents:
        inner = inner[name]
    inner[last] = text
    return figures


FIGURE_PATHS: list[tuple[Any, ...]] = [
    ("sources", 0, "label"),
    ("sources", 0, "ref"),
    ("sources", 0, "format"),
    ("notes", 0),
    ("files", 0, "file"),
    ("ledger", 0, "step"),
    ("contamination", 0, "label"),
    ("pii", "samples", 0, "masked"),
    ("gates", 0, "name"),
    ("representativeness", "classifier", "missing", 0, "ngram"),
    ("representativeness", "coverage", "least_covered", 0, "text"),
    ("representativeness", "categories", "language", "table", 0, "value"),
    ("diversity", "phrases", 0, "text"),
    ("consistency", "minorities", 0, "examples", 0, "file"),
]


def test_text_in_the_figures_is_shown_and_never_markup(tmp_path: Path):
    figures = stats()
    for number, path in enumerate(FIGURE_PATHS):
        put(figures, *path, text=f"{HOSTILE}{number}.")
    assert_inert(html_of(tmp_path, figures), [f"{HOSTILE}{number}." for number in range(len(FIGURE_PATHS))])


@pytest.mark.parametrize(("section", "name"), [("languages", "en"), ("flags", "boilerplate"), ("splits", "test")])
def test_names_of_figures_are_shown_and_never_markup(tmp_path: Path, section: str, name: str):
    figures = stats()
    figures[section] = {(HOSTILE if key == name else key): value for key, value in figures[section].items()}
    page = Page(html_of(tmp_path, figures))
    assert HOSTILE[:20] in page.text
    assert not {"script", "img"} & set(page.tags)


RECORD_PATHS: dict[str, tuple[Json, list[tuple[Any, ...]]]] = {
    "rejects": (REJECTS[0], [("raw",), ("detail",), ("file",)]),
    "flags": (FLAGS[0], [("detail",), ("file",)]),
    "pairs": (PAIRS[20], [("file",), ("kept_file",), ("action",)]),
    "conflicts": (CONFLICTS[0], [("prompt",), ("action",), ("answers", 1, "text"), ("answers", 1, "rows", 0, "file")]),
}


@pytest.mark.parametrize("name", RECORD_PATHS)
def test_text_from_rows_and_files_is_shown_and_never_markup(tmp_path: Path, name: str):
    record, paths = copy.deepcopy(RECORD_PATHS[name])
    for number, path in enumerate(paths):
        put(record, *path, text=f"{HOSTILE}{number}.")
    assert_inert(html_of(tmp_path, **{name: [record]}), [f"{HOSTILE}{number}." for number in range(len(paths))])


def test_the_words_of_a_pair_are_shown_and_never_markup(tmp_path: Path):
    assert_inert(html_of(tmp_path, pairs=[{**PAIRS[20], "text": HOSTILE, "kept_text": f"not {HOSTILE}"}]), [HOSTILE])


def assert_inert(html: str, texts: list[str]) -> None:
    page = Page(html)
    assert [text for text in texts if text not in page.text] == []
    assert not {"script", "img", "iframe", "link", "object", "base", "form"} & set(page.tags)
    assert not [name for name, _ in page.attributes if name.startswith("on")]


def test_the_page_loads_nothing_and_says_so_to_the_browser(tmp_path: Path):
    html = html_of(tmp_path)
    page = Page(html)
    policy = next(value for _, value in page.attributes if value and "default-src" in value)
    assert "default-src 'none'" in policy
    assert "script-src" not in policy
    outside = {name for name, value in page.attributes if value and value.startswith(("http", "//"))}
    assert outside <= {"xmlns", "xmlns:xlink"}
    targets = [value for name, value in page.attributes if value and name in ("href", "src", "xlink:href")]
    assert all(target.startswith("#") for target in targets)
    ids = {value for name, value in page.attributes if name == "id"}
    assert {target[1:] for target in targets} <= ids
    assert not re.search(r"url\((?!#)|@import", html)


def test_an_address_in_a_row_stays_text(tmp_path: Path):
    html = html_of(tmp_path, rejects=[{**REJECTS[0], "raw": "see https://host.org/x"}])
    page = Page(html)
    assert "see https://host.org/x" in page.text
    assert not any("host.org" in (value or "") for _, value in page.attributes)


def test_hidden_and_broken_characters_are_shown(tmp_path: Path):
    figures = stats()
    figures["notes"] = ["pay \u202e001", "na\udcefve.jsonl"]
    folder = write_folder(tmp_path, rejects=[{**REJECTS[0], "raw": "a\x00b\u200bc"}])
    text = json.dumps(figures, ensure_ascii=False)
    (folder / "stats.json").write_text(text, encoding="utf-8", errors="surrogateescape")
    write_report(folder)
    shown = Page((folder / "report.html").read_text(encoding="utf-8")).text
    for expected in ("pay <U+202E>001", "na\\udcefve.jsonl", "a<U+0000>b<U+200B>c"):
        assert expected in shown
    assert "na\\udcefve.jsonl" in (folder / "summary.txt").read_text(encoding="utf-8")


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH")
def test_a_browser_runs_nothing_of_a_row(tmp_path: Path):
    rejects = [{**REJECTS[0], "raw": HOSTILE, "file": HOSTILE}]
    html_of(tmp_path, put(stats(), "notes", 0), rejects=rejects, pairs=[{**PAIRS[20], "text": HOSTILE}])
    command = [
        str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}",
        "--virtual-time-budget=2000", "--dump-dom", (tmp_path / "report.html").as_uri(),
    ]  # fmt: skip
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120, check=True, env={**os.environ, "HOME": str(tmp_path)}
    )
    title = re.search(r"<title>(.*?)</title>", done.stdout)
    assert title is not None
    assert title[1] == "Preparation of alpaca, support"
    assert "<script" not in done.stdout
    assert done.stdout.count("&lt;script&gt;document.title") == 3  # in a pair, its words are marked one by one


# ---- personal data

SECRET = "AKIAQ3EGRZ7XK2M5PVJB"
RAW_VALUES = f"write to jane.doe@corp-mail.de, key {SECRET}"


@pytest.mark.parametrize("where", ["raw", "detail", "pair", "conflict", "prompt", "reference"])
def test_personal_data_and_secrets_never_reach_the_report(tmp_path: Path, where: str):
    figures, records = stats(), {}
    if where in ("raw", "detail"):
        records["rejects"] = [{**REJECTS[0], where: RAW_VALUES}]
    elif where == "pair":
        records["pairs"] = [{**PAIRS[20], "text": RAW_VALUES}]
    elif where == "reference":
        figures["representativeness"]["coverage"]["least_covered"][0]["text"] = RAW_VALUES
    else:
        conflict = copy.deepcopy(CONFLICTS[0])
        (conflict if where == "prompt" else conflict["answers"][0])["prompt" if where == "prompt" else "text"] = (
            RAW_VALUES
        )
        records["conflicts"] = [conflict]
    page = Page(html_of(tmp_path, figures, **records))
    assert "write to j***@c***.de, key ***" in page.text
    for name in ("report.html", "report.md", "summary.txt"):
        written = (tmp_path / name).read_text(encoding="utf-8")
        assert "jane.doe" not in written
        assert SECRET not in written


def test_a_text_that_was_cut_loses_the_word_that_may_be_half_a_secret():
    assert masked("x" * 480 + f" {SECRET}"[:20]) == "x" * 480 + " …"
    assert masked("short AKIAQ3E") == "short AKIAQ3E"


# ---- what is shown


def test_each_reason_has_its_first_three_rows_by_place(tmp_path: Path):
    page = Page(html_of(tmp_path))
    for reason, rows in STATS["rejected"].items():
        assert f"{reason} {rows} rows" in page.words
        assert f"alpaca.jsonl:30 {reason} number 3" in page.words
        assert f'{{"instruction": "raw {reason} 3"' in page.text
        assert f"alpaca.jsonl:40 {reason} number 4" not in page.words


def test_raw_rows_are_cut(tmp_path: Path):
    html = html_of(tmp_path, rejects=[{**REJECTS[0], "raw": "word " * 800}])
    shown = re.search(r'<p class="raw">(.*?)</p>', html, re.DOTALL)
    assert shown is not None
    assert 500 < len(shown[1]) <= 600
    assert shown[1].endswith("…")


def test_the_pairs_nearest_to_the_threshold_are_shown_from_both_sides(tmp_path: Path):
    chosen = choose(write_folder(tmp_path), 0.9)
    # similarities run from 0.800 to 0.965 in steps of 0.005: ten below 0.9 are 0.850 to 0.895, ten from it on to 0.945
    assert [record["jaccard"] for record in chosen.pairs] == [round(0.945 - step * 0.005, 3) for step in range(20)]


def test_where_one_side_has_few_pairs_the_other_fills_up(tmp_path: Path):
    pairs = [pair(number, 0.81, "flagged") for number in range(30)] + [
        pair(40, 0.99, "removed"),
        pair(41, 0.92, "removed"),
    ]
    chosen = choose(write_folder(tmp_path, pairs=pairs), 0.9)
    assert [record["line"] for record in chosen.pairs] == [40, 41, *range(18)]  # equal ones by place


def test_words_that_one_side_lacks_are_marked(tmp_path: Path):
    html = html_of(tmp_path, pairs=[pair(3, 0.9, "removed")])
    assert "Give 3 tips <del>for staying</del> healthy." in html
    assert "Give 3 tips <ins>to stay</ins> healthy." in html


def test_contradictions_come_before_free_text(tmp_path: Path):
    words = Page(html_of(tmp_path)).words
    assert words.index("Is this spam?") < words.index("Name a city.")
    assert "support.csv:24 and 3 more" in words  # eight rows, five shown
    assert "support.csv:25" not in words


def test_what_is_beyond_twenty_answers_is_counted(tmp_path: Path):
    answer = {"text": "a", "count": 1, "rows": [{"file": "f", "line": 1}]}
    words = Page(html_of(tmp_path, conflicts=[{**CONFLICTS[0], "answers": [answer] * 8, "distinct": 31}])).words
    assert "26 more answers to this prompt" in words


def test_labels_of_completions_are_shown(tmp_path: Path):
    answers = [{"text": "Sure.", "count": 1, "rows": [], "label": label} for label in (True, False)]
    words = Page(html_of(tmp_path, conflicts=[{**CONFLICTS[1], "kind": "label", "answers": answers}])).words
    assert "labelled good" in words
    assert "labelled bad" in words


def test_figures_are_on_the_page(tmp_path: Path):
    words = Page(html_of(tmp_path)).words
    for expected in (
        "900 of 1,000 rows prepared",
        "near duplicates 928 907 21 near_duplicate 21",
        "max_auc 0.612 0.6 ✕ failed",
        "12 rows over max_length 512: truncate, 1,840 trained tokens lost.",
        "Whole row 150.50 40 300 900 135,450",
        "gsm8k_test 1,319 7 0",
        "pii:email 5 a***@e***.com",
        "validation 50 44 5.6 % 5.0 %",
        "0.612 0.500 ± 0.020",
        "excess 0.0400, p 0.005",
        "refund 0.20 % 9.0 %",
        "train 4 40 300 700",
        "12 rows on the smaller side, at least 30 needed",
        "as varied as 287 rows with nothing in common, of 600",
        "ends_with other 50 5.6 % alpaca.jsonl:17",
        "1 reference row that train covers least",
        "How do I return a kettle?",
    ):
        assert expected in words, expected


def test_a_category_that_all_rows_share_is_a_line_and_no_chart(tmp_path: Path):
    several = Page(html_of(tmp_path / "several"))
    one = Page(html_of(tmp_path / "one", stats() | {"turns": {"1": 900}}))
    assert one.tags.count("svg") == several.tags.count("svg") - 1
    assert "Answers in a conversation 1" in one.words


def test_a_length_bias_is_shown_for_preferences_only(tmp_path: Path):
    assert "Length bias" not in Page(html_of(tmp_path / "messages")).text
    bias = {"pairs": 200, "unit": "tokens", "mean_better": 80.0, "mean_worse": 50.0, "mean_difference": 30.0}
    bias |= {"share_longer": 0.7, "share_equal": 0.0, "pair_accuracy": 0.7, "auc": 0.66, "light": "amber"}
    words = Page(html_of(tmp_path / "pairs", stats() | {"preference": bias})).words
    assert "Length alone picks the better one 70.0 % of pairs; AUC 0.660 over all answers" in words


OPTIONAL = {
    "duplicates": "Near-duplicates were not looked for",
    "contamination": "No evaluation set was given",
    "conflicts": "Conflicts were not looked for",
    "pii": "Not looked for (pii, secrets)",
    "leakage": "Leakage was not looked for",
    "representativeness": "no sample of real use was given",
    "diversity": "Not measured",
    "consistency": "No answers to compare",
}


@pytest.mark.parametrize("section", OPTIONAL)
def test_a_section_that_is_absent_says_why(tmp_path: Path, section: str):
    assert OPTIONAL[section] not in Page(html_of(tmp_path / "with")).text
    assert OPTIONAL[section] in Page(html_of(tmp_path / "without", stats() | {section: None})).text


def test_near_duplicates_that_were_switched_off_are_not_counted_as_none(tmp_path: Path):
    figures = changed("duplicates", "policy", value="off")
    words = Page(html_of(tmp_path, figures, pairs=[])).words
    assert "Exact duplicates removed 40 Near-duplicates were not looked for" in words
    assert "40 exact removed, near ones not looked for" in words  # the light
    assert "near ones not looked for" in (tmp_path / "summary.txt").read_text(encoding="utf-8")


def test_a_preparation_of_nothing_much_has_a_report(tmp_path: Path):
    empty = {"mean": 0, "p50": 0, "p95": 0, "max": 0, "sum": 0, "histogram": {"edges": [], "counts": []}}
    bare = {
        **stats(),
        **dict.fromkeys(OPTIONAL),
        **{name: {} for name in ("rejected", "changed", "flags", "languages", "turns")},
        **{name: [] for name in ("notes", "files", "ledger", "gates", "contamination")},
        "rows_in": 900,
        "lengths": {
            "unit": "characters",
            "max_length": None,
            "too_long": None,
            "prompt": empty,
            "answer": empty,
            "total": empty,
        },
    }
    folder = tmp_path / "bare"
    folder.mkdir()
    (folder / "stats.json").write_text(json.dumps(bare))
    write_report(folder)
    words = Page((folder / "report.html").read_text(encoding="utf-8")).words
    assert "Refused rows None." in words
    assert "No row was changed." in words
    assert "Gate" not in words


def test_measures_that_could_not_be_taken_give_their_reason(tmp_path: Path):
    figures = stats()
    few = {"light": None, "reason": "7 rows on the smaller side, at least 30 needed"}
    found = figures["representativeness"]
    found["classifier"], found["divergence"], found["coverage"] = (
        {"auc": None, **few},
        {"jsd": None, **few},
        {"share": None, **few},
    )
    figures["diversity"]["vendi"] = {"value": None, "reason": "9 rows with words, at least 300 needed"}
    words = Page(html_of(tmp_path, figures)).words
    assert words.count("7 rows on the smaller side") == 4  # three measures, and the light at the head
    assert "not measured: 9 rows with words" in words


def test_the_same_files_give_the_same_bytes(tmp_path: Path):
    assert html_of(tmp_path / "one") == html_of(tmp_path / "two")


def test_light_and_dark_define_the_colours_that_are_used(tmp_path: Path):
    html = html_of(tmp_path)
    light, dark = (set(re.findall(r"(--\w+):", block)) for block in re.findall(r":root \{(.*?)\}", html, re.DOTALL))
    assert light == dark
    assert set(re.findall(r"var\((--\w+)\)", html)) <= light


# ---- long and broken files


def test_files_of_any_length_are_read_in_little_memory(tmp_path: Path):
    folder = write_folder(tmp_path, pairs=[pair(number, (number % 997) / 997, "flagged") for number in range(4_000)])
    line = (folder / "rejects.jsonl").read_bytes().splitlines(keepends=True)[0]
    (folder / "rejects.jsonl").write_bytes(line.replace(b"raw ", b"raw " * 1_000) * 4_000)  # 16 MB
    assert sum(path.stat().st_size for path in folder.iterdir()) > 16_000_000
    tracemalloc.start()
    try:
        chosen = choose(folder, 0.9)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1_000_000
    assert len(chosen.pairs) == 20


@pytest.mark.parametrize("name", ["rejects", "flags", "duplicates", "conflicts"])
def test_a_line_that_is_no_json_is_named(tmp_path: Path, name: str):
    folder = write_folder(tmp_path)
    path = folder / f"{name}.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines()
    path.write_text(f"{lines[0]}\n{lines[1][:-3]}\n")
    with pytest.raises(BadData, match=f"{name}.jsonl:2: no JSON"):
        write_report(folder)


@pytest.mark.parametrize("content", [None, "{"])
def test_stats_that_are_missing_or_torn_are_named(tmp_path: Path, content: str | None):
    if content is not None:
        (tmp_path / "stats.json").write_text(content)
    with pytest.raises(BadData, match=re.escape(f"{tmp_path / 'stats.json'}: ")) as caught:
        write_report(tmp_path)
    assert "ftcli prep" in caught.value.hint


# ---- lights


def changed(*path: Any, value: Any) -> Json:
    figures = stats()
    *parents, last = path
    inner: Any = figures
    for name in parents:
        inner = inner[name]
    inner[last] = value
    return figures


def cluster(rows: int, share: float) -> Json:
    return {"largest_cluster": rows, "largest_cluster_share": share}


@pytest.mark.parametrize(
    ("name", "figures", "level"),
    [
        ("Ledger", stats(), "good"),
        ("Ledger", changed("rows_out", value=899), "bad"),
        ("Ledger", changed("ledger", 1, "rows_out", value=967), "bad"),
        ("Malformed rows", changed("rejected", "parse_json", value=0), "good"),
        ("Malformed rows", changed("rejected", "parse_json", value=50), "look"),
        ("Malformed rows", changed("rejected", "parse_json", value=51), "bad"),
        ("Leakage", stats(), "good"),
        ("Leakage", changed("leakage", "exact_pairs", value=1), "bad"),
        ("Leakage", stats() | {"leakage": {**STATS["leakage"], "near_pairs": 1, "held_out_rows": 100}}, "look"),
        ("Leakage", stats() | {"leakage": {**STATS["leakage"], "near_pairs": 2, "held_out_rows": 100}}, "bad"),
        ("Leakage", changed("leakage", "held_out_rows", value=0), "none"),
        ("Duplicates", changed("duplicates", "near_removed", value=60), "good"),
        ("Duplicates", changed("duplicates", "near_removed", value=61), "look"),
        ("Duplicates", changed("duplicates", "near_removed", value=461), "bad"),
        ("Duplicates", stats() | {"duplicates": {**STATS["duplicates"], **cluster(60, 0.06)}}, "bad"),
        ("Duplicates", stats() | {"duplicates": {**STATS["duplicates"], **cluster(60, 0.05)}}, "good"),
        ("Duplicates", stats() | {"duplicates": {**STATS["duplicates"], **cluster(19, 0.06)}}, "good"),
        ("Conflicts", changed("conflicts", "hard", value=0), "good"),
        ("Conflicts", changed("conflicts", "hard", value=9), "look"),
        ("Conflicts", changed("conflicts", "cycles", value=8), "bad"),
        ("Conflicts", changed("conflicts", "policy", value="drop_all"), "good"),
        ("Personal data", stats(), "look"),
        ("Personal data", changed("pii", "policy", value="redact"), "good"),
        ("Personal data", changed("pii", "secrets_policy", value="flag"), "bad"),
        ("Personal data", stats() | {"pii": {**STATS["pii"], "policy": "off", "secrets_policy": "off"}}, "none"),
        ("Over-length", changed("lengths", "too_long", "rows", value=0), "good"),
        ("Over-length", changed("lengths", "too_long", "rows", value=50), "look"),
        ("Over-length", changed("lengths", "too_long", "rows", value=51), "bad"),
        ("Over-length", changed("lengths", "max_length", value=None), "none"),
        ("Representativeness", changed("representativeness", "classifier", "light", value="green"), "good"),
        ("Representativeness", changed("representativeness", "classifier", "light", value="red"), "bad"),
        ("Representativeness", changed("representativeness", "classifier", "light", value=None), "none"),
        ("Representativeness", changed("representativeness", value=None), "none"),
    ],
)  # fmt: skip
def test_a_light_follows_its_limits(name: str, figures: Json, level: str):
    assert {light.name: light.level for light in lights(figures)}[name] == level


# ---- the other files, and small things


def test_markdown_is_whole_whatever_names_hold(tmp_path: Path):
    figures = put(stats(), "sources", 0, "label")
    figures["sources"][1]["ref"] = "a | b\n# c"
    text = markdown(figures)
    assert "<" not in text
    assert "&lt;script>" in text
    assert "a \\| b \\# c" in text
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1


def test_markdown_has_no_text_of_rows(tmp_path: Path):
    html_of(tmp_path)
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "| near duplicates | near\\_duplicate 21 | 928 | 907 |" in text
    assert "raw parse" not in text
    assert "healthy" not in text


def test_addresses_and_mentions_do_not_become_links():
    assert escape("http://x.org @team `code`") == "http\\://x.org \\@team \\`code\\`"


@pytest.mark.parametrize(
    ("edges", "ticks"),
    [
        ([0, 10, 20, 30, 40], [0, 10, 20, 30, 40]),
        ([0, 33, 67, 100, 133, 167, 200], [0, 50, 100, 150, 200]),  # thirds, rounded
        ([0, 25, 50, 75, 100, 9000], [0, 25, 50, 75, 9000]),
        ([1, 2, 4, 8, 16, 32], [1, 4, 16]),
    ],
)
def test_ticks_of_a_histogram_are_round_or_edges(edges: list[float], ticks: list[float]):
    assert tick_values(edges) == ticks


def svg_texts(svg: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(svg).iter() if element.tag.endswith("text")]


def test_a_histogram_marks_the_limit_if_rows_come_near_it():
    def draw(limit: int | None) -> list[str]:
        return svg_texts(histogram([0, 100, 200, 3000], [5, 2, 1], limit=limit, x_label="tokens"))

    assert "max_length 2,048" in draw(2048)
    assert not [text for text in draw(4096) if text.startswith("max_length")]
    assert not [text for text in draw(None) if text.startswith("max_length")]
    assert {"tokens", "rows", "3,000"} <= set(draw(None))


def test_numbers_read_well():
    assert [count(value) for value in (0, 52002, 150.5, None)] == ["0", "52,002", "150.50", "-"]
    shares = [share(value) for value in (0, 0.00001, 0.0042, 0.5, 0.9999, 1, None)]
    assert shares == ["0.0 %", "< 0.01 %", "0.42 %", "50.0 %", "> 99.9 %", "100.0 %", "-"]
    assert tally({"b": 2, "a": 2, "c": 3, "d": 0}) == "c 3 · a 2 · b 2"
    assert tally({"a": 3, "b": 2, "c": 1}, shown=1) == "a 3 · 2 more 3"


def test_text_that_hides_is_shown_and_text_that_joins_is_left():
    assert visible("a\u202eb\x1b\ufeff\n\t") == "a<U+202E>b<U+001B><U+FEFF>\n\t"
    assert visible("\N{MAN}\u200d\N{PERSONAL COMPUTER} ä") == "\N{MAN}\u200d\N{PERSONAL COMPUTER} ä"
    assert one_line("one\n\n two  three", 9) == "one two…"
