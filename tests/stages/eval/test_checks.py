"""What is refused before any model computes anything."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ftcli.core.errors import BadData, FtcliError, UsageError
from ftcli.core.stage import Artifact, Kind
from ftcli.data.rows import write_jsonl
from ftcli.metrics.figures import write_figures
from ftcli.models.load import load_tokenizer
from tests.conftest import artifact
from tests.stages.eval.evaluating import evaluate, source
from tests.tiny import write_tiny_model


def refusal(folder: Path, inputs: dict[str, Any], kind: type[FtcliError] = UsageError, **settings: Any) -> FtcliError:
    """The error of a run that is refused before any row is computed."""
    worked: list[Any] = []
    with pytest.raises(kind) as caught:
        evaluate(
            folder, inputs, lambda event: worked.append(event) if event["event"] == "progress" else None, **settings
        )
    assert worked == []
    assert not (folder / "out" / "report").exists()
    return caught.value


def function(folder: Path, text: str, name: str = "own") -> Artifact:
    """A metric function as an input."""
    folder.mkdir(exist_ok=True)
    file = folder / f"{name}.py"
    file.write_text(text)
    made = artifact(Kind.FUNCTION, file, ref=f"{file}:{name}")
    return replace(made, digest=f"{made.digest}:{name}")


def test_labels_must_differ(tmp_path: Path, base: Artifact, lora: Artifact, data: Artifact) -> None:
    error = refusal(tmp_path, {"models": (base, replace(lora, label="base")), "data": data})
    assert error.message == "models: base names more than one model"


def test_no_model_has_the_label_of_the_baseline_file(tmp_path: Path, base: Artifact, data: Artifact) -> None:
    error = refusal(tmp_path, {"models": replace(base, label="baseline_file"), "data": data})
    assert "baseline_file names more than one model" in error.message


RULES = [
    ({"metric": "perplexity", "max_ratio": 1.1, "model": "lroa"}, "no model lroa was measured; did you mean lora?"),
    ({"metric": "perplexity", "max_ratio": 1.1, "against": "lroa"}, "no model lroa was measured; did you mean lora?"),
    ({"metric": "ter"}, "no metric ter was measured"),
    ({"metric": "text_perplexity"}, "no metric text_perplexity was measured; did you mean perplexity?"),
    ({"metric": "general.nll"}, "no metric general.nll was measured"),
    ({"metric": "judge.llm"}, "no metric judge.llm was measured"),
    ({"metric": "reward_sampled", "min": 0.0}, "no metric reward_sampled was measured"),
    ({"metric": "custom.brevity"}, "no metric custom.brevity was measured"),
    ({"metric": "lm_eval.task.acc"}, "no metric lm_eval.task.acc was measured"),
    ({"expr": "lroa.rougeL.delta < 0"}, "lroa.rougeL.delta: no model lroa was measured; did you mean lora?"),
    ({"expr": "lora.rougeX.delta < 0"}, "lora.rougeX.delta: no metric rougeX was measured; did you mean rougeL?"),
]


@pytest.mark.parametrize(("rule", "said"), RULES, ids=lambda value: str(value)[:40])
def test_a_rule_about_what_will_not_be_there_is_refused(
    tmp_path: Path, base: Artifact, lora: Artifact, data: Artifact, rule: dict[str, Any], said: str
) -> None:
    error = refusal(tmp_path, {"models": (base, lora), "data": data}, gate=(rule,))
    assert error.message.startswith("gate: ")
    assert said in error.message
    if "expr" in rule:
        assert said in refusal(tmp_path, {"models": (base, lora), "data": data}, fail_if=(rule["expr"],)).message


def test_rules_about_everything_that_can_be_measured_are_taken(
    tmp_path: Path, base: Artifact, lora: Artifact, data: Artifact, reward: Artifact
) -> None:
    """What each of these metrics is called is known beforehand, and they are there in the end."""
    own = function(
        tmp_path / "own", "def brevity(predictions, references):\n    return [1 for _ in predictions]\n", "brevity"
    )
    inputs = {"models": (base, lora), "data": data, "reward": reward, "judge": base, "metric": own}
    names = ("perplexity", "rougeL", "hit_max_rate", "general.nll", "general.kl", "reward_sampled", "judge.reward")
    rules = tuple({"metric": name, "max": 1.0, "severity": "soft"} for name in (*names, "custom.brevity"))
    conditions = ("lora.judge.llm.value > 2",)
    settings = {"suite": "general", "suite_limit": 6, "limit": 2}
    result = evaluate(tmp_path / "run", inputs, gate=rules, fail_if=conditions, **settings).events.summary["gate"]
    assert "was measured" not in result["message"]
    assert result["exit_code"] == 7
    assert "judge.llm may not decide" in result["message"]


def test_a_baseline_file_is_compared_with_the_last_model_alone(
    tmp_path: Path, base: Artifact, lora: Artifact, data: Artifact
) -> None:
    write_figures(tmp_path / "examples.json", {"lora": {}})
    inputs = {"models": (base, replace(base, label="other"), lora), "data": data}
    inputs["baseline"] = source(tmp_path / "examples.json")
    for about in ({"metric": "perplexity", "model": "other"}, {"expr": "other.perplexity.delta > 1"}):
        error = refusal(tmp_path, inputs, gate=({**about, "against": "baseline_file"},))
        assert error.message.endswith("the baseline file has figures of lora, the last model, and none of other")
        assert "the last of them is compared" in error.hint


def test_a_rule_against_a_baseline_file_needs_one(tmp_path: Path, base: Artifact, data: Artifact) -> None:
    rule = {"metric": "perplexity", "max_ratio": 1.1, "against": "baseline_file"}
    error = refusal(tmp_path, {"models": base, "data": data}, gate=(rule,))
    assert "no model baseline_file was measured" in error.message
    assert "baseline_file is the input baseline" in error.hint


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ('{"format": 1, "rows": [["a"', BadData, "not JSON"),
        (
            '{"format": 1, "rows": [["a"]], "models": {"base": {"rougeL": {"rows": 7}}}}',
            BadData,
            "base: rougeL: damaged",
        ),
        ('{"rougeL": 0.3}', UsageError, "not a file of figures"),
        ('{"format": 9}', UsageError, "format 9, and this version of ftcli reads format 1"),
    ],
)
def test_a_baseline_file_that_is_none_is_one_clear_error(
    tmp_path: Path, base: Artifact, data: Artifact, text: str, kind: type[FtcliError], message: str
) -> None:
    file = tmp_path / "examples.json"
    file.write_text(text)
    error = refusal(tmp_path, {"models": base, "data": data, "baseline": source(file)}, kind)
    assert error.message.startswith(str(file))
    assert message in error.message
    assert "\n" not in error.message


def test_a_baseline_file_of_other_models_is_refused(tmp_path: Path, base: Artifact, data: Artifact) -> None:
    for models, said in (({"one": {}, "two": {}}, "one, two"), ({}, "no model")):
        write_figures(tmp_path / "examples.json", models)
        inputs = {"models": base, "data": data, "baseline": source(tmp_path / "examples.json")}
        assert f"has figures of {said}, and none of base, the last model here" in refusal(tmp_path, inputs).message


def test_a_judge_needs_two_models(tmp_path: Path, base: Artifact, data: Artifact) -> None:
    error = refusal(tmp_path, {"models": base, "data": data, "judge": base})
    assert error.message == "judge: there is one model, and nothing to compare it with"
    server = {"judge_url": "http://127.0.0.1:1/v1", "judge_model": "judge"}
    assert refusal(tmp_path, {"models": base, "data": data}, **server).message.startswith(
        "judge_url: there is one model"
    )


def test_a_judge_is_a_model_or_a_server(tmp_path: Path, base: Artifact, lora: Artifact, data: Artifact) -> None:
    inputs = {"models": (base, lora), "data": data, "judge": base}
    error = refusal(tmp_path, inputs, judge_url="http://127.0.0.1:1/v1", judge_model="judge")
    assert error.message == "judge: a model and a server are given"


def test_a_folder_of_tasks_needs_a_task(tmp_path: Path, base: Artifact, data: Artifact) -> None:
    (tmp_path / "tasks").mkdir()
    inputs = {"models": base, "data": data, "tasks": artifact(Kind.SOURCE, tmp_path / "tasks")}
    assert "a folder of tasks is given and none is asked for" in refusal(tmp_path, inputs).message


def test_two_metric_functions_have_two_names(tmp_path: Path, base: Artifact, data: Artifact) -> None:
    text = "def own(predictions, references):\n    return [0 for _ in predictions]\n"
    functions = (function(tmp_path / "a", text), function(tmp_path / "b", text))
    error = refusal(tmp_path, {"models": base, "data": data, "metric": functions})
    assert error.message == "metric: two functions are called own"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def own(predictions:\n", "own.py:1"),
        ("def own(predictions, nothing):\n    return []\n", "own needs nothing"),
    ],
)
def test_a_metric_function_that_cannot_be_called_is_refused_before_the_work(
    tmp_path: Path, base: Artifact, data: Artifact, text: str, message: str
) -> None:
    inputs = {"models": base, "data": data, "metric": function(tmp_path / "a", text)}
    assert message in refusal(tmp_path, inputs).message


@pytest.mark.parametrize("place", [0, 1])
def test_chat_rows_need_models_with_a_chat_template(tmp_path: Path, base: Artifact, data: Artifact, place: int) -> None:
    folder = write_tiny_model(tmp_path / "plain")
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    plain = artifact(Kind.MODEL, folder, label="plain")
    models = (plain, base) if place == 0 else (base, plain)
    error = refusal(tmp_path, {"models": models, "data": data})
    assert error.message == "models: plain: no chat template, so chat rows cannot be rendered"


def test_tasks_in_a_chat_template_need_one(tmp_path: Path, base: Artifact) -> None:
    folder = write_tiny_model(tmp_path / "plain")
    (folder / "chat_template.jinja").unlink()
    rows = tmp_path / "rows"
    rows.mkdir()
    write_jsonl(rows / "test.jsonl", [{"id": "a", "text": "the cat sat", "meta": {}}])
    inputs = {"models": artifact(Kind.MODEL, folder, label="plain"), "data": artifact(Kind.DATA, rows)}
    error = refusal(tmp_path, inputs, metrics=("perplexity",), lm_eval=("own",))
    assert error.message == "lm_eval: plain has no chat template to put the tasks' prompts into"
    assert error.hint == "set lm_eval_chat to false"


def test_a_task_that_cannot_be_loaded_is_refused(tmp_path: Path, base: Artifact, data: Artifact) -> None:
    pytest.importorskip("lm_eval", reason="the extra ftcli[lm-eval] is not installed")
    (tmp_path / "tasks").mkdir()
    text = "task: own\noutput_type: multiple_choice\ndataset_path: json\ndataset_kwargs: {data_files: {test: gone.jsonl}}\n"
    (tmp_path / "tasks" / "own.yaml").write_text(text)
    inputs = {"models": base, "data": data, "tasks": artifact(Kind.SOURCE, tmp_path / "tasks")}
    assert "task own cannot be loaded" in refusal(tmp_path, inputs, lm_eval=("own",)).message


def test_a_reward_model_needs_its_base(tmp_path: Path, base: Artifact, data: Artifact, reward: Artifact) -> None:
    inputs = {"models": base, "data": data, "reward": replace(reward, base=None)}
    assert "does not say which base model" in refusal(tmp_path, inputs).message


def test_a_reward_model_needs_its_head(tmp_path: Path, base: Artifact, lora: Artifact, data: Artifact) -> None:
    inputs = {"models": base, "data": data, "reward": replace(lora, kind=Kind.REWARD)}
    assert "no head.safetensors" in refusal(tmp_path, inputs).message


def test_a_reward_model_of_another_base_is_refused(
    tmp_path: Path, base: Artifact, data: Artifact, reward: Artifact
) -> None:
    folder = write_tiny_model(tmp_path / "other-model")
    tokenizer = load_tokenizer(folder)
    tokenizer.add_tokens(["<another>"])
    tokenizer.save_pretrained(folder)
    other = artifact(Kind.MODEL, folder, label="other")
    error = refusal(tmp_path, {"models": (base, other), "data": data, "reward": reward})
    assert "built on another base than other" in error.message
