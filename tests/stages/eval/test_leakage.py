"""Planted leaks: what was planted is what must be found, and nothing else."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Any

import pytest

from ftcli.core.artifacts import digest_records, file_records
from ftcli.core.errors import UsageError
from ftcli.core.rundir import RunDir
from ftcli.core.stage import Artifact, Kind
from ftcli.data.rows import Row, RowType, write_jsonl, write_rows
from ftcli.pipeline.resolve import from_published
from ftcli.stages.eval.leakage import Leakage, check_leakage
from tests.data.planted import Prose

HEAD = {
    "role": "system",
    "content": "You are the assistant of one company and answer all that its customers ask briefly.",
}


def chat(id: str, *said: str, system: bool = True) -> Row:
    """A messages row: the user's and the assistant's words in turn."""
    turns = [{"role": ("user", "assistant")[place % 2], "content": text} for place, text in enumerate(said)]
    return {"id": id, "messages": [HEAD, *turns] if system else turns, "meta": {}}


class Run:
    """A run directory whose stages are published by hand."""

    def __init__(self, root: Path) -> None:
        self.dir = RunDir(root)
        self.count = 0

    def publish(
        self, stage: str, outputs: dict[str, Kind], fill: Any = None, **inputs: dict[str, Any]
    ) -> dict[str, Any]:
        """Publish ``stage``; return the record of its first output as an input of another."""
        self.count += 1
        id, fp12 = f"{stage}-{self.count}", f"{self.count:012x}"
        work = self.dir.begin(id, fp12)
        for name, kind in outputs.items():
            (work.out / name).mkdir()
            if kind is not Kind.DATA:
                (work.out / name / "config.json").write_text(f'{{"n": {self.count}}}')
                (work.out / name / "model.safetensors").write_text("weights")
        if fill is not None:
            fill(work.out)
        manifest = {"stage": stage, "facts": {}, "ended": "", "inputs": {name: [one] for name, one in inputs.items()}}
        item = self.dir.publish(work, id, fp12, {name: str(kind) for name, kind in outputs.items()}, manifest)
        name, kind = next(iter(outputs.items()))
        digest = item.manifest["outputs"][name]["digest"]
        return {"label": "", "ref": f"stages/{id}/{fp12}/{name}", "kind": str(kind), "digest": digest}

    def data(self, rows: list[Row], parquet: bool = False) -> dict[str, Any]:
        def fill(out: Path) -> None:
            if parquet:
                write_rows(out / "data" / "train.parquet", rows, "parquet", RowType.MESSAGES)
            else:
                write_jsonl(out / "data" / "train.jsonl", rows)

        return self.publish("prep", {"data": Kind.DATA}, fill)

    def model(self, record: dict[str, Any], label: str) -> Artifact:
        _, id, fp12, output = record["ref"].split("/")
        item = self.dir.published(id, fp12)
        assert item is not None
        return from_published(item, output, Kind.MODEL, label)


OUTSIDE = {"label": "", "ref": "demo:smollm2", "kind": "model", "digest": "sha256:base"}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path / "run")


def lora(run: Run, data: dict[str, Any], model: dict[str, Any] | None = None) -> dict[str, Any]:
    return run.publish("lora", {"model": Kind.MODEL}, model=model or OUTSIDE, data=data)


def check(tmp_path: Path, rows: list[Row], *models: Artifact, allow_leak: bool = True, **options: Any) -> Leakage:
    file = tmp_path / "test.jsonl"
    write_jsonl(file, rows)
    return check_leakage(rows, file, models, allow_leak=allow_leak, **options)


@pytest.mark.parametrize("words", [30, 100, 200])
def test_what_was_planted_is_found_and_nothing_else(tmp_path: Path, run: Run, words: int) -> None:
    """Of 60 rows, 10 are trained on verbatim, of 10 the first half, and 10 with one word in six replaced."""
    prose, source = Prose(1), random.Random(2)
    rows = [chat(f"t{number}", prose.text(words // 2), prose.text(words // 2)) for number in range(60)]

    def paraphrased(text: str) -> str:
        parts = text.split()
        for place in source.sample(range(len(parts)), len(parts) // 6):
            parts[place] = prose.some(1)[0]
        return " ".join(parts)

    training = [chat(f"n{number}", prose.text(words // 2), prose.text(words // 2)) for number in range(400)]
    for number in range(30):
        question, answer = (rows[number]["messages"][place]["content"] for place in (1, 2))
        if number < 10:
            planted = chat(f"p{number}", question, prose.text(words // 2), system=False)
        elif number < 20:
            planted = chat(f"p{number}", prose.text(words // 2), f"{question} {prose.text(words // 2)}")
        else:
            planted = chat(f"p{number}", paraphrased(question), paraphrased(answer))
        training.insert(source.randrange(len(training)), planted)
    model = run.model(lora(run, run.data(training)), "lora")
    found = check(tmp_path, rows, model)
    assert list(found.exact) == [f"t{number}" for number in range(10)]
    assert list(found.near) == [f"t{number}" for number in range(10, 30)]
    assert found.touched == {f"t{number}" for number in range(30)}
    for id, leak in {**found.exact, **found.near}.items():
        assert leak.train_id == f"p{id[1:]}"
        assert training[leak.line - 1]["id"] == leak.train_id
    assert found.checked[0]["rows"] == 430
    assert (found.checked[0]["exact"], found.checked[0]["near"]) == (10, 20)


def test_a_trained_prompt_is_an_error_that_names_both_lines(tmp_path: Path, run: Run) -> None:
    rows = [chat(f"t{number}", f"What is  the capital of LAND {number}?", "A city.") for number in range(6)]
    data = run.data(
        [chat("n", "Hello?", "Hi."), *(chat(f"p{n}", f"what is the capital of land {n}?", "x") for n in range(4))]
    )
    model = run.model(lora(run, data), "lora")
    base = Artifact(Kind.MODEL, "demo:smollm2", tmp_path, "sha256:base", "base")
    with pytest.raises(UsageError) as failure:
        check(tmp_path, rows, base, model, allow_leak=False)
    train = run.dir.root / data["ref"] / "train.jsonl"
    assert failure.value.message == (
        "4 of 6 rows have a prompt that lora was trained on: "
        f"t0 ({tmp_path}/test.jsonl:1, trained on as {train}:2), t1 ({tmp_path}/test.jsonl:2, trained on as {train}:3), "
        f"t2 ({tmp_path}/test.jsonl:3, trained on as {train}:4) and 1 more"
    )
    assert "allow_leak" in failure.value.hint
    notes: list[str] = []
    assert len(check(tmp_path, rows, base, model, note=notes.append).exact) == 4
    assert notes[0].startswith("leakage: 4 of 6 rows have a prompt that was trained on, 0 are nearly")


@pytest.mark.parametrize(
    "train",
    [
        chat("p", "Was ist die \ufb01-Ligatur, \u201c\ufb01\u201d?", "Ein Zeichen."),
        chat("p", 'WAS IST DIE\n FI-LIGATUR, "FI"?', "Ein Zeichen."),
        chat("p", 'Was ist die fi-Ligatur, "fi"?', "Ein Zeichen.", "Und sonst?", "Nichts."),
        {"id": "p", "prompt": chat("", 'Was ist die fi-Ligatur, "fi"?', "")["messages"][:2], "meta": {}},
    ],
    ids=["compatibility forms", "case and space", "the first of two turns", "a bare prompt"],
)
def test_prompts_are_the_same_whatever_their_form(tmp_path: Path, run: Run, train: Row) -> None:
    rows = [chat("t", 'Was ist die fi-Ligatur, "fi"?', "Zwei Buchstaben in einem.")]
    assert list(check(tmp_path, rows, run.model(lora(run, run.data([train])), "m")).exact) == ["t"]


def test_the_system_message_alone_is_no_leak(tmp_path: Path, run: Run) -> None:
    rows = [chat(f"t{n}", f"Question {n} on roses", "Yes.") for n in range(8)]
    training = [chat(f"p{n}", f"Another one, {n}, on stones", "Surely.") for n in range(8)]
    assert not check(tmp_path, rows, run.model(lora(run, run.data(training)), "m")).touched


def test_a_row_without_a_question_is_compared_by_its_system_message(tmp_path: Path, run: Run) -> None:
    only = {"id": "t", "messages": [HEAD, {"role": "assistant", "content": "Hello."}], "meta": {}}
    other = {
        "id": "p",
        "messages": [{**HEAD, "content": "Be brief."}, {"role": "assistant", "content": "Hi."}],
        "meta": {},
    }
    assert not check(tmp_path, [only], run.model(lora(run, run.data([other])), "m")).exact
    assert check(tmp_path, [only], run.model(lora(run, run.data([{**only, "id": "p"}])), "m")).exact


def test_two_rows_with_the_same_text_are_both_found(tmp_path: Path, run: Run) -> None:
    text = Prose(5).text(40)
    rows = [chat("one", "Tell me.", text), chat("two", "Tell me.", text), chat("three", "Else?", Prose(6).text(40))]
    model = run.model(lora(run, run.data([chat("p", "What is there?", text)])), "m")
    assert list(check(tmp_path, rows, model).near) == ["one", "two"]


# ---- lineage


def test_all_that_a_model_was_trained_on_is_found(tmp_path: Path, run: Run) -> None:
    """ppo of an export of dpo of lora of sft, with a reward model: five data folders, and one that only export and sample read."""
    rows = [chat(f"t{number}", f"Question number {number}?", "Yes.") for number in range(7)]
    data = [run.data([chat(f"p{number}", f"question number {number}?", "x")]) for number in range(7)]
    sft = run.publish("sft", {"model": Kind.MODEL}, model=OUTSIDE, data=data[0])
    adapter = lora(run, data[1], {**OUTSIDE, "base": sft})
    pairs = run.publish(
        "sample",
        {"pairs": Kind.DATA},
        lambda out: write_jsonl(out / "pairs" / "train.jsonl", [chat("p2", "Question number 2?", "x")]),
        model=OUTSIDE,
        data=data[5],
    )
    dpo = run.publish("dpo", {"model": Kind.MODEL}, model=adapter, data=pairs)
    exported = run.publish("export", {"model": Kind.MODEL}, **{"from": dpo, "data": data[6]})
    reward = run.publish("reward", {"reward": Kind.REWARD}, model=OUTSIDE, data=data[3])
    ppo = run.publish("ppo", {"model": Kind.MODEL}, model=exported, reward=reward, data=data[4])
    found = check(tmp_path, rows, run.model(ppo, "ppo"))
    assert list(found.exact) == ["t0", "t1", "t2", "t3", "t4"]
    assert {(item["label"], item["rows"], item["exact"]) for item in found.checked} == {("ppo", 1, 1)}
    assert len(found.checked) == 5
    assert found.unknown == ()


def test_data_that_two_models_share_is_read_once_and_named_for_both(tmp_path: Path, run: Run) -> None:
    rows = [chat("t", "What is it?", "It."), chat("u", "Not trained on", "No.")]
    shared, other = run.data([chat("p", "what is it?", "x")], parquet=True), run.data([chat("q", "Else?", "y")])
    one, two = run.model(lora(run, shared), "one"), run.model(lora(run, shared), "two")
    three = run.model(lora(run, other), "three")
    with pytest.raises(UsageError, match=r"^1 of 2 rows have a prompt that one, two was trained on: t \("):
        check(tmp_path, rows, one, two, three, allow_leak=False)
    found = check(tmp_path, rows, one, two, three)
    assert [(item["label"], item["exact"]) for item in found.checked] == [("one", 1), ("two", 1), ("three", 0)]


def test_a_model_from_outside_is_unknown_and_said(tmp_path: Path) -> None:
    notes: list[str] = []
    base = Artifact(Kind.MODEL, "hf:org/name@abc", tmp_path, "sha256:base", "base")
    found = check(tmp_path, [chat("t", "a", "b")], base, note=notes.append)
    reason = "base: hf:org/name@abc was not made in a run directory, so its training data is not known"
    assert found.unknown == (reason,)
    assert notes == [f"leakage not checked: {reason}"]
    assert found.checked == ()


def test_a_model_that_was_only_exported_is_unknown(tmp_path: Path, run: Run) -> None:
    exported = run.model(run.publish("export", {"model": Kind.MODEL}, **{"from": OUTSIDE}), "exported")
    [reason] = check(tmp_path, [chat("t", "a", "b")], exported).unknown
    assert "no stage before" in reason


def test_stages_and_data_that_are_gone_are_said(tmp_path: Path, run: Run) -> None:
    first = lora(run, run.data([chat("p", "a", "b")]))
    data = run.data([chat("q", "c", "d")])
    last = lora(run, data, first)
    for record in (first, data):
        shutil.rmtree((run.dir.root / record["ref"]).parent)
    unknown = check(tmp_path, [chat("t", "a", "b")], run.model(last, "last")).unknown
    assert len(unknown) == 2
    assert any("stages/lora-2/000000000002 is gone from the run directory" in text for text in unknown)
    assert any(f"the training data {data['ref']} is gone" in text for text in unknown)


def outside_data(folder: Path, rows: list[Row]) -> dict[str, Any]:
    folder.mkdir()
    write_jsonl(folder / "train.jsonl", rows)
    return {"label": "", "ref": str(folder), "kind": "data", "digest": digest_records(file_records(folder))}


def test_training_data_from_outside_is_compared_while_it_is_what_it_was(tmp_path: Path, run: Run) -> None:
    rows = [chat("t", "a", "b")]
    data = outside_data(tmp_path / "data", [chat("p", "A", "c")])
    model = run.model(lora(run, data), "m")
    assert list(check(tmp_path, rows, model).exact) == ["t"]
    write_jsonl(tmp_path / "data" / "train.jsonl", [])
    found = check(tmp_path, rows, model)
    assert found.unknown == (f"m: the training data {tmp_path}/data has changed since",)
    assert not found.exact
    shutil.rmtree(tmp_path / "data")
    assert check(tmp_path, rows, model).unknown == (f"m: the training data {tmp_path}/data is gone",)


def test_the_entry_of_metrics_json_shows_the_worst_first(tmp_path: Path, run: Run) -> None:
    prose = Prose(8)
    passage = prose.text(15).lower().replace(".", "")
    rows = [
        chat("near", prose.text(10), f"{passage} {prose.text(40)}"),
        chat("exact", "What is the name of this?", "It has none."),
        chat("clean", prose.text(20), prose.text(20)),
    ]
    data = run.data([chat("p", prose.text(10), passage), chat("q", "What is the name of this?", prose.text(9))])
    model = run.model(lora(run, data), "lora")
    found = check(tmp_path, rows, model).to_json()
    assert found["checked"] == [{"label": "lora", "ref": data["ref"], "rows": 2, "exact": 1, "near": 1}]
    assert (found["exact"], found["near"], found["unknown"]) == (1, 1, [])
    first, second = found["examples"]
    assert first == {"id": "exact", "train_id": "q", "overlap": 1.0, "text": "what is the name of this?"}
    assert (second["id"], second["train_id"], second["text"]) == ("near", "p", passage)
    assert second["overlap"] < 0.5
