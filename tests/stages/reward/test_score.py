from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from ftcli.core.errors import BadData, UsageError
from ftcli.core.stage import Artifact, Context, Kind
from ftcli.stages.reward.score import score_lines
from ftcli.stages.reward.stage import REWARD
from tests.conftest import artifact, run_stage, write_data
from tests.tiny import write_tiny_model


def pair_row(index: int) -> dict[str, Any]:
    """Prompts and answers of very different lengths, so that batches are ragged."""
    noun = ["cat", "mat", "list"][index % 3]

    def say(text: str) -> list[dict[str, str]]:
        return [{"role": "assistant", "content": text}]

    prompt = [{"role": "user", "content": f"What is a {noun} {index}? " * (1 + index % 4)}]
    chosen, rejected = f"A {noun}. " * (1 + 5 * (index % 3)), "no " * (1 + index % 5)
    return {"id": f"pair-{index}", "prompt": prompt, "chosen": say(chosen), "rejected": say(rejected), "meta": {}}


@pytest.fixture(scope="module", params=["<|im_end|>", "<|endoftext|>"], ids=["pad is eos", "pad is not eos"])
def trained(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Context[Any]:
    folder = tmp_path_factory.mktemp("reward")
    write_tiny_model(folder / "model")
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    tokenizer.pad_token = request.param
    tokenizer.save_pretrained(folder / "model")
    inputs = {
        "model": artifact(Kind.MODEL, folder / "model"),
        "data": artifact(Kind.DATA, write_data(folder / "data", pair_row, 8, 12, 0)),
    }
    settings = {"max_steps": 2, "learning_rate": 3e-3, "precision": "fp32", "max_length": 120, "micro_batch_size": 2}
    return run_stage(REWARD, folder, inputs, **settings)


@pytest.fixture
def reward(trained: Context[Any]) -> Artifact:
    return artifact(Kind.REWARD, trained.out / "reward", base=trained.one("model"))


def score(reward: Artifact, *rows: Any, said: list[str] | None = None) -> list[dict[str, Any]]:
    lines = [(row if isinstance(row, str) else json.dumps(row)).encode() for row in rows]
    return list(score_lines(reward, lines, "rows.jsonl", (said if said is not None else []).append))


def test_a_pair_scores_what_the_held_out_judgement_computed(trained: Context[Any], reward: Artifact) -> None:
    judged = [json.loads(line) for line in (trained.out / "report" / "pairs.jsonl").read_text().splitlines()]
    rows = [pair_row(index) for index in range(8, 20)]
    found = score(reward, *rows)
    assert [row["id"] for row in found] == [pair["row"] for pair in judged] == [row["id"] for row in rows]
    for row, pair in zip(found, judged, strict=True):
        assert row["chosen_score"] == pytest.approx(pair["chosen_score"], abs=1e-5)
        assert row["rejected_score"] == pytest.approx(pair["rejected_score"], abs=1e-5)
    assert len({row["chosen_score"] for row in found}) > 3


def test_every_form_gives_the_same_answer_the_same_score(reward: Artifact) -> None:
    pair = pair_row(3)
    prompt, text = pair["prompt"], pair["chosen"][0]["content"]
    assert len(prompt) == 1
    forms = [
        {"messages": [*prompt, *pair["chosen"]]},
        {"prompt": prompt, "response": text},
        {"prompt": prompt[0]["content"], "completion": pair["chosen"]},
        {"prompt": prompt, "candidates": [{"content": text, "rank": 1}, {"content": "no", "rank": 2}]},
    ]
    scored = score(reward, pair, *forms)
    expected = scored[0]["chosen_score"]
    assert [row["score"] for row in scored[1:4]] == pytest.approx([expected] * 3, abs=1e-5)
    assert scored[4]["candidates"][0] == {"content": text, "rank": 1, "score": pytest.approx(expected, abs=1e-5)}
    assert scored[4]["candidates"][1]["score"] != pytest.approx(expected, abs=1e-3)
    assert {**scored[2], "score": None} == {**forms[1], "score": None}


def test_long_prompts_lose_their_beginning_and_are_counted(reward: Artifact) -> None:
    said: list[str] = []
    long, short = "the cat " * 200, "the cat " * 190
    one, other = score(reward, {"prompt": long, "response": "a"}, {"prompt": short, "response": "a"}, said=said)
    assert one["score"] == pytest.approx(other["score"], abs=1e-5)
    assert said == ["2 rows, 2 texts scored; 2 prompts lost their beginning, 120 tokens of prompt and answer fit"]


OK = {"prompt": "What?", "response": "a"}
REFUSED = {
    "an answer that fills the length": (
        {"prompt": "What?", "response": "the list " * 200},
        "an answer of .* tokens; 120",
    ),
    "no JSON": ('{"prompt": ', "no JSON"),
    "not a number": ('{"prompt": "a", "response": "b", "x": NaN}', "NaN is no JSON number"),
    "half a surrogate pair": ('{"prompt": "a", "response": "\\ud800"}', "half a surrogate pair"),
    "a list": ("[1]", "no JSON object"),
    "no form": ({"text": "a"}, "it has text, which is no form"),
    "nothing": ({}, "it has nothing"),
    "no answer": ({"prompt": "a"}, "a prompt and no answer"),
    "a score": ({**OK, "score": 3}, "score is there already"),
    "a candidate's score": ({"prompt": "a", "candidates": [{"content": "b", "score": 1}]}, "score is there already"),
    "no list of candidates": ({"prompt": "a", "candidates": "b"}, "candidates is not a list"),
    "a question last": ({"messages": [{"role": "user", "content": "a"}] * 2}, "is not the assistant's text"),
    "no messages": ({"messages": [{"role": "user"}]}, "messages is not a list of messages"),
    "a prompt that is a number": ({"prompt": 3, "response": "a"}, "prompt is not a list of messages"),
    "two messages as an answer": (
        {"prompt": "a", "response": [{"role": "assistant", "content": "b"}] * 2},
        "response is neither text nor one message",
    ),
    "tools": ({**OK, "tools": []}, "tools, which reward models are not trained on"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_scored_is_named_with_its_line_before_anything_is(name: str, reward: Artifact) -> None:
    row, fault = REFUSED[name]
    scored = score_lines(
        reward, [json.dumps(OK).encode(), (row if isinstance(row, str) else json.dumps(row)).encode()], "r", print
    )
    with pytest.raises(BadData, match=rf"^r:2: .*{fault}"):
        next(scored)


def test_bytes_that_are_no_text_are_named(reward: Artifact) -> None:
    with pytest.raises(BadData, match=r"^r:1: no JSON: .*utf-8"):
        next(score_lines(reward, [b'{"prompt": "\xff"}'], "r", print))


def test_what_an_older_version_made_says_so(reward: Artifact, tmp_path: Path) -> None:
    stats = json.loads((reward.path / "reward_stats.json").read_text())
    del stats["scoring"]
    (tmp_path / "reward_stats.json").write_text(json.dumps(stats))
    with pytest.raises(UsageError, match="does not say what it was made to score"):
        next(score_lines(artifact(Kind.REWARD, tmp_path), [], "r", print))
