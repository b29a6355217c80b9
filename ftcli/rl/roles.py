"""Who plays policy, reference and critic in PPO.

`LoraRoles` (the default) holds one frozen backbone and an adapter for each part. `FullRoles` holds separate models.
Both keep the rule that the policy's loss is backwarded before the critic's forward: switching adapters turns
requires_grad of the others off, and a joint backward after that silently drops every gradient of the policy (with
gradient checkpointing it computes wrong ones).

The reference of a policy that started from an adapter is a frozen copy of that adapter; switching adapters off would
compare with the base model instead of the starting policy. Only a fresh adapter (whose product is 0) has the bare
backbone as its reference.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import torch
from peft import PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from torch import Tensor, nn

from ftcli.core.errors import UsageError
from ftcli.models.adapter_switch import AdapterSwitch
from ftcli.models.dropout import disable_dropout
from ftcli.models.generate import split_model
from ftcli.models.heads import ScalarHead, load_head
from ftcli.models.logprobs import token_logprobs, token_scores
from ftcli.rl.reward_model import RewardModel, hidden_states
from ftcli.rl.sequences import Batch

ValueInit = Literal["reward", "zero", "head_only"]

POLICY = "default"  # PEFT's own name, under which `ftcli.models.load` loads and saves adapters
REFERENCE, VALUE, REWARD = "ref", "value", "reward"


class PolicyPass(NamedTuple):
    """``logprobs`` [B, R] (0 beyond the response) and ``trunk`` [N, H], the hidden states that predicted the response
    tokens, detached."""

    logprobs: Tensor
    trunk: Tensor


class MeasuredPass(NamedTuple):
    """As `PolicyPass`, with ``entropy`` [B, R]."""

    logprobs: Tensor
    trunk: Tensor
    entropy: Tensor


class Roles(Protocol):
    """What the PPO loop needs. Every method makes the part it names the active one."""

    def policy(self, batch: Batch, temperature: float) -> PolicyPass: ...
    def policy_with_entropy(self, batch: Batch, temperature: float) -> MeasuredPass:
        """As `measure_policy`, with gradient."""

    def measure_policy(self, batch: Batch, temperature: float) -> MeasuredPass: ...
    def reference(self, batch: Batch, temperature: float) -> Tensor:
        """Log-probs [B, R] of the frozen starting policy, without gradient."""

    def values(self, batch: Batch, trunk: Tensor) -> Tensor:
        """Values [B, R] of the states in which the response tokens were chosen; ``trunk`` is the policy's on the same
        batch."""

    def sampler(self) -> Any:
        """The model to generate with."""

    def computing(self) -> AbstractContextManager[Any]:
        """The context in which the model computes what training computes."""

    def policy_parameters(self) -> list[nn.Parameter]: ...
    def value_parameters(self) -> list[nn.Parameter]:
        """The critic's own backbone or adapter, without the head; empty where it has none."""

    def head_parameters(self) -> list[nn.Parameter]: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> None: ...


def _policy_pass(backbone: Any, lm_head: nn.Module, batch: Batch, temperature: float) -> PolicyPass:
    trunk = hidden_states(backbone, batch)[batch.predictors]  # [N, H]
    logprobs = token_logprobs(trunk, lm_head, batch.targets, temperature)  # [N]
    return PolicyPass(batch.spread(logprobs), trunk.detach())


def _measured_pass(backbone: Any, lm_head: nn.Module, batch: Batch, temperature: float) -> MeasuredPass:
    trunk = hidden_states(backbone, batch)[batch.predictors]  # [N, H]
    scores = token_scores(trunk, lm_head, batch.targets, temperature)
    return MeasuredPass(batch.spread(scores.logprobs), trunk.detach(), batch.spread(scores.entropy))


def recompute_activations(model: nn.Module) -> None:
    """Let ``model``, whose dropout is off, compute activations twice instead of keeping them. Its layers do so in training mode."""
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model.train()


