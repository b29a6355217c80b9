"""Which models a run of PPO holds: policy, reference, critic and reward model, on one base where they can share it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from peft.utils import ModulesToSaveWrapper
from transformers import PreTrainedTokenizerBase

from ftcli.core.config import non_default
from ftcli.core.errors import UsageError
from ftcli.core.stage import Artifact, Context
from ftcli.models.dropout import disable_dropout
from ftcli.models.load import is_adapter, load_tokenizer_of, pick_device, pick_dtype, read_base_record
from ftcli.rl.reward_model import RewardModel, load_reward_model
from ftcli.rl.roles import FullRoles, LoraRoles, ValueInit, full_roles, lora_roles, recompute_activations
from ftcli.stages.ppo.config import PpoConfig
from ftcli.training.hardware import choose_checkpointing, this_machine
from ftcli.training.start import Start, load_start


@dataclass(frozen=True)
class Models:
    """``reward`` gives the learned reward, if there is one, ready to score; on a shared base other roles switch it off again."""

    roles: LoraRoles | FullRoles
    start: Start
    reward: Callable[[], RewardModel] | None
    value_init: ValueInit

    @property
    def trained_weights(self) -> int:
        roles = self.roles
        parts = (roles.policy_parameters(), roles.value_parameters(), roles.head_parameters())
        return sum(weight.numel() for part in parts for weight in part)


def load_models(ctx: Context[PpoConfig], tokenizer: PreTrainedTokenizerBase) -> Models:
    """The policy of the input ``model`` with what else is needed. Raises `UsageError` where settings and inputs do not fit."""
    config, policy, reward = ctx.config, ctx.one("model"), ctx.maybe("reward")
    value_init = _value_init(config, reward is not None, alone=not ctx.many("reward_func"))
    device = pick_device()
    dtype = pick_dtype(config.precision, device)
    pad_id = int(tokenizer.pad_token_id)  # type: ignore[arg-type]
    if reward is not None:
        _check_tokenizer(reward, tokenizer)
    start = load_start(policy, config.method, dtype, device, r=config.lora_r, alpha=2 * config.lora_r)
    if wrong := start.contradicted(non_default(config)):
        raise UsageError(
            f"{policy.ref} is an adapter already, which cannot take {wrong}",
            f"drop lora_r to train the adapter further, or merge it first: ftcli export --from {policy.ref} --to merged",
        )
    for module in start.model.modules():
        if isinstance(module, ModulesToSaveWrapper):  # PPO trains the adapter's matrices; what was trained whole stays
            module.modules_to_save.to(dtype)
    if disable_dropout(start.model):
        ctx.events.note("dropout of the policy is off: with it, log-probs would not be the policy's")
    autocast = dtype if start.is_whole and dtype is torch.bfloat16 else None
    shares = reward is not None and _shares_base(start, policy, reward)
    if config.value_init == "auto" and value_init == "reward" and not (shares or start.is_whole):
        value_init = "zero"
    if reward is not None and shares:
        shared = lora_roles(start.model, is_fresh=start.is_fresh, value_init=value_init, reward=reward.path)
        _recompute(ctx, shared.model, shared)
        return Models(shared, start, lambda: shared.reward_model(pad_id), value_init)
    separate = None
    if reward is not None:
        if value_init == "reward" and not start.is_whole:
            raise UsageError(
                f"{reward.ref}: value_init reward makes the critic a copy of the reward model on the policy's base, and this "
                f"reward model has a base of its own ({(reward.base or reward).ref})",
                f"set value_init to zero or head_only, or train one: ftcli reward --model {policy.ref}",
            )
        separate = load_reward_model(reward, dtype, device, pad_id)
        ctx.events.note(f"{reward.ref} does not share the policy's base, so its weights are held beside the policy's")
    roles = (
        full_roles(start.model, value_init=value_init, reward=separate, autocast=autocast)
        if start.is_whole
        else lora_roles(start.model, is_fresh=start.is_fresh, value_init=value_init)
    )
    _recompute(ctx, start.model, roles)
    return Models(roles, start, None if separate is None else lambda: separate, value_init)


def _value_init(config: PpoConfig, has_reward: bool, *, alone: bool) -> ValueInit:
    if config.value_init == "auto":
        return "reward" if has_reward and alone else "zero"
    if config.value_init == "reward" and not (has_reward and alone):
        raise UsageError(
            "value_init reward: the critic starts as the reward model, which must then be all that is rewarded",
            "set value_init to zero or head_only",
        )
    return config.value_init


def _shares_base(start: Start, policy: Artifact, reward: Artifact) -> bool:
    if start.is_whole or not is_adapter(reward.path) or reward.base is None:
        return False
    record = read_base_record(reward.path)
    rounding = (record.get("quantization"), record.get("double_quant"))
    return reward.base.digest == (policy.base or policy).digest and rounding == (start.quantization, start.double_quant)


def _check_tokenizer(reward: Artifact, tokenizer: PreTrainedTokenizerBase) -> None:
    """A reward model reads the policy's token ids, so both must mean the same by them."""
    if load_tokenizer_of(reward).get_vocab() != tokenizer.get_vocab():
        raise UsageError(
            f"{reward.ref}: this reward model has another vocabulary than the policy, and scores its token ids",
            "train a reward model on the policy's base: ftcli reward",
        )


def _recompute(ctx: Context[PpoConfig], model: Any, roles: LoraRoles | FullRoles) -> None:
    """Let activations be computed twice where that is set, or a GPU's memory asks for it; and say so."""
    config, shape = ctx.config, model.config.get_text_config()
    trained = [*roles.policy_parameters(), *roles.value_parameters()]
    choice = choose_checkpointing(
        config.gradient_checkpointing,
        this_machine(pick_device()),
        state_bytes=sum(weight.nbytes for weight in model.parameters()) + 12 * sum(one.numel() for one in trained),
        tokens=config.micro_batch_size * (config.max_prompt_length + config.response_length),
        layers=shape.num_hidden_layers,
        hidden=shape.hidden_size,
        vocabulary=0,  # logits are computed piece by piece
    )
    ctx.events.summarize({"gradient_checkpointing": choice.value, "micro_batch_size": config.micro_batch_size})
    if choice.value:
        ctx.events.note(f"with gradient_checkpointing ({choice.reason})")
        for one in (model, getattr(roles, "value_model", None)):
            if one is not None:
                recompute_activations(one)
