from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ftcli.rl.guards import Alarm
from ftcli.stages.ppo.held_out import Answer, Exam
from ftcli.stages.ppo.watch import Bins, Journal, Watch, length_bins, score_bins

ALARM = Alarm("kl", "KL 60", "lower the learning rate", stops=True)


class Letters:
    """Token 2 is a, 3 is b, and so on; below that is special."""

    def decode(self, ids: list[int], skip_special_tokens: bool) -> str:
        assert skip_special_tokens
        return "".join(chr(95 + token) for token in ids if token > 1)


def exam(*answers: tuple[list[int], float]) -> Exam:
    return Exam([Answer(ids, ids[-1] == 1, score, 0.5, {"rule": score}, {"rouge": None}) for ids, score in answers])


@pytest.fixture
def watch(tmp_path: Path) -> Watch:
    rows = [{"id": f"r{place}", "prompt": [{"role": "user", "content": f"q{place}"}], "meta": {}} for place in range(2)]
    return Watch(tmp_path, rows, Letters(), [0.0, 1.0], 8)  # type: ignore[arg-type]


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_answers_of_the_watched_prompts_are_kept_with_what_was_measured(watch: Watch, tmp_path: Path) -> None:
    sampled = exam(([2, 3, 1], 0.5), ([4, 4], 0.75), ([5], 9.0))
    watch.answers(7, sampled, exam(([3], 0.25), ([1], 0.0)))
    found = lines(tmp_path / "samples.jsonl")
    assert [(one["rollout"], one["id"], one["decoding"], one["text"]) for one in found] == [
        (7, "r0", "sampled", "ab"),
        (7, "r1", "sampled", "cc"),
        (7, "r0", "greedy", "b"),
        (7, "r1", "greedy", ""),
    ], "the third answer belongs to a prompt that is not watched"
    assert found[0] == {
        "rollout": 7,
        "id": "r0",
        "prompt": [{"role": "user", "content": "q0"}],
        "decoding": "sampled",
        "text": "ab",
        "tokens": 3,
        "finish_reason": "stop",
        "score": 0.5,
        "parts": {"rule": 0.5},
        "evals": {"rouge": None},
        "kl": 0.5,
    }
    assert found[1]["finish_reason"] == "length"


def test_an_answer_that_nothing_scored_is_shown_without_a_score(watch: Watch, tmp_path: Path) -> None:
    watch.answers(1, Exam([Answer([3], True, 0.0, 0.5, {"rule": None}, {})]), exam(([3], 0.25)))
    assert [one["score"] for one in lines(tmp_path / "samples.jsonl")] == [None, 0.25]


def test_each_rollout_leaves_histograms_over_the_same_bins(watch: Watch, tmp_path: Path) -> None:
    watch.rollout(1, [0.0, 1.0, 1.0], [1, 8, 8], [])
    watch.rollout(2, [-100.0, 0.5, 100.0], [2, 3, 4], [ALARM])
    first, second = lines(tmp_path / "histograms.jsonl")
    for name in ("score", "length"):
        assert (first[name]["low"], first[name]["width"]) == (second[name]["low"], second[name]["width"])
        assert sum(first[name]["counts"]) == sum(second[name]["counts"]) == 3
    assert second["score"]["counts"][0] == second["score"]["counts"][-1] == 1
    assert first["length"]["counts"][0] == first["length"]["counts"][-1] == 0
    assert lines(tmp_path / "alarms.jsonl") == [
        {"rollout": 2, "name": "kl", "text": "KL 60", "hint": "lower the learning rate", "stops": True}
    ]


def test_a_resumed_run_ends_with_the_same_files(watch: Watch, tmp_path: Path) -> None:
    def go(first: int, last: int) -> None:
        for rollout in range(first, last):
            watch.rollout(rollout, [rollout / 10], [rollout], [ALARM] if rollout % 2 else [])
            watch.answers(rollout, exam(([2, 1], rollout / 10)), exam())

    go(0, 6)
    whole = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert set(whole) == {"samples.jsonl", "histograms.jsonl", "alarms.jsonl"}
    for path in tmp_path.iterdir():
        path.write_text(path.read_text() + '{"rollout": 6, "id": "to')  # killed while writing
    watch.rewind(3)
    assert max(one["rollout"] for one in lines(tmp_path / "histograms.jsonl")) == 3
    go(4, 6)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == whole
    watch.answers(5, exam(([2, 1], 0.5)), exam())  # killed after the last answers, and asked again
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == whole
    watch.rewind(-1)
    assert all(not path.read_text() for path in tmp_path.iterdir())


def test_a_journal_keeps_any_text(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "x.jsonl")
    texts = ["line\u2028separator\nbreak", "\ud800 alone", "\u202ereversed", "日本", "\x00\x85"]
    journal.append({"rollout": 0, "text": text} for text in texts)
    assert [one["text"] for one in journal.records()] == texts
    assert "日本" in journal.path.read_text(encoding="utf-8"), "people read it"


def test_bins_count_as_numpy_does() -> None:
    bins = Bins(-1.0, 0.25, 8)
    values = [-5.0, -1.0, -0.9, 0.0, 0.24, 0.25, 0.99, 1.0, 7.0]
    inside, _ = np.histogram([value for value in values if -1 <= value < 1], bins=8, range=(-1, 1))
    assert bins.counts(values) == [1, *inside.tolist(), 2]


def test_bins_reach_from_four_deviations_below_the_start_to_eight_above() -> None:
    scores = [1.0, 2.0, 3.0]
    bins = score_bins(scores)
    assert bins.low == pytest.approx(2.0 - 4 * np.std(scores, ddof=1))
    assert bins.low + bins.count * bins.width == pytest.approx(2.0 + 8 * np.std(scores, ddof=1))
    assert score_bins([5.0, 5.0]).width > 0
    assert score_bins([0.0]).counts([0.0, 0.5])[1:-1] != [0] * bins.count


@pytest.mark.parametrize("longest", [1, 8, 32, 33, 100, 2048])
def test_every_length_has_a_bin(longest: int) -> None:
    bins = length_bins(longest)
    assert bins.count <= 32
    counts = bins.counts(range(1, longest + 1))
    assert (counts[0], counts[-1], sum(counts)) == (0, 0, longest)
