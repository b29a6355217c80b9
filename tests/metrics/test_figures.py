from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ftcli.core.errors import BadData, UsageError
from ftcli.metrics.figures import Figure, Figures, read_figures, write_figures
from ftcli.metrics.names import METRICS, Metric
from ftcli.metrics.statistics import Examples, mean_of
from ftcli.metrics.text import bleu

IDS = ("r1", "r2", "r3")
OWN = Metric("Own", "custom", None, 1, "a user's own", margin=0.25)


def figure(name: str, values: list[float], metric: Metric | None = None) -> Figure:
    return Figure(name, metric or METRICS[name], mean_of(values), IDS, "f1|mean", "fp32")


def perplexity() -> Figure:
    examples = Examples(np.array([[2.8, 8.0], [7.5, 5.0], [0.1, 1.0]]))
    return Figure("perplexity", METRICS["perplexity"], examples, IDS, "completion")


def saved(tmp_path: Path) -> Path:
    scored = bleu(["the cat sat on the mat", "hello there general kenobi", "foo"], ["the cat is on the mat"] * 3)
    base: Figures = {
        "perplexity": perplexity(),
        "rougeL": figure("rougeL", [0.1, 1 / 3, 0.7]),
        "bleu": Figure("bleu", METRICS["bleu"], scored.examples, IDS, scored.signature),
        "own": figure("own", [0.5, 0.5, 0.5], OWN).only(["r3", "r1"]),
    }
    path = tmp_path / "examples.json"
    write_figures(path, {"base": base, "löra": {"rougeL": figure("rougeL", [0.2, 0.3, 0.7])}})
    return path


def test_figures_come_back_as_they_were(tmp_path: Path):
    found = read_figures(saved(tmp_path))
    assert list(found) == ["base", "löra"]
    assert list(found["base"]) == ["perplexity", "rougeL", "bleu", "own"]
    back = found["base"]["rougeL"]
    assert back.metric == METRICS["rougeL"]
    assert (back.name, back.ids, back.signature, back.comparable) == ("rougeL", IDS, "f1|mean", "fp32")
    np.testing.assert_array_equal(back.examples.statistics, [[0.1, 1], [1 / 3, 1], [0.7, 1]])
    assert found["base"]["own"].ids == ("r3", "r1")
    assert found["base"]["own"].metric == OWN


def test_a_corpus_metric_comes_back_with_its_function(tmp_path: Path):
    answers, references = ["the cat sat on the mat", "hello there general kenobi"], ["the cat is on the mat"] * 2
    scored = bleu(answers, references)
    path = tmp_path / "examples.json"
    write_figures(path, {"base": {"bleu": Figure("bleu", METRICS["bleu"], scored.examples, IDS[:2], scored.signature)}})
    back = read_figures(path)["base"]["bleu"]
    assert back.value() == scored.value
    assert back.examples.kind == scored.examples.kind


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-1e300, 1e300), min_size=3, max_size=3))
def test_numbers_come_back_bit_for_bit(tmp_path_factory: pytest.TempPathFactory, values: list[float]):
    path = tmp_path_factory.mktemp("figures") / "examples.json"
    write_figures(path, {"base": {"own": figure("own", values, OWN)}})
    assert read_figures(path)["base"]["own"].examples.statistics[:, 0].tolist() == values


def test_a_number_that_is_not_finite_comes_back_as_nan(tmp_path: Path):
    path = tmp_path / "examples.json"
    write_figures(path, {"base": {"own": figure("own", [math.nan, math.inf, 1.0], OWN)}})
    json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    values = read_figures(path)["base"]["own"].examples.statistics[:, 0]
    assert np.isnan(values).tolist() == [True, True, False]


def test_the_file_is_small_enough_for_git(tmp_path: Path):
    """Rows are named once, columns that do not vary are one number, and each figure is a line of its own."""
    ids = tuple(f"{number:064x}" for number in range(250))
    rng = np.random.default_rng(0)
    models = {
        label: {name: Figure(name, OWN, mean_of(rng.random(250).tolist()), ids, "f1") for name in map(str, range(10))}
        for label in ("base", "lora")
    }
    path = tmp_path / "examples.json"
    write_figures(path, models)
    assert path.stat().st_size < 250 * 70 + 20 * (250 * 23 + 300)
    assert len(path.read_text().splitlines()) < 20 + 10


def test_the_value_of_a_ratio_metric_is_no_logarithm():
    assert perplexity().value() == pytest.approx(math.exp((2.8 + 7.5 + 0.1) / 14))
    assert figure("rougeL", [0.1, 0.2, 0.6]).value() == pytest.approx(0.3)


def test_only_keeps_the_rows_asked_for_in_their_order():
    kept = figure("rougeL", [0.1, 0.2, 0.6]).only(["r3", "unknown", "r1"])
    assert kept.ids == ("r3", "r1")
    assert kept.examples.statistics[:, 0].tolist() == [0.6, 0.1]
    assert len(figure("rougeL", [0.1, 0.2, 0.6]).only([]).examples) == 0


def test_a_figure_has_one_id_for_each_example_and_each_once():
    with pytest.raises(ValueError, match="own: 3 ids for 2 examples"):
        figure("own", [1.0, 2.0], OWN)
    with pytest.raises(ValueError, match="two examples with the same id"):
        Figure("own", OWN, mean_of([1.0, 2.0]), ("a", "a"), "")


def test_no_models_and_no_rows_come_back_as_such(tmp_path: Path):
    path = tmp_path / "examples.json"
    write_figures(path, {})
    assert read_figures(path) == {}
    write_figures(path, {"base": {}, "lora": {"rougeL": figure("rougeL", [0.1, 0.2, 0.6]).only([])}})
    found = read_figures(path)
    assert found["base"] == {}
    assert found["lora"]["rougeL"].ids == ()


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(UsageError, match=r"nowhere\.json: No such file"):
        read_figures(tmp_path / "nowhere.json")


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        ('{"format": 1, "rows"', BadData, "not JSON"),
        ("\x00\xff", BadData, "not JSON"),
        ("[1, 2]", UsageError, "not a file of figures"),
        ('{"metrics": {}}', UsageError, "not a file of figures"),
        ('{"format": 2}', UsageError, "format 2, and this version of ftcli reads format 1"),
        ('{"format": 1, "models": {"base": {"own": {}}}, "rows": []}', BadData, "base: own: damaged"),
        ('{"format": 1, "rows": []}', BadData, "damaged"),
        ('{"format": 1, "rows": [], "models": []}', BadData, "damaged"),
    ],
)
def test_a_file_that_is_no_file_of_figures_is_refused_by_name(
    tmp_path: Path, content: str, error: type[Exception], message: str
):
    path = tmp_path / "examples.json"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(error, match=rf"examples\.json: .*{message}|examples\.json: {message}"):
        read_figures(path)


@pytest.mark.parametrize(
    "change",
    [
        {"columns": [[0.1, 0.2], 1]},
        {"columns": [["a", "b", "c"], 1]},
        {"columns": []},
        {"rows": 7},
        {"kind": "nosuch"},
        {"metric": {"title": "Own"}},
        {"metric": {"nosuch": 1}},
    ],
)
def test_a_damaged_figure_is_named(tmp_path: Path, change: dict[str, object]):
    path = saved(tmp_path)
    content = json.loads(path.read_text(encoding="utf-8"))
    content["models"]["base"]["rougeL"] |= change
    path.write_text(json.dumps(content))
    with pytest.raises(BadData, match=r"examples\.json: base: rougeL: damaged"):
        read_figures(path)
