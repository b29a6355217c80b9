from __future__ import annotations

import evaluate
import pytest

from ftcli.metrics.hf import TEXT_METRICS, ChrF, ExactMatch, Rouge, SacreBleu
from ftcli.metrics.names import METRICS

ANSWERS = ["the cat sat on the mat", "hello there general kenobi"]
REFERENCES = ["the cat is on the mat", "hello there general kenobi"]


def test_combine_takes_all_of_them_without_the_hub():
    together = evaluate.combine([metric(keep_in_memory=True) for metric in (Rouge, SacreBleu, ChrF, ExactMatch)])
    found = together.compute(predictions=ANSWERS, references=REFERENCES)
    values = {name: value for name, value in found.items() if not name.endswith("_signature")}
    expected = {"rouge1": 0.916667, "rouge2": 0.8, "rougeL": 0.916667, "bleu": 53.895617, "exact_match": 0.5}
    assert {name: values[name] for name in expected} == pytest.approx(expected, abs=1e-6)
    assert set(values) == {*expected, "chrf"}


def test_batches_add_up_to_the_whole():
    metric = SacreBleu(keep_in_memory=True)
    for answer, reference in zip(ANSWERS, REFERENCES, strict=True):
        metric.add(prediction=answer, reference=reference)
    assert metric.compute()["bleu"] == pytest.approx(53.895617, abs=1e-6)


def test_settings_reach_the_metric():
    metric = Rouge(keep_in_memory=True)
    assert metric.compute(predictions=["猫"], references=["猫"])["rouge1"] == 0.0
    assert metric.compute(predictions=["猫"], references=["猫"], tokenizer="words")["rouge1"] == 1.0


@pytest.mark.parametrize("family", TEXT_METRICS)
def test_compute_returns_what_score_returns(family: str):
    metric = TEXT_METRICS[family](keep_in_memory=True)
    computed, scored = metric.compute(predictions=ANSWERS, references=REFERENCES), metric.score(ANSWERS, REFERENCES)
    assert {METRICS[name].family for name in scored} == {family}
    for name, score in scored.items():
        assert computed[name] == score.value
        assert computed[f"{name}_signature"] == score.signature
