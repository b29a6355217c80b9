from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from ftcli.core.errors import BadData
from ftcli.metrics.pages import visible
from ftcli.stages.ppo.panels import MOST_POINTS, panels, thinned
from ftcli.stages.ppo.report import SHOWN, answers_through_training, pieces, save_figures, series_of, write_report
from ftcli.stages.ppo.summary import sentence
from tests.stages.ppo.run_files import small_alarm, small_run, small_samples

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>"
HIDDEN = "\u202edetrever\u2066\x07"


class Page(HTMLParser):
    """Tags and attributes of a page, and the text between them in one line."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self._text = ""
        self.feed(html)
        self.text = " ".join(self._text.split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self._text += data


def write(folder: Path, **changed: Any) -> Page:
    save_figures(folder, **(small_run() | changed))
    write_report(folder)
    return Page((folder / "report.html").read_text(encoding="utf-8"))


def changes(score: float, low: float | None, high: float | None) -> dict[str, Any]:
    own = {"eval/score_change": score, "eval/score_change_low": low, "eval/score_change_high": high}
    return small_run()["changes"] | own


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of the small run as it is."""
    folder = tmp_path_factory.mktemp("report")
    write(folder)
    return folder


@pytest.fixture(scope="module")
def page(folder: Path) -> Page:
    return Page((folder / "report.html").read_text(encoding="utf-8"))


def test_the_verdict_comes_first_with_what_it_cost(folder: Path, page: Page) -> None:
    told = "The score rose from 0.350 to 0.833, at a KL of 4.25 nats an answer"
    assert page.text.index(told) < page.text.index("Before and after")
    assert "the same 6 held-out prompts before training and after 3 rollouts" in page.text
    assert "rule, not optimised 0.500 to 0.500: within noise" in page.text
    assert "Alarmsnone" in page.text
    assert (folder / "summary.txt").read_text().splitlines()[0] == told


@pytest.mark.parametrize(
    ("low", "high", "told"),
    [
        (0.01, 0.2, "The score rose"),
        (-0.3, -0.1, "The score fell"),
        (-0.1, 0.2, "did not change beyond chance"),
        (0.0, 0.2, "did not change beyond chance"),
        (None, None, "did not change beyond chance"),
    ],
)
def test_only_an_interval_on_one_side_of_zero_is_a_change(low: float | None, high: float | None, told: str) -> None:
    assert told in sentence(changes(0.1, low, high))


def test_every_reward_has_its_row_and_what_is_not_optimised_a_gap(folder: Path, page: Page) -> None:
    found, text = small_run()["changes"], page.text
    assert re.search(r"Score ?optimised0.350 ?0.833", text)
    assert re.search(r"rm ?part of the score0.250 ?0.733", text)
    assert re.search(r"rule ?not optimised0.500 ?0.500", text)
    assert f"{found['eval_reward/rule_gap']:+.2f}" in text
    summary = (folder / "summary.txt").read_text()
    assert "rule (not optimised)" in summary
    assert "no alarms" in summary


def test_alarms_are_told_with_their_hint(tmp_path: Path) -> None:
    alarm = small_alarm()
    page = write(tmp_path, alarms=[alarm])
    assert "After rollout 3: kl." in page.text
    assert alarm["text"] in page.text
    assert alarm["hint"] in page.text
    summary = " ".join((tmp_path / "summary.txt").read_text().split())
    assert f"alarm after rollout 3: {alarm['text']}" in summary
    assert f"hint: {alarm['hint']}" in summary


def test_curves_are_drawn_of_what_was_measured(page: Page) -> None:
    records = small_run()["records"]
    titles = [chart["title"] for group in panels(series_of(records)) for chart in group["charts"]]
    assert titles == [
        "Score",
        "KL to the start",
        "Source: rm",
        "Source: brief",
        "Not optimised: rule",
        "Length",
        "Endings and variety",
        "Entropy",
        "Explained variance",
        "Critic's loss",
        "Clipped ratios",
        "KL of an update",
    ], "the KL coefficient did not change, and no correlation was measured"
    assert all(title in page.text for title in titles)
    adapted = [record | ({"objective/kl_coef": record["step"] / 10}) for record in records]
    assert "KL coefficient" in [chart["title"] for chart in panels(series_of(adapted))[0]["charts"]]


def test_time_is_split_by_phase(page: Page) -> None:
    assert "12.0 s of rollouts" in page.text
    assert "100 tokens/s sampled, 50 tokens/s trained on" in page.text
    for told in ("3 s, 25%", "2 s, 12%", "6 s, 50%"):
        assert told in page.text


def test_scores_beyond_the_bins_are_told(page: Page) -> None:
    assert "1 beyond the axis, counted at its ends" in page.text


