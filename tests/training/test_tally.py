from __future__ import annotations

import json
import math

import pytest

from ftcli.training.tally import Best, Tally


def full() -> Tally:
    tally = Tally()
    tally.add_step(12.5, 4, 20)
    tally.drop_step()
    tally.is_spike(1, 2.0)
    tally.add_validation(1, 1.5)
    return tally


def test_a_tally_survives_json() -> None:
    tally = full()
    assert Tally.from_json(json.loads(json.dumps(tally.to_json()))) == tally
    assert Tally.from_json(json.loads(json.dumps(Tally().to_json()))) == Tally()


def test_dropped_steps_in_a_row_are_counted_until_a_good_one() -> None:
    tally = Tally()
    tally.drop_step()
    tally.drop_step()
    assert (tally.dropped, tally.dropped_in_a_row) == (2, 2)
    tally.add_step(1.0, 1, 1)
    tally.drop_step()
    assert (tally.dropped, tally.dropped_in_a_row) == (3, 1)


# Twenty losses whose logs are 0 and 0.1 by turns: median 0.05, median deviation 0.05, so a robust standard deviation is
# 0.07413 and a spike lies above 0.05 + 6 * 0.07413 = 0.4948.
@pytest.mark.parametrize(("log_loss", "found"), [(0.49, False), (0.50, True)])
def test_a_loss_six_deviations_above_the_median_is_a_spike(log_loss: float, found: bool) -> None:
    tally = Tally()
    for step in range(20):
        assert not tally.is_spike(step, math.exp(0.1 * (step % 2)))
    assert tally.is_spike(20, math.exp(log_loss)) is found
    assert tally.spikes == ([20] if found else [])


def test_the_first_steps_and_a_falling_loss_are_no_spikes() -> None:
    tally = Tally()
    losses = [9.0, 1.0, 30.0, *(3.0 * 0.97**step for step in range(100))]
    assert [step for step, loss in enumerate(losses) if tally.is_spike(step, loss)] == []


def test_a_loss_that_hardly_moves_makes_no_spikes_of_tremors() -> None:
    tally = Tally()
    assert not any(tally.is_spike(step, 1.0 + 0.2 * (step == 50)) for step in range(60))
    assert tally.is_spike(60, 1.4)  # log 0.336, above 6 * 0.05


def test_the_lowest_validation_loss_is_the_best() -> None:
    tally = Tally()
    assert [tally.add_validation(step, loss) for step, loss in [(2, 3.0), (4, 2.0), (6, 2.0), (8, 2.5)]] == [
        True,
        True,
        False,
        False,
    ]
    assert (tally.best, tally.since_best) == (Best(4, 2.0), 2)
