"""From figures to the JSON of metrics.json; the expected numbers are worked out by hand."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest

from ftcli.metrics.comparison import Drawing
from ftcli.stages.eval.config import EvalConfig
from ftcli.stages.eval.figures import figures_of
from ftcli.stages.eval.outcome import Outcome
from ftcli.stages.eval.results import compared, described_models, drawing_of, listed
from tests.stages.eval.evaluating import comparison
from tests.stages.eval.outcomes import FIRST, READS, ROWS, SECOND, answers


def result_of(outcomes: dict[str, Outcome], reads: dict[str, str] | None = None, **settings: Any) -> dict[str, Any]:
    """The entries models, metrics and comparisons as metrics.json holds them, every model against the first."""
    config = EvalConfig(resamples=200, **settings)
    figures = {
        label: figures_of(outcome, ROWS, config, reads=(reads or {}).get(label, READS))
        for label, outcome in outcomes.items()
    }
    first, *others = outcomes
    drawing = drawing_of(config)
    found = listed(compared(figures, [(label, first) for label in others], drawing))
    written = described_models(figures, drawing) | {"comparisons": found}
    return json.loads(json.dumps(written, allow_nan=False))  # type: ignore[no-any-return]


def test_perplexity_is_reported_as_such_and_compared_by_its_ratio() -> None:
    result = result_of({"base": FIRST, "sft": SECOND})
    assert result["models"]["base"]["perplexity"]["value"] == pytest.approx(math.exp(12 / 9))
    assert result["models"]["base"]["perplexity"]["n"] == 3
    found = comparison(result, "sft", "base", "perplexity")
    assert found["scale"] == "ratio"
    assert found["change"] == pytest.approx(math.exp(-6 / 9))
    assert found["ci"][0] <= found["change"] <= found["ci"][1] < 1
    assert found["p"] == pytest.approx(2 / 8)  # all three rows fell: 2 of the 8 exchanges are as extreme
    assert found["status"] == "inconclusive"
    assert found["mde"] is None  # no test finds anything in three rows


def test_a_model_under_two_labels_differs_by_exactly_nothing() -> None:
    result = result_of({"base": FIRST, "again": FIRST})
    assert result["models"]["base"] == result["models"]["again"]
    for found in result["comparisons"]:
        nothing = 1.0 if found["scale"] == "ratio" else 0.0
        assert (found["change"], found["ci"], found["se"], found["p"]) == (nothing, [nothing, nothing], 0.0, 1.0)
        assert found["status"] in ("equivalent", "inconclusive")


def test_shares_have_wilson_intervals() -> None:
    empty = result_of({"base": FIRST})["models"]["base"]["empty_rate"]
    assert empty["value"] == pytest.approx(1 / 3)
    assert empty["ci"] == pytest.approx([0.061492, 0.792345], abs=1e-5)  # Wilson, 1 of 3


def test_other_tokens_make_perplexities_incomparable_and_bits_per_byte_not() -> None:
    result = result_of(
        {"base": FIRST, "other": replace(SECOND, tokens=[5, 2, 3])},
        {"other": "tokenizer xyz|float32"},
    )
    found = comparison(result, "other", "base", "perplexity")
    assert found["status"] == "not evaluable"
    assert found["change"] is None
    assert "bits_per_byte" in found["reason"]
    assert comparison(result, "other", "base", "bits_per_byte")["change"] == pytest.approx(-6 / math.log(2) / 35)


def test_another_number_format_makes_all_costs_incomparable() -> None:
    result = result_of({"base": FIRST, "other": SECOND}, {"other": "tokenizer abc|bfloat16"})
    for name in ("perplexity", "bits_per_byte"):
        assert comparison(result, "other", "base", name)["status"] == "not evaluable"


def test_one_row_gives_values_without_intervals_or_statuses() -> None:
    one = Outcome([6.0], [4], [14], answers("a dog"))
    config = EvalConfig(resamples=200)
    figures = {label: figures_of(one, ROWS[:1], config, reads=READS) for label in ("base", "sft")}
    described = described_models(figures, Drawing(resamples=200))["models"]["base"]["rougeL"]
    assert (described["ci"], described["se"]) == (None, None)
    found = compared(figures, [("sft", "base")], Drawing(resamples=200))
    assert {one.status for _, _, one in found} == {"not evaluable"}
    assert {one.reason for _, _, one in found} == {"one row only"}


def test_a_perplexity_too_large_for_a_number_is_written_as_none() -> None:
    """900 nats a token: exp of it is no float, and JSON knows no infinity (`result_of` allows none)."""
    broken = replace(FIRST, nll=[900.0 * tokens for tokens in FIRST.tokens])
    result = result_of({"base": FIRST, "broken": broken})
    assert result["models"]["broken"]["perplexity"]["value"] is None
    assert result["models"]["broken"]["perplexity"]["ci"] is None
    found = comparison(result, "broken", "base", "perplexity")
    assert (found["status"], found["change"]) == ("not evaluable", None)
    assert found["reason"] == "the factor is too large or too small for a number"
    assert comparison(result, "broken", "base", "bits_per_byte")["change"] > 0
