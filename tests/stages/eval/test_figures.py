from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from ftcli.core.stage import Artifact, Kind
from ftcli.stages.eval.config import EvalConfig
from ftcli.stages.eval.figures import collect, means, verdict
from ftcli.stages.eval.outcome import Answer, Outcome

REFERENCES = ["a cat sat here", "the list", "open the file"]


def answers(*texts: str) -> list[Answer]:
    return [Answer(text, [1, 2, 3], "stop") for text in texts]


FIRST = Outcome([6.0, 2.0, 4.0], [4, 2, 3], answers("a dog", "", "open the file"))
SECOND = replace(FIRST, nll=[3.0, 1.0, 2.0], greedy=answers(*REFERENCES))


def artifact(label: str, path: Path, **facts: object) -> Artifact:
    path.mkdir(exist_ok=True)
    (path / "weights").write_bytes(b"12345")
    return Artifact(Kind.MODEL, f"ref-{label}", path, f"sha256:{label}", label, None, facts)


def result_of(tmp_path: Path, config: EvalConfig, outcomes: dict[str, Outcome], **facts: dict[str, object]) -> dict:
    models = [artifact(label, tmp_path / label, **facts.get(label, {})) for label in outcomes]
    found = collect(outcomes, REFERENCES, config, models=models, reward=None, about={})
    return json.loads(json.dumps(found, allow_nan=False))


def entry(result: dict, model: str, metric: str, against: str = "base") -> dict:
    wanted = (model, against, metric)
    return next(item for item in result["comparisons"] if (item["model"], item["against"], item["metric"]) == wanted)


def test_perplexity_is_reported_as_such_and_compared_by_its_ratio(tmp_path):
    result = result_of(tmp_path, EvalConfig(resamples=200), {"base": FIRST, "sft": SECOND})
    assert result["models"]["base"]["perplexity"]["value"] == pytest.approx(math.exp(12 / 9))
    assert result["models"]["base"]["perplexity"]["n"] == 3
    found = entry(result, "sft", "perplexity")
    assert found["scale"] == "ratio"
    assert found["change"] == pytest.approx(math.exp(-6 / 9))
    assert found["ci"][0] <= found["change"] <= found["ci"][1] < 1
    assert found["p"] == pytest.approx(2 / 8)  # all three rows fell: 2 of the 8 exchanges are as extreme
    assert found["verdict"] == "within noise"


def test_a_model_under_two_labels_differs_by_exactly_nothing(tmp_path):
    result = result_of(tmp_path, EvalConfig(resamples=200), {"base": FIRST, "again": FIRST})
    assert result["models"]["base"] == result["models"]["again"]
    for found in result["comparisons"]:
        nothing = 1.0 if found["scale"] == "ratio" else 0.0
        assert (found["change"], found["ci"], found["se"], found["p"]) == (nothing, [nothing, nothing], 0.0, 1.0)
        assert found["verdict"] == "within noise"


def test_shares_have_wilson_intervals(tmp_path):
    result = result_of(tmp_path, EvalConfig(resamples=200), {"base": FIRST})
    empty = result["models"]["base"]["empty_rate"]
    assert empty["value"] == pytest.approx(1 / 3)
    assert empty["ci"] == pytest.approx([0.061492, 0.792345], abs=1e-5)  # Wilson, 1 of 3
    assert result["models"]["base"]["exact_match"]["value"] == pytest.approx(1 / 3)


def test_only_the_metrics_asked_for_are_measured(tmp_path):
    result = result_of(tmp_path, EvalConfig(metrics=("bleu", "perplexity"), resamples=200), {"base": FIRST})
    assert list(result["models"]["base"]) == ["perplexity", "bleu"]


def test_different_tokenizers_make_perplexities_incomparable(tmp_path):
    other = replace(SECOND, tokens=[5, 2, 3])
    found = entry(
        result_of(tmp_path, EvalConfig(resamples=200), {"base": FIRST, "other": other}), "other", "perplexity"
    )
    assert found["verdict"] == "not comparable"
    assert found["change"] is None


def test_one_row_gives_values_without_intervals_or_verdicts(tmp_path):
    one = Outcome([6.0], [4], answers("a dog"))
    result = collect(
        {"base": one, "sft": one},
        REFERENCES[:1],
        EvalConfig(resamples=200),
        models=[artifact("base", tmp_path / "a"), artifact("sft", tmp_path / "b")],
        reward=None,
        about={},
    )
    text = json.loads(json.dumps(result, allow_nan=False))
    assert text["models"]["base"]["rougeL"]["ci"] is None
    assert text["models"]["base"]["rougeL"]["se"] is None
    assert {found["verdict"] for found in text["comparisons"]} == {"within noise"}


def test_rewards_of_one_prompt_are_averaged_before_anything_else(tmp_path):
    scored = replace(
        FIRST, sampled=answers(*"abcdef"), greedy_scores=[1.0, 2.0, 3.0], sampled_scores=[0.0, 2.0, 1.0, 3.0, 4.0, 4.0]
    )
    figures = result_of(tmp_path, EvalConfig(samples_per_prompt=2, resamples=200), {"base": scored})["models"]["base"]
    assert means(scored.sampled_scores, 2) == [1.0, 2.0, 4.0]
    assert figures["reward_sampled"]["value"] == pytest.approx(7 / 3)
    assert figures["reward_sampled"]["n"] == 3
    assert figures["reward_sampled"]["se"] == pytest.approx(0.881917)  # s / sqrt(3) of 1, 2, 4
    assert figures["reward_greedy"]["value"] == 2.0


def test_a_model_is_also_compared_with_the_one_it_started_from(tmp_path):
    outcomes = {"base": FIRST, "lora": SECOND, "ppo": SECOND}
    result = result_of(tmp_path, EvalConfig(resamples=200), outcomes, ppo={"start_digest": "sha256:lora"})
    assert {(found["model"], found["against"]) for found in result["comparisons"]} == {
        ("lora", "base"),
        ("ppo", "base"),
        ("ppo", "lora"),
    }
    assert result["artifacts"]["ppo"]["start"] == "lora"
    assert result["artifacts"]["lora"]["start"] is None


def test_the_size_of_an_outside_model_is_that_of_its_files(tmp_path):
    result = result_of(tmp_path, EvalConfig(resamples=200), {"base": FIRST, "sft": SECOND}, sft={"bytes": 99})
    assert result["artifacts"]["base"]["bytes"] == 5
    assert result["artifacts"]["sft"]["bytes"] == 99


@pytest.mark.parametrize(
    ("name", "delta", "p", "expected"),
    [
        ("rougeL", 0.1, 0.01, "better"),
        ("rougeL", -0.1, 0.01, "worse"),
        ("perplexity", -0.1, 0.01, "better"),
        ("mean_length", -3.0, 0.01, "different"),
        ("rougeL", 0.1, 0.05, "within noise"),
        ("rougeL", 0.1, math.nan, "within noise"),
    ],
)
def test_verdicts(name, delta, p, expected):
    assert verdict(name, delta, p, 0.05) == expected
