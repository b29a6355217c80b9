"""What a rollout and its updates looked like, in numbers, under the names that TRL's PPO gave them.

Averages weigh every token, or every response, alike, whatever micro-batches and minibatches they were in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ftcli.rl.advantages import masked_mean
from ftcli.rl.kl import k1, k3
from ftcli.rl.losses import explained_variance
from ftcli.rl.rewards import Scores, score_summary
from ftcli.rl.rollout import Experience
from ftcli.rl.sequences import Exchange

Metrics = dict[str, float | int | None]


class TokenMeter:
    """Sums over tokens, so that averages weigh every token alike whatever the grouping."""

    def __init__(self) -> None:
        self.tokens = 0
        self.largest_log_ratio = 0.0
        self._sums: dict[str, float] = {}

    def add(self, mask: Tensor, **values: Tensor) -> None:
        self.tokens += int(mask.sum())
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, 0.0) + float(value.detach()[mask].double().sum())

    def merge(self, other: TokenMeter) -> None:
        self.tokens += other.tokens
        self.largest_log_ratio = max(self.largest_log_ratio, other.largest_log_ratio)
        for name, value in other._sums.items():
            self._sums[name] = self._sums.get(name, 0.0) + value

    def mean(self, name: str) -> float:
        return self._sums[name] / self.tokens


def merged(meters: Sequence[TokenMeter]) -> TokenMeter:
    total = TokenMeter()
    for one in meters:
        total.merge(one)
    return total


def describe(experience: Experience, kl_coef: float, widest_variance: float, *, kl_in_reward: bool) -> Metrics:
    """Metrics of a rollout before it is learnt from. Those of scores are over the responses that a source judged, and None where
    none was judged.

    ``widest_variance`` is the largest variance of shaped scores so far: where returns vary by less than a thousandth of it
    (all scores alike), the explained variance means nothing and is None.
    """
    measured, exchanges = experience.measured, experience.exchanges
    mask = measured.mask
    kl = k1(measured.logprobs, measured.ref_logprobs).sum(dim=1)  # [B]
    lengths = mask.sum(dim=1).double()  # [B]
    is_judged = ~torch.tensor(experience.scores.unscored)  # [B]
    scores = torch.tensor(experience.scores.known, dtype=torch.float64)  # [judged]
    summary = _summary(experience.scores.known)
    returns_variance = float(experience.returns[mask].double().var(unbiased=False))
    has_spread = returns_variance > 1e-3 * widest_variance
    ended = sum(one.ended for one in exchanges)
    return {
        "objective/kl": float(kl.mean()),
        "objective/kl_k3": float((k3(measured.logprobs, measured.ref_logprobs) * mask).sum(dim=1).mean()),
        "objective/kl_coef": kl_coef,
        "objective/entropy": float(-measured.logprobs.sum(dim=1).mean()),
        "objective/non_score_reward": float(-kl_coef * kl.mean()) if kl_in_reward else 0.0,
        "objective/scores": summary["mean"],
        "objective/scores_std": summary["std"],
        "objective/rlhf_reward": float((experience.shaped - kl_coef * kl).mean()),
        **_by_source(experience.scores),
        **{f"reward/{name}": value for name, value in summary.items() if name not in ("mean", "std")},
        "reward/unscored": sum(experience.scores.unscored),
        "policy/entropy_avg": max(float(masked_mean(measured.entropy, mask)), 0.0),  # below it only by rounding
        "val/explained_variance": (
            explained_variance(measured.values, experience.returns, mask) if has_spread else None
        ),
        "val/mean": float(masked_mean(measured.values, mask)),
        "val/return_mean": float(masked_mean(experience.returns, mask)),
        "val/num_eos_tokens": ended,
        "rollout/length_mean": float(lengths.mean()),
        "rollout/length_p95": float(lengths.quantile(0.95)),
        "rollout/eos_rate": ended / len(exchanges),
        "rollout/distinct2": distinct_bigrams(exchanges),
        "rollout/score_length_corr": correlation(scores, lengths[is_judged]),
    }


def _by_source(scores: Scores) -> Metrics:
    """Mean and standard deviation of each source over the responses that it judged."""
    found: Metrics = {}
    for name, values in scores.parts.items():
        summary = _summary([value for value in values if value is not None])
        found |= {f"reward/{name}/mean": summary["mean"], f"reward/{name}/std": summary["std"]}
    return found


def _summary(scores: Sequence[float]) -> dict[str, float | None]:
    """`score_summary`, with None for everything where there are no scores."""
    return dict(score_summary(scores)) if scores else dict.fromkeys(score_summary([0.0]))


def share_above(scores: Sequence[float | None], level: float) -> float | None:
    """The share of ``scores`` above ``level``, of those that there are."""
    judged = [one for one in scores if one is not None]
    return sum(one > level for one in judged) / len(judged) if judged else None


def distinct_bigrams(exchanges: Sequence[Exchange]) -> float | None:
    """Different pairs of neighbouring response tokens over all such pairs; None where no response has two tokens."""
    pairs = [pair for one in exchanges for pair in zip(one.response, one.response[1:], strict=False)]
    return len(set(pairs)) / len(pairs) if pairs else None


def correlation(first: Tensor, second: Tensor) -> float | None:
    """Pearson's correlation of two vectors; None where one of them is constant, or both are empty."""
    if not len(first) or first.min() == first.max() or second.min() == second.max():
        return None
    return float(torch.corrcoef(torch.stack([first.double(), second.double()]))[0, 1])


def update_metrics(total: TokenMeter, first: TokenMeter, norms: Mapping[str, float], updates: int) -> Metrics:
    """Metrics of a rollout's updates: means over all minibatches that were looked at, ``first`` the first of them, ``norms`` the
    sums of gradient norms over ``updates`` optimizer steps."""
    ratio = total.mean("ratio")
    return {
        "check/first_mb_max_abs_logratio": first.largest_log_ratio,
        "check/first_mb_approxkl": first.mean("k3"),
        "loss/policy_avg": total.mean("policy_loss"),
        "loss/value_avg": total.mean("value_loss"),
        "policy/approxkl_avg": total.mean("k2"),
        "policy/clipfrac_avg": total.mean("policy_clipped"),
        "policy/grad_norm": norms["policy"] / max(updates, 1),
        "policy/updates": updates,
        "val/clipfrac_avg": total.mean("value_clipped"),
        "val/grad_norm": norms["critic"] / max(updates, 1),
        "val/ratio": ratio,
        "val/ratio_var": max(total.mean("ratio_square") - ratio**2, 0.0),
    }