class LoraRoles:
    """Adapters on one backbone. ``has_reference`` False: the policy's adapter started fresh, so the reference is the
    backbone alone.

    ``reward_head`` is the head of the adapter named ``reward``, if that is loaded.
    """

    def __init__(
        self,
        model: PeftModel,
        value_head: ScalarHead,
        *,
        has_reference: bool,
        reward_head: ScalarHead | None = None,
    ) -> None:
        self.model = model
        self.value_head = value_head
        self.reward_head = reward_head
        self._has_reference = has_reference
        self._switch = AdapterSwitch(model)
        self._active = ("", False)

    def _use(self, adapter: str, *, trained: bool) -> Any:
        """Make ``adapter`` active, trainable or frozen, and return the backbone."""
        if self._active != (adapter, trained):
            self._switch.to(adapter, trained=trained)
            self._active = (adapter, trained)
        return split_model(self.model)[0]

    @contextmanager
    def _reference_backbone(self) -> Iterator[Any]:
        if self._has_reference:
            yield self._use(REFERENCE, trained=False)
        else:
            with self._switch.off():
                yield split_model(self.model)[0]

    def policy(self, batch: Batch, temperature: float) -> PolicyPass:
        return _policy_pass(self._use(POLICY, trained=True), split_model(self.model)[1], batch, temperature)

    def policy_with_entropy(self, batch: Batch, temperature: float) -> MeasuredPass:
        return _measured_pass(self._use(POLICY, trained=True), split_model(self.model)[1], batch, temperature)

    @torch.no_grad()
    def measure_policy(self, batch: Batch, temperature: float) -> MeasuredPass:
        return self.policy_with_entropy(batch, temperature)

    @torch.no_grad()
    def reference(self, batch: Batch, temperature: float) -> Tensor:
        with self._reference_backbone() as backbone:
            return _policy_pass(backbone, split_model(self.model)[1], batch, temperature).logprobs

    def values(self, batch: Batch, trunk: Tensor) -> Tensor:
        if VALUE in self.model.peft_config:
            trunk = hidden_states(self._use(VALUE, trained=True), batch)[batch.predictors]  # [N, H]
        return batch.spread(self.value_head(trunk))

    def sampler(self) -> Any:
        self._use(POLICY, trained=True)
        return self.model

    def computing(self) -> AbstractContextManager[Any]:
        return nullcontext()

    def reward_model(self, pad_id: int) -> RewardModel:
        """The learned reward on the shared backbone, active until another part is used."""
        if self.reward_head is None:
            raise ValueError("these roles were built without a reward adapter")
        self._use(REWARD, trained=False)
        return RewardModel(self.model, self.reward_head, pad_id)

    def policy_parameters(self) -> list[nn.Parameter]:
        return self._switch.weights[POLICY]

    def value_parameters(self) -> list[nn.Parameter]:
        return self._switch.weights.get(VALUE, [])

    def head_parameters(self) -> list[nn.Parameter]:
        return list(self.value_head.parameters())

    def state_dict(self) -> dict[str, Any]:
        adapters = [name for name in (POLICY, VALUE) if name in self.model.peft_config]
        tensors = {name: _adapter_tensors(self.model, name) for name in adapters}
        return {"adapters": tensors, "value_head": self.value_head.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, tensors in state["adapters"].items():
            set_peft_model_state_dict(self.model, tensors, adapter_name=name)
        self.value_head.load_state_dict(state["value_head"])


def lora_roles(model: PeftModel, *, is_fresh: bool, value_init: ValueInit, reward: Path | None = None) -> LoraRoles:
    """Add the other parts' adapters to ``model``, whose adapter ``default`` is the policy to start from.

    ``is_fresh`` says that this adapter's product is still 0, so that the bare backbone is the reference; otherwise
    the reference is a frozen copy. ``reward`` is a reward model's folder. The critic is a copy of the reward model
    (``reward``), of the policy with a zero head (``zero``), or a zero head on the policy's own, detached hidden
    states (``head_only``). Dropout is off in all of them: with it neither log-prob of a token would be the policy's.

    Raises `UsageError` where the policy's adapter has no LoRA matrices.
    """
    if not AdapterSwitch(model).weights[POLICY]:
        raise UsageError(
            f"the policy's adapter ({type(model.peft_config[POLICY]).__name__.removesuffix('Config')}) has no LoRA matrices, which "
            "are what PPO trains",
            "merge it first: ftcli export --from MODEL --to merged",
        )
    device = next(model.parameters()).device
    value_head = ScalarHead(model.config.get_text_config().hidden_size).to(device)
    reward_head = None
    if not is_fresh:
        _copy_policy(model, REFERENCE)
    if value_init == "zero":
        _copy_policy(model, VALUE)
    if reward is not None:
        model.load_adapter(reward, REWARD)
        reward_head = load_head(reward, device)
    if value_init == "reward":
        if reward is None:
            raise ValueError("a critic that starts from the reward model needs one")
        model.load_adapter(reward, VALUE)
        value_head = load_head(reward, device)
    disable_dropout(model.eval())
    return LoraRoles(model, value_head, has_reference=not is_fresh, reward_head=reward_head)


def _copy_policy(model: PeftModel, name: str) -> None:
    model.add_adapter(name, copy.deepcopy(model.peft_config[POLICY]))
    set_peft_model_state_dict(model, _adapter_tensors(model, POLICY), adapter_name=name)


def _adapter_tensors(model: PeftModel, name: str) -> dict[str, Tensor]:
    # Without save_embedding_layers=False PEFT may ask the hub whether the vocabulary was resized.
    tensors: dict[str, Tensor] = get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=False)
    return tensors


