"""The scalar head of reward and value models: a float32 linear layer on the backbone's last hidden state, in a file
of its own.

It is no part of the PEFT adapter (``modules_to_save`` would copy the LM head's place and its dtype), so the adapter
folder stays plain.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ftcli.core.errors import UsageError

HEAD_FILE = "head.safetensors"


class ScalarHead(nn.Linear):
    """Hidden states [..., H] of any dtype to scalars [...]; weight and bias start at 0, so a new value head says 0
    everywhere."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__(hidden_size, 1, dtype=torch.float32)
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)

    def forward(self, hidden: Tensor) -> Tensor:
        with torch.autocast(hidden.device.type, enabled=False):  # bfloat16 scores of neighbours would tie
            return super().forward(hidden.to(self.weight.dtype)).squeeze(-1)


def random_head(hidden_size: int, seed: int) -> ScalarHead:
    """A head for a new reward model: weights of standard deviation 1/sqrt(H + 1), as in arXiv 2403.17031."""
    head = ScalarHead(hidden_size)
    generator = torch.Generator().manual_seed(seed)
    nn.init.normal_(head.weight, std=(hidden_size + 1) ** -0.5, generator=generator)
    return head


@torch.no_grad()
def rescale_head(head: ScalarHead, mean: float, std: float) -> None:
    """Change ``head`` in place so that it says ``(x - mean) / std`` where it said x."""
    head.weight /= std
    head.bias.sub_(mean).div_(std)


def save_head(folder: Path, head: ScalarHead) -> None:
    save_file(
        {name: tensor.detach().cpu().contiguous() for name, tensor in head.state_dict().items()}, folder / HEAD_FILE
    )


def load_head(folder: Path, device: torch.device | None = None) -> ScalarHead:
    """The head saved in ``folder``. Raises `UsageError` where there is none: then it is no reward model."""
    path = folder / HEAD_FILE
    if not path.is_file():
        raise UsageError(f"{folder}: no {HEAD_FILE}, so this is no reward model", "give the output of `ftcli reward`")
    tensors = load_file(path, device=str(device or "cpu"))
    head = ScalarHead(tensors["weight"].shape[1]).to(device)
    head.load_state_dict(tensors)
    return head
