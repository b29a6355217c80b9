"""Whole evaluations of tiny random models; expected values come from transformers, or from the same thing done another way."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from ftcli.core.stage import Artifact, Kind
from ftcli.data.chat import render_answer, stop_token_ids
from ftcli.data.rows import RowType, prompt_of, read_split, reference_of
from ftcli.metrics.figures import read_figures
from ftcli.models.heads import random_head
from ftcli.models.load import load_model, load_tokenizer
from ftcli.stages.eval.suite import load_suite
from tests.conftest import artifact
from tests.stages.eval.evaluating import CPU, comparison, evaluate, notes_of, report_of, write_adapter

LABELS = ["lora", "base", "qlora", "other", "qlora-2"]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, base: Artifact, lora: Artifact) -> dict[str, Artifact]:
    """A full model, and two adapters on each of two ways to store it."""
    root = tmp_path_factory.mktemp("adapters")
    folders = {
        "qlora": write_adapter(root / "qlora", base, "nf4"),
        "other": write_adapter(root / "other", base, seed=2),
        "qlora-2": write_adapter(root / "qlora-2", base, "nf4", seed=4),
    }
    made = {label: artifact(Kind.MODEL, folder, label=label, base=base) for label, folder in folders.items()}
    found = {"base": base, "lora": lora, **made}
    return {label: found[label] for label in LABELS}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, models: Any, reward: Artifact, data: Artifact) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    evaluate(
        folder,
        {"models": tuple(models.values()), "data": data, "reward": reward},
        samples_per_prompt=2,
        shown_samples=0,
    )
    return folder


def test_models_keep_the_order_in_which_they_were_given(whole: Path) -> None:
    result, samples = report_of(whole)
    assert list(result["models"]) == list(samples[0]["models"]) == list(result["work"]) == LABELS
    assert list(read_figures(whole / "out/report/examples.json")) == LABELS
    assert result["baseline"] == "lora"


@pytest.mark.parametrize("label", LABELS)
def test_adapters_on_a_shared_base_score_as_each_loaded_alone(
    whole: Path, models: Any, base: Artifact, data: Artifact, label: str
) -> None:
    result, samples = report_of(whole)
    model = load_model(models[label], torch.float32, CPU)
    tokenizer = load_tokenizer(base.path)
    rows = read_split(data.path, "test", RowType.MESSAGES)
    nll = tokens = size = 0.0
    for row in rows:
        text = str(reference_of(row))
        prompt, answer = render_answer(tokenizer, prompt_of(row), text, stop_token_ids(tokenizer))
        labels = torch.tensor([[-100] * len(prompt) + answer])
        with torch.no_grad():
            loss = float(model(input_ids=torch.tensor([prompt + answer]), labels=labels).loss)
        nll, tokens, size = nll + loss * len(answer), tokens + len(answer), size + len(text.encode())
    found = result["models"][label]
    assert found["perplexity"]["n"] == len(rows) == 8
    assert found["perplexity"]["value"] == pytest.approx(math.exp(nll / tokens), rel=1e-5)
    assert found["bits_per_byte"]["value"] == pytest.approx(nll / math.log(2) / size, rel=1e-5)
    assert sum(row["models"][label]["reference_tokens"] for row in samples) == tokens


def test_the_models_do_differ(whole: Path) -> None:
    assert len({own["perplexity"]["value"] for own in report_of(whole)[0]["models"].values()}) == 5


def greedy_ids(model: Any, tokenizer: Any, prompt: list[dict[str, str]]) -> tuple[list[int], list[int]]:
    """The ids of a prompt and of what transformers answers."""
    ids = tokenizer.apply_chat_template(prompt, add_generation_prompt=True, return_dict=False)
    output = model.generate(input_ids=torch.tensor([ids]), max_new_tokens=6, do_sample=False, pad_token_id=0)
    return ids, output[0][len(ids) :].tolist()


def test_greedy_answers_are_those_of_transformers_generate(whole: Path, base: Artifact) -> None:
    _, samples = report_of(whole)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(base.path), load_tokenizer(base.path)
    for row in samples[:3]:
        _, answer = greedy_ids(model, tokenizer, row["prompt"])
        assert row["models"]["base"]["greedy"]["text"] == tokenizer.decode(answer, skip_special_tokens=True)


def test_rewards_are_the_head_at_the_last_token_of_each_answer(
    whole: Path, models: Any, base: Artifact, reward: Artifact
) -> None:
    result, samples = report_of(whole)
    tokenizer, head = load_tokenizer(base.path), random_head(64, 0)
    prompt, answer = greedy_ids(load_model(models["other"], torch.float32, CPU), tokenizer, samples[0]["prompt"])
    with torch.no_grad():
        backbone = load_model(reward, torch.float32, CPU).eval().get_base_model().model
        hidden = backbone(torch.tensor([prompt + answer])).last_hidden_state
    score = samples[0]["models"]["other"]["greedy"]["score"]
    assert score == pytest.approx(float(hidden[0, -1] @ head.weight[0] + head.bias[0]), abs=1e-4)
    scores = [one["score"] for row in samples for one in row["models"]["other"]["sampled"]]
    assert len(scores) == 16
    assert result["models"]["other"]["reward_sampled"]["value"] == pytest.approx(sum(scores) / 16)


def test_a_reward_model_judges_answers_against_the_first_models(whole: Path) -> None:
    result, samples = report_of(whole)
    wins = [
        1 / (1 + math.exp(row["models"]["lora"]["greedy"]["score"] - row["models"]["base"]["greedy"]["score"]))
        for row in samples
    ]
    assert result["models"]["base"]["judge.reward"]["value"] == pytest.approx(sum(wins) / len(wins))
    assert result["models"]["lora"]["judge.reward"]["value"] == 0.5
    [judge] = result["judges"]
    assert (judge["kind"], judge["pairs"], judge["fit"]) == ("reward", 32, True)


def test_the_result_does_not_depend_on_the_batch_size(
    tmp_path: Path, base: Artifact, lora: Artifact, data: Artifact, reward: Artifact
) -> None:
    found = []
    for size in (1, 5):
        inputs = {"models": (base, lora), "data": data, "reward": reward}
        evaluate(tmp_path / str(size), inputs, batch_size=size, use_cache=False)
        result, samples = report_of(tmp_path / str(size))
        assert result["work"]["lora"]["cached"] == 0
        texts = [[row["models"][label]["sampled"][0]["text"] for row in samples] for label in ("base", "lora")]
        found.append((texts, result["models"]["lora"]["perplexity"]["value"]))
    assert found[0][0] == found[1][0]
    assert found[0][1] == pytest.approx(found[1][1], rel=1e-5)


# What is compared --------------------------------------------------------------------------------------------------------------


def test_a_model_against_itself_differs_by_exactly_nothing(
    tmp_path: Path, base: Artifact, data: Artifact, reward: Artifact
) -> None:
    """With another digest, so that the cache does not know it: all is computed again."""
    again = replace(base, label="again", digest="sha256:the same once more")
    evaluate(tmp_path, {"models": (base, again), "data": data, "reward": reward}, suite="general", suite_limit=12)
    result, _ = report_of(tmp_path)
    assert result["work"]["again"]["computed"] > 0
    names = {one["metric"] for one in result["comparisons"]}
    assert {"perplexity", "rougeL", "bleu", "chrf", "reward_sampled", "judge.reward", "general.nll"} <= names
    for one in result["comparisons"]:
        nothing = 1.0 if one["scale"] == "ratio" else 0.0
        assert (one["change"], one["ci"], one["p"]) == (nothing, [nothing, nothing], 1.0), one["metric"]
        assert one["status"] in ("equivalent", "inconclusive")
    assert result["models"]["again"]["general.kl"]["value"] == 0.0


def test_swapping_two_models_flips_every_sign(
    tmp_path: Path, base: Artifact, lora: Artifact, data: Artifact, reward: Artifact
) -> None:
    results = []
    for name, models in (("there", (base, lora)), ("back", (lora, base))):
        inputs = {"models": models, "data": data, "reward": reward}
        evaluate(tmp_path / name, inputs, suite="general", suite_limit=12)
        results.append(report_of(tmp_path / name)[0])
    there, back = results
    assert len(there["comparisons"]) == len(back["comparisons"]) > 20
    swapped = {"improved": "regressed", "regressed": "improved"}
    moved = 0
    for one in there["comparisons"]:
        other = comparison(back, "base", "lora", one["metric"])
        if one["change"] is None:
            assert other["change"] is None
            continue
        expected = 1 / one["change"] if one["scale"] == "ratio" else -one["change"]
        assert other["change"] == pytest.approx(expected, rel=1e-9), one["metric"]
        assert other["p"] == pytest.approx(one["p"]), one["metric"]
        assert other["status"] == swapped.get(one["status"], one["status"]), one["metric"]
        moved += one["change"] not in (0.0, 1.0)
    assert moved > 10


# What is measured --------------------------------------------------------------------------------------------------------------


def test_limits_choose_the_first_rows(tmp_path: Path, base: Artifact, data: Artifact) -> None:
    evaluate(tmp_path, {"models": base, "data": data}, limit=5, generation_limit=2)
    result, samples = report_of(tmp_path)
    assert result["rows"] == {"scored": 5, "answered": 2, "left_out": 0}
    assert result["models"]["base"]["perplexity"]["n"] == 5
    assert result["models"]["base"]["rougeL"]["n"] == 2
    assert ["greedy" in row["models"]["base"] for row in samples] == [True, True, False, False, False]


def test_perplexity_alone_generates_nothing(tmp_path: Path, base: Artifact, data: Artifact) -> None:
    own = replace(base, digest="sha256:never answered")
    evaluate(tmp_path, {"models": own, "data": data}, metrics=("perplexity",))
    result, samples = report_of(tmp_path)
    assert list(result["models"]["base"]) == ["perplexity", "bits_per_byte"]
    assert result["work"]["base"] == {"computed": 8, "cached": 0}
    assert all("greedy" not in row["models"]["base"] for row in samples)


def test_models_with_heads_of_different_sizes_are_measured_without_their_kl(
    tmp_path: Path, base: Artifact, data: Artifact
) -> None:
    """One vocabulary, and rows of embeddings that only fill up."""
    folder = shutil.copytree(base.path, tmp_path / "padded")
    model = AutoModelForCausalLM.from_pretrained(folder)
    words = model.config.vocab_size
    model.resize_token_embeddings(words + 8)
    model.save_pretrained(folder)
    inputs = {"models": (base, artifact(Kind.MODEL, folder, label="padded")), "data": data}
    notes = notes_of(tmp_path, inputs, suite="general", suite_limit=6, metrics=("perplexity",), limit=2)
    assert f"general.kl is left out: base predicts {words} words and padded {words + 8}" in notes
    assert "general.nll" in report_of(tmp_path)[0]["models"]["padded"]


def test_without_a_suite_nothing_general_is_measured(whole: Path) -> None:
    result, _ = report_of(whole)
    assert result["suites"] == []
    assert not [name for name in result["metrics"] if name.startswith("general.")]


def test_the_general_suite_stands_beside_the_rows(
    tmp_path: Path, base: Artifact, lora: Artifact, data: Artifact
) -> None:
    inputs = {"models": (base, lora), "data": data}
    evaluate(tmp_path, inputs, suite="general", suite_limit=12, metrics=("perplexity",))
    result, _ = report_of(tmp_path)
    suite = load_suite("general")
    [told] = result["suites"]
    assert (told["name"], told["digest"], told["items"]) == ("general", suite.digest, 12)
    assert result["models"]["base"]["general.nll"]["n"] == 8  # two of each of the four kinds that are asked
    assert result["models"]["base"]["general.code_bpb"]["n"] == 2
    assert result["models"]["lora"]["general.kl"]["value"] > 0
    assert "general.kl" not in result["models"]["base"]
    assert comparison(result, "lora", "base", "general.nll")["change"] is not None


def test_a_model_without_a_chat_template_has_its_suite_in_raw_text(
    tmp_path: Path, base: Artifact, data: Artifact
) -> None:
    folder = shutil.copytree(base.path, tmp_path / "plain")
    tokenizer = load_tokenizer(folder)
    tokenizer.chat_template = None
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    tokenizer.save_pretrained(folder)
    plain = artifact(Kind.MODEL, folder, label="plain")
    texts = tmp_path / "texts"
    texts.mkdir()
    for split in ("train", "validation", "test"):
        (texts / f"{split}.jsonl").write_text('{"id": "t", "text": "the cat sat on a mat", "meta": {}}\n')
    inputs = {"models": plain, "data": artifact(Kind.DATA, texts)}
    notes = notes_of(tmp_path / "run", inputs, suite="general", suite_limit=12)
    result, _ = report_of(tmp_path / "run")
    assert sorted(name for name in result["models"]["plain"] if name.startswith("general.")) == [
        "general.code_bpb",
        "general.prose_bpb",
    ]
    assert "general.nll is left out: plain has no chat template to ask it with" in notes


def test_a_function_of_the_users_is_a_metric_like_any_other(
    tmp_path: Path, base: Artifact, lora: Artifact, data: Artifact
) -> None:
    file = tmp_path / "own.py"
    file.write_text("def letters(predictions, references, **kwargs):\n    return [len(text) for text in predictions]\n")
    made = artifact(Kind.FUNCTION, file, ref=f"{file}:letters")
    own = replace(made, digest=f"{made.digest}:letters")
    inputs = {"models": (base, lora), "data": data, "metric": own}
    evaluate(tmp_path, inputs, metrics=("perplexity",))
    result, samples = report_of(tmp_path)
    lengths = {label: [len(row["models"][label]["greedy"]["text"]) for row in samples] for label in ("base", "lora")}
    for label, values in lengths.items():
        assert result["models"][label]["custom.letters"]["value"] == pytest.approx(sum(values) / 8)
    assert comparison(result, "lora", "base", "custom.letters")["change"] == pytest.approx(
        (sum(lengths["lora"]) - sum(lengths["base"])) / 8
    )


def test_a_model_judges_pairs_of_answers(tmp_path: Path, base: Artifact, lora: Artifact, data: Artifact) -> None:
    """A random model is no judge, and its word may not gate."""
    inputs = {"models": (base, lora), "data": data, "judge": base}
    gate = ({"metric": "judge.llm", "min": 0.1},)
    ctx = evaluate(tmp_path, inputs, metrics=("perplexity",), limit=4, gate=gate)
    result, _ = report_of(tmp_path)
    [judge] = result["judges"]
    assert (judge["metric"], judge["kind"], judge["who"]) == ("judge.llm", "llm", base.ref)
    assert not judge["fit"]
    assert 0 <= result["models"]["lora"]["judge.llm"]["value"] <= 1
    assert ctx.events.summary["gate"]["exit_code"] == 7
    assert judge["why"] in ctx.events.summary["gate"]["message"]


def test_tasks_of_lm_evaluation_harness_stand_beside_the_rows(
    tmp_path: Path, base: Artifact, lora: Artifact, data: Artifact
) -> None:
    pytest.importorskip("lm_eval", reason="the extra ftcli[lm-eval] is not installed")
    tasks = tmp_path / "tasks"
    tasks.mkdir()
    rows = [{"question": f"What is {n}?", "options": ["the cat", "a list"], "answer": n % 2} for n in range(4)]
    (tasks / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tasks / "own.yaml").write_text(
        f"task: own\ndataset_path: json\ndataset_kwargs: {{data_files: {{test: {tasks}/rows.jsonl}}}}\ntest_split: test\n"
        'output_type: multiple_choice\ndoc_to_text: "{{question}}"\ndoc_to_choice: "{{options}}"\ndoc_to_target: answer\n'
        "metric_list:\n  - {metric: acc, aggregation: mean, higher_is_better: true}\n"
    )
    inputs = {"models": (base, lora), "data": data, "tasks": artifact(Kind.SOURCE, tasks)}
    settings: dict[str, Any] = {"metrics": ("perplexity",), "lm_eval": ("own",)}
    rule = {"metric": "lm_eval.own.acc", "min": 0.0, "mode": "point"}
    ctx = evaluate(tmp_path / "all", inputs, **settings, gate=(rule,), fail_if=("lora.lm_eval.own.acc.value < 0",))
    result, _ = report_of(tmp_path / "all")
    assert result["models"]["lora"]["lm_eval.own.acc"]["n"] == 4
    assert comparison(result, "lora", "base", "lm_eval.own.acc")["test"].startswith("exact McNemar")
    assert ctx.events.summary["gate"]["exit_code"] == 0
    evaluate(tmp_path / "again", inputs, **settings)
    again, _ = report_of(tmp_path / "again")
    assert again["models"] == result["models"]
    assert [work["computed"] for work in again["work"].values()] == [0, 0]
    evaluate(tmp_path / "other", inputs, **settings, lm_eval_chat=False, lm_eval_limit=3, lm_eval_shots=0)
    figure = report_of(tmp_path / "other")[0]["models"]["lora"]["lm_eval.own.acc"]
    assert (figure["n"], "0 shots|chat none" in figure["signature"]) == (3, True)
