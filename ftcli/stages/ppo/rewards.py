"""What a run of PPO rewards: a learned reward, Python functions, or a weighted sum, and how scores are scaled."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from transformers import PreTrainedTokenizerBase

from ftcli.core.errors import GateFailed, UsageError
from ftcli.core.stage import Context
from ftcli.data.reward_columns import reward_columns
from ftcli.rl.reward_card import reward_gate
from ftcli.rl.reward_model import RewardModel, read_stats
from ftcli.rl.reward_sources import RewardSource, load_function_reward
from ftcli.rl.rewards import ScoreScale, score_summary
from ftcli.rl.sequences import Exchange
from ftcli.stages.ppo.config import PpoConfig
from ftcli.stages.ppo.held_out import Exam

LEARNED = "reward"
"""What the reward model is called among the sources."""


def check_rewards(ctx: Context[PpoConfig]) -> None:
    """Refuse names and weights that do not fit, and a reward model that is not clearly better than judging by length, unless told
    otherwise."""
    reward = ctx.maybe("reward")
    labels = [item.label for name in ("reward_func", "eval_func") for item in ctx.many(name)]
    taken = [label for label in labels if label == LEARNED or labels.count(label) > 1]
    if taken:
        raise UsageError(
            f"{taken[0]}: two rewards have this name", "give each a label: --reward-func LABEL=FILE.py:NAME"
        )
    if reward is None:
        return
    if ctx.config.reward_weights and not ctx.many("reward_func"):
        raise UsageError(
            "reward_weights: the reward model is all that is rewarded, so it has nothing to be weighed against",
            "drop reward_weights",
        )
    why = reward_gate(read_stats(reward.path))
    if why and ctx.config.reward_gate == "enforce":
        raise GateFailed(
            f"{reward.ref}: {why}",
            "train it on more or clearer pairs, or test it on more of them; reward_gate warn goes on nevertheless",
        )
    if why:
        ctx.events.note(f"warning: {why}")


@contextmanager
def functions(
    ctx: Context[PpoConfig], name: str, tokenizer: PreTrainedTokenizerBase, rows: Sequence[Mapping[str, Any]]
) -> Iterator[dict[str, RewardSource]]:
    """The functions of the input ``name`` by their labels, each in a process of its own meanwhile."""
    with ExitStack() as stack:
        found: dict[str, RewardSource] = {}
        for artifact in ctx.many(name):
            one = load_function_reward(
                artifact,
                rows=rows,
                columns=reward_columns,
                decode=lambda ids: str(tokenizer.decode(ids, skip_special_tokens=True)),
                timeout_s=ctx.config.reward_timeout,
            )
            stack.callback(one.close)
            found[artifact.label] = one
        yield found


def with_learned(
    sources: Mapping[str, RewardSource], reward: Callable[[], RewardModel] | None, micro_batch_size: int
) -> dict[str, RewardSource]:
    """``sources`` with the learned reward before them, if there is one."""
    if reward is None:
        return dict(sources)

    def learned(exchanges: Sequence[Exchange]) -> list[float]:
        return reward().score_exchanges(exchanges, micro_batch_size)

    return {LEARNED: learned, **sources}


def reference_p99(ctx: Context[PpoConfig]) -> tuple[str, float] | None:
    """The learned reward and the score that 99 % of the chosen answers it was tested on stay below."""
    reward = ctx.maybe("reward")
    return None if reward is None else (LEARNED, float(read_stats(reward.path)["chosen"]["p99"]))


def score_scale(ctx: Context[PpoConfig], sources: Mapping[str, Any], before: Exam) -> ScoreScale:
    """The fixed shift and scale of scores. Raises `UsageError` where all scores are alike, or there are none: then there is
    nothing to learn."""
    kind, learned_alone = ctx.config.reward_normalization, list(sources) == [LEARNED]
    if kind == "auto":
        kind = "policy" if learned_alone else "none"
    if kind == "none":
        return ScoreScale()
    if kind == "reference" and not learned_alone:
        raise UsageError(
            "reward_normalization reference: the statistics are the reward model's, and functions are rewarded too",
            "set it to policy or none",
        )
    if kind == "policy" and not before.known:
        raise UsageError(
            f"none of the {len(before.answers)} held-out answers was given a score, so there is nothing to scale by",
            "set reward_normalization to none, or give rewards that score these rows",
        )
    found = read_stats(ctx.one("reward").path)["chosen"] if kind == "reference" else score_summary(before.known)
    if not found["std"] > 0:
        raise UsageError(
            f"every answer has the score {found['mean']:g}, so there is nothing to scale by",
            "train the reward model longer, or on other pairs; for functions set reward_normalization to none",
        )
    ctx.events.note(f"scores are shifted by {-found['mean']:.3f} and divided by {found['std']:.3f} ({kind})")
    return ScoreScale(found["mean"], found["std"])
