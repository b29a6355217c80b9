from __future__ import annotations

import io
import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch

from ftcli.cli.screen import Screen, visible
from ftcli.core.rundir import RunDir
from ftcli.models.load import load_base, load_model, load_tokenizer, pick_dtype, save_adapter, write_base_record
from tests.cli.in_process import Called, ftcli
from tests.conftest import artifact
from tests.tiny import write_tiny_model

CPU = torch.device("cpu")
ASKED = "What does cat do?"
QUESTION = "<|im_start|>user\nWhat does cat do?<|im_end|>\n<|im_start|>assistant\n"


@pytest.fixture(autouse=True)
def environment() -> Iterator[None]:
    """The command sets variables for the libraries that it then loads."""
    with patch.dict(os.environ):
        yield


def lively(folder: Path, seed: int) -> Path:
    """A tiny model with larger weights than a fresh one has, so that it does not say one word for ever."""
    write_tiny_model(folder, seed=seed)
    model = load_base(folder, torch.float32, CPU)
    torch.manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(0.3 * torch.randn_like(weight))
    model.save_pretrained(folder)
    return folder


def publish(run: Path, id: str, kind: str, output: str, source: Path, ended: str, inputs: dict[str, Any]) -> None:
    directory = RunDir(run)
    work = directory.begin(id, "0123456789ab")
    shutil.copytree(source, work.out / output)
    directory.publish(
        work, id, "0123456789ab", {output: kind}, {"stage": id, "inputs": inputs, "facts": {}, "ended": ended}
    )


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lively(tmp_path_factory.mktemp("models") / "tiny", 5)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, base: Path) -> Path:
    """A run with prep, reward, sft (trained from ``base``) and lora (an adapter on ``base``, the newest); do not write into it."""
    from peft import LoraConfig, get_peft_model

    folder = tmp_path_factory.mktemp("chat")
    source = artifact("model", base)
    adapted = get_peft_model(
        load_base(base, torch.float32, CPU), LoraConfig(r=4, target_modules=["q_proj"], init_lora_weights=False)
    )
    save_adapter(adapted, folder / "adapter")
    write_base_record(folder / "adapter", source)
    inputs = {"model": [{"ref": str(base), "digest": source.digest, "kind": "model", "label": "tiny"}]}
    publish(folder / "run", "sft", "model", "model", lively(folder / "tuned", 6), "2026-01-01", inputs)
    publish(folder / "run", "lora", "model", "model", folder / "adapter", "2026-01-02", inputs)
    for id, kind, output in (("prep", "data", "data"), ("reward", "reward", "reward")):
        publish(folder / "run", id, kind, output, folder / "tuned", "2026-01-03", {})
    return folder / "run"


def chat(run: Path, *arguments: str | Path) -> Called:
    return ftcli("chat", "--run", run, "--temperature", "0", "--max-new-tokens", "12", *arguments)


def said(folder: Path, text: str, tokens: int = 12, base: Path | None = None) -> str:
    """What transformers says after ``text``, greedily and through <|im_end|>."""
    of_base = artifact("model", base) if base else None
    model = load_model(artifact("model", folder, base=of_base), pick_dtype("auto", CPU), CPU)
    tokenizer: Any = load_tokenizer(base or folder)
    ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
    found = model.generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=tokens, do_sample=False, pad_token_id=2
    )
    answer: str = tokenizer.decode(found[0, ids.shape[1] :], skip_special_tokens=True)
    return answer


def answers(called: Called) -> list[list[str]]:
    """The texts of each turn, from --json."""
    assert called.code == 0, called.err
    return [[answer["text"] for answer in turn["answers"]] for turn in json.loads(called.out)["turns"]]


# ---- one-shot


def test_a_message_is_answered_as_transformers_answers_the_models_template(made: Path, base: Path) -> None:
    expected = said(base, QUESTION)
    called = chat(made, "--model", base, "--message", ASKED)
    assert called.code == 0, called.err
    assert len(set(expected)) > 4
    assert called.out == visible(expected) + "\n"
    assert called.err.splitlines()[0] == f"tiny: {base}"
    assert "cut (length): 12 tokens" in called.err
    assert answers(chat(made, "--model", base, "--message", ASKED, "--json")) == [[expected]]


def test_messages_are_one_conversation(made: Path, base: Path) -> None:
    [[first], [second]] = answers(
        chat(made, "--model", base, "--system", "Be kind", "--message", "a", "--message", "b", "--json")
    )
    start = "<|im_start|>system\nBe kind<|im_end|>\n<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n"
    assert first == said(base, start)
    alone = said(base, start.replace("user\na", "user\nb"))
    assert second != alone
    if "\ufffd" not in first:  # such an answer cannot be written into a prompt again
        more = f"{start}{first}<|im_end|>\n<|im_start|>user\nb<|im_end|>\n<|im_start|>assistant\n"
        assert second == said(base, more)


