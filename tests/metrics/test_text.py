from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score import rouge_scorer
from sacrebleu.metrics import BLEU, CHRF

from ftcli.metrics.text import bleu, chrf, exact_match, non_ascii_share, normalise, rouge

ANSWERS = ["the cat sat on the mat", "hello there general kenobi", "foo bar"]
REFERENCES = ["the cat is on the mat", "hello there general kenobi", "completely different words here"]
# Values of sacrebleu 2.6.0 and rouge_score 0.1.2 by their own command line and API.


def test_golden_corpus_of_three():
    assert bleu(ANSWERS, REFERENCES).value == pytest.approx(42.324086, abs=1e-6)
    assert chrf(ANSWERS, REFERENCES).value == pytest.approx(56.154437, abs=1e-6)
    scores = {name: score.value for name, score in rouge(ANSWERS, REFERENCES).items()}
    assert scores == pytest.approx({"rouge1": 0.611111, "rouge2": 0.533333, "rougeL": 0.611111}, abs=1e-6)


def test_golden_corpus_of_the_first_two():
    assert bleu(ANSWERS[:2], REFERENCES[:2]).value == pytest.approx(53.895617, abs=1e-6)
    scores = {name: score.value for name, score in rouge(ANSWERS[:2], REFERENCES[:2]).items()}
    assert scores == pytest.approx({"rouge1": 0.916667, "rouge2": 0.8, "rougeL": 0.916667}, abs=1e-6)
    assert exact_match(ANSWERS[:2], REFERENCES[:2]).value == 0.5


def test_signatures_name_the_settings():
    assert bleu(ANSWERS, REFERENCES).signature.startswith("nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:2.")
    assert "|nc:6|nw:2|" in chrf(ANSWERS, REFERENCES).signature
    assert "tok:ascii|stem:yes" in rouge(ANSWERS, REFERENCES)["rougeL"].signature
    assert "tok:words|stem:no" in rouge(ANSWERS, REFERENCES, tokenizer="words")["rougeL"].signature


def test_the_stemmer_joins_inflections():
    assert rouge(["he runs fast"], ["he running fast"])["rouge1"].value == 1.0
    assert rouge(["he runs fast"], ["he running fast"], use_stemmer=False)["rouge1"].value == pytest.approx(2 / 3)


@pytest.mark.parametrize("text", ["我喜欢猫", "Кошка сидит на ковре", "ねこが好き"])
def test_ascii_rouge_is_blind_to_other_scripts_and_words_is_not(text: str):
    assert rouge([text], [text])["rouge1"].value == 0.0
    assert rouge([text], [text], tokenizer="words")["rouge1"].value == 1.0


def test_words_takes_each_ideograph_as_a_word():
    # 我 喜 欢 猫 against 我 喜 欢 狗: 3 of 4 unigrams, the same 3 in a row
    scores = rouge(["我喜欢猫"], ["我喜欢狗"], tokenizer="words")
    assert scores["rouge1"].value == scores["rougeL"].value == 0.75


def test_non_ascii_share_counts_letters_only():
    assert non_ascii_share(["abc 12!", "日本語日本"]) == 0.5
    assert non_ascii_share(["?!", ""]) == 0.0


def test_corpus_bleu_of_short_equal_answers_is_0_while_the_sentence_score_is_100():
    score = bleu(["foo bar"], ["foo bar"])
    assert score.value == 0.0
    assert score.per_example == pytest.approx([100.0])


def test_exact_match_ignores_case_punctuation_and_white_space():
    assert normalise("  The «Cat», sat! \uff21 ") == "the cat sat a"
    assert exact_match(["Paris."], [" paris"]).per_example == [1.0]


def test_an_empty_answer_scores_zero_everywhere():
    assert rouge([""], ["a cat"])["rougeL"].value == bleu([""], ["a cat"]).value == exact_match([""], ["a"]).value == 0
    assert chrf([""], ["a cat"]).value < 1e-10


@pytest.mark.parametrize("score", [bleu, chrf, exact_match, rouge])
def test_unequal_or_no_examples_are_refused(score):
    with pytest.raises(ValueError, match="1 answers for 2 references"):
        score(["a"], ["a", "b"])
    with pytest.raises(ValueError, match="at least one"):
        score([], [])


SENTENCES = st.lists(st.sampled_from(["the", "cat", "sat", "on", "a", "mat", "."]), max_size=9).map(" ".join)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(SENTENCES, SENTENCES), min_size=1, max_size=6))
def test_additive_statistics_give_the_libraries_own_corpus_scores(pairs: list[tuple[str, str]]):
    answers, references = [a for a, _ in pairs], [b for _, b in pairs]
    assert bleu(answers, references).value == pytest.approx(BLEU().corpus_score(answers, [references]).score)
    assert chrf(answers, references).value == pytest.approx(
        CHRF(word_order=2).corpus_score(answers, [references]).score
    )
    scorer = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=True)
    mean = sum(scorer.score(b, a)["rougeL"].fmeasure for a, b in pairs) / len(pairs)
    assert rouge(answers, references)["rougeL"].value == pytest.approx(mean)
