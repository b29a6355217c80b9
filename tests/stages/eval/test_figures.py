"""Figures from hand-made outcomes; the expected numbers are worked out by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ftcli.core.stage import Artifact, Kind
from ftcli.metrics.figures import Figures
from ftcli.metrics.statistics import standard_error
from ftcli.stages.eval.config import EvalConfig
from ftcli.stages.eval.figures import described_artifact, figures_of, means, pairs_of, without
from ftcli.stages.eval.outcome import Outcome
from tests.stages.eval.outcomes import FIRST, READS, ROWS, answers


def figures_here(outcome: Outcome = FIRST, **settings: Any) -> Figures:
    return figures_of(outcome, ROWS, EvalConfig(**settings), reads=READS)


def test_bits_per_byte_are_the_nats_of_all_rows_over_their_bytes() -> None:
    assert figures_here()["bits_per_byte"].value() == pytest.approx(12 / math.log(2) / (14 + 8 + 13))


def test_costs_of_whole_texts_have_names_and_terms_of_their_own() -> None:
    config = EvalConfig(max_length=64, prefix="bos")
    figures = figures_of(Outcome([6.0], [4], [10], whole_texts=True), ROWS[:1], config, reads=READS)
    assert list(figures) == ["text_perplexity", "text_bits_per_byte"]
    assert figures["text_perplexity"].value() == pytest.approx(math.exp(6 / 4))
    assert figures["text_perplexity"].signature == "whole text|windows of 64, 32 apart|prefix bos"


def test_only_the_metrics_asked_for_are_measured_in_the_order_of_the_table() -> None:
    assert list(figures_here(metrics=("bleu", "perplexity"))) == ["perplexity", "bits_per_byte", "bleu"]


def test_each_family_says_how_it_was_computed() -> None:
    figures = figures_here(bleu_tokenizer="char", rouge_tokenizer="words")
    assert "tok:char" in figures["bleu"].signature
    assert "words" in figures["rougeL"].signature
    assert "max 128 tokens" in figures["mean_length"].signature


def test_rewards_of_one_prompt_are_averaged_before_anything_else() -> None:
    scored = replace(
        FIRST, sampled=answers(*"abcdef"), greedy_scores=[1.0, 2.0, 3.0], sampled_scores=[0.0, 2.0, 1.0, 3.0, 4.0, 4.0]
    )
    figures = figures_here(scored, samples_per_prompt=2)
    assert means(scored.sampled_scores, 2) == [1.0, 2.0, 4.0]
    assert figures["reward_sampled"].value() == pytest.approx(7 / 3)
    assert figures["reward_sampled"].ids == ("r0", "r1", "r2")
    assert standard_error(figures["reward_sampled"].examples) == pytest.approx(0.881917)  # s / sqrt(3) of 1, 2, 4
    assert figures["reward_greedy"].value() == 2.0


def test_rows_that_are_left_out_count_in_no_figure() -> None:
    figures = {"base": figures_here()}
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
