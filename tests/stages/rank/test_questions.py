from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from ftcli.core.errors import BadData, UsageError
from ftcli.core.events import Events
from ftcli.core.stage import Artifact, Context
from ftcli.stages.rank.config import RankConfig
from ftcli.stages.rank.questions import Questions, held_out_prompts, read_questions, task_of
from tests.stages.rank.judging import sample_row, samples


def questions(folder: Path, *files: Artifact, **settings: Any) -> Questions:
    return read_questions(Context(RankConfig(**settings), {"samples": files}, folder, folder, Events(folder)))


def test_every_prompt_and_every_answer_is_accounted_for(tmp_path: Path) -> None:
    rows = [
        sample_row(0, [("a", "x"), ("a", "x "), ("b", "y")]),
        sample_row(1, [("a", "same"), ("b", "same")]),
        sample_row(2, [("a", "x"), ("a", "x")]),
        sample_row(3, [("a", "x"), ("b", "y"), ("b", "z")], "test"),
        sample_row(4, [("a", str(number)) for number in range(6)]),
    ]
    found = questions(tmp_path, samples(tmp_path / "s", rows), splits=("train", "validation"), answers_per_prompt=4)
    assert found.counts() == {
        "prompts": 5,
        "one_answer": 1,
        "other_splits": 1,
        "not_drawn": 0,
        "repeated": 1,
        "not_shown": 2,
        "items": 3,
        "identical": 1,
    }
    by_row = {found.rows[item.id]: item for item in found.items}
    assert [(one.source, one.text) for one in by_row["row-0"].candidates] == [("a", "x"), ("b", "y")]
    assert [one.source for one in by_row["row-1"].candidates] == ["a", "b"], "a tie that nobody is asked about"
    assert len(by_row["row-4"].candidates) == 4


def test_where_answers_are_too_many_each_model_keeps_as_many(tmp_path: Path) -> None:
    rows = [
        sample_row(
            number, [(model, f"{model}{k}") for model, count in (("a", 6), ("b", 2), ("c", 1)) for k in range(count)]
        )
        for number in range(60)
    ]
    found = questions(tmp_path, samples(tmp_path / "s", rows), answers_per_prompt=4)
    drawn = [Counter(one.source for one in item.candidates) for item in found.items]
    assert {(each["a"] + each["b"], each["c"]) for each in drawn} == {(3, 1)}
    assert {(each["a"], each["b"]) for each in drawn} == {(2, 1), (1, 2)}, "the odd place goes to either"
    assert len({one.text for item in found.items for one in item.candidates if one.source == "a"}) == 6


def test_several_files_are_joined_by_prompt_and_held_out_in_one_is_held_out(tmp_path: Path) -> None:
    first = samples(tmp_path / "1", [sample_row(0, [("", "x")]), sample_row(1, [("", "x")])], "base")
    second = samples(tmp_path / "2", [sample_row(0, [("", "y")], "test"), sample_row(1, [("", "y")])], "tuned")
    found = questions(tmp_path, first, second)
    by_row = {found.rows[item.id]: item for item in found.items}
    assert [one.source for one in by_row["row-0"].candidates] == ["base", "tuned"]
    assert {row: item.split for row, item in by_row.items()} == {"row-0": "test", "row-1": "train"}
    digest = hashlib.sha256(b'[{"content": "Question 0?", "role": "user"}]').hexdigest()
    assert held_out_prompts(found.items) == {"validation": [], "test": [digest]}


def test_prompts_are_drawn_by_seed(tmp_path: Path) -> None:
    file = samples(tmp_path / "s", [sample_row(number, [("a", "x"), ("b", "y")]) for number in range(40)])
    drawn = [set(questions(tmp_path, file, prompts=10, seed=seed).rows.values()) for seed in (1, 1, 2)]
    assert [len(rows) for rows in drawn] == [10, 10, 10]
    assert drawn[0] == drawn[1] != drawn[2]
    assert questions(tmp_path, file, prompts=10).not_drawn == 30


def test_the_task_is_another_one_exactly_when_something_is_asked_otherwise(tmp_path: Path) -> None:
    file = samples(tmp_path / "s", [sample_row(number, [("a", "x"), ("b", "y")]) for number in range(4)])
    found = questions(tmp_path, file)

    def task_id(**settings: Any) -> str:
        return task_of(RankConfig(**settings), found.items).id

    assert task_id() == task_id(min_judgements=2) == task_id(min_agreement=0.7)
    others = {task_id(), task_id(guidelines="g"), task_id(criteria=("c",)), task_id(overlap=2), task_id(seed=1)}
    assert len(others) == 5
    assert task_of(RankConfig(overlap=3), found.items).wanted == 12


def test_two_files_with_a_model_of_one_name_are_refused(tmp_path: Path) -> None:
    files = [samples(tmp_path / str(n), [sample_row(0, [("lora", str(n))])], f"s{n}") for n in range(2)]
    with pytest.raises(UsageError, match="s0 and s1 both have answers of lora"):
        questions(tmp_path, *files)


def test_nothing_to_compare_is_refused_with_the_reasons(tmp_path: Path) -> None:
    rows = [sample_row(0, [("a", "x")]), sample_row(1, [("a", "x"), ("b", "y")], "test")]
    with pytest.raises(BadData, match="of 2 prompts: 1 are of other splits than train, 1 have one answer"):
        questions(tmp_path, samples(tmp_path / "s", rows), splits=("train",))


@pytest.mark.parametrize("broken", [{"id": 3}, {"split": "dev"}, {"prompt": "Q"}, {"answers": [{"tokens": 1}]}])
def test_what_is_no_sample_is_named_with_file_and_line(tmp_path: Path, broken: dict[str, Any]) -> None:
    row = sample_row(0, [("a", "x"), ("b", "y")])
    with pytest.raises(BadData, match=r"samples.jsonl:2: an object with id, split, prompt and answers"):
        questions(tmp_path, samples(tmp_path / "s", [row, {**row, **broken}]))
    with pytest.raises(BadData, match=r"samples.jsonl:2: an object"):
        questions(tmp_path, samples(tmp_path / "t", [row, 3]))  # type: ignore[list-item]


def test_a_folder_without_samples_is_refused(tmp_path: Path) -> None:
    file = samples(tmp_path / "s", [])
    (tmp_path / "s" / "samples.jsonl").unlink()
    with pytest.raises(BadData, match=r"no samples\.jsonl"):
        questions(tmp_path, file)
