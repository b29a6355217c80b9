from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ftcli.metrics.words import MOST_WORDS, word_diff


@given(st.text(max_size=60), st.text(max_size=60))
def test_a_word_diff_keeps_both_texts_and_what_is_not_marked_is_the_same_but_for_spaces(left: str, right: str):
    sides = word_diff(left, right)
    assert ["".join(text for text, _ in side) for side in sides] == [left, right]
    same = ["".join("".join(text for text, only in side if not only).split()) for side in sides]
    assert same[0] == same[1]


def test_what_one_side_lacks_is_marked_as_one_piece():
    assert word_diff("Give 3 tips for staying healthy.", "Give 3 tips to stay healthy.") == (
        [("Give 3 tips ", False), ("for staying", True), (" ", False), ("healthy.", False)],
        [("Give 3 tips ", False), ("to stay", True), (" ", False), ("healthy.", False)],
    )


def test_white_space_is_no_difference():
    assert not any(only for side in word_diff(" one\ntwo", "one  two\n") for _, only in side)


def test_scripts_without_spaces_are_compared_by_character():
    assert word_diff("我喜欢猫", "我喜欢狗")[0] == [("我喜欢", False), ("猫", True)]


def test_texts_that_would_take_minutes_are_not_compared():
    left, right = "a " * (MOST_WORDS // 2), "b " * (MOST_WORDS // 2 + 1)
    assert word_diff(left, right) == ([(left, False)], [(right, False)])
    assert word_diff(left, right[2:])[0][0] == (left.rstrip(), True)