def test_json_names_the_models_and_counts_tokens(made: Path, base: Path) -> None:
    value = json.loads(chat(made, "--message", "a", "--json", "--system", "s", "--compare", "sft").out)
    assert [model["name"] for model in value["models"]] == ["sft", "lora"]
    assert value["models"][1]["ref"] == "stages/lora/0123456789ab/model"
    assert value["system"] == "s"
    assert value["turns"][0]["message"] == "a"
    assert [set(answer) for answer in value["turns"][0]["answers"]] == [{"text", "tokens", "finish_reason"}] * 2
    assert {answer["finish_reason"] for answer in value["turns"][0]["answers"]} <= {"stop", "length"}


def test_samples_repeat_with_the_seed(made: Path) -> None:
    def sample(*arguments: str) -> list[list[str]]:
        return answers(chat(made, "--model", "sft", "--temperature", "1", "--message", "a", "--json", *arguments))

    assert sample() == sample() == sample("--seed", "42")
    assert sample("--seed", "7") != sample()


# ---- which model


@pytest.mark.parametrize(
    ("given", "name"), [([], "lora"), (["--model", "sft"], "sft"), (["--model", "sft.model"], "sft")]
)
def test_a_model_is_named_by_stage_or_output_and_is_else_the_newest(made: Path, given: list[str], name: str) -> None:
    called = chat(made, *given, "--message", "a")
    assert called.code == 0, called.err
    assert called.err.splitlines()[0] == f"{name}: stages/{name}/0123456789ab/model"


def test_an_adapter_is_compared_with_its_base_from_one_set_of_weights(made: Path, base: Path) -> None:
    with patch("ftcli.models.load.load_base", wraps=load_base) as loads:
        called = chat(made, "--compare", "base", "--message", ASKED, "--json")
    [[by_base, tuned]] = answers(called)
    assert by_base == said(base, QUESTION)
    assert tuned == said(made / "stages/lora/0123456789ab/model", QUESTION, base=base)
    assert by_base != tuned
    assert loads.call_count == 1
    assert called.err.splitlines()[0] == f"base: {base}"


def test_a_whole_model_is_compared_with_what_it_was_trained_from(made: Path, base: Path) -> None:
    [[by_base, tuned]] = answers(chat(made, "--model", "sft", "--compare", "base", "--message", ASKED, "--json"))
    assert by_base == said(base, QUESTION)
    assert tuned == said(made / "stages/sft/0123456789ab/model", QUESTION)


def test_each_model_remembers_its_own_answers(made: Path, base: Path) -> None:
    one = answers(chat(made, "--compare", "base", "--message", "a", "--message", "b", "--json"))
    tuned_alone = answers(chat(made, "--message", "a", "--message", "b", "--json"))
    base_alone = answers(chat(made, "--model", base, "--message", "a", "--message", "b", "--json"))
    assert one == [[*left, *right] for left, right in zip(base_alone, tuned_alone, strict=True)]


def test_two_answers_stand_below_each_other_when_piped(made: Path) -> None:
    called = chat(made, "--compare", "base", "--message", "a")
    lines = called.out.splitlines()
    assert lines[0] == "base:"
    assert "lora:" in lines
    assert lines[lines.index("lora:") - 1] == ""


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (["--model", "lor"], "--model: lor: no such file or folder", "did you mean lora?"),
        (["--model", "/nowhere"], "--model: /nowhere: no such file or folder", "lora.model, sft.model"),
        (["--model", "prep"], "--model: stage prep has no model (prep.data is a data)", ""),
        (["--model", "reward.reward"], "--model: reward.reward is a reward, a model is needed", ""),
        (["--model", "lora.data"], "--model: lora.data: no such file", "did you mean lora?"),
        (["--model", "demo:other"], "--model: no built-in model other", "demo:smollm2"),
        (["--model", "pydoc:stdlib"], "--model: pydoc:stdlib cannot be a model", ""),
        (["--compare", "nothing"], "--compare: nothing: no such file or folder", "lora.model, sft.model"),
        (["--temperature", "inf"], "--temperature inf", ""),
        (["--temperature", "nan"], "temperature", ""),
        (["--temperature", "-1"], "temperature", ""),
        (["--max-new-tokens", "0"], "max-new-tokens", ""),
        (["--top-p", "0.9"], "no such option --top-p", ""),
        (["--json"], "--json prints a conversation when it is over", "--message"),
        (["--message", "\udcff"], "no valid UTF-8", ""),
        (["--system", "\udcff"], "no valid UTF-8", ""),
        (["--message", "the " * 600], "the model's context holds 512", "/reset"),
    ],
)
def test_mistakes_are_one_message(made: Path, arguments: list[str], message: str, hint: str) -> None:
    called = chat(made, *arguments, *([] if arguments[0] in ("--message", "--json") else ["--message", "a"]))
    assert called.code == 2
    assert message in called.err
    assert hint in called.err
    assert called.out == ""


