from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from ftcli.core.errors import BadData, UsageError
from ftcli.core.events import Events
from ftcli.core.stage import Artifact, Context, Kind
from ftcli.data.chat import render_answer, stop_token_ids
from ftcli.data.rows import RowType, prompt_of, read_jsonl, read_split, reference_of, write_jsonl
from ftcli.models.heads import random_head, save_head
from ftcli.models.load import load_base, load_model, load_tokenizer, write_base_record
from ftcli.stages.eval.stage import EVAL
from ftcli.training.adapters import add_lora
from tests.conftest import artifact, run_stage, write_data
from tests.tiny import messages_row, preference_row, write_tiny_model

SETTINGS: dict[str, Any] = {"max_new_tokens": 6, "resamples": 200, "precision": "fp32", "shown_samples": 2}
CPU = torch.device("cpu")


def write_adapter(folder: Path, base: Artifact, quantization: str | None = None, seed: int = 1) -> Path:
    """A LoRA adapter whose weights are random and large enough to matter."""
    model = add_lora(
        load_base(base.path, torch.float32, CPU, quantization), r=4, alpha=8, dropout=0.0, target_modules=["all-linear"]
    )
    torch.manual_seed(seed)
    for name, weight in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(weight, std=0.2)
    model.save_pretrained(folder)
    write_base_record(folder, base, quantization, True if quantization else None)
    return folder


@pytest.fixture(scope="module")
def base(tiny_model: Path) -> Artifact:
    return artifact(Kind.MODEL, tiny_model, label="base")


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory, base: Artifact) -> dict[str, Artifact]:
    root = tmp_path_factory.mktemp("adapters")
    folders = {
        "lora": write_adapter(root / "lora", base),
        "qlora": write_adapter(root / "qlora", base, "nf4"),
        "other": write_adapter(root / "other", base, seed=2),
        "qlora-2": write_adapter(root / "qlora-2", base, "nf4", seed=4),
    }
    return {label: artifact(Kind.MODEL, folder, label=label, base=base) for label, folder in folders.items()}


@pytest.fixture(scope="module")
def reward(tmp_path_factory: pytest.TempPathFactory, base: Artifact) -> Artifact:
    folder = write_adapter(tmp_path_factory.mktemp("reward") / "reward", base, seed=3)
    save_head(folder, random_head(64, 0))
    return artifact(Kind.REWARD, folder, base=base)


@pytest.fixture(scope="module")
def data(tiny_data: Path) -> Artifact:
    return artifact(Kind.DATA, tiny_data)


def report_of(folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    report = folder / "out" / "report"
    return json.loads((report / "metrics.json").read_text()), list(read_jsonl(report / "samples.jsonl"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory, base, adapters, reward, data) -> tuple[Path, Context[Any]]:
    """One run with everything: a full model, four adapters on two kinds of base, a reward model."""
    folder = tmp_path_factory.mktemp("whole")
    models = (adapters["lora"], base, adapters["qlora"], adapters["other"], adapters["qlora-2"])
    ctx = run_stage(EVAL, folder, {"models": models, "data": data, "reward": reward}, samples_per_prompt=2, **SETTINGS)
    return folder, ctx


def test_every_output_file_is_written(whole):
    folder, ctx = whole
    found = {path.name for path in (folder / "out" / "report").iterdir()}
    assert found == {"report.html", "report.md", "summary.txt", "metrics.json", "samples.jsonl"}
    assert ctx.events.summary["table"][0][:2] == ["Model", "Perplexity"]
    assert [row[0] for row in ctx.events.summary["table"][1:]] == ["lora", "base", "qlora", "other", "qlora-2"]


def test_models_keep_the_order_in_which_they_were_given(whole):
    result, samples = report_of(whole[0])
    assert list(result["models"]) == list(samples[0]["models"]) == ["lora", "base", "qlora", "other", "qlora-2"]
    assert result["baseline"] == "lora"


def test_metrics_jsonl_has_one_line_for_each_model(whole):
    folder, _ = whole
    lines = list(read_jsonl(folder / "scratch" / "metrics.jsonl"))
    assert [line["step"] for line in lines] == [0, 1, 2, 3, 4]
    assert lines[1]["base/perplexity"] == report_of(folder)[0]["models"]["base"]["perplexity"]["value"]


@pytest.mark.parametrize("label", ["lora", "base", "qlora", "other", "qlora-2"])
def test_adapters_on_a_shared_base_score_as_each_loaded_alone(whole, base, adapters, data, label):
    result, samples = report_of(whole[0])
    model = load_model({"base": base, **adapters}[label], torch.float32, CPU)
    tokenizer = load_tokenizer(base.path)
    rows = read_split(data.path, "test", RowType.MESSAGES)
    nll = tokens = 0.0
    for row in rows:
        prompt, answer = render_answer(tokenizer, prompt_of(row), str(reference_of(row)), stop_token_ids(tokenizer))
        labels = torch.tensor([[-100] * len(prompt) + answer])
        with torch.no_grad():
            loss = float(model(input_ids=torch.tensor([prompt + answer]), labels=labels).loss)
        nll, tokens = nll + loss * len(answer), tokens + len(answer)
    found = result["models"][label]["perplexity"]
    assert found["n"] == len(rows) == 8
    assert found["value"] == pytest.approx(math.exp(nll / tokens), rel=1e-5)
    assert sum(row["models"][label]["reference_tokens"] for row in samples) == tokens


def test_the_models_do_differ(whole):
    result, _ = report_of(whole[0])
    assert len({own["perplexity"]["value"] for own in result["models"].values()}) == 5


def test_greedy_answers_are_those_of_transformers_generate(whole, base, data):
    _, samples = report_of(whole[0])
    model, tokenizer = AutoModelForCausalLM.from_pretrained(base.path), load_tokenizer(base.path)
    for row in samples[:3]:
        ids = tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True, return_dict=False)
        output = model.generate(torch.tensor([ids]), max_new_tokens=6, do_sample=False, pad_token_id=0)[0][len(ids) :]
        assert row["models"]["base"]["greedy"]["text"] == tokenizer.decode(output, skip_special_tokens=True)


def test_rewards_are_the_head_at_the_last_token_of_each_answer(whole, base, reward):
    result, samples = report_of(whole[0])
    model, tokenizer = load_model(reward, torch.float32, CPU).eval(), load_tokenizer(base.path)
    head = random_head(64, 0)
    row = samples[0]
    prompt = tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True, return_dict=False)
    own = row["models"]["other"]["greedy"]
    outcome = json.loads((whole[0] / "scratch" / "outcome-3.json").read_text())
    with torch.no_grad():
        hidden = model.get_base_model().model(torch.tensor([prompt + outcome["greedy"][0]["ids"]])).last_hidden_state
    assert own["score"] == pytest.approx(float(hidden[0, -1] @ head.weight[0] + head.bias[0]), abs=1e-4)
    scores = [one["score"] for row in samples for one in row["models"]["other"]["sampled"]]
    assert len(scores) == 16
    assert result["models"]["other"]["reward_sampled"]["value"] == pytest.approx(sum(scores) / 16)


