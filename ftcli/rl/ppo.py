"""Proximal policy optimisation of a language model: one object with ``step()``, read from top to bottom.

A rollout is sampled, scored, measured, turned into advantages, and used for ``num_ppo_epochs * num_mini_batches``
optimizer steps. It departs from common implementations where those are inexact: the KL is k1 in the reward, or k2 as a
loss; losses are sums divided by the token count of the whole minibatch, so that micro-batches and processes change nothing;
policy and critic are backwarded and clipped separately; the old log-probs come from the training forward in the
micro-batches of the first epoch, so that the first ratio is exactly 1. All randomness is a function of (seed, rollout,
place), so a checkpoint holds no generator state.

Sources: Ziegler et al. 2019 (arXiv 1909.08593); Huang et al. 2024 (arXiv 2403.17031) for the details.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ftcli.core.errors import Diverged
from ftcli.models.generate import row_seed
from ftcli.rl.advantages import gae, whiten
from ftcli.rl.engines import HfEngine, RolloutEngine, check_served, logprob_gap, rollout_weights
from ftcli.rl.kl import k1, k2, k3, kl_controller
from ftcli.rl.losses import importance_ratio, policy_loss, value_loss
from ftcli.rl.ranks import Ranks, single
from ftcli.rl.rewards import Score, Scores, ScoreScale, shape_scores, token_rewards
from ftcli.rl.roles import Roles
from ftcli.rl.rollout import Experience, Measured, Sampling, measure, sample_exchanges, score_exchanges
from ftcli.rl.schedule import Schedule, lr_factor
from ftcli.rl.sequences import Batch, Exchange, Prompt, collate, micro_batches
from ftcli.rl.statistics import Metrics, TokenMeter, describe, merged, share_above, update_metrics

HEAD_STEP = 0.06
"""About how far one optimizer step may move the critic's output: Adam moves it by the head's learning rate times the
L1 norm of the hidden state, which is about its size H. Faster heads make the critic, and then the policy, diverge."""


@dataclass(frozen=True)
class PpoSettings:
    """What decides the optimisation; see `ftcli.stages.ppo.config` for the meaning of each."""

    total_rollouts: int
    rollout_batch_size: int = 128
    samples_per_prompt: int = 1
    num_ppo_epochs: int = 2
    num_mini_batches: int = 2
    micro_batch_size: int = 8
    max_tokens_per_micro_batch: int | None = None
    learning_rate: float = 3e-5
    critic_learning_rate: float = 1.5e-4
    lr_scheduler_type: Schedule = "linear"
    warmup_rollouts: float = 0.0
    critic_warmup_rollouts: int = 0
    adam_betas: tuple[float, float] = (0.9, 0.95)
    adam_epsilon: float = 1e-5
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    kl_penalty_in: Literal["reward", "loss"] = "reward"
    kl_coef: float = 0.05
    kl_target: float | None = None
    kl_horizon: int = 10000
    gamma: float = 1.0
    lam: float = 0.95
    critic_lam: float | None = None
    cliprange: float = 0.2
    cliprange_high: float | None = None
    dual_clip: float | None = None
    cliprange_value: float | None = 0.2
    vf_coef: float = 1.0
    entropy_coef: float = 0.0
    whiten_advantages: bool = True
    whiten_rewards: bool = False
    reward_clip: float | None = 10.0
    missing_eos_penalty: float = 1.0
    early_stop_approxkl: float | None = 0.1
    rollout_is_cap: float | None = None
    seed: int = 42


class PpoTrainer:
    """Owns optimizer, KL coefficient and position; ``roles`` own the weights. Call `step` until ``is_done``.

    ``engine`` samples (default: this process). ``reference_p99`` names a reward source and the 99th percentile of its scores of
    good answers, above which a policy's scores are suspect. ``ranks`` are the processes that train together, each with equal
    weights.
    """

    def __init__(
        self,
        roles: Roles,
        score: Score,
        prompts: Sequence[Prompt],
        settings: PpoSettings,
        sampling: Sampling,
        scale: ScoreScale | None = None,
        engine: RolloutEngine | None = None,
        ranks: Ranks | None = None,
        reference_p99: tuple[str, float] | None = None,
    ) -> None:
        self.roles = roles
        self.score = score
        self.prompts = prompts
        self.settings = settings
        self.sampling = sampling
        self.scale = scale or ScoreScale()
        self.engine = engine or HfEngine()
        self.ranks = ranks or single()
        self.reference_p99 = reference_p99
        self.rollout = 0
        self.last: Experience | None = None
        """The rollout that was learnt from last."""
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
            [group for group in groups if group["params"]],
            lr=0.0,
            eps=settings.adam_epsilon,
            betas=settings.adam_betas,
            weight_decay=settings.weight_decay,
        )

    @property
    def is_done(self) -> bool:
        return self.rollout >= self.settings.total_rollouts

    def step(self) -> Metrics:
        """One rollout and its updates. Raises `Diverged` where a score, loss or gradient is not finite."""
        start = time.perf_counter()
        exchanges = self.sample()
        sampled = time.perf_counter()
        scores = score_exchanges(self.score, exchanges, self.ranks)
        scored = time.perf_counter()
        experience = self.last = self.experience(exchanges, scores)
        ready = time.perf_counter()
        self._widest_variance = max(self._widest_variance, float(experience.shaped.var(unbiased=False)))
        metrics = self._describe(experience)
        updated, learnt_from = self._learn(experience)
        end = time.perf_counter()

        self.kl.update(float(metrics["objective/kl"] or 0.0), len(exchanges))
        self.rollout += 1
        tokens = int(experience.measured.mask.sum())
        return {
            **metrics,
            **updated,
            "episode": self.rollout * self.settings.rollout_batch_size,
            "eps": self.rollout * self.settings.rollout_batch_size / (end - start),
            "perf/time_gen": sampled - start,
            "perf/time_reward": scored - sampled,
            "perf/time_score": ready - scored,
            "perf/time_train": end - ready,
            "perf/gen_tok_s": tokens / (sampled - start),
            "perf/train_tok_s": learnt_from / (end - ready),
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
        size, repeats = self.settings.rollout_batch_size, self.settings.samples_per_prompt
        places = range(self.rollout * size, (self.rollout + 1) * size)
        orders: dict[int, list[int]] = {}
        chosen = []
        for place in places:
            turn, offset = divmod(place // repeats, len(self.prompts))
            order = orders.setdefault(turn, self._permutation(len(self.prompts), f"prompts/{turn}"))
            chosen.append(self.prompts[order[offset]])
        self.engine.sync(self.roles.sampler(), self.rollout)
        keys = [f"rollout/{place}" for place in places]
        return sample_exchanges(self.roles, self.engine, chosen, keys, self.sampling, self.settings.seed, self.ranks)

    def minibatches(self, epoch: int) -> list[list[int]]:
        settings = self.settings
        order = self._permutation(settings.rollout_batch_size, f"minibatches/{self.rollout}/{epoch}")
        size = settings.rollout_batch_size // settings.num_mini_batches
        return [order[first : first + size] for first in range(0, len(order), size)]

    def _micro_batches(self, exchanges: list[Exchange], chosen: list[int]) -> list[list[int]]:
        """This process's share of the micro-batches of a minibatch."""
        settings = self.settings
        lengths = [len(one) for one in exchanges]
        groups = micro_batches(lengths, chosen, settings.micro_batch_size, settings.max_tokens_per_micro_batch)
        return groups[self.ranks.rank :: self.ranks.size]

    def experience(self, exchanges: list[Exchange], scores: Scores) -> Experience:
        settings = self.settings
        unscored = torch.tensor(scores.unscored)  # [B]
        total = torch.tensor(scores.total, dtype=torch.float64).masked_fill(unscored, self.scale.mean)  # [B]
        if not bool(total.isfinite().all()):
            raise Diverged(
                f"rollout {self.rollout + 1}: a score is not finite", "check the reward model's reward_stats.json"
            )
        groups = [group for chosen in self.minibatches(0) for group in self._micro_batches(exchanges, chosen)]
        measured = measure(self.roles, exchanges, groups, self.sampling, self._device, self.ranks)
        ended = torch.tensor([one.ended for one in exchanges])  # [B]
        shaped = shape_scores(total, ended, self.scale, settings.reward_clip, settings.missing_eos_penalty)  # [B]
        kl = k1(measured.logprobs, measured.ref_logprobs)  # [B, R]
        kl_coef = self.kl.value if settings.kl_penalty_in == "reward" else 0.0
        rewards = token_rewards(kl, measured.mask, shaped, kl_coef)  # [B, R]
        if settings.whiten_rewards:
            rewards = whiten(rewards, measured.mask, shift_mean=False)
        advantages, returns = gae(rewards, measured.values, measured.mask, settings.gamma, settings.lam)
        if settings.critic_lam is not None:
            _, returns = gae(rewards, measured.values, measured.mask, settings.gamma, settings.critic_lam)
        if settings.whiten_advantages:
            advantages = whiten(advantages, measured.mask)
        gap, importance = self._another_sampler(exchanges, measured)
        return Experience(exchanges, scores, shaped, measured, advantages, returns, gap, importance)

    def _another_sampler(self, exchanges: list[Exchange], measured: Measured) -> tuple[dict[str, float], Tensor | None]:
        """Where another program sampled: how far its log-probs are from these, checked to be those of the current weights; and
        weights [B, R] for the loss, if they are wanted."""
        served = [one.sampler_logprobs for one in exchanges if one.sampler_logprobs is not None]
        if len(served) < len(exchanges):
            return {}, None
        rows = torch.zeros_like(measured.logprobs)  # [B, R]
        for row, values in enumerate(served):
            rows[row, : len(values)] = torch.tensor(values)
        gap = logprob_gap(rows, measured.logprobs, measured.mask, measured.ref_logprobs)
        check_served(gap, self.rollout)
        cap = self.settings.rollout_is_cap
        return gap, None if cap is None else rollout_weights(measured.logprobs, rows, cap)

    def _describe(self, experience: Experience) -> Metrics:
        settings = self.settings
        in_reward = settings.kl_penalty_in == "reward"
        found = describe(experience, self.kl.value, self._widest_variance, kl_in_reward=in_reward) | experience.gap
        if self.reference_p99:
            source, level = self.reference_p99
            found["reward/above_ref_p99"] = share_above(experience.scores.parts[source], level)
        return found

    def _learn(self, experience: Experience) -> tuple[Metrics, int]:
        """All epochs and minibatches on one rollout, unless it breaks off; and how many response tokens were computed in all."""
        settings = self.settings
        factor = lr_factor(self.rollout, settings.total_rollouts, settings.lr_scheduler_type, settings.warmup_rollouts)
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak_lr"] * factor
        meters: list[TokenMeter] = []
        updates, stopped = 0, False
        norms = {"policy": 0.0, "critic": 0.0}
        for epoch in range(settings.num_ppo_epochs):
            for chosen in self.minibatches(epoch):
                meter = self.accumulate(experience, chosen)
                meters.append(meter)
                limit = settings.early_stop_approxkl
                stopped = limit is not None and meter.mean("k3") > limit
                if stopped:
                    break
                for name, norm in self._apply(meter).items():
                    norms[name] += norm
                updates += 1
            if stopped:
                self.optimizer.zero_grad(set_to_none=True)
                break
        total = merged(meters)
        found = update_metrics(total, meters[0], norms, updates) | {
            "policy/stopped_early": int(stopped),
            "lr": settings.learning_rate * factor,
            "critic_lr": settings.critic_learning_rate * factor,
        }
        return found, total.tokens

    @property
    def _policy_learns(self) -> bool:
        """Whether the critic's head start is over."""
        return self.rollout >= self.settings.critic_warmup_rollouts

    def accumulate(self, experience: Experience, chosen: list[int]) -> TokenMeter:
        """Gradients of one minibatch, micro-batch by micro-batch, over all processes; return its statistics."""
        settings, measured = self.settings, experience.measured
        meter = TokenMeter()
        tokens = int(measured.mask[chosen].sum())
        for micro in self._micro_batches(experience.exchanges, chosen):
            batch = collate([experience.exchanges[index] for index in micro], self.sampling.pad_id, self._device)
            mask = batch.mask  # [B, R], narrower than the rollout's

            def of(whole: Tensor, micro: list[int] = micro, mask: Tensor = mask) -> Tensor:
                return whole[micro, : mask.shape[1]].to(self._device)

            old = of(measured.logprobs)
            logprobs, trunk, entropy = self._policy_pass(batch)
            policy = policy_loss(
                logprobs,
                old,
                of(experience.advantages),
                settings.cliprange,
                settings.cliprange_high,
                settings.dual_clip,
            )
            loss = policy.loss if experience.importance is None else policy.loss * of(experience.importance)
            if settings.kl_penalty_in == "loss":
                loss = loss + self.kl.value * k2(logprobs, of(measured.ref_logprobs))
            if entropy is not None:
                loss = loss - settings.entropy_coef * entropy
            if self._policy_learns:
                (loss[mask].sum() / tokens).backward()
            values = self.roles.values(batch, trunk)  # after the policy's backward: see ftcli.rl.roles
            value = value_loss(values, of(measured.values), of(experience.returns), settings.cliprange_value)
            (settings.vf_coef * value.loss[mask].sum() / tokens).backward()

            logprobs = logprobs.detach()
            meter.largest_log_ratio = max(meter.largest_log_ratio, float((logprobs - old)[mask].abs().max()))
            ratio = importance_ratio(logprobs, old)
            meter.add(
                mask,
                policy_loss=loss,
                policy_clipped=policy.clipped,
                value_loss=value.loss,
                value_clipped=value.clipped,
                ratio=ratio,
                ratio_square=ratio**2,
                k2=k2(old, logprobs),
                k3=k3(old, logprobs),
            )
        self.ranks.sum_gradients(self._trained())
        return merged(self.ranks.gather(meter))

    def _policy_pass(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor | None]:
        """Log-probs [B, R], hidden states [N, H], and entropies [B, R] if they are rewarded; without gradient during the critic's
        head start."""
        temperature = self.sampling.temperature
        if not self._policy_learns:
            own = self.roles.measure_policy(batch, temperature)
            return own.logprobs, own.trunk, None
        if self.settings.entropy_coef:
            found = self.roles.policy_with_entropy(batch, temperature)
            return found.logprobs, found.trunk, found.entropy
        logprobs, trunk = self.roles.policy(batch, temperature)
        return logprobs, trunk, None

    def _trained(self) -> list[nn.Parameter]:
        policy = self.roles.policy_parameters() if self._policy_learns else []
        return [*policy, *self._critic_parameters]

    def _apply(self, meter: TokenMeter) -> dict[str, float]:
        """Clip each part's gradients and take one optimizer step; return both norms."""
        limit = self.settings.max_grad_norm
        norms = {
            "policy": float(nn.utils.clip_grad_norm_(self.roles.policy_parameters(), limit)),
            "critic": float(nn.utils.clip_grad_norm_(self._critic_parameters, limit)),
        }
        losses = (meter.mean("policy_loss"), meter.mean("value_loss"))
        if not all(map(math.isfinite, [*norms.values(), *losses])):
            raise Diverged(
                f"rollout {self.rollout + 1}: loss {losses[0]:.3g} (critic {losses[1]:.3g}), "
                f"gradient norm {norms['policy']:.3g} (critic {norms['critic']:.3g})",
                "lower learning_rate or critic_learning_rate, or raise kl_coef",
            )
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return norms
