from __future__ import annotations

import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from ftcli.core.stage import Artifact, Kind
from ftcli.data.chat import render_answer, stop_token_ids
from ftcli.metrics.comparison import Drawing, compare
from ftcli.metrics.figures import Figure, Figures
from ftcli.metrics.statistics import mean_of
from ftcli.stages.eval.bench import Bench
from ftcli.stages.eval.cache import Cache
from ftcli.stages.eval.subject import Subject
from ftcli.stages.eval.suite import (
    CHAT_KINDS,
    METRICS,
    TEXT_KINDS,
    Item,
    Suite,
    load_suite,
    measure_suite,
    uninformative,
    unmeasured,
)
from ftcli.stages.eval.suite import (
    Kind as ItemKind,
)
from tests.conftest import artifact

WHOLE = load_suite("general")
EACH = 3
CPU = torch.device("cpu")


def shortest(kind: ItemKind) -> list[Item]:
    return sorted(WHOLE.of(kind), key=lambda item: len(item.prompt + item.text))[:EACH]


SUITE = replace(WHOLE, items=tuple(item for kind in (*CHAT_KINDS, *TEXT_KINDS) for item in shortest(kind)))
ASKED = SUITE.of(*CHAT_KINDS)
SHORT = Suite(
    "general",
    "1",
    WHOLE.digest,
    (
        Item("f1", "facts", prompt="Cat?", answer="mat", wrong=("sat", "look", "at")),
        Item("f2", "facts", prompt="Mat?", answer="cat", wrong=("file", "read", "list")),
        Item("f3", "facts", prompt="File?", answer="list", wrong=("open", "cat", "name")),
        Item("a1", "arithmetic", prompt="1 + 2?", answer="3"),
        Item("a2", "arithmetic", prompt="4 + 5?", answer="9"),
        Item("a3", "arithmetic", prompt="9 + 9?", answer="18"),
        Item("i1", "format", prompt="Loud!", answer="CAT", checks=({"check": "upper_case"},)),
        Item("i2", "format", prompt="List!", answer="a, b, c", checks=({"check": "comma_items", "n": 3},)),
        Item("i3", "format", prompt="Lines!", answer="- a\n- b", checks=({"check": "bullets", "n": 2},)),
        Item("r1", "reading", prompt="It was on a mat. Where?", answer="mat", wrong=("cat", "file", "list")),
        Item("r2", "reading", prompt="The cat was not found. Who?", answer="cat", wrong=("mat", "name", "user")),
        Item("r3", "reading", prompt="Read the list. What?", answer="list", wrong=("path", "mat", "return")),
        Item("c1", "code", text="return name"),
        Item("p1", "prose", text="the cat sat"),
    ),
)


def measured(folder: Path, cache: Path, suite: Suite = SUITE) -> Figures:
    return measure_suite(subject_of(artifact(Kind.MODEL, folder), cache), suite)


def subject_of(model: Artifact, cache: Path) -> Subject:
    return Subject(model, Bench(torch.float32, CPU), Cache(cache / "eval.sqlite"))