class FullRoles:
    """Separate models whose weights are all trained: ``policy_model``, a frozen ``reference_model``, and a critic.

    ``value_model`` None puts the value head on the policy's own, detached hidden states. ``autocast`` is the format to compute
    in where the weights are float32; the reference is held like the policy, so that equal weights give equal log-probs.
    """

    def __init__(
        self,
        policy_model: Any,
        reference_model: Any,
        value_model: Any | None,
        value_head: ScalarHead,
        autocast: torch.dtype | None = None,
    ) -> None:
        self.policy_model = policy_model
        self.reference_model = reference_model.requires_grad_(False)
        self.value_model = value_model
        self.value_head = value_head
        self._autocast = autocast
        for model in (policy_model, reference_model, *([] if value_model is None else [value_model])):
            disable_dropout(model)

    def policy(self, batch: Batch, temperature: float) -> PolicyPass:
        with self.computing():
            return _policy_pass(*split_model(self.policy_model), batch, temperature)

    def policy_with_entropy(self, batch: Batch, temperature: float) -> MeasuredPass:
        with self.computing():
            return _measured_pass(*split_model(self.policy_model), batch, temperature)

    @torch.no_grad()
    def measure_policy(self, batch: Batch, temperature: float) -> MeasuredPass:
        return self.policy_with_entropy(batch, temperature)

    @torch.no_grad()
    def reference(self, batch: Batch, temperature: float) -> Tensor:
        with self.computing():
            return _policy_pass(*split_model(self.reference_model), batch, temperature).logprobs

    def values(self, batch: Batch, trunk: Tensor) -> Tensor:
        if self.value_model is not None:
            with self.computing():
                trunk = hidden_states(split_model(self.value_model)[0], batch)[batch.predictors]  # [N, H]
        return batch.spread(self.value_head(trunk))

    def sampler(self) -> Any:
        return self.policy_model

    def computing(self) -> AbstractContextManager[Any]:
        if self._autocast is None:
            return nullcontext()
        return torch.autocast(self.value_head.weight.device.type, dtype=self._autocast)

    def policy_parameters(self) -> list[nn.Parameter]:
        return list(self.policy_model.parameters())

    def value_parameters(self) -> list[nn.Parameter]:
        """What is trained of the critic's backbone; its LM head is never used."""
        if self.value_model is None:
            return []
        return [weight for weight in split_model(self.value_model)[0].parameters() if weight.requires_grad]

    def head_parameters(self) -> list[nn.Parameter]:
        return list(self.value_head.parameters())

    def state_dict(self) -> dict[str, Any]:
        value = None if self.value_model is None else self.value_model.state_dict()
        return {"policy": self.policy_model.state_dict(), "value": value, "value_head": self.value_head.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.policy_model.load_state_dict(state["policy"])
        if self.value_model is not None:
            self.value_model.load_state_dict(state["value"])
        self.value_head.load_state_dict(state["value_head"])


def full_roles(
    policy: Any, *, value_init: ValueInit, reward: RewardModel | None = None, autocast: torch.dtype | None = None
) -> FullRoles:
    """Give ``policy`` a frozen copy as its reference, and a critic: a copy of ``reward``'s backbone and head (``reward``), of the
    policy with a zero head (``zero``), or a zero head on the policy's own, detached hidden states (``head_only``)."""
    head = ScalarHead(policy.config.get_text_config().hidden_size).to(policy.device)
    value = copy.deepcopy(policy) if value_init == "zero" else None
    if value_init == "reward":
        if reward is None:
            raise ValueError("a critic that starts from the reward model needs one")
        value, head = copy.deepcopy(reward.model), copy.deepcopy(reward.head)
        if isinstance(value, PeftModel):
            value.set_adapter("default")  # its adapter alone is trained
        else:
            value = value.float().requires_grad_(True)
    return FullRoles(policy, copy.deepcopy(policy), value, head, autocast)