def test_a_run_without_models_says_so(tmp_path: Path) -> None:
    called = chat(tmp_path, "--message", "a")
    assert (called.code, called.out) == (2, "")
    assert called.err.startswith(f"error: {tmp_path} holds no model\nhint: train one")
    assert f"{tmp_path} holds no model" in chat(tmp_path, "--model", "lora", "--message", "a").err


def test_the_origin_of_a_model_from_outside_is_not_guessed(made: Path, base: Path) -> None:
    called = chat(made, "--model", base, "--compare", "base", "--message", "a")
    assert called.code == 2
    assert f"nothing says which model {base} was trained from" in called.err
    assert "--compare REF" in called.err


def test_an_origin_that_changed_is_refused(made: Path, base: Path, tmp_path: Path) -> None:
    shutil.copytree(made, tmp_path / "run")
    moved = shutil.copytree(base, tmp_path / "base")
    run = tmp_path / "run"
    item = RunDir(run).latest("sft")
    assert item is not None
    manifest = dict(item.manifest)
    manifest["inputs"]["model"][0]["ref"] = str(moved)
    (item.path / "stage.json").write_text(json.dumps(manifest))
    assert chat(run, "--model", "sft", "--compare", "base", "--message", "a").code == 0
    (moved / "notes.txt").write_text("changed")
    called = chat(run, "--model", "sft", "--compare", "base", "--message", "a")
    assert called.code == 76
    assert "has changed since" in called.err
    shutil.rmtree(moved)
    gone = chat(run, "--model", "sft", "--compare", "base", "--message", "a")
    assert gone.code == 2
    assert f"--compare base: {moved}: no such file or folder" in gone.err
    manifest["inputs"]["model"][0]["ref"] = "stages/old/0123456789ab/model"
    (item.path / "stage.json").write_text(json.dumps(manifest))
    gone = chat(run, "--model", "sft", "--compare", "base", "--message", "a")
    assert gone.code == 2
    assert "stages/old/0123456789ab/model is gone" in gone.err


# ---- lines


def lines(run: Path, text: str | bytes, *arguments: str | Path) -> Called:
    raw = io.BytesIO(text.encode() if isinstance(text, str) else text)
    with patch.object(sys, "stdin", io.TextIOWrapper(raw, encoding="utf-8")):
        return chat(run, *arguments)


def test_lines_of_a_pipe_are_answered_and_nothing_else_is_printed(made: Path, base: Path) -> None:
    called = lines(made, "\nWhat does cat do?\r\n/reset\n  What does cat do?  \n/quit\nnever asked\n", "--model", base)
    assert called.code == 0, called.err
    assert called.out == 2 * (visible(said(base, QUESTION)) + "\n")
    assert "[a new conversation]" in called.err


def test_a_mistake_in_a_pipe_ends_the_command(made: Path) -> None:
    called = lines(made, "/rset\na\n")
    assert (called.code, called.out) == (2, "")
    assert "no command /rset" in called.err
    assert "did you mean /reset?" in called.err
    assert "begin with a space" in called.err
    bad = lines(made, b"a \xff\n")
    assert bad.code == 2
    assert "standard input is no valid UTF-8" in bad.err


class Keyboard:
    """Stands for a person at a terminal: each line, or the exception that a key raises."""

    def __init__(self, *keys: str | type[BaseException]) -> None:
        self.keys = list(keys)

    def isatty(self) -> bool:
        return True

    def __call__(self, prompt: str) -> str:
        assert prompt == "> "
        key = self.keys.pop(0)
        if isinstance(key, str):
            return key
        raise key


class TerminalStream(io.StringIO):
    def isatty(self) -> bool:
        return True


def typed(run: Path, *keys: str | type[BaseException], arguments: tuple[str | Path, ...] = ()) -> Called:
    keyboard = Keyboard(*keys)
    with (
        patch("builtins.input", keyboard),
        patch.object(sys, "stdin", keyboard),
        patch("io.StringIO", TerminalStream),
    ):
        called = chat(run, *arguments)
    assert not keyboard.keys, "it left before the last key"
    return called


def test_at_a_terminal_mistakes_are_said_and_the_conversation_goes_on(made: Path) -> None:
    called = typed(made, "/retry", "/foo", "the " * 600, "/help", "a", EOFError)
    assert called.code == 0, called.err
    assert "error: /retry: nothing was asked yet" in called.err
    assert "error: no command /foo" in called.err
    assert "the model's context holds 512" in called.err
    for word in ("/help", "/reset", "/system TEXT", "/retry", "/quit"):
        assert f"\n{word}" in called.err
    assert called.out.strip()