def test_the_result_does_not_depend_on_the_batch_size(tmp_path, base, adapters, data, reward):
    found = []
    for size in (1, 5):
        inputs = {"models": (base, adapters["lora"]), "data": data, "reward": reward}
        run_stage(EVAL, tmp_path / str(size), inputs, batch_size=size, **SETTINGS)
        result, samples = report_of(tmp_path / str(size))
        texts = [[row["models"][label]["sampled"][0]["text"] for row in samples] for label in ("base", "lora")]
        found.append((texts, result["models"]["lora"]["perplexity"]["value"]))
    assert found[0][0] == found[1][0]
    assert found[0][1] == pytest.approx(found[1][1], rel=1e-5)


def stop_at(label: str) -> Callable[[dict[str, Any]], None]:
    """An event sink that interrupts the stage when it starts on ``label``."""

    def sink(event: dict[str, Any]) -> None:
        if event["event"] == "progress" and event["task"].startswith(label):
            raise KeyboardInterrupt

    return sink


def test_an_interrupted_evaluation_goes_on_where_it_stopped(tmp_path, base, adapters, data):
    inputs = {"models": (base, adapters["lora"]), "data": data}
    run_stage(EVAL, tmp_path / "through", inputs, **SETTINGS)
    stopped = tmp_path / "stopped"
    for part in ("out", "scratch"):
        (stopped / part).mkdir(parents=True)
    many = {"models": inputs["models"], "data": (data,)}
    events = Events(stopped / "scratch", stop_at("lora"))
    ctx = Context(EVAL.config(**SETTINGS), many, stopped / "out", stopped / "scratch", events)
    with pytest.raises(KeyboardInterrupt):
        EVAL.run(ctx)
    first = stopped / "scratch" / "outcome-0.json"
    written = first.stat().st_mtime_ns
    run_stage(EVAL, stopped, inputs, **SETTINGS)
    assert first.stat().st_mtime_ns == written
    for name in ("metrics.json", "samples.jsonl", "report.html"):
        assert (stopped / "out/report" / name).read_bytes() == (tmp_path / "through/out/report" / name).read_bytes()
    lines = [(folder / "scratch/metrics.jsonl").read_text() for folder in (stopped, tmp_path / "through")]
    assert lines[0] == lines[1]


def test_limits_choose_the_first_rows(tmp_path, base, data):
    run_stage(EVAL, tmp_path, {"models": base, "data": data}, limit=5, generation_limit=2, **SETTINGS)
    result, samples = report_of(tmp_path)
    assert result["rows"] == {"scored": 5, "answered": 2, "left_out": 0}
    assert result["models"]["base"]["perplexity"]["n"] == 5
    assert result["models"]["base"]["rougeL"]["n"] == 2
    assert ["greedy" in row["models"]["base"] for row in samples] == [True, True, False, False, False]


def test_perplexity_alone_generates_nothing(tmp_path, base, data):
    run_stage(EVAL, tmp_path, {"models": base, "data": data}, metrics=("perplexity",), **SETTINGS)
    result, samples = report_of(tmp_path)
    assert list(result["models"]["base"]) == ["perplexity"]
    assert all("greedy" not in row["models"]["base"] for row in samples)


