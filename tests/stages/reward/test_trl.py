"""Our loss beside that of TRL's RewardTrainer on the same weights, where both read the same token: padding that is not the
end-of-turn token, and no ties."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification
from trl import RewardConfig as TrlConfig
from trl import RewardTrainer

from ftcli.data.chat import stop_token_ids
from ftcli.data.pairs import encode_pairs
from ftcli.models.heads import random_head
from ftcli.models.load import load_tokenizer
from ftcli.rl.preferences import Comparison, comparison_loss, flatten_pairs
from ftcli.rl.reward_model import RewardModel
from ftcli.rl.sequences import Exchange, collate
from tests.tiny import preference_row

MARGINS = [0.5, 0.0, 2.0, 1.25]


@pytest.mark.parametrize("centering", [None, 0.05], ids=["plain", "centering"])
@pytest.mark.parametrize("margins", [[], MARGINS], ids=["no margin", "margin"])
def test_loss_and_gradient_equal_those_of_trl(
    tiny_model: Path, tmp_path: Path, margins: list[float], centering: float | None
) -> None:
    tokenizer = load_tokenizer(tiny_model)
    tokenizer.pad_token = "<|endoftext|>"
    found = encode_pairs(
        tokenizer,
        [preference_row(index) for index in (0, 1, 2, 13)],
        stop_token_ids(tokenizer),
        100,
        "truncate",
        ties="drop",
    )
    prompts = [(one.prompt, *one.answers) for one in found.prompts]

    ours = RewardModel(AutoModelForCausalLM.from_pretrained(tiny_model), random_head(64, 3), tokenizer.pad_token_id)
    comparisons = [
        Comparison([Exchange(prompt, chosen), Exchange(prompt, rejected)], [(0, 1)], margins=margins[index : index + 1])
        for index, (prompt, chosen, rejected) in enumerate(prompts)
    ]
    batch = collate([exchange for one in comparisons for exchange in one.exchanges], ours.pad_id)
    loss = comparison_loss(ours.score(batch), flatten_pairs(comparisons), centering or 0.0) / len(comparisons)
    loss.backward()

    theirs = AutoModelForSequenceClassification.from_pretrained(tiny_model, num_labels=1)
    theirs.score.weight.data.copy_(ours.head.weight.data)
    rows: dict[str, list[Any]] = {
        "chosen_ids": [[*prompt, *chosen] for prompt, chosen, _ in prompts],
        "rejected_ids": [[*prompt, *rejected] for prompt, _, rejected in prompts],
    }
    data = Dataset.from_dict(rows | ({"margin": margins} if margins else {}))
    settings = TrlConfig(
        str(tmp_path), use_cpu=True, bf16=False, report_to="none", center_rewards_coefficient=centering
    )
    trainer = RewardTrainer(theirs, settings, train_dataset=data, processing_class=tokenizer)
    expected = trainer.compute_loss(theirs, trainer.data_collator([data[index] for index in range(len(data))]))
    expected.backward()

    assert float(loss.detach()) == pytest.approx(float(expected.detach()), abs=1e-6)
    torch.testing.assert_close(ours.head.weight.grad, theirs.score.weight.grad, atol=1e-6, rtol=1e-4)
    inner = "layers.0.mlp.down_proj.weight"
    torch.testing.assert_close(
        ours.model.model.get_parameter(inner).grad, theirs.model.get_parameter(inner).grad, atol=1e-6, rtol=1e-3
    )