def test_retry_takes_the_last_answer_back(made: Path, base: Path) -> None:
    sampled = ("--model", base, "--temperature", "1")
    once = typed(made, "a", "/retry", "/quit", arguments=sampled).out
    first = typed(made, "a", "/quit", arguments=sampled).out
    assert once.startswith(first)
    assert once != first * 2, "another sample"
    greedy = typed(made, "a", "b", "/retry", "/quit", arguments=("--model", base))
    assert "the answer is the same" in greedy.err
    plain = typed(made, "a", "b", "/quit", arguments=("--model", base)).out
    assert greedy.out == plain + plain.removeprefix(typed(made, "a", "/quit", arguments=("--model", base)).out)


def test_a_retry_that_cannot_be_leaves_the_conversation_as_it_was(made: Path, base: Path) -> None:
    model = ("--model", base)
    called = typed(made, "a", "/system " + "the " * 600, "/retry", "/system", "b", "/quit", arguments=model)
    assert "the model's context holds 512" in called.err
    assert called.out == typed(made, "a", "b", "/quit", arguments=model).out
    assert called.out != typed(made, "a", "/reset", "b", "/quit", arguments=model).out


def test_the_system_message_can_be_set_and_removed(made: Path, base: Path) -> None:
    called = typed(made, "/system Be kind", "a", "/reset", "/system", "a", "/quit", arguments=("--model", base))
    turn = "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n"
    expected = [said(base, f"<|im_start|>system\nBe kind<|im_end|>\n{turn}"), said(base, turn)]
    assert called.out == "".join(visible(text) + "\n" for text in expected)
    assert "[system message set]" in called.err
    assert "[no system message]" in called.err


def test_a_second_interrupt_at_the_prompt_leaves(made: Path) -> None:
    called = typed(made, KeyboardInterrupt, "/help", KeyboardInterrupt, KeyboardInterrupt)
    assert called.code == 0
    assert called.err.count("[Ctrl-C again leaves]") == 2


def test_an_interrupt_stops_the_answer_and_keeps_the_conversation(made: Path, base: Path) -> None:
    count = [0]
    add = Screen.add

    def interrupting(self: Screen, place: int, text: str) -> None:
        add(self, place, text)
        count[0] += 1
        if count[0] == 2:
            raise KeyboardInterrupt

    with patch.object(Screen, "add", interrupting):
        called = typed(made, ASKED, "/retry", KeyboardInterrupt, KeyboardInterrupt, arguments=("--model", base))
    assert called.code == 0
    assert "stopped; what it wrote stays in the conversation" in called.err
    first, second = called.out.split("\n", 1)
    assert 0 < len(first) < len(second)
    assert second.startswith(first.rstrip("\ufffd")), "the same message was answered again"
    count[0] = 0
    with patch.object(Screen, "add", interrupting):
        assert typed(made, ASKED, KeyboardInterrupt, arguments=("--model", base)).code == 0, "the second one leaves"


def test_an_interrupt_ends_a_command_for_scripts(made: Path) -> None:
    def interrupting(self: Screen, place: int, text: str) -> None:
        raise KeyboardInterrupt

    with patch.object(Screen, "add", interrupting):
        assert chat(made, "--message", "a", "--message", "b").code == 130
        assert lines(made, "a\nb\n").code == 130


# ---- templates


def test_earlier_answers_are_shown_as_the_template_shows_them(made: Path, base: Path, tmp_path: Path) -> None:
    """As templates of thinking models do, this one leaves the thinking of earlier answers out."""
    folder = shutil.copytree(base, tmp_path / "thinking")
    template = (folder / "chat_template.jinja").read_text()
    shortened = "(message['content'] if loop.last else '[earlier]')"
    (folder / "chat_template.jinja").write_text(template.replace("message['content']", shortened))
    [[_], [second]] = answers(chat(made, "--model", folder, "--message", "a", "--message", "b", "--json"))
    prompt = (
        "<|im_start|>user\n[earlier]<|im_end|>\n<|im_start|>assistant\n[earlier]<|im_end|>\n"
        "<|im_start|>user\nb<|im_end|>\n<|im_start|>assistant\n"
    )
    assert second == said(folder, prompt)


def test_a_template_that_refuses_the_messages_is_quoted(made: Path, base: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(base, tmp_path / "refusing")
    (folder / "chat_template.jinja").write_text("{{ raise_exception('no system here') }}")
    called = chat(made, "--model", folder, "--message", "a")
    assert called.code == 65
    assert "no system here" in called.err
