from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ftcli.core.errors import NeedsHuman, UsageError
from ftcli.core.stage import Artifact, Context, Kind
from ftcli.data.rows import Row, read_jsonl
from ftcli.human.store import Store
from ftcli.stages.rank.stage import RANK
from tests.conftest import artifact, run_stage
from tests.stages.rank.judging import at_desk, by_text, sample_row, samples, two_models, verdict


def desk_of(folder: Path) -> Path:
    return folder / "human" / "desk.sqlite"


def rank(folder: Path, file: Artifact, votes: Path | None = None, **settings: Any) -> Context[Any]:
    inputs = {"samples": file, **({"votes": artifact(Kind.SOURCE, votes)} if votes else {})}
    return run_stage(RANK, folder, inputs, desk=desk_of(folder), **settings)


def asked(folder: Path, file: Artifact, **settings: Any) -> NeedsHuman:
    with pytest.raises(NeedsHuman) as caught:
        rank(folder, file, **settings)
    return caught.value


def lines(folder: Path, name: str, split: str = "train") -> list[Row]:
    return list(read_jsonl(folder / "out" / name / f"{split}.jsonl"))


def results(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "out" / "report" / "results.json").read_text())
    return found


def test_it_asks_waits_and_goes_on(tmp_path: Path) -> None:
    file = two_models(tmp_path / "s", ["train"] * 30 + ["test"] * 10)
    first = asked(tmp_path, file)
    # Wilson's half width for 20 of 40: 1.96 sqrt(.25 / 40 + 1.96^2 / (4 * 40^2)) / (1 + 1.96^2 / 40) = .148
    assert first.message == "rank: 0 of 40 judgements; with all 40 prompts judged +-0.15"
    assert first.hint.startswith(f"ftcli serve --run {tmp_path} opens the desk; then run the same command again")
    at_desk(desk_of(tmp_path), by_text("good"), limit=10)
    # of 10: 1.96 sqrt(.25 / 10 + 1.96^2 / (4 * 10^2)) / (1 + 1.96^2 / 10) = .263
    message = (
        "rank: 10 of 40 judgements of 1 grader; with these a win rate has an interval of +-0.26, with all 40 prompts"
    )
    assert asked(tmp_path, file).message.startswith(message)
    at_desk(desk_of(tmp_path), by_text("good"))
    context = rank(tmp_path, file)
    assert [len(lines(tmp_path, "pairs", split)) for split in ("train", "validation", "test")] == [30, 0, 10]
    for row in lines(tmp_path, "pairs") + lines(tmp_path, "pairs", "test"):
        assert (row["meta"]["chosen_from"], row["meta"]["rejected_from"]) == ("tuned", "base")
        assert row["chosen"][0]["content"].startswith("good")
    assert context.events.summary["rank/judgements"] == 40
    assert context.events.summary["rank/repeats"] == 4
    assert context.events.summary["rank/held_out_prompts"] == 10
    for name in ("pairs", "rankings"):
        held_out = json.loads((tmp_path / "out" / name / "held_out_prompts.json").read_text())
        assert {split: len(prompts) for split, prompts in held_out.items()} == {"validation": 0, "test": 10}


def test_an_ab_test_of_ten_has_the_published_interval_and_p(tmp_path: Path) -> None:
    """7 of 10: Wilson .3968 to .8922, two-sided binomial p .34375."""
    rows = [sample_row(n, [("base", f"x{n}"), ("tuned", f"{'good' if n < 7 else 'weak'} {n}")]) for n in range(10)]
    file = samples(tmp_path / "s", rows)
    asked(tmp_path, file)
    at_desk(desk_of(tmp_path), by_text("good", "x"))
    rank(tmp_path, file)
    (found,) = results(tmp_path)["versus"]
    assert (found["first"], found["second"]) == ("base", "tuned")
    assert [found["wins"], found["ties"], found["losses"]] == [7, 0, 3]
    assert found["decided_low"] == pytest.approx(0.396778, abs=1e-6)
    assert found["decided_high"] == pytest.approx(0.892209, abs=1e-6)
    assert found["p"] == pytest.approx(0.34375)
    summary = (tmp_path / "out" / "report" / "summary.txt").read_text()
    assert "10 judgements, 1 grader, 10 prompts, 10 preference pairs" in summary
    assert "can be detected" in summary


def test_three_models_are_put_on_one_scale(tmp_path: Path) -> None:
    rows = [sample_row(n, [("base", f"c{n}"), ("sft", f"b{n}"), ("ppo", f"a{n}")]) for n in range(8)]
    file = samples(tmp_path / "s", rows)
    asked(tmp_path, file)
    at_desk(desk_of(tmp_path), by_text("a", "b", "c"))
    rank(tmp_path, file)
    found = results(tmp_path)
    assert [one["source"] for one in found["strengths"]] == ["base", "sft", "ppo"]
    assert found["strengths"][0]["elo"] == 0
    assert found["strengths"][1]["elo"] < found["strengths"][2]["elo"]
    assert found["preferences"]["pairs"] == 24
    assert len(lines(tmp_path, "rankings")) == 8