def test_rows_that_are_too_long_are_left_out_and_counted(tmp_path, base):
    def row(index: int) -> dict[str, Any]:
        made = messages_row(index)
        if index == 2:
            made["messages"][1]["content"] *= 30  # type: ignore[index]
        return made

    folder = write_data(tmp_path / "data", row, 0, 0, 4)
    seen: list[str] = []
    ctx = Context(
        EVAL.config(max_length=120, metrics=("perplexity",), resamples=200),
        {"models": (base,), "data": (artifact(Kind.DATA, folder),)},
        tmp_path / "out",
        tmp_path,
        Events(tmp_path, lambda event: seen.append(event.get("text", ""))),
    )
    EVAL.run(ctx)
    assert report_of(tmp_path)[0]["rows"]["left_out"] == 1
    assert "1 of 4 rows left out: more than 120 tokens (max_length)" in seen


def test_references_in_another_script_are_pointed_out(tmp_path, base):
    def row(index: int) -> dict[str, Any]:
        made = messages_row(index)
        made["messages"][1]["content"] = "кошка"  # type: ignore[index]
        return made

    folder = write_data(tmp_path / "data", row, 0, 0, 2)
    seen: list[str] = []
    ctx = Context(
        EVAL.config(metrics=("rouge",), max_new_tokens=2, resamples=200),
        {"models": (base,), "data": (artifact(Kind.DATA, folder),)},
        tmp_path / "out",
        tmp_path,
        Events(tmp_path, lambda event: seen.append(event.get("text", ""))),
    )
    EVAL.run(ctx)
    assert any("set rouge_tokenizer: words" in text for text in seen)


def test_no_rows_is_bad_data(tmp_path, base):
    folder = write_data(tmp_path / "data", messages_row, 2, 0, 0)
    with pytest.raises(BadData, match="split test has no rows"):
        run_stage(EVAL, tmp_path, {"models": base, "data": artifact(Kind.DATA, folder)})


def test_only_rows_that_are_too_long_is_bad_data(tmp_path, base, data):
    with pytest.raises(BadData, match="all 8 rows have more than 16 tokens"):
        run_stage(EVAL, tmp_path, {"models": base, "data": data}, max_length=16)


def test_rows_of_another_type_are_bad_data(tmp_path, base):
    folder = write_data(tmp_path / "data", preference_row, 0, 0, 2)
    with pytest.raises(BadData, match="a preference row, messages needed"):
        run_stage(EVAL, tmp_path, {"models": base, "data": artifact(Kind.DATA, folder)})


def test_labels_must_differ(tmp_path, base, adapters, data):
    models = (base, replace(adapters["lora"], label="base"))
    with pytest.raises(UsageError, match="base names more than one model"):
        run_stage(EVAL, tmp_path, {"models": models, "data": data})


def test_a_reward_model_needs_its_base(tmp_path, base, data, reward):
    inputs = {"models": base, "data": data, "reward": replace(reward, base=None)}
    with pytest.raises(UsageError, match="does not say which base model"):
        run_stage(EVAL, tmp_path, inputs)


def test_a_reward_model_needs_its_head(tmp_path, base, adapters, data):
    inputs = {"models": base, "data": data, "reward": replace(adapters["lora"], kind=Kind.REWARD)}
    with pytest.raises(UsageError, match=r"no head\.safetensors"):
        run_stage(EVAL, tmp_path, inputs)


def test_a_reward_model_of_another_base_is_refused_before_any_work(tmp_path, base, data, reward):
    folder = write_tiny_model(tmp_path / "other-model")
    tokenizer = load_tokenizer(folder)
    tokenizer.add_tokens(["<another>"])
    tokenizer.save_pretrained(folder)
    other = artifact(Kind.MODEL, folder, label="other")
    with pytest.raises(UsageError, match="built on another base than other"):
        run_stage(EVAL, tmp_path, {"models": (base, other), "data": data, "reward": reward}, **SETTINGS)
    assert not list((tmp_path / "scratch").glob("outcome-*"))


def test_hostile_text_of_data_stays_text(tmp_path, base):
    def row(index: int) -> dict[str, Any]:
        made = messages_row(index)
        made["messages"][1]["content"] = "<script>alert(1)</script>"  # type: ignore[index]
        return made

    folder = write_data(tmp_path / "data", row, 0, 0, 2)
    run_stage(EVAL, tmp_path, {"models": base, "data": artifact(Kind.DATA, folder)}, **SETTINGS)
    html = (tmp_path / "out/report/report.html").read_text()
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert "<script" not in html


def test_a_broken_line_names_file_and_line(tmp_path, base):
    folder = write_data(tmp_path / "data", messages_row, 0, 0, 1)
    write_jsonl(folder / "test.jsonl", [messages_row(0)])
    (folder / "test.jsonl").write_text((folder / "test.jsonl").read_text() + "{\n")
    with pytest.raises(BadData, match=r"test\.jsonl:2: no JSON"):
        run_stage(EVAL, tmp_path, {"models": base, "data": artifact(Kind.DATA, folder)})
