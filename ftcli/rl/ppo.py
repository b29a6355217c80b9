"""Proximal policy optimisation of a language model: one object with ``step()``, read from top to bottom.

A rollout is sampled, scored, measured, turned into advantages, and used for ``num_ppo_epochs * num_mini_batches``
optimizer steps. It departs from common implementations where those are inexact: the KL is k1 in the reward; losses
are sums divided by the token count of the whole minibatch, so that micro-batches change nothing; policy and critic
are backwarded and clipped separately; the old log-probs come from the training forward in the micro-batches of the
first epoch, so that the first ratio is exactly 1. All randomness is a function of (seed, rollout, place), so a
checkpoint holds no generator state.

Sources: Ziegler et al. 2019 (arXiv 1909.08593); Huang et al. 2024 (arXiv 2403.17031) for the details.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ftcli.core.errors import Diverged
from ftcli.models.generate import row_seed
from ftcli.rl.advantages import gae, whiten
from ftcli.rl.kl import k1, k2, k3, kl_controller
from ftcli.rl.losses import importance_ratio, policy_loss, value_loss
from ftcli.rl.rewards import ScoreScale, shape_scores, token_rewards
from ftcli.rl.roles import Roles
from ftcli.rl.rollout import Experience, Sampling, measure, sample_exchanges
from ftcli.rl.schedule import Schedule, lr_factor
from ftcli.rl.sequences import Exchange, collate, micro_batches
from ftcli.rl.statistics import Metrics, TokenMeter, describe

Score = Callable[[Sequence[Exchange]], list[float]]
"""Raw scores of exchanges, in their order: a learned reward model, or any function of token ids."""

HEAD_STEP = 0.06
"""About how far one optimizer step may move the critic's output: Adam moves it by the head's learning rate times the
L1 norm of the hidden state, which is about its size H. Faster heads make the critic, and then the policy, diverge."""


@dataclass(frozen=True)
class PpoSettings:
    """What decides the optimisation; see `ftcli.stages.ppo.config` for the meaning of each."""

    total_rollouts: int
    rollout_batch_size: int = 128
    num_ppo_epochs: int = 2
    num_mini_batches: int = 2
    micro_batch_size: int = 8
    learning_rate: float = 3e-5
    critic_learning_rate: float = 1.5e-4
    lr_scheduler_type: Schedule = "linear"
    warmup_rollouts: float = 0.0
    max_grad_norm: float = 1.0
    kl_coef: float = 0.05
    kl_target: float | None = None
    kl_horizon: int = 10000
    gamma: float = 1.0
    lam: float = 0.95
    cliprange: float = 0.2
    cliprange_value: float | None = 0.2
    reward_clip: float | None = 10.0
    missing_eos_penalty: float = 1.0
    early_stop_approxkl: float | None = 0.1
    seed: int = 42


class PpoTrainer:
    """Owns optimizer, KL coefficient and position; ``roles`` own the weights. Call `step` until ``is_done``."""

    def __init__(
        self,
        roles: Roles,
        score: Score,
        prompts: Sequence[list[int]],
        settings: PpoSettings,
        sampling: Sampling,
        scale: ScoreScale | None = None,
    ) -> None:
        self.roles = roles
        self.score = score
        self.prompts = prompts
        self.settings = settings
        self.sampling = sampling
        self.scale = scale or ScoreScale()
        self.rollout = 0
        self.kl = kl_controller(settings.kl_coef, settings.kl_target, settings.kl_horizon)
        self._widest_variance = 0.0
        self._critic_parameters = [*roles.value_parameters(), *roles.head_parameters()]
        head = roles.head_parameters()
        self._device = head[0].device
        head_rate = min(settings.critic_learning_rate, HEAD_STEP / head[0].shape[-1])
        groups = [
            {"params": roles.policy_parameters(), "peak_lr": settings.learning_rate},
            {"params": roles.value_parameters(), "peak_lr": settings.critic_learning_rate},
            {"params": head, "peak_lr": head_rate},
        ]
        self.optimizer = torch.optim.AdamW(
            [group for group in groups if group["params"]], lr=0.0, eps=1e-5, betas=(0.9, 0.95), weight_decay=0.0
        )

    @property
    def is_done(self) -> bool:
        return self.rollout >= self.settings.total_rollouts

    def step(self) -> Metrics:
        """One rollout and its updates. Raises `Diverged` where a loss or gradient is not finite."""
        start = time.perf_counter()
        exchanges = self.sample()
        sampled = time.perf_counter()
        scores = torch.tensor(self.score(exchanges), dtype=torch.float64)
        scored = time.perf_counter()
        experience = self.experience(exchanges, scores)
        ready = time.perf_counter()
        self._widest_variance = max(self._widest_variance, float(experience.shaped.var(unbiased=False)))
        metrics = describe(experience, self.kl.value, self._widest_variance) | self._learn(experience)
        end = time.perf_counter()

        self.kl.update(float(metrics["objective/kl"] or 0.0), len(exchanges))
        self.rollout += 1
        tokens = int(experience.measured.mask.sum())
        return metrics | {
            "episode": self.rollout * self.settings.rollout_batch_size,
            "perf/time_gen": sampled - start,
            "perf/time_reward": scored - sampled,
            "perf/time_score": ready - scored,
            "perf/time_train": end - ready,
            "perf/gen_tok_s": tokens / (sampled - start),
            "perf/train_tok_s": tokens * self.settings.num_ppo_epochs / (end - ready),
        }

    def state_dict(self) -> dict[str, Any]:
        """Everything that a rollout depends on, to be taken between rollouts."""
        return {
            "rollout": self.rollout,
            "kl_coef": self.kl.value,
            "widest_variance": self._widest_variance,
            "optimizer": self.optimizer.state_dict(),
            "roles": self.roles.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.rollout = state["rollout"]
        self.kl.value = state["kl_coef"]
        self._widest_variance = state["widest_variance"]
        self.roles.load_state_dict(state["roles"])
        self.optimizer.load_state_dict(state["optimizer"])

    def _permutation(self, size: int, name: str) -> list[int]:
        generator = torch.Generator().manual_seed(row_seed(self.settings.seed, name))
        return torch.randperm(size, generator=generator).tolist()

    def sample(self) -> list[Exchange]:
        """Responses to the next prompts; the order of prompts is a new permutation in each pass over them."""
        size = self.settings.rollout_batch_size
        places = range(self.rollout * size, (self.rollout + 1) * size)
        orders: dict[int, list[int]] = {}
        chosen = []
        for place in places:
            turn, offset = divmod(place, len(self.prompts))
            order = orders.setdefault(turn, self._permutation(len(self.prompts), f"prompts/{turn}"))
            chosen.append(self.prompts[order[offset]])
        keys = [f"rollout/{place}" for place in places]
        return sample_exchanges(self.roles, chosen, keys, self.sampling, self.settings.seed)

    def minibatches(self, epoch: int) -> list[list[int]]:
        settings = self.settings
        order = self._permutation(settings.rollout_batch_size, f"minibatches/{self.rollout}/{epoch}")
        size = settings.rollout_batch_size // settings.num_mini_batches
        return [order[first : first + size] for first in range(0, len(order), size)]

    def _micro_batches(self, exchanges: list[Exchange], chosen: list[int]) -> list[list[int]]:
        return micro_batches([len(one) for one in exchanges], chosen, self.settings.micro_batch_size)

    def experience(self, exchanges: list[Exchange], scores: Tensor) -> Experience:
        settings = self.settings
        if not bool(scores.isfinite().all()):
            raise Diverged(
                f"rollout {self.rollout + 1}: a score is not finite", "check the reward model's reward_stats.json"
            )
        groups = [group for chosen in self.minibatches(0) for group in self._micro_batches(exchanges, chosen)]
        measured = measure(self.roles, exchanges, groups, self.sampling, self._device)
        ended = torch.tensor([one.ended for one in exchanges])  # [B]
        shaped = shape_scores(scores, ended, self.scale, settings.reward_clip, settings.missing_eos_penalty)  # [B]
        kl = k1(measured.logprobs, measured.ref_logprobs)  # [B, R]
        rewards = token_rewards(kl, measured.mask, shaped, self.kl.value)  # [B, R]
        advantages, returns = gae(rewards, measured.values, measured.mask, settings.gamma, settings.lam)
        return Experience(exchanges, scores, shaped, measured, whiten(advantages, measured.mask), returns)

    def _learn(self, experience: Experience) -> Metrics:
        """All epochs and minibatches on one rollout."""
        settings = self.settings
        factor = lr_factor(self.rollout, settings.total_rollouts, settings.lr_scheduler_type, settings.warmup_rollouts)
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak_lr"] * factor
        total, first, updates, stopped = TokenMeter(), None, 0, False
        policy_norm = critic_norm = 0.0
        for epoch in range(settings.num_ppo_epochs):
            for chosen in self.minibatches(epoch):
                meter, largest = self.accumulate(experience, chosen)
                total.merge(meter)
                first = first or {
                    "check/first_mb_max_abs_logratio": largest,
                    "check/first_mb_approxkl": meter.mean("k3"),
                }
                limit = settings.early_stop_approxkl
                stopped = limit is not None and meter.mean("k3") > limit
                if stopped:
                    break
                norms = self._apply(meter)
                policy_norm, critic_norm, updates = policy_norm + norms[0], critic_norm + norms[1], updates + 1
            if stopped:
                self.optimizer.zero_grad(set_to_none=True)
                break
        ratio = total.mean("ratio")
        return (first or {}) | {
            "loss/policy_avg": total.mean("policy_loss"),
            "loss/value_avg": total.mean("value_loss"),
            "policy/approxkl_avg": total.mean("k2"),
            "policy/clipfrac_avg": total.mean("policy_clipped"),
            "policy/grad_norm": policy_norm / max(updates, 1),
            "policy/updates": updates,
            "policy/stopped_early": int(stopped),
            "val/clipfrac_avg": total.mean("value_clipped"),
            "val/grad_norm": critic_norm / max(updates, 1),
            "val/ratio": ratio,
            "val/ratio_var": max(total.mean("ratio_square") - ratio**2, 0.0),
            "lr": settings.learning_rate * factor,
            "critic_lr": settings.critic_learning_rate * factor,
        }

    def accumulate(self, experience: Experience, chosen: list[int]) -> tuple[TokenMeter, float]:
        """Gradients of one minibatch, micro-batch by micro-batch; return its statistics and the largest |log-ratio|."""
        settings, measured = self.settings, experience.measured
        meter, largest = TokenMeter(), 0.0
        tokens = int(measured.mask[chosen].sum())
        for micro in self._micro_batches(experience.exchanges, chosen):
            batch = collate([experience.exchanges[index] for index in micro], self.sampling.pad_id, self._device)
            mask = batch.mask  # [B, R], narrower than the rollout's
            old, advantages, old_values, returns = (
                whole[micro, : mask.shape[1]].to(self._device)
                for whole in (measured.logprobs, experience.advantages, measured.values, experience.returns)
            )
            logprobs, trunk = self.roles.policy(batch, self.sampling.temperature)
            policy = policy_loss(logprobs, old, advantages, settings.cliprange)
            (policy.loss[mask].sum() / tokens).backward()
            values = self.roles.values(batch, trunk)  # after the policy's backward: see ftcli.rl.roles
            value = value_loss(values, old_values, returns, settings.cliprange_value)
            (value.loss[mask].sum() / tokens).backward()

            logprobs = logprobs.detach()
            largest = max(largest, float((logprobs - old)[mask].abs().max()))
            ratio = importance_ratio(logprobs, old)
            meter.add(
                mask,
                policy_loss=policy.loss,
                policy_clipped=policy.clipped,
                value_loss=value.loss,
                value_clipped=value.clipped,
                ratio=ratio,
                ratio_square=ratio**2,
                k2=k2(old, logprobs),
                k3=k3(old, logprobs),
            )
        return meter, largest

    def _apply(self, meter: TokenMeter) -> tuple[float, float]:
        """Clip each part's gradients and take one optimizer step; return both norms."""
        limit = self.settings.max_grad_norm
        norms = (
            float(torch.nn.utils.clip_grad_norm_(self.roles.policy_parameters(), limit)),
            float(torch.nn.utils.clip_grad_norm_(self._critic_parameters, limit)),
        )
        losses = (meter.mean("policy_loss"), meter.mean("value_loss"))
        if not all(torch.isfinite(torch.tensor([*norms, *losses]))):
            raise Diverged(
                f"rollout {self.rollout + 1}: loss {losses[0]:.3g} (critic {losses[1]:.3g}), "
                f"gradient norm {norms[0]:.3g} (critic {norms[1]:.3g})",
                "lower learning_rate or critic_learning_rate, or raise kl_coef",
            )
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return norms
