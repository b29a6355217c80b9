"""Settings of the ppo stage."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from ftcli.core.config import ExecOnly, StageConfig, non_default
from ftcli.rl.guards import GuardName

_CUTS = (
    "cuts the distribution that is sampled from, while PPO compares probabilities of the whole one: every ratio would be "
    "wrong by the mass that was cut off"
)


class PpoConfig(StageConfig):
    """Settings of ppo, under TRL's names where it has them."""

    refused: ClassVar[Mapping[str, str]] = {
        **dict.fromkeys(("top_p", "top_k", "min_p", "repetition_penalty", "min_new_tokens", "min_length"), _CUTS),
        "kl_estimator": (
            "k1 is used in the reward and k2 as a loss, since their gradients are the KL's; k3 in the reward pushes the policy "
            "away near the reference, and as a loss has the gradient of another divergence (arXiv 2510.01555)"
        ),
        "lora_dropout": "with dropout, neither the old nor the new log-probs would be the policy's",
        "whiten_reward": "whiten_rewards is the name; it shortens answers (arXiv 2403.17031)",
    }

    method: Literal["auto", "lora", "qlora", "full"] = "auto"
    """auto trains an adapter, on the 4-bit base where the policy was trained on one; full trains all weights, with a copy of the
    model as reference and another as critic."""
    total_episodes: int | None = Field(None, ge=1)
    """Responses to learn from, a multiple of rollout_batch_size. Default: one pass over the train prompts."""
    rollout_batch_size: int = Field(128, ge=2)
    """Responses sampled before the policy is updated."""
    samples_per_prompt: int = Field(1, ge=1)
    """Responses to each prompt of a rollout; must divide rollout_batch_size."""
    num_ppo_epochs: int = Field(2, ge=1)
    """Passes over each rollout."""
    num_mini_batches: int = Field(2, ge=1)
    """Optimizer steps of one pass; must divide rollout_batch_size."""
    micro_batch_size: Annotated[int, ExecOnly()] = Field(8, ge=1)
    """Responses trained on at once; losses are means over the tokens of a whole minibatch, so this changes no result
    beyond rounding."""
    max_tokens_per_micro_batch: Annotated[int | None, ExecOnly()] = Field(None, ge=1)
    """Tokens trained on at once, padding included; micro_batch_size is the limit on rows."""
    rollout_micro_batch_size: Annotated[int, ExecOnly()] = Field(32, ge=1)
    """Responses sampled or scored at once."""
    max_prompt_length: int = Field(512, ge=1)
    """Prompts with more tokens are left out and counted."""
    response_length: int = Field(128, ge=1)
    """Longest response, in tokens."""
    temperature: float = Field(1.0, gt=0)
    """Of sampling and of every log-prob alike."""
    learning_rate: float | None = Field(None, gt=0)
    """Peak learning rate of the policy. Default: 3e-5 for an adapter, 3e-6 for all weights."""
    critic_learning_rate: float | None = Field(None, gt=0)
    """Peak learning rate of the critic. Default: 5 times learning_rate. Its head is held to 0.06 / hidden size."""
    lr_scheduler_type: Literal["linear", "cosine", "constant"] = "linear"
    """How the learning rate goes on after warm-up, rollout by rollout."""
    warmup_steps: float = Field(0.0, ge=0)
    """Rollouts of linear warm-up; below 1, a share of all rollouts."""
    critic_warmup_steps: int | None = Field(None, ge=0)
    """Rollouts from which the critic alone learns. Default: none for a critic from the reward model, else 3, but at most a tenth of
    all rollouts."""
    adam_beta1: float = Field(0.9, ge=0, lt=1)
    """AdamW's decay of the mean gradient."""
    adam_beta2: float = Field(0.95, ge=0, lt=1)
    """AdamW's decay of the mean squared gradient."""
    adam_epsilon: float = Field(1e-5, gt=0)
    """AdamW's epsilon."""
    weight_decay: float = Field(0.0, ge=0)
    """AdamW's decoupled weight decay."""
    max_grad_norm: float = Field(1.0, gt=0)
    """Gradients are scaled down to this norm, policy and critic apart."""
    kl_penalty_in: Literal["reward", "loss"] = "reward"
    """The KL to the starting policy counts against the reward of each token (k1), or is added to the loss (k2)."""
    kl_coef: float = Field(0.05, ge=0)
    """Weight of the KL to the starting policy."""
    kl_target: float | None = Field(None, gt=0)
    """KL of a whole response to steer towards by adapting kl_coef; unset keeps kl_coef."""
    kl_horizon: int = Field(10000, ge=1)
    """Responses over which kl_coef adapts."""
    gamma: float = Field(1.0, gt=0, le=1)
    """Discount of later rewards, token by token."""
    lam: float = Field(0.95, ge=0, le=1)
    """Lambda of generalised advantage estimation; 1 trusts the critic least, and suits answers above 256 tokens."""
    critic_lam: float | None = Field(None, ge=0, le=1)
    """Lambda of the returns that the critic learns (arXiv 2503.01491). Default: lam."""
    cliprange: float = Field(0.2, gt=0)
    """How far the probability ratio of a token counts from 1."""
    cliprange_high: float | None = Field(None, gt=0)
    """How far upwards, if that is to differ (arXiv 2503.14476)."""
    dual_clip: float | None = Field(None, gt=1)
    """Bounds the loss of a token with a negative advantage by so many times the advantage (arXiv 1912.09729); 3 is usual."""
    cliprange_value: float | None = Field(0.2, gt=0)
    """How far the critic may move from its old value, in units of the normalised reward; null disables."""
    vf_coef: float = Field(1.0, gt=0)
    """Weight of the critic's loss. It has weights and a gradient norm of its own, so critic_learning_rate matters far more."""
    entropy_coef: float = Field(0.0, ge=0)
    """Weight of an entropy bonus in the policy's loss."""
    whiten_advantages: bool = True
    """Scale the advantages of a rollout to mean 0 and variance 1."""
    whiten_rewards: bool = False
    """Scale the token rewards of a rollout to variance 1; shortens answers (arXiv 2403.17031)."""
    reward_weights: dict[str, float] | None = None
    """Weight of each reward by its label, e.g. {reward: 1, length: 0.1}; the reward model is called reward. Default: 1 each."""
    reward_timeout: Annotated[float, ExecOnly()] = Field(300.0, gt=0)
    """Seconds after which a call of a reward function is given up."""
    reward_gate: Literal["enforce", "warn"] = "enforce"
    """What happens where the reward model's held-out accuracy is not clearly above what the length of an answer tells."""
    reward_normalization: Literal["auto", "policy", "reference", "none"] = "auto"
    """Scores are shifted and scaled by fixed statistics: of the starting policy's answers to the held-out prompts, of
    the chosen answers in the reward model's reward_stats.json, or not. auto is policy for a reward model alone, else none."""
    reward_clip: float | None = Field(10.0, gt=0)
    """Normalised scores count no more than this either way; null disables."""
    missing_eos_penalty: float = Field(1.0, ge=0)
    """Taken off the normalised score of a response that did not end by itself."""
    value_init: Literal["auto", "reward", "zero", "head_only"] = "auto"
    """The critic: a copy of the reward model; a copy of the policy with a zero head; or a zero head on the policy's own
    hidden states, which costs no second pass through the model. auto is reward where a reward model on the policy's base, or any
    with method full, is all that is rewarded; else zero."""
    early_stop_approxkl: float | None = Field(0.1, gt=0)
    """Leave out what remains of a rollout once a minibatch's KL to the old policy exceeds this; null disables."""
    rollout_engine: Literal["hf", "vllm"] = "hf"
    """Who samples: this process, or a vLLM server at vllm_url."""
    vllm_url: Annotated[str, ExecOnly()] = "http://127.0.0.1:8000"
    """Address of the vLLM server; a key for it is read from VLLM_API_KEY."""
    rollout_is_cap: float | None = Field(None, gt=0)
    """Weigh tokens by their probability here over that in the vLLM server, up to this; 2 is usual."""
    max_kl: float | None = Field(50.0, gt=0)
    """Guard kl: mean KL of a response to the starting policy."""
    min_entropy_share: float | None = Field(0.25, gt=0, lt=1)
    """Guard entropy: entropy of the policy as a share of the first rollout's."""
    max_length_change: float | None = Field(2.0, gt=1)
    """Guard length: mean length of responses against the first rollout's, either way."""
    max_score_length_corr: float | None = Field(0.8, gt=0, lt=1)
    """Guard length_score: correlation of score and length within a rollout, either way."""
    max_above_reference_share: float | None = Field(0.3, gt=0, lt=1)
    """Guard above_reference: share of responses that the reward model scores above 99 % of the good answers it was tested on."""
    min_distinct2_share: float | None = Field(0.5, gt=0, lt=1)
    """Guard distinct2: variety of word pairs in a rollout as a share of the first rollout's."""
    max_clip_fraction: float | None = Field(0.5, gt=0, lt=1)
    """Guard clip: share of tokens whose probability ratio was clipped."""
    guard_patience: int = Field(3, ge=1)
    """Rollouts in a row beyond a limit before a guard speaks."""
    stop_on: tuple[GuardName, ...] = ("kl",)
    """Guards that end the run; the others warn: kl, negative_kl, entropy, length, length_score, above_reference, distinct2,
    no_spread, clip, critic."""
    eval_prompts: int = Field(64, ge=2)
    """Held-out prompts answered before, during and after training (the first of the validation split, or of test if that
    is empty)."""
    eval_steps: int | None = Field(None, ge=1)
    """Rollouts between answers to the held-out prompts. Default: five times in a run."""
    num_sample_dumps: int = Field(16, ge=0)
    """Held-out prompts whose answers are kept each time, a sampled and a greedy one."""
    lora_r: int = Field(16, ge=1)
    """Rank of the new adapter for a policy that is a whole model; alpha is twice the rank."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """Of the frozen weights and the computation; auto is bf16 where the hardware multiplies it. What is trained is
    float32."""
    gradient_checkpointing: Annotated[bool | None, ExecOnly()] = None
    """Compute activations twice to save memory. Default: where a GPU's memory asks for it."""
    save_steps: Annotated[int, ExecOnly()] = Field(1, ge=1)
    """Write a checkpoint every so many rollouts, for going on after a crash."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        for name in ("num_mini_batches", "samples_per_prompt"):
            if self.rollout_batch_size % getattr(self, name):
                raise ValueError(
                    f"rollout_batch_size {self.rollout_batch_size} is no multiple of {name} {getattr(self, name)}"
                )
        if self.total_episodes is not None and self.total_episodes % self.rollout_batch_size:
            raise ValueError(
                f"total_episodes {self.total_episodes} is no multiple of rollout_batch_size {self.rollout_batch_size}"
            )
        if self.rollout_is_cap is not None and self.rollout_engine == "hf":
            raise ValueError("rollout_is_cap is for rollout_engine vllm; this process samples what it computes")
        if self.kl_target is not None and not self.kl_coef:
            raise ValueError("kl_target adapts kl_coef by factors, so kl_coef must be above 0")
        if self.method == "full" and "lora_r" in non_default(self):
            raise ValueError("lora_r: method full trains all weights and makes no adapter")
        return self


def leaner(config: PpoConfig, facts: Mapping[str, Any]) -> tuple[PpoConfig, str] | None:
    """After memory ran out: half the rows trained on at once, then half of those sampled, then gradient checkpointing; None if
    all were tried.

    ``facts`` tell what was in use; without them memory ran out before training, which none of this helps.
    """
    if "gradient_checkpointing" not in facts:
        return None
    if config.micro_batch_size > 1:
        return _with(config, micro_batch_size=config.micro_batch_size // 2)
    if config.rollout_micro_batch_size > 1:
        return _with(config, rollout_micro_batch_size=config.rollout_micro_batch_size // 2)
    if not facts["gradient_checkpointing"]:
        return _with(config, gradient_checkpointing=True)
    return None


def _with(config: PpoConfig, **changed: Any) -> tuple[PpoConfig, str]:
    text = ", ".join(f"{name} {value}" for name, value in changed.items())
    return config.model_copy(update=changed), f"with {text}"
