"""The files of a small made-up ppo run, for the tests of its report."""

from __future__ import annotations

from typing import Any

from ftcli.rl.guards import HINTS
from ftcli.stages.ppo.held_out import Answer, Exam, compare
from ftcli.stages.ppo.watch import length_bins, score_bins

BEFORE, AFTER = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6], [0.55, 0.7, 0.85, 0.8, 1.0, 1.1]
RULE_BEFORE, RULE_AFTER = [1.0, 0.0, 1.0, 0.0, 1.0, 0.0], [0.0, 0.0, 1.0, 1.0, 1.0, 0.0]


def small_exam(scores: list[float], rule: list[float], kl: float) -> Exam:
    return Exam(
        [
            Answer([3] * (index + 2), index % 2 == 0, score, kl, {"rm": score - 0.1, "brief": 0.1}, {"rule": value})
            for index, (score, value) in enumerate(zip(scores, rule, strict=True))
        ]
    )


def small_records() -> list[dict[str, Any]]:
    """Lines of metrics.jsonl: three rollouts, held-out answers before, after the second and at the end."""
    before, after = small_exam(BEFORE, RULE_BEFORE, 0.0), small_exam(AFTER, RULE_AFTER, 4.25)
    rollouts = [
        {
            "step": step,
            "objective/scores": 0.2 * step,
            "objective/scores_std": 0.1,
            "objective/kl": 1.5 * step,
            "objective/kl_coef": 0.05,
            "reward/rm/mean": 0.2 * step - 0.1,
            "reward/rm/std": 0.1,
            "reward/brief/mean": 0.1,
            "reward/brief/std": 0.0,
            "rollout/length_mean": 10.0 - step,
            "rollout/length_p95": 16.0,
            "rollout/eos_rate": 0.5,
            "rollout/distinct2": 0.75,
            "rollout/score_length_corr": None,
            "policy/entropy_avg": 2.0,
            "policy/clipfrac_avg": 0.1,
            "policy/approxkl_avg": 0.01,
            "val/explained_variance": None if step == 2 else 0.25,
            "loss/value_avg": 0.5,
            "perf/time_gen": 1.0,
            "perf/time_reward": 0.5,
            "perf/time_score": 0.5,
            "perf/time_train": 2.0,
            "perf/gen_tok_s": 100.0,
            "perf/train_tok_s": 50.0,
        }
        for step in (1, 2, 3)
    ]
    return [
        {"step": 0, **before.summary()},
        *rollouts[:2],
        {"step": 2, **before.summary()},
        rollouts[2],
        {"step": 3, **after.summary()},
    ]


def small_samples(text: str = "a short answer", prompt: str = "Say hello") -> list[dict[str, Any]]:
    return [
        {
            "rollout": rollout,
            "id": f"row-{row}",
            "prompt": [{"role": "user", "content": f"{prompt} {row}"}],
            "decoding": decoding,
            "text": f"{text} {decoding} of {rollout}",
            "tokens": 5,
            "finish_reason": "stop" if row else "length",
            "score": 0.25 * rollout,
            "parts": {"rm": 0.5, "brief": None},
            "evals": {"rule": 1.0},
            "kl": 1.5,
        }
        for rollout in (0, 2, 3)
        for decoding in ("sampled", "greedy")
        for row in range(10)
    ]


def small_histograms() -> list[dict[str, Any]]:
    scores, lengths = score_bins(BEFORE), length_bins(16)
    return [
        {"rollout": 1, "score": scores.to_json(BEFORE), "length": lengths.to_json([4, 8, 16])},
        {"rollout": 2, "score": scores.to_json(AFTER), "length": lengths.to_json([4, 4, 9])},
        {"rollout": 3, "score": scores.to_json([*AFTER, 99.0]), "length": lengths.to_json([4, 4, 9])},
    ]


def small_alarm() -> dict[str, Any]:
    text = "KL to the reference 60.0 nats a response, above max_kl 50"
    return {"rollout": 3, "name": "kl", "text": text, "hint": HINTS["kl"], "stops": True}


def small_run() -> dict[str, Any]:
    """Arguments of `save_figures`."""
    return {
        "records": small_records(),
        "changes": compare(small_exam(BEFORE, RULE_BEFORE, 0.0), small_exam(AFTER, RULE_AFTER, 4.25)),
        "alarms": [],
        "samples": small_samples(),
        "histograms": small_histograms(),
        "settings": {"kl_coef": 0.05, "kl_target": None},
        "inputs": [{"name": "model", "ref": "lora.model", "digest": "sha256:11"}],
    }