def test_the_votes_of_a_report_stand_in_for_people(tmp_path: Path) -> None:
    file = two_models(tmp_path / "s", ["train"] * 6 + ["validation"] * 3)
    asked(tmp_path, file, overlap=2)
    at_desk(desk_of(tmp_path), by_text("good"), ["ann", "bob"])
    rank(tmp_path, file, overlap=2)
    votes = tmp_path / "out" / "report" / "votes.jsonl"
    again = rank(tmp_path / "ci", file, votes, overlap=2)
    for name in ("pairs/train.jsonl", "pairs/validation.jsonl", "rankings/train.jsonl", "report/votes.jsonl"):
        assert (again.out / name).read_bytes() == (tmp_path / "out" / name).read_bytes()
    assert results(tmp_path)["agreement"]["raw"] == 1.0
    assert not desk_of(tmp_path / "ci").exists(), "nobody was asked"


def test_it_goes_on_with_fewer_judgements_where_they_are_enough(tmp_path: Path) -> None:
    file = two_models(tmp_path / "s", ["train"] * 8)
    assert asked(tmp_path, file, min_judgements=3).message.startswith("rank: 0 of 3 judgements")
    at_desk(desk_of(tmp_path), by_text("good"), limit=3)
    rank(tmp_path, file, min_judgements=3)
    assert len(lines(tmp_path, "pairs")) == 3
    assert results(tmp_path)["preferences"]["unjudged"] == 5


def test_more_of_one_prompt_than_its_overlap_does_not_stand_for_another(tmp_path: Path) -> None:
    file = two_models(tmp_path / "s", ["train"] * 4)
    asked(tmp_path, file)
    for grader in ("ann", "bob", "cat"):
        at_desk(desk_of(tmp_path), by_text("good"), [grader], limit=2)
    judged = {one.item for one in Store(desk_of(tmp_path)).judgements(Store(desk_of(tmp_path)).tasks()[0].id)}
    assert asked(tmp_path, file).message.startswith(f"rank: {len(judged)} of 4 judgements of 3 graders")


def test_a_prompt_that_is_skipped_has_been_asked_about(tmp_path: Path) -> None:
    file = two_models(tmp_path / "s", ["train"] * 4)
    asked(tmp_path, file)
    at_desk(desk_of(tmp_path), verdict("skip"))
    rank(tmp_path, file)
    assert results(tmp_path)["preferences"]["unjudged"] == 4
    assert results(tmp_path)["judgements"]["skipped"] == 4
    assert lines(tmp_path, "pairs") == []


def test_equal_answers_are_ties_that_nobody_is_asked_about(tmp_path: Path) -> None:
    rank(tmp_path, samples(tmp_path / "s", [sample_row(n, [("a", "x"), ("b", "x")]) for n in range(3)]))
    (found,) = results(tmp_path)["versus"]
    assert (found["ties"], found["identical"], found["rate"]) == (3, 3, 0.5)
    assert not desk_of(tmp_path).exists()


def test_prompts_with_only_bad_answers_are_kept_apart(tmp_path: Path) -> None:
    file = two_models(tmp_path / "s", ["train"] * 2)
    asked(tmp_path, file)
    at_desk(desk_of(tmp_path), verdict("both_bad"))
    rank(tmp_path, file)
    bad = list(read_jsonl(tmp_path / "out" / "report" / "both_bad.jsonl"))
    assert sorted(row["id"] for row in bad) == ["row-0", "row-1"]
    assert bad[0]["meta"] == {"split": "train", "graders": ["ann"]}
    assert results(tmp_path)["preferences"]["both_bad"] == 2


def test_the_page_shows_answers_as_text_and_names_a_grader_to_look_at(tmp_path: Path) -> None:
    rows = [sample_row(n, [("a", f"<script>x</script>{n}"), ("b", f"\u202ey{n}")]) for n in range(30)]
    file = samples(tmp_path / "s", rows)
    asked(tmp_path, file)
    at_desk(desk_of(tmp_path), lambda item, order: ("ranked", {order[0]: 1, order[1]: 2}))
    rank(tmp_path, file)
    page = (tmp_path / "out" / "report" / "report.html").read_text()
    assert "<script" not in page
    assert "&lt;script&gt;x&lt;/script&gt;" in page
    assert "&lt;U+202E&gt;y" in page
    assert "look at the votes of ann: chose the answer shown first in 100%" in page
    assert "look at the votes of ann" in (tmp_path / "out" / "report" / "summary.txt").read_text()


def test_without_a_run_directory_votes_come_as_a_file(tmp_path: Path) -> None:
    with pytest.raises(NeedsHuman) as caught:
        run_stage(RANK, tmp_path, {"samples": two_models(tmp_path / "s", ["train"])})
    assert caught.value.hint == "give the judgements as a file: --votes FILE"


def test_more_judgements_than_can_be_given_are_refused(tmp_path: Path) -> None:
    file = two_models(tmp_path / "s", ["train"] * 3)
    with pytest.raises(UsageError, match="min_judgements 7: 3 prompts, each judged 2 times, give 6"):
        rank(tmp_path, file, min_judgements=7, overlap=2)


def test_votes_are_one_file(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(UsageError, match=r"input votes: .* is no file"):
        rank(tmp_path, two_models(tmp_path / "s", ["train"]), tmp_path / "folder")
