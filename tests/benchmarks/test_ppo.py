"""What the PPO benchmark rests on: equal work is told from unequal work, rules score what they say, both sides' tables add up."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.gsm8k_ppo import ASK, write_questions
from benchmarks.ppo import (
    TASKS,
    Bench,
    difference,
    learning_job,
    learning_table,
    speed_table,
    summary,
    tiny_prompts,
    write_reward,
    write_tiny,
)
from benchmarks.ppo_job import RULES, Job, digests


def record(**changes: Any) -> dict[str, Any]:
    found = {
        "wall": [9.0, 2.0, 6.0],
        "cpu": [9.0, 4.0, 12.0],
        "phases": [{"gen": 5.0, "train": 4.0}, {"gen": 0.5, "train": 1.5}, {"gen": 1.5, "train": 4.5}],
        "scores": [0.1, 0.2, 0.3],
        "prompts": digests([[1, 2], [3]]),
        "tokens": 96,
        "optimizer_steps": 6,
        "trainable": 7,
        "peak_gib": 2.0,
    }
    return found | changes


def test_equal_work_has_the_same_prompts_tokens_and_steps() -> None:
    assert difference(record(), record(trainable=9, wall=[1.0, 1.0, 1.0])) is None
    assert difference(record(), record(prompts=digests([[1, 2], [4]]))) == "2 prompts that are not our 2"
    assert difference(record(), record(tokens=95)) == "95 tokens, ours 96"
    assert difference(record(), record(optimizer_steps=8)) == "8 optimizer steps, ours 6"


def test_the_first_update_does_not_count() -> None:
    found = summary(record(), rollouts=4)
    assert (found["samples_per_s"], found["samples_per_cpu_s"]) == (8 / 8.0, 8 / 16.0)
    assert found["phases"] == {"gen": 1.0, "train": 3.0}


def test_ratios_are_of_runs_made_one_after_another() -> None:
    ours = [summary(record(wall=[9.0, seconds, seconds]), 4) for seconds in (1.0, 2.0)]
    theirs = [summary(record(wall=[9.0, seconds, seconds], peak_gib=8.0), 4) for seconds in (3.0, 8.0)]
    rows = speed_table({"ftcli": ours, "trl": theirs}).splitlines()
    assert "| 3.50 (3.00-4.00) |" in rows[3]
    assert "| 8.00 | 0.25 (0.25-0.25) |" in rows[3]


@pytest.mark.parametrize(
    ("rule", "prompt", "response", "score"),
    [
        ("even", [2], [4, 7, 6, 1], 2 / 3),
        ("even", [2], [1], 0.0),
        ("ctx", [2, 5], [7, 4], 0.5),
        ("ctx", [2, 4], [7, 4, 8, 1], 2 / 3),
        ("len", [2], [5] * 6, 1.0),
        ("len", [2], [5, 1], 0.6),
        ("len", [2], [5] * 16, 0.0),
    ],
)
def test_rules_by_hand(rule: str, prompt: list[int], response: list[int], score: float) -> None:
    assert RULES[rule](prompt, response) == pytest.approx(score)


def test_a_job_survives_its_file(tmp_path: Path) -> None:
    job = learning_job("ctx", tmp_path, 1)
    job.write(tmp_path / "job.json")
    assert Job.read(tmp_path / "job.json") == job


def test_the_learning_table_has_a_row_for_each_task_and_side() -> None:
    case = {"task": "even", "seed": 0, "side": "ftcli", "episodes": 64, "before": 0.4, "after": 0.9, "seconds": 2.0}
    rows = learning_table([case, case | {"seed": 1, "after": 0.8}, case | {"side": "trl"}]).splitlines()
    assert rows[2] == "| even | 64 | ftcli | 0.400 | 0.900 0.800 | 0.850 | 2 |"
    assert len(rows) == 4


@pytest.mark.parametrize("mode", ["reward", "head_only", "full"])
def test_our_side_does_the_work_of_the_job(mode: str, tmp_path: Path) -> None:
    write_tiny(tmp_path / "tiny")
    write_reward(tmp_path / "tiny", tmp_path / "reward")
    prompts = tiny_prompts(8, seed=0)
    job = Job(
        mode=mode,
        model=str(tmp_path / "tiny"),
        prompts=prompts,
        updates=2,
        rollouts=4,
        response_length=5,
        epochs=2,
        micro_batch=2,
        learning_rate=1e-3,
        kl_coef=0.05,
        seed=0,
        bf16=False,
        rule="even" if mode == "full" else "",
        reward=str(tmp_path / "reward"),
    )
    found = Bench(tmp_path, None, threads=1).run("ftcli", replace(job, mode=mode))
    assert found["prompts"] == sorted(digests(prompts))
    assert (found["tokens"], found["optimizer_steps"]) == (8 * 5, 2 * 2)
    assert len(found["wall"]) == len(found["phases"]) == len(found["scores"]) == 2
    adapter = 2 * 16 * (4 * (64 + 64) + 3 * (64 + 128))  # layers, rank, four square and three wide matrices
    model = 2 * 32 * 64 + 2 * (4 * 64 * 64 + 3 * 64 * 128 + 2 * 64) + 64
    head = 64 + 1
    critic = {"reward": adapter + head, "head_only": head, "full": model - 32 * 64 + head}[
        mode
    ]  # the critic has no language head
    assert found["trainable"] == (model if mode == "full" else adapter) + critic


def test_questions_come_from_json_or_jsonl_with_the_request_for_a_result(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('[{"question": "1 + 1?", "answer": "#### 2"}]')
    (tmp_path / "b.jsonl").write_text('{"question": "2 + 2?", "answer": "#### 4"}\n')
    write_questions(tmp_path, tmp_path / "a.json", tmp_path / "b.jsonl")
    assert '"1 + 1?\\n' in (tmp_path / "train.jsonl").read_text()
    assert ASK.replace('"', '\\"') in (tmp_path / "test.jsonl").read_text()


def test_questions_that_are_given_replace_those_of_an_earlier_call(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"question": "1 + 1?", "answer": "#### 2"}\n')
    (tmp_path / "b.jsonl").write_text('{"question": "2 + 2?", "answer": "#### 4"}\n')
    write_questions(tmp_path, tmp_path / "a.jsonl", tmp_path / "a.jsonl")
    write_questions(tmp_path, tmp_path / "b.jsonl", None)
    assert '"2 + 2?\\n' in (tmp_path / "train.jsonl").read_text()
    assert '"1 + 1?\\n' in (tmp_path / "test.jsonl").read_text(), "not given, and there"


@pytest.mark.parametrize("module", ["benchmarks.ppo", "benchmarks.gsm8k_ppo"])
def test_the_commands_say_what_they_do(module: str) -> None:
    command = [sys.executable, "-m", module, "--help"]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True)
    assert "python -m" in done.stdout
    assert set(TASKS) <= set(RULES)
