from __future__ import annotations

import contextlib
import json
import os
import pty
import sys
from collections.abc import Callable
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest

from ftcli.cli.app import main
from ftcli.core.stage import Kind
from ftcli.data.rows import Row, write_jsonl
from tests.cli.in_process import Called, ftcli
from tests.conftest import write_data
from tests.tiny import messages_row, preference_row


def chat(question: str, answer: str) -> Row:
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"messages": messages}


@pytest.fixture
def look(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Called]:
    """Call inspect-mask with the tiny model on these rows, from an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(rows: list[Row], *arguments: str | Path, model: Path = tiny_model) -> Called:
        write_jsonl(tmp_path / "rows.jsonl", rows)
        return ftcli("inspect-mask", "--data", "rows.jsonl", "--model", model, *arguments)

    return run


def altered(model: Path, folder: Path, template: str | None = None, **config: Any) -> Path:
    """A copy of ``model`` with another chat template, or other settings of its tokenizer."""
    copytree(model, folder)
    if template is not None:
        (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | config), encoding="utf-8")
    return folder


def test_trained_text_stands_in_brackets_and_nothing_else_does(look: Callable[..., Called]) -> None:
    called = look([chat("What is a list?", "a list\nof files")])
    assert called.code == 0
    assert called.err == ""
    assert called.out.endswith(
        "<|im_start|>user↵\nWhat is a list?<|im_end|>↵\n<|im_start|>assistant↵\n⟦a list↵\nof files<|im_end|>⟧\n"
    )


def test_figures_of_a_row_are_those_of_its_ids(look: Callable[..., Called], tiny_model: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    prompt = tokenizer("<|im_start|>user\ncat<|im_end|>\n<|im_start|>assistant\n")["input_ids"]
    answer = tokenizer("mat<|im_end|>")["input_ids"]
    called = look([chat("cat", "mat")], "--json", "--ids")
    row = json.loads(called.out)["rows"][0]
    assert row["input_ids"] == prompt + answer
    assert row["is_trained"] == [False] * len(prompt) + [True] * len(answer)
    assert (row["tokens"], row["trained"]) == (len(prompt) + len(answer), len(answer))
    assert row["trained_share"] == len(answer) / (len(prompt) + len(answer))
    assert row["parts"][-1] == {"text": "mat<|im_end|>", "is_trained": True}
    assert (row["row"], row["truncated"], row["dropped"], row["refused"]) == ("row rows.jsonl:1", False, None, None)


def test_each_token_has_a_line_with_its_id_on_request(look: Callable[..., Called], tiny_model: Path) -> None:
    from transformers import AutoTokenizer

    end = AutoTokenizer.from_pretrained(tiny_model).convert_tokens_to_ids("<|im_end|>")
    lines = look([chat("cat", "mat")], "--ids").out.splitlines()
    start = next(place for place, line in enumerate(lines) if line.startswith("row "))
    assert lines[start + 1].split() == ["0", str(end - 1), "<|im_start|>"]
    assert lines[-1].split()[1:] == [str(end), "⟦<|im_end|>⟧"]


def test_characters_that_cannot_be_seen_or_look_like_marks_are_spelled(look: Callable[..., Called]) -> None:
    out = look([chat("a\u202eb \x1b[31m ⟦c⟧ d\\n \u200b ⟨U+0041⟩ ↵\t", "é数🙂")]).out
    assert "a⟨U+202E⟩b ⟨U+001B⟩[31m ⟨U+27E6⟩c⟨U+27E7⟩ d\\n ⟨U+200B⟩ ⟨U+27E8⟩U+0041⟩ ⟨U+21B5⟩⟨U+0009⟩<|im_end|>" in out
    assert "⟦é数🙂<|im_end|>⟧" in out
    assert "\x1b" not in out
    assert "\u202e" not in out


def test_rows_that_are_cut_or_dropped_say_so(look: Callable[..., Called]) -> None:
    rows = [chat("cat", "mat " * 40), chat("cat " * 60, "mat")]
    out = look(rows, "--max-length", "20").out
    assert "row rows.jsonl:1: 20 tokens, " in out
    assert "; cut to max_length, " in out
    assert "All together: 1 row, 20 tokens, " in out
    assert "; of 2 rows 1 cut, 1 dropped (no answer is left), " in out
    assert "row rows.jsonl:2: dropped, no answer is left; " in out
    out = look(rows, "--max-length", "20", "--too-long", "reject").out
    assert "row rows.jsonl:1: dropped, longer than max_length; " in out
    out = look(rows, "--max-length", "20", "--too-long", "truncate_left").out
    assert "row rows.jsonl:2: 20 tokens, " in out


def test_too_long_error_is_bad_data_as_in_training(look: Callable[..., Called]) -> None:
    called = look([chat("cat", "mat " * 40), chat("cat", "mat")], "--max-length", "20", "--too-long", "error")
    assert called.code == 65
    assert "row rows.jsonl:1: dropped, longer than max_length" in called.out
    assert "⟦mat<|im_end|>⟧" in called.out
    assert "of 2 rows 1 (50.0%) are longer" in called.err


def test_a_row_that_no_sample_has_is_refused_as_in_training(
    look: Callable[..., Called], tiny_model: Path, tmp_path: Path
) -> None:
    """The findings come from a sample of alike rows; all rows are encoded."""
    template = (tiny_model / "chat_template.jinja").read_text()
    picky = "{% if 'dog' in messages[0]['content'] %}{{ raise_exception('no dogs') }}{% endif %}" + template
    model = altered(tiny_model, tmp_path / "picky", picky)
    called = look([*[chat("cat", "mat")] * 60, chat("dog", "mat")], "--rows", "1", model=model)
    assert called.code == 65
    assert "row rows.jsonl:61: the model's chat template refuses the messages: no dogs" in called.err
    assert "⟦mat<|im_end|>⟧" in called.out


def test_findings_come_first_with_what_to_do(look: Callable[..., Called]) -> None:
    lines = look([chat("cat", "mat")], "--rows", "0").out.splitlines()
    assert lines[0] == "The chat template, with 1 row: 1 note"
    assert lines[1].startswith("note: pad_is_stop_token: the padding token <|im_end|> (id 2)")
    assert lines[2].startswith("    nothing to do")
    assert lines[3].startswith("All together: 1 row, ")
    assert len(lines) == 4


def test_a_template_at_fault_shows_rows_and_ends_with_65(
    look: Callable[..., Called], tiny_model: Path, tmp_path: Path
) -> None:
    template = (tiny_model / "chat_template.jinja").read_text()
    model = altered(tiny_model, tmp_path / "twice", "{{ bos_token }}{{ bos_token }}" + template)
    called = look([chat("cat", "mat")], model=model)
    assert called.code == 65
    assert "error: double_bos: rows begin with 3 beginning-of-sequence tokens <|im_start|>" in called.out
    assert "⟦mat<|im_end|>⟧" in called.out
    assert "training would refuse this: double_bos" in called.err


def test_rows_that_cannot_be_rendered_are_named(look: Callable[..., Called], tiny_model: Path, tmp_path: Path) -> None:
    template = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    called = look([chat("cat", "mat")], model=altered(tiny_model, tmp_path / "endless", template))
    assert called.code == 65
    assert "error: missing_end_of_turn: " in called.out
    assert "row rows.jsonl:1: refused: the chat template does not end" in called.out


def test_a_model_without_template_is_bad_data(look: Callable[..., Called], tiny_model: Path, tmp_path: Path) -> None:
    called = look([chat("cat", "mat")], "--json", model=altered(tiny_model, tmp_path / "bare", ""))
    assert called.code == 65
    found = json.loads(called.out)
    assert [item["name"] for item in found["findings"]] == ["no_chat_template"]
    assert found["rows"] == []


def test_the_generation_config_is_read_without_the_weights(
    look: Callable[..., Called], tiny_model: Path, tmp_path: Path
) -> None:
    model = altered(tiny_model, tmp_path / "other")
    (model / "generation_config.json").write_text('{"eos_token_id": 0}')
    (model / "model.safetensors").write_bytes(b"no weights")
    out = look([chat("cat", "mat")], "--rows", "0", model=model).out
    assert "warning: stop_never_trained: an answer ends with <|im_end|> (id 2)" in out
    assert 'set "eos_token_id": [0, 2] in generation_config.json' in out


def test_a_data_folder_has_splits(tiny_model: Path, tiny_data: Path) -> None:
    called = ftcli("inspect-mask", "--data", tiny_data, "--model", tiny_model, "--split", "validation", "--rows", "1")
    assert called.code == 0
    assert "The chat template, with 8 rows" in called.out
    assert "row row-24: " in called.out, "the first of the validation split"


def test_an_output_of_a_run_can_be_named(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_jsonl(tmp_path / "raw.jsonl", [chat(f"What is {noun}?", f"a {noun}") for noun in ("cat", "mat", "list")])
    run = tmp_path / "run"
    done = ftcli("prep", "--run", run, "--source", tmp_path / "raw.jsonl", "--in-process")
    assert done.code == 0, done.err
    called = ftcli("inspect-mask", "--run", run, "--data", "prep.data", "--model", tiny_model)
    assert called.code == 0, called.err
    assert "⟦a " in called.out
    monkeypatch.chdir(tmp_path)
    write_jsonl(tmp_path / "prep.jsonl", [chat("cat", "raw")])
    called = ftcli("inspect-mask", "--run", run, "--data", "prep.jsonl", "--model", tiny_model)
    assert called.code == 0, called.err
    assert "⟦raw" in called.out, "a file whose name begins like a stage's output is a file"
    called = ftcli("inspect-mask", "--run", run, "--data", "prep", "--model", tiny_model)
    assert called.code == 0, called.err
    assert "⟦a " in called.out
    called = ftcli("inspect-mask", "--run", run, "--data", "prep.report", "--model", tiny_model)
    assert called.code == 2
    assert f"prep.report is a {Kind.REPORT}, a {Kind.DATA} is needed" in called.err


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--data", "none.jsonl"), 2, "--data: none.jsonl: no such file or folder"),
        (("--data", "prep.data"), 2, "--run names another run directory"),
        (("--data", "rows.jsonl", "--split", "dev"), 2, "--split dev: no such split"),
        (("--data", "rows.jsonl", "--too-long", "cut"), 2, "truncate_left"),
        (("--data", "rows.jsonl", "--rows", "-1"), 2, "--rows"),
        (("--data", "rows.jsonl", "--row", "1"), 2, "did you mean --rows"),
        (("--data", "empty.jsonl"), 65, "empty.jsonl: no row of it can be read"),
        (("--data", "broken.jsonl"), 65, "broken.jsonl"),
        (("--data", "strange.jsonl"), 65, "run `ftcli prep --source"),
        (("--data", "pairs.jsonl"), 65, "gives preference rows, messages rows are needed"),
        (("--data", "folder"), 65, "train.jsonl:1: a preference row, messages needed"),
        (("--data", "rows.jsonl", "--model", "nowhere"), 2, "--model: nowhere: no such file or folder"),
    ],
)
def test_bad_input_is_one_message(
    arguments: tuple[str, ...],
    code: int,
    said: str,
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    write_jsonl(tmp_path / "rows.jsonl", [chat("cat", "mat")])
    write_jsonl(tmp_path / "pairs.jsonl", [preference_row(1)])
    write_jsonl(tmp_path / "strange.jsonl", [{"tool": "a", "platform": "b"}])
    (tmp_path / "empty.jsonl").touch()
    (tmp_path / "broken.jsonl").write_text('{"messages": [\n')
    write_data(tmp_path / "folder", preference_row, 1, 1, 1)
    model = () if "--model" in arguments else ("--model", str(tiny_model))
    called = ftcli("inspect-mask", *arguments, *model)
    assert called.code == code
    assert said in " ".join(called.err.replace("│", " ").split())
    assert called.out == ""


def test_rows_that_no_format_can_read_are_counted(look: Callable[..., Called]) -> None:
    asked = {"messages": [{"role": "user", "content": "only asked"}]}
    out = look([chat("cat", "mat"), asked, messages_row(1)]).out
    assert out.startswith("input: 1 row that prep would refuse left out, the first: rows.jsonl:2: role_order: ")
    assert "The chat template, with 2 rows" in out


@pytest.mark.parametrize(
    ("variable", "value", "marked"),
    [
        ("NO_COLOR", "", "\x1b[1;32mmat<|im_end|>\x1b[0m"),
        ("NO_COLOR", "1", "⟦mat<|im_end|>⟧"),
        ("TERM", "dumb", "⟦mat<|im_end|>⟧"),
    ],
)
def test_on_a_terminal_trained_text_is_green_unless_told_otherwise(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, marked: str
) -> None:
    write_jsonl(tmp_path / "rows.jsonl", [chat("cat", "mat")])
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv(variable, value)
    command = ["ftcli", "inspect-mask", "--data", str(tmp_path / "rows.jsonl"), "--model", str(tiny_model)]
    monkeypatch.setattr(sys, "argv", command)
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "w") as terminal, contextlib.redirect_stdout(terminal), contextlib.suppress(SystemExit):
        main()
    out = b""
    with contextlib.suppress(OSError):  # how Linux says that all is read and the other end closed
        while part := os.read(ours, 65536):
            out += part
    os.close(ours)
    assert marked in out.decode()
