"""What the training benchmarks rest on: equal work is told from unequal work, and FLOPs are counted as written."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from benchmarks.gpu import model_flops
from benchmarks.sft import described, difference, summary

PADDED = {
    "input_ids": torch.tensor([[5, 6, 7, 8], [9, 4, 0, 0]]),
    "attention_mask": torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]]),
    "labels": torch.tensor([[-100, -100, 7, 8], [-100, 4, -100, -100]]),
}
PACKED = {
    "input_ids": torch.tensor([[5, 6, 7, 8, 9, 4]]),
    "labels": torch.tensor([[-100, -100, 7, 8, -100, 4]]),
    "cu_seq_lens_q": torch.tensor([0, 4, 6]),
}


def run(batches: list[dict[str, torch.Tensor]], losses: list[float]) -> dict[str, Any]:
    steps = [described(batch) for batch in batches]
    seconds = [10.0, *[2.0] * (len(steps) - 1)]
    return summary({"steps": steps, "wall": seconds, "cpu": seconds, "losses": losses, "peak_gib": 1.0, "trainable": 7})


def test_padded_and_packed_rows_are_the_same_rows() -> None:
    padded, packed = described(PADDED), described(PACKED)
    assert (padded["tokens"], padded["labels"], padded["computed"]) == (6, 3, 8)
    assert (packed["tokens"], packed["labels"], packed["computed"]) == (6, 3, 6)
    assert padded["pairs"] == 10 + 3  # 1 + 2 + 3 + 4 and 1 + 2
    assert padded["rows"] == packed["rows"]


def test_the_first_step_does_not_count() -> None:
    assert run([PADDED, PADDED, PACKED], [2.0, 2.0, 2.0])["tokens_per_s"] == (6 + 6) / (2 + 2)


@pytest.mark.parametrize("name", ["input_ids", "labels"])
def test_another_id_or_label_is_another_row(name: str) -> None:
    changed = PADDED | {name: PADDED[name].clone()}
    changed[name][1, 1] = 3
    ours, theirs = run([PADDED, PADDED], [2.0, 2.0]), run([PADDED, changed], [2.0, 2.0])
    assert difference(ours, theirs, same_steps=True) == "other rows than ours at step 2"
    assert difference(ours, theirs, same_steps=False) == "other rows than ours"


def test_a_missing_step_is_told() -> None:
    ours, theirs = run([PADDED, PADDED, PADDED], [2.0] * 3), run([PADDED, PADDED], [2.0] * 2)
    assert difference(ours, theirs, same_steps=True) == "other rows than ours at step 3"


def test_losses_may_differ_by_one_percent() -> None:
    ours = run([PADDED, PADDED], [2.0, 2.0])
    assert difference(ours, run([PACKED, PADDED], [2.0, 2.03]), same_steps=True) is None
    assert "more than 1% from ours" in str(difference(ours, run([PADDED, PADDED], [2.0, 2.05]), same_steps=True))


def test_other_numbers_of_trained_weights_are_told() -> None:
    ours = run([PADDED, PADDED], [2.0, 2.0])
    assert "trains 9 parameters" in str(difference(ours, ours | {"trainable": 9}, same_steps=True))


def test_model_flops_by_hand() -> None:
    shape = {
        "hidden_size": 4,
        "intermediate_size": 6,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "vocab_size": 10,
    }
    steps = [{"tokens": 5, "labels": 3, "pairs": 15}]
    # A layer: q and o 4x4, k and v 4x2, three of 4x6: 16 + 16 + 8 + 8 + 72 = 120. Products: 2 * (2 * 120 * 5 + 4 * 10 * 3) = 2640.
    # Attention: 15 pairs, 2 layers, 4 * 4 each: 480.
    assert model_flops(steps, shape, "sft", 1000) == 3 * 2640 + 3 * 480
    assert model_flops(steps, shape, "lora", 7) == 2 * 2640 + 3 * 480 + 6 * 7 * 5
