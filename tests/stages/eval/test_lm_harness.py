from __future__ import annotations

import json
import math
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from ftcli.core.errors import UsageError
from ftcli.core.stage import Kind
from ftcli.metrics.figures import read_figures, write_figures
from ftcli.pipeline.fetch import NotFetched, demo_model
from ftcli.stages.eval.bench import Bench
from ftcli.stages.eval.cache import Cache
from ftcli.stages.eval.lm_harness import run_tasks
from ftcli.stages.eval.lm_tasks import check_tasks
from ftcli.stages.eval.subject import Subject
from tests.conftest import artifact

pytest.importorskip("lm_eval", reason="the extra ftcli[lm-eval] is not installed")

CHOICES = [
    {"question": "What does the cat do?", "options": ["the cat sat", "the mat"], "answer": 0},
    {"question": "Where was the list?", "options": ["in a file", "on a mat", "there"], "answer": 2},
    {"question": "What is not found?", "options": ["name", "number"], "answer": 1},
    {"question": "the file", "options": ["open", "close"], "answer": 0},
]
OPEN = [
    {"question": "Return the cat", "answer": "the cat"},
    {"question": "Read the file", "answer": "read of the list"},
]
TEXTS = [{"text": "the cat sat on a mat"}, {"text": "What does the file return?"}]

CHOICE_TASK = """
task: own_choices
dataset_path: json
dataset_kwargs: {{data_files: {{test: {folder}/choices.jsonl}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{options}}}}"
doc_to_target: answer
metric_list:
  - {{metric: acc, aggregation: mean, higher_is_better: true}}
  - {{metric: acc_norm, aggregation: mean, higher_is_better: true}}
metadata: {{version: 3}}
"""
OPEN_TASK = """
task: own_answers
dataset_path: json
dataset_kwargs: {{data_files: {{test: {folder}/open.jsonl}}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{answer}}}}"
generation_kwargs: {{until: ["\\n"], max_gen_toks: 8, do_sample: false}}
metric_list:
  - {{metric: exact_match, aggregation: mean, higher_is_better: true}}
  - {{metric: bleu, aggregation: bleu, higher_is_better: true}}
  - {{metric: chrf++, aggregation: chrf++, higher_is_better: true}}
  - {{metric: chrf, aggregation: chrf, higher_is_better: true}}
  - {{metric: ter, aggregation: ter, higher_is_better: false}}
metadata: {{version: 1}}
"""
TEXT_TASK = """
task: own_texts
dataset_path: json
dataset_kwargs: {{data_files: {{test: {folder}/texts.jsonl}}}}
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: text
metric_list:
  - {{metric: word_perplexity}}
  - {{metric: byte_perplexity}}
  - {{metric: bits_per_byte}}
metadata: {{version: 1}}
"""
GROUP = """
group: own_group
task: [own_choices, own_more]
aggregate_metric_list:
  - {metric: acc, aggregation: mean, weight_by_size: true}
metadata: {version: 1}
"""


def write_tasks(folder: Path, texts: list[dict[str, str]] = TEXTS) -> Path:
    """A folder with one task of each kind."""
    folder.mkdir(exist_ok=True)
    for name, rows in {"choices": CHOICES, "open": OPEN, "texts": texts, "more": CHOICES[1:]}.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    more = CHOICE_TASK.replace("own_choices", "own_more").replace("choices.jsonl", "more.jsonl")
    for name, task in {"choices": CHOICE_TASK, "open": OPEN_TASK, "texts": TEXT_TASK, "more": more}.items():
        (folder / f"{name}.yaml").write_text(task.format(folder=folder))
    (folder / "group.yaml").write_text(GROUP)
    return folder


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tasks(tmp_path_factory.mktemp("tasks"))


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets")


@pytest.fixture(scope="module")
def loaded(tiny_model: Path) -> tuple[Any, Any]:
    return AutoModelForCausalLM.from_pretrained(tiny_model).eval(), AutoTokenizer.from_pretrained(tiny_model)


