"""The judgement of held-out pairs, against TRL's losses, scipy and hand arithmetic."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from ftcli.stages.dpo.judge import HeldOut, judge, pair_losses
from tests.training.test_pair_trainer import make, trl_loss


def held_out(tokens: list[tuple[int, int]], ref_chosen: Any, ref_rejected: Any) -> HeldOut:
    lengths = np.array(tokens, dtype=np.float64)
    return HeldOut(np.arange(len(tokens)), lengths[:, 0], lengths[:, 1], np.array(ref_chosen), np.array(ref_rejected))


@pytest.mark.parametrize(
    ("loss_type", "label_smoothing"), [("sigmoid", 0.0), ("sigmoid", 0.2), ("ipo", 0.0), ("hinge", 0.0)]
)
def test_its_loss_is_the_one_that_trains(
    loss_type: str, label_smoothing: float, tiny_model: Path, tmp_path: Path
) -> None:
    chosen, rejected, ref_chosen, ref_rejected = np.random.default_rng(0).normal(scale=9, size=(4, 5))
    tokens = [(3, 2), (1, 7), (4, 4), (2, 5), (6, 1)]
    pairs = held_out(tokens, ref_chosen, ref_rejected)
    how: dict[str, Any] = {"beta": 0.3, "loss_type": loss_type, "label_smoothing": label_smoothing}
    trainer = make(tiny_model, tmp_path, **how)
    expected = trl_loss(trainer, chosen, rejected, ref_chosen, ref_rejected, tokens)
    found = pair_losses(chosen - ref_chosen, rejected - ref_rejected, pairs, **how)
    assert found.mean() == pytest.approx(expected, rel=1e-12)


def test_figures_by_hand() -> None:
    # Log-ratios: chosen +2, 0, -1, +1; rejected -1, 0, -3, +4: margins 3, 0, 2, -3 times beta.
    pairs = held_out([(5, 3), (2, 2), (4, 6), (7, 1)], [-10.0, -5.0, -8.0, -9.0], [-12.0, -5.0, -2.0, -9.0])
    found = judge(
        pairs,
        np.array([-8.0, -5.0, -9.0, -8.0]),
        np.array([-13.0, -5.0, -5.0, -5.0]),
        beta=0.1,
        loss_type="sigmoid",
        label_smoothing=0.0,
    )
    assert found["accuracy"] == 2.5 / 4
    assert found["margin"] == pytest.approx(0.05)
    assert found["chosen"] == pytest.approx(0.05)
    assert found["rejected"] == pytest.approx(0.0, abs=1e-12)
    assert found["likelihood_accuracy"] == 1.5 / 4
    assert found["longer_wins_accuracy"] == 2.5 / 4
    assert found["shorter_wins_accuracy"] == 1.5 / 4


def test_the_interval_is_wilsons_where_prompts_have_one_pair() -> None:
    pairs = held_out([(1, 1)] * 20, np.zeros(20), np.zeros(20))
    chosen = np.array([1.0] * 14 + [-1.0] * 6)
    found = judge(pairs, chosen, -chosen, beta=0.1, loss_type="sigmoid", label_smoothing=0.0)
    low, high = stats.binomtest(14, 20).proportion_ci(method="wilson")
    assert (found["accuracy_low"], found["accuracy_high"]) == pytest.approx((low, high))
