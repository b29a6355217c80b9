from __future__ import annotations

import re
from pathlib import Path

import datasets
import evaluate
import pytest

import ftcli
from ftcli.metrics.hf import TEXT_METRICS, Rouge, SacreBleu
from ftcli.metrics.names import METRICS

ANSWERS = ["the cat sat on the mat", "hello there general kenobi"]
REFERENCES = ["the cat is on the mat", "hello there general kenobi"]


def test_combine_takes_all_of_them_without_the_hub():
    together = evaluate.combine([metric(keep_in_memory=True) for metric in TEXT_METRICS.values()])
    found = together.compute(predictions=ANSWERS, references=REFERENCES)
    values = {name: value for name, value in found.items() if not name.endswith("_signature")}
    # sacrebleu and rouge_score; the cat/sat/on/the/mat has 5 of 6 different words, 10 words each side, one of six is wrong
    expected = {"rouge1": 0.916667, "rouge2": 0.8, "rougeL": 0.916667, "rougeLsum": 0.916667, "bleu": 53.895617}
    expected |= {"ter": 10.0, "exact_match": 0.5, "token_f1": 0.875, "distinct1": 0.916667, "distinct2": 1.0}
    expected |= {"length_ratio": 1.0}
    assert {name: values[name] for name in expected} == pytest.approx(expected, abs=1e-6)
    assert set(values) == {*expected, "chrf"}


def test_a_users_own_metric_combines_with_ours():
    class Shouting(evaluate.Metric):
        def _info(self):
            features = datasets.Features({name: datasets.Value("string") for name in ("predictions", "references")})
            return evaluate.MetricInfo(description="", citation="", inputs_description="", features=features)

        def _compute(self, predictions, references):
            return {"shouting": sum(text.isupper() for text in predictions) / len(predictions)}

    together = evaluate.combine([TEXT_METRICS["bleu"](keep_in_memory=True), Shouting(keep_in_memory=True)])
    found = together.compute(predictions=["NO NO", "no"], references=["no", "no"])
    assert found["shouting"] == 0.5


def test_nothing_asks_the_hub_for_a_metric():
    """`evaluate.load("name")` fetches and runs a script."""
    package = Path(ftcli.__file__).parent
    calls = re.compile(r"evaluate\.load\(|from evaluate import .*\bload\b|evaluate\.evaluator\(")
    sources = {path: path.read_text(encoding="utf-8") for path in package.rglob("*.py")}
    assert package / "metrics" / "hf.py" in sources
    code = {path: [line for line in text.splitlines() if "`" not in line] for path, text in sources.items()}
    assert [(path.name, line) for path, lines in code.items() for line in lines if calls.search(line)] == []


def test_batches_add_up_to_the_whole():
    metric = SacreBleu(keep_in_memory=True)
    for answer, reference in zip(ANSWERS, REFERENCES, strict=True):
        metric.add(prediction=answer, reference=reference)
    assert metric.compute()["bleu"] == pytest.approx(53.895617, abs=1e-6)


def test_settings_reach_the_metric():
    metric = Rouge(keep_in_memory=True)
    assert metric.compute(predictions=["猫"], references=["猫"])["rouge1"] == 0.0
    assert metric.compute(predictions=["猫"], references=["猫"], tokenizer="words")["rouge1"] == 1.0
    bleu = SacreBleu(keep_in_memory=True)
    assert bleu.compute(predictions=["我喜欢猫"], references=["我喜欢猫"], tokenizer="zh")["bleu"] == pytest.approx(100)


@pytest.mark.parametrize("family", TEXT_METRICS)
def test_compute_returns_what_score_returns(family: str):
    metric = TEXT_METRICS[family](keep_in_memory=True)
    computed, scored = metric.compute(predictions=ANSWERS, references=REFERENCES), metric.score(ANSWERS, REFERENCES)
    assert {METRICS[name].family for name in scored} == {family}
    for name, score in scored.items():
        assert computed[name] == score.value
        assert computed[f"{name}_signature"] == score.signature