def logprob(model: Any, tokenizer: Any, prompt: str, answer: str) -> float:
    """log p(answer | prompt), by hand."""
    start = tokenizer(prompt, add_special_tokens=False).input_ids
    ids = tokenizer(prompt + answer, add_special_tokens=False).input_ids
    with torch.no_grad():
        logs = torch.log_softmax(model(torch.tensor([ids])).logits[0].double(), dim=-1)
    return sum(float(logs[at - 1, ids[at]]) for at in range(len(start), len(ids)))


def test_a_choice_is_the_likeliest_answer_after_the_prompt(loaded, tasks: Path) -> None:
    model, tokenizer = loaded
    figures = run_tasks(model, tokenizer, ["own_choices"], tasks, chat_template=False).figures
    assert set(figures) == {"lm_eval.own_choices.acc", "lm_eval.own_choices.acc_norm"}
    right = []
    for row in CHOICES:
        logs = [logprob(model, tokenizer, row["question"], f" {option}") for option in row["options"]]
        right.append(float(logs.index(max(logs)) == row["answer"]))
    figure = figures["lm_eval.own_choices.acc"]
    assert figure.examples.statistics[:, 0].tolist() == right
    assert figure.value() == sum(right) / 4
    assert (figure.metric.higher_is_better, figure.metric.is_share, figure.metric.family) == (True, True, "lm_eval")
    assert "version 3|0 shots|chat none" in figure.signature


def test_the_chat_template_changes_the_prompt_and_is_on_record(loaded, tasks: Path) -> None:
    plain = run_tasks(*loaded, ["own_answers"], tasks, chat_template=False)
    chat = run_tasks(*loaded, ["own_answers"], tasks, comparable="bfloat16")
    name = "lm_eval.own_answers.exact_match"
    assert "|chat none" in plain.figures[name].signature
    assert re.search(r"\|chat [0-9a-f]{12}", chat.figures[name].signature)
    assert chat.figures[name].comparable == "bfloat16"
    tokenizer = AutoTokenizer.from_pretrained(loaded[1].name_or_path)
    tokenizer.chat_template = None
    with pytest.raises(UsageError, match="no chat template"):
        run_tasks(loaded[0], tokenizer, ["own_answers"], tasks)


def test_corpus_metrics_are_those_of_the_harness(loaded, tasks: Path) -> None:
    """Every figure was held against the harness's own value, which is a condition for there being one."""
    found = run_tasks(*loaded, ["own_answers"], tasks)
    kinds = {name.rpartition(".")[2]: figure.examples.kind for name, figure in found.figures.items()}
    assert kinds == {"exact_match": "quotient", "bleu": "bleu/13a", "chrf++": "chrf", "chrf": "chrf", "ter": "ter"}
    assert found.figures["lm_eval.own_answers.ter"].metric.higher_is_better is False
    assert found.notes == []


def test_a_metric_that_is_no_function_of_sums_is_left_out_aloud(loaded, tmp_path: Path) -> None:
    folder = write_tasks(tmp_path / "tasks")
    text = (
        CHOICE_TASK.format(folder=folder)
        .replace("own_choices", "middling")
        .replace("acc, aggregation: mean", "acc, aggregation: median")
    )
    (folder / "middling.yaml").write_text(text)
    found = run_tasks(*loaded, ["middling"], folder)
    assert set(found.figures) == {"lm_eval.middling.acc_norm"}
    (note,) = found.notes
    assert note.startswith("lm_eval.middling.acc is ")
    assert "its aggregation (median)" in note