def test_answers_at_the_start_half_way_and_at_the_end_stand_side_by_side(page: Page) -> None:
    found = answers_through_training(small_samples(), 4)
    assert [one["prompt"][0]["content"] for one in found] == [f"Say hello {row}" for row in range(4)]
    assert [list(one["answers"]) for one in found] == [[0, 2, 3]] * 4
    assert [answer["decoding"] for answer in found[0]["answers"][3].values()] == ["sampled", "greedy"]
    assert page.text.count("After rollout 2") == SHOWN
    assert "sampled · score 0.75 · 5 tokens, cut · KL 1.5" in page.text
    assert "rm 0.50 brief - rule 1.00 (not optimised)" in page.text


@pytest.mark.parametrize("at", [(0,), (0, 50), (0, 7, 60, 100)])
def test_the_middle_is_what_lies_nearest_to_half_way(at: tuple[int, ...]) -> None:
    samples = [one | {"rollout": rollout} for rollout in at for one in small_samples()[:2]]
    expected = {(0,): [0], (0, 50): [0, 50], (0, 7, 60, 100): [0, 60, 100]}[at]
    assert list(answers_through_training(samples, 1)[0]["answers"]) == expected


def test_new_words_are_marked_and_nothing_is_lost() -> None:
    assert pieces("the cat sat", " the dog\nsat  down") == [
        (False, " "),
        (False, "the"),
        (False, " "),
        (True, "dog"),
        (False, "\n"),
        (False, "sat"),
        (False, "  "),
        (True, "down"),
    ]
    assert pieces(None, "anything at all") == [(False, "anything at all")]
    assert pieces("", "new") == [(True, "new")]
    assert pieces("a", "") == []


def test_what_a_model_or_a_row_wrote_is_text_and_never_markup(tmp_path: Path) -> None:
    alarm = small_alarm() | {"text": HOSTILE, "hint": HOSTILE}
    page = write(
        tmp_path,
        samples=small_samples(HOSTILE, HOSTILE),
        alarms=[alarm],
        inputs=[{"name": HOSTILE, "ref": HOSTILE, "digest": HOSTILE}],
        settings={HOSTILE: HOSTILE},
        changes={name.replace("rule", HOSTILE): value for name, value in small_run()["changes"].items()},
        records=[
            {name.replace("rule", HOSTILE).replace("brief", HOSTILE): value for name, value in record.items()}
            for record in small_run()["records"]
        ],
    )
    assert page.text.count(HOSTILE) > 20
    assert not {"script", "img", "iframe", "link", "object"} & set(page.tags)
    assert not [name for name, _ in page.attributes if name.startswith("on")]


def test_characters_that_hide_or_turn_text_are_shown_as_what_they_are(tmp_path: Path) -> None:
    page = write(tmp_path, samples=small_samples(HIDDEN, HIDDEN))
    assert visible(HIDDEN) == "<U+202E>detrever<U+2066><U+0007>"
    assert page.text.count(visible(HIDDEN)) >= 2 * SHOWN
    for name in ("report.html", "summary.txt"):
        assert not set("\u202e\u2066\x07") & set((tmp_path / name).read_text(encoding="utf-8"))


def test_the_page_loads_nothing_and_says_so_to_the_browser(folder: Path, page: Page) -> None:
    html = (folder / "report.html").read_text(encoding="utf-8")
    assert "default-src 'none'" in next(value for _, value in page.attributes if value and "default-src" in value)
    assert {name for name, value in page.attributes if value and value.startswith(("http", "//"))} <= {
        "xmlns",
        "xmlns:xlink",
    }
    assert not re.search(r"url\((?!#)|@import", html)
    light, dark = (set(re.findall(r"(--\w+):", block)) for block in re.findall(r":root \{(.*?)\}", html, re.DOTALL))
    assert set(re.findall(r"var\((--\w+)\)", html)) <= light == dark


def test_the_report_can_be_made_again_from_its_files(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    made = {name: (tmp_path / name).read_bytes() for name in ("report.html", "summary.txt")}
    for name in made:
        (tmp_path / name).unlink()
    write_report(tmp_path)
    assert {name: (tmp_path / name).read_bytes() for name in made} == made
    assert json.loads((tmp_path / "figures.json").read_text())["series"]["val/explained_variance"] == [
        [1, 0.25],
        [2, None],
        [3, 0.25],
    ]


@pytest.mark.parametrize("name", ["figures.json", "samples.jsonl", "histograms.jsonl"])
def test_a_folder_that_is_no_report_is_refused(folder: Path, tmp_path: Path, name: str) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    (tmp_path / name).unlink()
    with pytest.raises(BadData, match=re.escape(name)):
        write_report(tmp_path)


def test_without_samples_and_histograms_there_is_a_page_all_the_same(tmp_path: Path) -> None:
    text = write(tmp_path, samples=[], histograms=[]).text
    assert "Answers through training" not in text
    assert "first and last rollout" not in text
    assert "Before and after" in text


def test_long_curves_are_thinned_to_means() -> None:
    points = [(step, float(step % 2) if step < 1500 else None) for step in range(3000)]
    found = thinned(points)
    assert len(found) == MOST_POINTS
    assert found[0] == (9, 0.5), "the mean of ten"
    assert found[-1] == (2999, None)
    assert thinned(points[:5]) == points[:5]