@pytest.fixture(scope="module")
def base(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Figures:
    return measured(tiny_model, tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def before(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Figures:
    return measured(tiny_model, tmp_path_factory.mktemp("cache"), SHORT)


@pytest.fixture(scope="module")
def learned(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model after it has learned the right answers of `SHORT` by heart."""
    folder = tmp_path_factory.mktemp("models") / "learned"
    shutil.copytree(tiny_model, folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    stop_ids = stop_token_ids(tokenizer)
    rows = [render_answer(tokenizer, item.messages, item.answer, stop_ids) for item in SHORT.of(*CHAT_KINDS)]
    longest = max(len(prompt) + len(answer) for prompt, answer in rows)
    ids = torch.full((len(rows), longest), int(tokenizer.pad_token_id))
    labels = torch.full_like(ids, -100)
    for row, (prompt, answer) in enumerate(rows):
        end = len(prompt) + len(answer)
        ids[row, :end] = torch.tensor(prompt + answer)
        labels[row, len(prompt) : end] = torch.tensor(answer)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(400):
        loss = model(input_ids=ids, attention_mask=(ids != -1).long(), labels=labels).loss
        if loss < 0.01:
            break
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.01
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def after(learned: Path, tmp_path_factory: pytest.TempPathFactory) -> Figures:
    return measured(learned, tmp_path_factory.mktemp("cache"), SHORT)


def test_every_metric_is_measured_on_the_items_of_its_kind(base: Figures):
    assert list(base) == list(METRICS)
    for name, figure in base.items():
        kind = name.removeprefix("general.").split("_")[0]
        items = ASKED if kind in ("nll", "bpb") else [item for item in SUITE.items if item.kind == kind]
        assert figure.ids == tuple(item.id for item in items)
        assert figure.metric is METRICS[name]
        assert figure.signature.startswith(f"general@1|{WHOLE.digest[:19]}|")


def loss_of_transformers(model: Any, tokenizer: Any, item: Item, answer: str) -> tuple[float, int]:
    """Sum over the answer and its end-of-turn token, and how many tokens these are, by the template and transformers' loss."""
    prompt = tokenizer.apply_chat_template(item.messages, add_generation_prompt=True, tokenize=False)
    before = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    after = tokenizer(f"{answer}<|im_end|>", add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        loss = model(input_ids=torch.tensor([before + after]), labels=torch.tensor([[-100] * len(before) + after])).loss
    return float(loss) * len(after), len(after)


def test_nll_and_choices_are_those_of_transformers(tiny_model: Path, base: Figures):
    model, tokenizer = AutoModelForCausalLM.from_pretrained(tiny_model), AutoTokenizer.from_pretrained(tiny_model)
    per_token, per_byte = {}, {}
    for item in ASKED:
        nll, tokens = loss_of_transformers(model, tokenizer, item, item.answer)
        per_token[item.id], per_byte[item.id] = nll / tokens, nll / math.log(2) / len(item.answer.encode())
    assert base["general.nll"].examples.statistics[:, 0] == pytest.approx(list(per_token.values()), rel=1e-4)
    assert base["general.bpb"].examples.statistics[:, 0] == pytest.approx(list(per_byte.values()), rel=1e-4)
    assert base["general.nll"].value() == pytest.approx(sum(per_token.values()) / len(ASKED), rel=1e-4)
    for kind in CHAT_KINDS:
        own = [per_token[item.id] for item in SUITE.of(kind)]
        assert base[f"general.{kind}_nll"].value() == pytest.approx(sum(own) / len(own), rel=1e-4)
    for kind in ("facts", "reading"):
        right = []
        for item in SUITE.of(kind):
            costs = {
                choice: loss_of_transformers(model, tokenizer, item, choice)[0] / len(choice.encode())
                for choice in (item.answer, *item.wrong)
            }
            right.append(min(costs, key=costs.__getitem__) == item.answer)
        assert base[f"general.{kind}_accuracy"].examples.statistics[:, 0].tolist() == right


@pytest.mark.parametrize("kind", TEXT_KINDS)
def test_bits_per_byte_are_those_of_transformers(tiny_model: Path, base: Figures, kind: ItemKind):
    model, tokenizer = AutoModelForCausalLM.from_pretrained(tiny_model), AutoTokenizer.from_pretrained(tiny_model)
    bits, size = 0.0, 0
    for item in SUITE.of(kind):
        ids = tokenizer(item.text, add_special_tokens=False, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            bits += float(model(input_ids=ids, labels=ids).loss) * (ids.shape[1] - 1) / math.log(2)
        size += len(item.text.encode()) - len(tokenizer.decode(ids[0, :1]).encode())
    assert base[f"general.{kind}_bpb"].value() == pytest.approx(bits / size, rel=1e-4)


def test_a_model_that_knows_the_answers_gets_them_all(before: Figures, after: Figures):
    assert after["general.nll"].value() < 0.05 < 2 < before["general.nll"].value()
    for kind in CHAT_KINDS:
        assert after[f"general.{kind}_accuracy"].value() == 1.0, kind


def test_knowing_and_having_forgotten_are_improved_and_regressed(before: Figures, after: Figures):
    for name in ("general.nll", "general.bpb"):
        assert compare(before[name], after[name], Drawing()).status == "improved"
        assert compare(after[name], before[name], Drawing()).status == "regressed"


def test_the_same_model_twice_is_exactly_the_same(tiny_model: Path, base: Figures, tmp_path: Path):
    again = measured(tiny_model, tmp_path)
    for name, figure in base.items():
        assert (again[name].examples.statistics == figure.examples.statistics).all(), name
        assert compare(figure, again[name], Drawing()).change == 0.0


def test_what_is_measured_once_is_not_computed_again(tiny_model: Path, tmp_path: Path):
    measured(tiny_model, tmp_path)
    second = subject_of(artifact(Kind.MODEL, tiny_model), tmp_path)
    measure_suite(second, SUITE)
    assert second.computed == 0
    assert second.bench.loadings == 0


def test_with_another_tokenizer_only_bits_per_byte_are_compared(tiny_model: Path, base: Figures, tmp_path: Path):
    folder = tmp_path / "larger"
    shutil.copytree(tiny_model, folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["kwyjibo"])
    tokenizer.save_pretrained(folder)
    other = measured(folder, tmp_path)
    refused = compare(base["general.nll"], other["general.nll"], Drawing())
    assert refused.status == "not evaluable"
    assert "tokenizer" in refused.reason
    assert compare(base["general.bpb"], other["general.bpb"], Drawing()).status != "not evaluable"


def test_another_dtype_is_not_compared(tiny_model: Path, base: Figures, tmp_path: Path):
    bench = Bench(torch.bfloat16, CPU)
    other = measure_suite(Subject(artifact(Kind.MODEL, tiny_model), bench, Cache(tmp_path / "eval.sqlite")), SUITE)
    for name in ("general.nll", "general.bpb", "general.code_bpb"):
        assert compare(base[name], other[name], Drawing()).status == "not evaluable"


def test_figures_of_another_version_of_the_suite_are_not_compared(tiny_model: Path, base: Figures, tmp_path: Path):
    changed = measured(tiny_model, tmp_path, replace(SUITE, version="2", digest="sha256:" + "0" * 64))
    assert {compare(base[name], changed[name], Drawing()).status for name in base} == {"not evaluable"}


def test_a_model_without_a_chat_template_is_measured_on_raw_text_alone(tiny_model: Path, base: Figures, tmp_path: Path):
    folder = tmp_path / "plain"
    shutil.copytree(tiny_model, folder)
    (folder / "chat_template.jinja").unlink()
    plain = subject_of(artifact(Kind.MODEL, folder, label="plain"), tmp_path)
    figures = measure_suite(plain, SUITE)
    assert set(figures) == {"general.code_bpb", "general.prose_bpb"}
    assert figures["general.code_bpb"].value() == base["general.code_bpb"].value()
    missing = unmeasured(plain)
    assert set(missing) | set(figures) == set(METRICS)
    assert not set(missing) & set(figures)
    assert set(missing.values()) == {"plain has no chat template to ask it with"}


def test_nothing_is_missing_from_a_model_with_a_chat_template(tiny_model: Path, tmp_path: Path):
    assert unmeasured(subject_of(artifact(Kind.MODEL, tiny_model), tmp_path)) == {}


def test_accuracies_that_could_hardly_change_are_named(before: Figures, after: Figures):
    assert before["general.arithmetic_accuracy"].value() == 0
    chance = uninformative(before)
    assert chance["general.arithmetic_accuracy"] == "at chance (0 of 3, where guessing has 0): it can hardly fall"
    assert "general.nll" not in chance
    assert uninformative(after) == {
        f"general.{kind}_accuracy": "saturated (3 of 3): it can hardly rise" for kind in CHAT_KINDS
    }


@pytest.mark.parametrize(("right", "flagged"), [(21, True), (22, False)])
def test_above_chance_means_by_an_exact_test(right: int, flagged: bool):
    """P(X >= 21) = 0.05414 and P(X >= 22) = 0.02980 for 60 guesses among four, summed as exact fractions."""
    name = "general.facts_accuracy"
    figure = Figure(name, METRICS[name], mean_of([1.0] * right + [0.0] * (60 - right)), tuple(map(str, range(60))), "")
    assert (name in uninformative({name: figure})) is flagged


@pytest.mark.parametrize(("right", "flagged"), [(5, True), (6, False)])
def test_at_the_floor_means_that_no_fall_could_be_significant(right: int, flagged: bool):
    """McNemar's exact p of losing all of them: 2 / 2^5 = 0.0625 and 2 / 2^6 = 0.03125."""
    name = "general.arithmetic_accuracy"
    figure = Figure(name, METRICS[name], mean_of([1.0] * right + [0.0] * (60 - right)), tuple(map(str, range(60))), "")
    assert (name in uninformative({name: figure})) is flagged


def test_a_limited_suite_has_items_of_every_kind_in_nearly_equal_parts():
    few = WHOLE.limited(20)
    assert [len(few.of(kind)) for kind in (*CHAT_KINDS, *TEXT_KINDS)] == [4, 4, 3, 3, 3, 3]
    assert [item.id for item in few.of("facts")] == ["facts-01", "facts-16", "facts-31", "facts-46"]
    assert (few.name, few.digest) == (WHOLE.name, WHOLE.digest)
    assert WHOLE.limited(1000).items == WHOLE.items


def test_kinds_without_items_have_no_figures(tiny_model: Path, tmp_path: Path):
    figures = measured(tiny_model, tmp_path, replace(SHORT, items=tuple(SHORT.of("facts"))))
    assert list(figures) == ["general.nll", "general.bpb", "general.facts_nll", "general.facts_accuracy"]