def test_rolling_likelihood_is_the_models_own(loaded, tasks: Path, tmp_path: Path) -> None:
    model, tokenizer = loaded
    prefix = tokenizer.convert_tokens_to_ids("<|endoftext|>")
    figures = run_tasks(model, tokenizer, ["own_texts"], tasks, prefix_id=prefix).figures
    nll = [-logprob(model, tokenizer, "<|endoftext|>", row["text"]) for row in TEXTS]
    words, length = 6 + 5, sum(len(row["text"]) for row in TEXTS)
    values = {name.rpartition(".")[2]: figure.value() for name, figure in figures.items()}
    assert values == pytest.approx(
        {
            "word_perplexity": math.exp(sum(nll) / words),
            "byte_perplexity": math.exp(sum(nll) / length),
            "bits_per_byte": sum(nll) / length / math.log(2),
        },
        rel=1e-4,
    )
    assert figures["lm_eval.own_texts.word_perplexity"].metric.is_ratio
    assert figures["lm_eval.own_texts.bits_per_byte"].metric.higher_is_better is False
    assert f"prefix {prefix}" in figures["lm_eval.own_texts.bits_per_byte"].signature
    write_figures(tmp_path / "examples.json", {"tiny": figures})
    again = read_figures(tmp_path / "examples.json")["tiny"]
    assert {name: figure.value() for name, figure in again.items()} == {
        name: figure.value() for name, figure in figures.items()
    }


def test_a_group_is_the_mean_over_the_rows_of_its_tasks(loaded, tasks: Path) -> None:
    group = run_tasks(*loaded, ["own_group"], tasks).figures
    single = run_tasks(*loaded, ["own_choices", "own_more"], tasks).figures
    assert set(group) == {"lm_eval.own_group.acc"}
    rows = [*single["lm_eval.own_choices.acc"].examples.statistics, *single["lm_eval.own_more.acc"].examples.statistics]
    assert [row.tolist() for row in group["lm_eval.own_group.acc"].examples.statistics] == [
        row.tolist() for row in rows
    ]
    assert len(set(group["lm_eval.own_group.acc"].ids)) == 7
    both = run_tasks(*loaded, ["own_group", "own_more"], tasks).figures
    assert set(both) == {"lm_eval.own_group.acc", "lm_eval.own_more.acc", "lm_eval.own_more.acc_norm"}


def test_an_adapter_counts_and_the_model_is_left_as_it_was(tiny_model: Path, loaded, tasks: Path) -> None:
    from peft import LoraConfig, get_peft_model

    base = AutoModelForCausalLM.from_pretrained(tiny_model)
    tuned = get_peft_model(base, LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)).eval()
    before = {name: weight.clone() for name, weight in tuned.state_dict().items()}
    padding, random_state = loaded[1].padding_side, torch.random.get_rng_state()
    name = "lm_eval.own_texts.bits_per_byte"
    with_adapter = run_tasks(tuned, loaded[1], ["own_texts"], tasks).figures[name]
    with tuned.disable_adapter():
        without = run_tasks(tuned, loaded[1], ["own_texts"], tasks).figures[name]
    plain = run_tasks(*loaded, ["own_texts"], tasks).figures[name]
    assert without.examples.statistics.tolist() == plain.examples.statistics.tolist()
    assert with_adapter.value() != plain.value()
    assert with_adapter.ids == plain.ids
    assert all(torch.equal(before[key], weight) for key, weight in tuned.state_dict().items())
    assert loaded[1].padding_side == padding
    assert torch.equal(torch.random.get_rng_state(), random_state)


def test_limit_takes_the_first_rows_and_shots_are_put_before_the_question(loaded, tasks: Path) -> None:
    found = run_tasks(*loaded, ["own_choices"], tasks, limit=2, shots=1)
    assert len(found.figures["lm_eval.own_choices.acc"].ids) == 2
    assert "version 3|1 shots" in found.figures["lm_eval.own_choices.acc"].signature


