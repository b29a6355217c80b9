from __future__ import annotations

import pytest
import torch
from transformers import get_scheduler

from ftcli.rl.schedule import lr_factor


@pytest.mark.parametrize("kind", ["linear", "cosine", "constant"])
def test_without_warmup_it_is_the_transformers_schedule(kind: str) -> None:
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    scheduler = get_scheduler(kind, optimizer, num_warmup_steps=0, num_training_steps=7)
    for step in range(7):
        assert lr_factor(step, 7, kind) == pytest.approx(scheduler.get_last_lr()[0])  # type: ignore[arg-type]
        optimizer.step()
        scheduler.step()


def test_warmup_rises_to_the_peak_and_the_last_step_is_not_lost() -> None:
    assert [round(lr_factor(step, 6, "linear", 2), 3) for step in range(6)] == [0.333, 0.667, 1.0, 0.75, 0.5, 0.25]
