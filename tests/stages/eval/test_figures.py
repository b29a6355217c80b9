"""Figures from hand-made outcomes; the expected numbers are worked out by hand, or scipy's."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ftcli.core.stage import Artifact, Kind
from ftcli.metrics.comparison import Drawing
from ftcli.stages.eval.config import EvalConfig
from ftcli.stages.eval.figures import described_artifact, figures_of, means, pairs_of, without
from ftcli.stages.eval.outcome import Answer, Outcome
from ftcli.stages.eval.results import compared, described_models, drawing_of, listed
from tests.stages.eval.evaluating import comparison

REFERENCES = ["a cat sat here", "the list", "open the file"]
ROWS = list(zip(("r0", "r1", "r2"), REFERENCES, strict=True))
READS = "tokenizer abc|float32"


def answers(*texts: str) -> list[Answer]:
    return [Answer(text, [1, 2, 3], "stop") for text in texts]


FIRST = Outcome([6.0, 2.0, 4.0], [4, 2, 3], [14, 8, 13], answers("a dog", "", "open the file"))
SECOND = replace(FIRST, nll=[3.0, 1.0, 2.0], greedy=answers(*REFERENCES))


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


def test_bits_per_byte_are_the_nats_of_all_rows_over_their_bytes() -> None:
    figures = result_of({"base": FIRST})["models"]["base"]
    assert figures["bits_per_byte"]["value"] == pytest.approx(12 / math.log(2) / (14 + 8 + 13))


def test_costs_of_whole_texts_have_names_and_terms_of_their_own() -> None:
    config = EvalConfig(max_length=64, prefix="bos")
    figures = figures_of(Outcome([6.0], [4], [10], whole_texts=True), ROWS[:1], config, reads=READS)
    assert list(figures) == ["text_perplexity", "text_bits_per_byte"]
    assert figures["text_perplexity"].value() == pytest.approx(math.exp(6 / 4))
    assert figures["text_perplexity"].signature == "whole text|windows of 64, 32 apart|prefix bos"


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


def test_only_the_metrics_asked_for_are_measured_in_the_order_of_the_table() -> None:
    result = result_of({"base": FIRST}, metrics=("bleu", "perplexity"))
    assert list(result["models"]["base"]) == list(result["metrics"]) == ["perplexity", "bits_per_byte", "bleu"]


def test_each_family_says_how_it_was_computed() -> None:
    figures = figures_of(FIRST, ROWS, EvalConfig(bleu_tokenizer="char", rouge_tokenizer="words"), reads=READS)
    assert "tok:char" in figures["bleu"].signature
    assert "words" in figures["rougeL"].signature
    assert "max 128 tokens" in figures["mean_length"].signature


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


def test_rewards_of_one_prompt_are_averaged_before_anything_else() -> None:
    scored = replace(
        FIRST, sampled=answers(*"abcdef"), greedy_scores=[1.0, 2.0, 3.0], sampled_scores=[0.0, 2.0, 1.0, 3.0, 4.0, 4.0]
    )
    figures = result_of({"base": scored}, samples_per_prompt=2)["models"]["base"]
    assert means(scored.sampled_scores, 2) == [1.0, 2.0, 4.0]
    assert figures["reward_sampled"]["value"] == pytest.approx(7 / 3)
    assert figures["reward_sampled"]["n"] == 3
    assert figures["reward_sampled"]["se"] == pytest.approx(0.881917)  # s / sqrt(3) of 1, 2, 4
    assert figures["reward_greedy"]["value"] == 2.0


def test_rows_that_are_left_out_count_in_no_figure() -> None:
    figures = {"base": figures_of(FIRST, ROWS, EvalConfig(), reads=READS)}
    kept = without(figures, {"r1"})["base"]
    assert kept["perplexity"].ids == ("r0", "r2")
    assert kept["perplexity"].value() == pytest.approx(math.exp(10 / 7))
    assert without(figures, {"item of a suite"}) == {"base": {}}  # what no left out row counts in stays as it was


def model(label: str, path: Path, **facts: object) -> Artifact:
    path.mkdir(exist_ok=True)
    (path / "weights").write_bytes(b"12345")
    return Artifact(Kind.MODEL, f"ref-{label}", path, f"sha256:{label}", label, None, facts)


def test_a_model_is_also_compared_with_the_one_it_started_from(tmp_path: Path) -> None:
    models = [
        model(label, tmp_path / label, **({"start_digest": "sha256:lora"} if label == "ppo" else {}))
        for label in ("base", "lora", "ppo")
    ]
    assert pairs_of(models) == [("lora", "base"), ("ppo", "base"), ("ppo", "lora")]
    assert [described_artifact(one, models)["start"] for one in models] == [None, None, "lora"]


def test_the_size_of_an_outside_model_is_that_of_its_files(tmp_path: Path) -> None:
    models = [model("base", tmp_path / "base"), model("sft", tmp_path / "sft", bytes=99)]
    assert [described_artifact(one, models)["bytes"] for one in models] == [5, 99]