def test_prompts_that_do_not_fit_are_counted(loaded, tasks: Path) -> None:
    model, tokenizer = loaded
    sizes = [
        [len(tokenizer(f"{row['question']} {option}", add_special_tokens=False).input_ids) for option in row["options"]]
        for row in CHOICES
    ]
    longest = max(max(row) for row in sizes)
    whole = run_tasks(model, tokenizer, ["own_choices"], tasks, chat_template=False, max_length=longest - 1)
    assert whole.notes == [], "the last token is scored and not read"
    limit = longest - 3
    cut = sum(max(row) > limit + 1 for row in sizes)
    short = run_tasks(model, tokenizer, ["own_choices"], tasks, chat_template=False, max_length=limit)
    assert short.notes == [f"lm_eval.own_choices: {cut} of 4 prompts lost their beginning (max_length {limit})"]
    with pytest.raises(UsageError, match=r"own_choices: row 0 has a choice of \d tokens, and prompt and answer have 2"):
        run_tasks(model, tokenizer, ["own_choices"], tasks, max_length=2)
    answers = run_tasks(model, tokenizer, ["own_answers"], tasks, max_length=10)
    assert answers.notes == ["lm_eval.own_answers: 2 of 2 prompts lost their beginning (max_length 10)"]
    with pytest.raises(UsageError, match="own_answers asks for answers of 8 tokens, and prompt and answer have 8"):
        run_tasks(model, tokenizer, ["own_answers"], tasks, max_length=8)


