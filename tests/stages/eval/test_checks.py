"""What is refused before any model computes anything."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ftcli.core.errors import BadData, FtcliError, UsageError
from ftcli.core.stage import Artifact, Kind
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


@pytest.mark.parametrize("place", ["model", "against"])
def test_a_rule_about_a_model_that_is_not_there_is_refused(
    tmp_path: Path, base: Artifact, lora: Artifact, data: Artifact, place: str
) -> None:
    rule = {"metric": "perplexity", "max_ratio": 1.1, place: "lroa"}
    error = refusal(tmp_path, {"models": (base, lora), "data": data}, gate=(rule,))
    assert "perplexity max_ratio 1.1" in error.message
    assert error.message.endswith("no model lroa was measured; did you mean lora?")


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
