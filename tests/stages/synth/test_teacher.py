"""A local teacher, and what is said of it. The tiny model writes nonsense, or one reply that it was taught by heart."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from ftcli.core.errors import BadData, UsageError
from ftcli.core.stage import Artifact, Kind
from ftcli.data.chat import render_prompt
from ftcli.stages.synth.config import SynthConfig
from ftcli.stages.synth.journal import Answer, Question
from ftcli.stages.synth.stage import SYNTH
from ftcli.stages.synth.teacher import LocalTeacher, licence_of
from tests.conftest import artifact, run_stage
from tests.stages.synth.teaching import rejected_of, seeds

Heard = dict[str, Answer]


def question(name: str) -> Question:
    return Question(name, [{"role": "user", "content": f"the cat sat on a mat, {name}"}])


def heard(model: Path, names: str, stop_after: int = 99, **settings: Any) -> Heard:
    config = SynthConfig(max_new_tokens=8, precision="fp32", **settings)
    found: Heard = {}
    LocalTeacher(config, artifact(Kind.MODEL, model)).ask(
        [question(name) for name in names],
        lambda asked, answer: found.update({asked.key: answer}),
        lambda: len(found) >= stop_after,
    )
    return found


def test_replies_are_decided_by_seed_and_question_not_by_the_batch(tiny_model: Path) -> None:
    one = heard(tiny_model, "abcd", batch_size=1)
    assert one == heard(tiny_model, "dcba", batch_size=3)
    assert one != heard(tiny_model, "abcd", seed=1)
    assert heard(tiny_model, "c")["c"] == one["c"]


def test_tokens_are_those_of_prompt_and_reply(tiny_model: Path) -> None:
    answer = heard(tiny_model, "a")["a"]
    prompt = render_prompt(AutoTokenizer.from_pretrained(tiny_model), question("a").messages)
    assert answer.tokens is not None
    assert len(prompt) < answer.tokens <= len(prompt) + 8
    assert answer.finish_reason == "stop" or answer.tokens == len(prompt) + 8


def test_no_further_batch_is_begun_once_it_is_over(tiny_model: Path) -> None:
    assert set(heard(tiny_model, "abcdef", stop_after=1, batch_size=2)) == {"a", "b"}


def test_a_question_that_the_model_cannot_read_is_refused_and_the_others_are_not(tiny_model: Path) -> None:
    found: Heard = {}
    long = Question("long", [{"role": "user", "content": "cat " * 600}])
    teacher = LocalTeacher(SynthConfig(max_new_tokens=4, precision="fp32"), artifact(Kind.MODEL, tiny_model))
    teacher.ask([long, question("a")], lambda asked, answer: found.update({asked.key: answer}), lambda: False)
    assert "the teacher can read 512" in found["long"].refused
    assert not found["a"].refused


def test_a_teacher_without_a_chat_template_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    tokenizer.chat_template = None
    AutoModelForCausalLM.from_pretrained(tiny_model).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(UsageError, match="no chat template"):
        LocalTeacher(SynthConfig(), artifact(Kind.MODEL, tmp_path))


def test_a_poor_teacher_ends_in_an_error_that_counts_and_keeps_its_replies(tiny_model: Path, tmp_path: Path) -> None:
    inputs = {"seeds": artifact(Kind.DATA, seeds(tmp_path / "seeds")), "teacher": artifact(Kind.MODEL, tiny_model)}
    settings = {"requests": 2, "examples": 1, "max_new_tokens": 4, "precision": "fp32", "mode": "augment"}
    with pytest.raises(BadData, match="none of 2 replies became a row: "):
        run_stage(SYNTH, tmp_path, inputs, **settings)
    assert len(rejected_of(tmp_path)) == 2


def test_a_local_model_that_writes_json_makes_a_row(tiny_model: Path, tmp_path: Path) -> None:
    reply = json.dumps({"instruction": "what is the cat on?", "response": "on a mat."})
    model, tokenizer = AutoModelForCausalLM.from_pretrained(tiny_model), AutoTokenizer.from_pretrained(tiny_model)
    ids = tokenizer(
        f"<|im_start|>assistant\n{reply}<|im_end|>", add_special_tokens=False, return_tensors="pt"
    ).input_ids
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(60):
        # at the positions that the reply has after a long prompt too, so that where it begins does not matter
        shift = int(torch.randint(0, 400, (1,), generator=torch.Generator().manual_seed(_)))
        places = torch.arange(ids.shape[1])[None] + shift
        loss = model(input_ids=ids, position_ids=places, labels=ids).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    taught = tmp_path / "taught"
    model.save_pretrained(taught)
    tokenizer.save_pretrained(taught)
    (taught / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    tokenizer.chat_template = "{% for message in messages %}{% endfor %}<|im_start|>assistant\n"
    tokenizer.save_pretrained(taught)
    inputs = {"seeds": artifact(Kind.DATA, seeds(tmp_path / "seeds")), "teacher": artifact(Kind.MODEL, taught)}
    context = run_stage(SYNTH, tmp_path, inputs, requests=1, temperature=0.0, max_new_tokens=80, precision="fp32")
    row = json.loads((context.out / "data" / "train.jsonl").read_text())
    assert row["messages"][1]["content"] == "on a mat."
    assert row["meta"]["prov"]["teacher"] == {
        "name": str(taught),
        "digest": inputs["teacher"].digest,
        "license": "apache-2.0",
    }


def test_the_licence_is_that_of_the_source_else_of_the_card(tmp_path: Path) -> None:
    model = Artifact(Kind.MODEL, "m", tmp_path, "d")
    assert licence_of(model) == ""
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\nText.")
    assert licence_of(model) == "mit"
    assert licence_of(Artifact(Kind.MODEL, "m", tmp_path, "d", facts={"source": {"license": "gemma"}})) == "gemma"
    (tmp_path / "README.md").write_text("---\nlicense: [\n---\n")
    assert licence_of(model) == ""
