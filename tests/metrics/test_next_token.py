from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from ftcli.metrics.next_token import next_logprobs

PROMPTS = [[1, 40, 41, 42], [1], [1, 50, 51, 52, 53, 54], [1, 60]]
TOKENS = [30, 31, 7]


@pytest.mark.parametrize("batch_size", [1, 3, 8])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-9)])
def test_log_probs_are_those_of_transformers_on_each_prompt_alone(
    tiny_model: Path, batch_size: int, dtype: torch.dtype, tolerance: float
) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=dtype)
    heard: dict[int, list[float]] = {}
    found = next_logprobs(
        model.model,
        model.lm_head,
        PROMPTS,
        TOKENS,
        pad_id=2,
        batch_size=batch_size,
        on_rows=lambda rows, values: heard.update(zip(rows, values, strict=True)),
    )
    for prompt, values in zip(PROMPTS, found, strict=True):
        with torch.no_grad():
            logprobs = model(torch.tensor([prompt])).logits[0, -1].log_softmax(dim=0)
        assert values == pytest.approx(logprobs[TOKENS].tolist(), abs=tolerance)
    assert [heard[row] for row in range(4)] == found
