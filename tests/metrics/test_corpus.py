from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sacrebleu.metrics import BLEU, CHRF, TER

from ftcli.metrics.corpus import corpus_of
from ftcli.metrics.text import bleu, chrf, length_ratio, ter

SENTENCES = st.lists(st.sampled_from(["the", "cat", "sat", "on", "a", "mat", "."]), max_size=9).map(" ".join)
PAIRS = st.lists(st.tuples(SENTENCES, SENTENCES), min_size=2, max_size=6)


@settings(max_examples=40, deadline=None)
@given(PAIRS, st.integers(0, 2**32 - 1))
def test_resampled_scores_are_those_of_sacrebleu(pairs: list[tuple[str, str]], seed: int):
    answers, references = [a for a, _ in pairs], [b for _, b in pairs]
    drawn = np.random.default_rng(seed).integers(len(pairs), size=(5, len(pairs)))
    for score, metric in ((bleu, BLEU(force=True)), (chrf, CHRF(word_order=2)), (ter, TER())):
        examples = score(answers, references).examples
        expected = [
            metric.corpus_score([answers[row] for row in draw], [[references[row] for row in draw]]).score
            for draw in drawn
        ]
        found = corpus_of(examples.kind)(examples.statistics[drawn].sum(axis=-2))
        assert found == pytest.approx(expected, abs=1e-9)


def test_the_name_of_a_kind_gives_its_function_back():
    pairs = (["the cat sat on the mat"], ["the cat is on the mat"])
    for score in (bleu, chrf, ter, length_ratio):
        examples = score(*pairs).examples
        assert corpus_of(examples.kind) is examples.corpus
        assert corpus_of(examples.kind)(examples.statistics.sum(axis=0)) == examples.value()


def test_nothing_at_all_scores_zero_without_a_warning():
    with np.errstate(all="raise"):
        for kind, columns in (("bleu/13a", 10), ("chrf", 24), ("ter", 2)):
            assert corpus_of(kind)(np.zeros((2, columns))).tolist() == [0.0, 0.0]


def test_an_unknown_kind_lists_those_there_are():
    with pytest.raises(ValueError, match="no corpus function meteor; there are quotient, bleu, chrf, ter"):
        corpus_of("meteor")
