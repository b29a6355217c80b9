"""What the reward stage trains: a backbone, of which an adapter or all weights learn, a new scalar head, and with
Davidson's ties one number."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ftcli.core.config import non_default
from ftcli.core.errors import UsageError
from ftcli.core.stage import Artifact
from ftcli.models.dropout import disable_dropout
from ftcli.models.heads import random_head
from ftcli.models.load import pick_device, pick_dtype
from ftcli.models.quantize import count_weights
from ftcli.rl.preferences import starting_log_nu
from ftcli.rl.reward_model import RewardModel
from ftcli.stages.reward.config import RewardConfig, learning_rates
from ftcli.training.start import Start, load_start

NU_LEARNING_RATE = 1e-2
"""Of log nu, which starts where the ties of the data put it: a step of AdamW changes nu by about this share."""


@dataclass(frozen=True)
class Learner:
    """The reward model that is trained, and beside it Davidson's log nu [], where ties follow that model."""

    reward: RewardModel
    start: Start
    dtype: torch.dtype
    """Of the computation."""
    log_nu: nn.Parameter | None

    @property
    def weights(self) -> dict[str, nn.Parameter]:
        """All that is trained, by name; float32."""
        found = {name: weight for name, weight in self.start.model.named_parameters() if weight.requires_grad}
        found |= {f"head.{name}": weight for name, weight in self.reward.head.named_parameters()}
        return found if self.log_nu is None else found | {"log_nu": self.log_nu}

    def autocast(self) -> torch.autocast:
        """To compute under; it casts where the weights are not in the format of the computation themselves."""
        uses_bf16 = self.dtype is torch.bfloat16 and self.start.needs_autocast
        return torch.autocast(self.reward.head.weight.device.type, torch.bfloat16, enabled=uses_bf16)

    def optimizer(self, config: RewardConfig) -> torch.optim.AdamW:
        """Its groups hold the peak of their learning rate as ``peak``; the backbone's is the first."""
        backbone, head = learning_rates(config, is_whole=self.start.is_whole)
        trained = [weight for weight in self.start.model.parameters() if weight.requires_grad]
        groups = [{"params": trained, "peak": backbone}, {"params": list(self.reward.head.parameters()), "peak": head}]
        if self.log_nu is not None:
            groups.append({"params": [self.log_nu], "peak": NU_LEARNING_RATE, "weight_decay": 0.0})
        return torch.optim.AdamW(groups, weight_decay=config.weight_decay)

    @torch.no_grad()
    def restore(self, weights: Mapping[str, Tensor]) -> None:
        """Take over ``weights`` of a checkpoint, all that are trained by name."""
        for name, weight in self.weights.items():
            weight.copy_(weights[name])

    def sizes(self) -> tuple[int, int]:
        """The number of weights that are trained, and of all."""
        every = [*self.start.model.parameters(), *self.reward.head.parameters()]
        return count_weights(self.weights.values()), count_weights(every)


def load_learner(config: RewardConfig, source: Artifact, pad_id: int, tie_share: float) -> Learner:
    """The policy ``source`` with a new head, dropout off; ``tie_share`` of all pairs, in (0, 1), is where Davidson's nu starts.

    Raises `UsageError` where ``source`` cannot take the settings.
    """
    device = pick_device()
    dtype = pick_dtype(config.precision, device)
    keeps = config.init_from == "policy"
    start = load_start(
        source, config.method, dtype, device, r=config.lora_r, alpha=config.lora_alpha, keeps_adapter=keeps
    )
    if wrong := start.contradicted(non_default(config)):
        raise UsageError(
            f"the reward model starts as a copy of the adapter {source.ref}, which cannot take {wrong}",
            "drop these settings, or set init_from to base for a new adapter",
        )
    disable_dropout(start.model.eval())
    head = random_head(start.model.config.get_text_config().hidden_size, config.seed).to(device)
    log_nu = None
    if config.ties == "davidson":
        log_nu = nn.Parameter(torch.tensor(starting_log_nu(tie_share), device=device))
    return Learner(RewardModel(start.model, head, pad_id), start, dtype, log_nu)
