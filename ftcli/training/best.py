"""The trained weights as they were at the lowest validation loss, in scratch until they are published."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from ftcli.core.artifacts import fsync_path


def keep(model: nn.Module, folder: Path, step: int) -> None:
    """Write what is trained of ``model`` to ``folder/step-N.safetensors``, whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / "writing.tmp"
    save_file({name: weight.detach().cpu().contiguous() for name, weight in _trained(model)}, temporary)
    fsync_path(temporary)
    temporary.rename(_path(folder, step))
    fsync_path(folder)


@torch.no_grad()
def restore(model: nn.Module, folder: Path, step: int) -> None:
    kept = load_file(_path(folder, step))
    for name, weight in _trained(model):
        weight.copy_(kept[name])


def drop_others(folder: Path, step: int) -> None:
    """Keep those of ``step`` only. To be called once a checkpoint that knows of ``step`` is sealed: till then a run may go back
    to an earlier one, and need the weights that were best then."""
    for path in folder.glob("step-*.safetensors"):
        if path != _path(folder, step):
            path.unlink()


def _path(folder: Path, step: int) -> Path:
    return folder / f"step-{step}.safetensors"


def _trained(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    return [(name, weight) for name, weight in model.named_parameters() if weight.requires_grad]
