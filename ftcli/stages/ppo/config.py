"""Settings of the ppo stage."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from ftcli.core.config import ExecOnly, StageConfig


class PpoConfig(StageConfig):
    """Settings of ppo. There is no top_p, top_k or min length: rollouts are drawn from the whole distribution, or the
    ratios of PPO would be wrong; and no choice of KL estimator: only k1 has the right gradient in a reward."""

    total_episodes: int | None = Field(None, ge=1)
    """Responses to learn from, a multiple of rollout_batch_size. Default: one pass over the train prompts."""
    rollout_batch_size: int = Field(128, ge=2)
    """Responses sampled before the policy is updated."""
    num_ppo_epochs: int = Field(2, ge=1)
    """Passes over each rollout."""
    num_mini_batches: int = Field(2, ge=1)
    """Optimizer steps of one pass; must divide rollout_batch_size."""
    micro_batch_size: Annotated[int, ExecOnly()] = Field(8, ge=1)
    """Responses trained on at once; losses are means over the tokens of a whole minibatch, so this changes no result
    beyond rounding."""
    rollout_micro_batch_size: Annotated[int, ExecOnly()] = Field(32, ge=1)
    """Responses sampled or scored at once."""
    max_prompt_length: int = Field(512, ge=1)
    """Prompts with more tokens are left out and counted."""
    response_length: int = Field(128, ge=1)
    """Longest response, in tokens."""
    temperature: float = Field(1.0, gt=0)
    """Of sampling and of every log-prob alike."""
    learning_rate: float = Field(3e-5, gt=0)
    """Peak learning rate of the policy's adapter."""
    critic_learning_rate: float | None = Field(None, gt=0)
    """Peak learning rate of the critic. Default: 5 times learning_rate. Its head is held to 0.06 / hidden size."""
    lr_scheduler_type: Literal["linear", "cosine", "constant"] = "linear"
    """How the learning rate goes on after warm-up, rollout by rollout."""
    warmup_steps: float = Field(0.0, ge=0)
    """Rollouts of linear warm-up; below 1, a share of all rollouts."""
    max_grad_norm: float = Field(1.0, gt=0)
    """Gradients are scaled down to this norm, policy and critic apart."""
    kl_coef: float = Field(0.05, ge=0)
    """Weight of the KL to the starting policy in the reward."""
    kl_target: float | None = Field(None, gt=0)
    """KL of a whole response to steer towards by adapting kl_coef; unset keeps kl_coef."""
    kl_horizon: int = Field(10000, ge=1)
    """Responses over which kl_coef adapts."""
    lam: float = Field(0.95, ge=0, le=1)
    """Lambda of generalised advantage estimation; 1 trusts the critic least."""
    cliprange: float = Field(0.2, gt=0)
    """How far the probability ratio of a token counts from 1."""
    cliprange_value: float | None = Field(0.2, gt=0)
    """How far the critic may move from its old value, in units of the normalised reward; null disables."""
    reward_normalization: Literal["policy", "reference", "none"] = "policy"
    """Scores are shifted and scaled by fixed statistics: of the starting policy's answers to the held-out prompts, of
    the chosen answers in the reward model's reward_stats.json, or not."""
    reward_clip: float | None = Field(10.0, gt=0)
    """Normalised scores count no more than this either way; null disables."""
    missing_eos_penalty: float = Field(1.0, ge=0)
    """Taken off the normalised score of a response that did not end by itself."""
    value_init: Literal["reward", "zero", "head_only"] = "reward"
    """The critic: a copy of the reward model; a copy of the policy with a zero head; or a zero head on the policy's own
    hidden states, which costs no second pass through the model."""
    early_stop_approxkl: float | None = Field(0.1, gt=0)
    """Leave out what remains of a rollout once a minibatch's KL to the old policy exceeds this; null disables."""
    eval_prompts: int = Field(64, ge=2)
    """Held-out prompts answered before and after training (the first of the validation split, or of test if that is
    empty)."""
    lora_r: int = Field(16, ge=1)
    """Rank of the new adapter for a policy that is a whole model; alpha is twice the rank."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """Of the frozen weights and the computation; auto is bf16 where the hardware multiplies it. What is trained is
    float32."""
    save_steps: Annotated[int, ExecOnly()] = Field(1, ge=1)
    """Write a checkpoint every so many rollouts, for going on after a crash."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.rollout_batch_size % self.num_mini_batches:
            raise ValueError(
                f"rollout_batch_size {self.rollout_batch_size} is no multiple of num_mini_batches {self.num_mini_batches}"
            )
        if self.total_episodes is not None and self.total_episodes % self.rollout_batch_size:
            raise ValueError(
                f"total_episodes {self.total_episodes} is no multiple of rollout_batch_size {self.rollout_batch_size}"
            )
        return self
