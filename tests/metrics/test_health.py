from __future__ import annotations

import pytest

from ftcli.metrics.health import health, repetition


def test_repetition_counts_4_grams_seen_before():
    assert repetition([1, 2, 3, 4, 5, 6]) == 0.0
    assert repetition([7] * 8) == pytest.approx(0.8)  # five equal 4-grams, one of them new
    assert repetition([1, 2, 3, 1, 2, 3, 1, 2]) == pytest.approx(0.4)  # 1231 2312 3123 1231 2312


def test_short_answers_repeat_nothing():
    assert repetition([1, 1, 1]) == repetition([]) == 0.0


def test_health_values_of_each_answer():
    found = health([" \n", "a b", "loop"], [[2], [5, 6, 2], [9] * 5], ["stop", "stop", "length"])
    assert found["empty_rate"] == [1.0, 0.0, 0.0]
    assert found["hit_max_rate"] == [0.0, 0.0, 1.0]
    assert found["repetition_rate"] == [0.0, 0.0, 0.5]
    assert found["mean_length"] == [1.0, 3.0, 5.0]