def test_an_unknown_task_is_told_the_nearest_of_the_folder_and_what_was_passed_over(
    loaded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lm_eval.tasks.manager.__file__", str(tmp_path / "none" / "manager.py"))  # no 14 000 others
    write_tasks(tmp_path / "tasks")
    with pytest.raises(UsageError, match=r"lm-eval: no task own_choice$") as caught:
        run_tasks(*loaded, ["own_choice"], tmp_path / "tasks")
    assert caught.value.hint == "did you mean own_choices?"
    (tmp_path / "tasks" / "broken.yaml").write_text("task: broken\n  x: [\n")
    with pytest.raises(UsageError, match=r"no task broken; .*broken.yaml was passed over: "):
        run_tasks(*loaded, ["broken"], tmp_path / "tasks")
    with pytest.raises(UsageError, match="nowhere: no folder of tasks"):
        run_tasks(*loaded, ["broken"], tmp_path / "nowhere")


def test_a_task_without_its_data_says_what_it_needs(loaded, tmp_path: Path) -> None:
    folder = write_tasks(tmp_path / "tasks")
    text = CHOICE_TASK.format(folder=folder)
    head = text.replace("own_choices", "far").replace(
        "dataset_path: json", "dataset_path: someone/questions\ndataset_name: hard"
    )
    (folder / "far.yaml").write_text("\n".join(line for line in head.splitlines() if "dataset_kwargs" not in line))
    with pytest.raises(
        UsageError, match=r"far.yaml: task far needs the data set someone/questions hard, which is not on this machine"
    ) as caught:
        run_tasks(*loaded, ["far"], folder)
    assert 'l("someone/questions", "hard")' in caught.value.hint
    (folder / "choices.jsonl").unlink()
    with pytest.raises(UsageError, match=r"choices.yaml: task own_choices cannot be loaded: FileNotFoundError: "):
        run_tasks(*loaded, ["own_choices"], folder)


def test_a_task_that_runs_the_models_code_is_refused(loaded, tmp_path: Path) -> None:
    folder = write_tasks(tmp_path / "tasks")
    text = OPEN_TASK.format(folder=folder).replace("own_answers", "own_code")
    (folder / "code.yaml").write_text(text + "unsafe_code: true\n")
    with pytest.raises(UsageError, match="task own_code runs code that the model writes"):
        run_tasks(*loaded, ["own_code"], folder)
    check_tasks(["own_answers", "own_group"], folder)
    with pytest.raises(UsageError, match="task own_code runs code that the model writes"):
        check_tasks(["own_answers", "own_code"], folder)


def test_what_was_answered_is_not_computed_again(tiny_model: Path, loaded, tasks: Path, tmp_path: Path) -> None:
    """One task of each type; the same model under another label, then with another seed and another limit of length."""
    names = ["own_choices", "own_answers", "own_texts"]
    found, work = [], []
    for options in ({}, {"seed": 1}, {"max_length": 400}):
        bench = Bench(torch.float32, torch.device("cpu"))
        subject = Subject(artifact(Kind.MODEL, tiny_model), bench, Cache(tmp_path / "eval.sqlite"))
        found.append(run_tasks(subject.model(), loaded[1], names, tasks, kept=subject.kept, **options).figures)
        work.append((subject.computed, subject.cached))
    requests = sum(len(row["options"]) for row in CHOICES) + len(OPEN) + len(TEXTS)
    assert work == [(requests, 0), (0, requests), (requests, 0)]
    plain = run_tasks(*loaded, names, tasks).figures
    for name, figure in plain.items():
        assert found[0][name].examples.statistics.tolist() == figure.examples.statistics.tolist()
        assert found[1][name].examples.statistics.tolist() == figure.examples.statistics.tolist()


def test_answers_that_are_drawn_are_not_kept(tiny_model: Path, loaded, tmp_path: Path) -> None:
    """A task may draw several to one request, and they are to differ."""
    folder = write_tasks(tmp_path / "tasks")
    text = OPEN_TASK.format(folder=folder).replace("do_sample: false", "do_sample: true, temperature: 1.0")
    (folder / "open.yaml").write_text(text)
    bench = Bench(torch.float32, torch.device("cpu"))
    subject = Subject(artifact(Kind.MODEL, tiny_model), bench, Cache(tmp_path / "eval.sqlite"))
    run_tasks(subject.model(), loaded[1], ["own_answers"], folder, kept=subject.kept)
    assert (subject.computed, subject.cached) == (0, 0)


def test_without_the_extra_one_line_says_how_to_get_it(loaded, tasks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(UsageError, match="lm-evaluation-harness is not installed") as caught:
        run_tasks(*loaded, ["own_choices"], tasks)
    assert caught.value.hint == "pip install 'ftcli[lm-eval]'"


@pytest.mark.model
def test_the_demo_models_byte_perplexity_is_that_of_the_reference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Corpus values of lm-eval 0.4.13 on its command line, and nll of a plain float64 loop over the model."""
    monkeypatch.delenv("FTCLI_CACHE", raising=False)  # this folder's tests keep answers in a cache of their own
    try:
        folder, _ = demo_model("smollm2", fetch=False)
    except NotFetched:
        pytest.skip("the demo model is not on this machine")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    texts = [
        "The capital of France is Paris.",
        "Water boils at 100 degrees Celsius at sea level.",
        "I like cheese.",
        "\u00dcn\u00efc\u00f6d\u00e9 text, emoji \U0001f642 and \u65e5\u672c\u8a9e.",
    ]
    tasks = write_tasks(tmp_path / "tasks", [{"text": text} for text in texts])
    expected = {None: [5.650081, 2.498272, 18265.994], 0: [4.179785, 2.063429, 3310.337]}
    for prefix, values in expected.items():  # the tokenizer's own is <|im_start|>, which no text stands after
        figures = run_tasks(
            model, AutoTokenizer.from_pretrained(folder), ["own_texts"], tasks, prefix_id=prefix
        ).figures
        found = {name.rpartition(".")[2]: figure.value() for name, figure in figures.items()}
        assert [found["byte_perplexity"], found["bits_per_byte"]] == pytest.approx(values[:2], rel=1e-4)
        assert found["word_perplexity"] == pytest.approx(values[2], rel=1e-3)
    nll = [17.266258, 27.622298, 23.592598, 126.034405]
    rows = figures["lm_eval.own_texts.bits_per_byte"].examples.statistics
    assert (rows[:, 0] * math.log(2)).tolist() == pytest.approx(nll, rel=1e-4)
