from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from ftcli.training import best


def model() -> nn.Sequential:
    layers = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))
    layers[0].requires_grad_(False)
    return layers


def test_what_is_trained_comes_back_and_the_rest_is_not_kept(tmp_path: Path) -> None:
    layers = model()
    wanted = layers[1].weight.detach().clone()
    best.keep(layers, tmp_path, 3)
    with torch.no_grad():
        layers[1].weight.zero_()
        layers[0].weight.zero_()
    best.restore(layers, tmp_path, 3)
    assert torch.equal(layers[1].weight, wanted)
    assert torch.equal(layers[0].weight, torch.zeros(3, 3))


def test_earlier_weights_stay_until_they_are_dropped(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        best.keep(model(), tmp_path, step)
    assert len(list(tmp_path.iterdir())) == 3
    best.drop_others(tmp_path, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["step-2.safetensors"]
