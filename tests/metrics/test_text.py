from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score import rouge_scorer
from sacrebleu.metrics import BLEU, CHRF, TER

from ftcli.metrics.statistics import interval
from ftcli.metrics.text import (
    bleu,
    chrf,
    distinct,
    exact_match,
    length_ratio,
    mean_score,
    non_ascii_share,
    normalise,
    rouge,
    ter,
    token_f1,
)

ANSWERS = ["the cat sat on the mat", "hello there general kenobi", "foo bar"]
REFERENCES = ["the cat is on the mat", "hello there general kenobi", "completely different words here"]
# Values of sacrebleu 2.6.0 and rouge_score 0.1.2 by their own command line and API.


def test_golden_corpus_of_three():
    assert bleu(ANSWERS, REFERENCES).value == pytest.approx(42.324086, abs=1e-6)
    assert chrf(ANSWERS, REFERENCES).value == pytest.approx(56.154437, abs=1e-6)
    assert chrf(ANSWERS, REFERENCES, word_order=0).value == pytest.approx(54.280753, abs=1e-6)
    scores = {name: score.value for name, score in rouge(ANSWERS, REFERENCES).items()}
    expected = {"rouge1": 0.611111, "rouge2": 0.533333, "rougeL": 0.611111, "rougeLsum": 0.611111}
    assert scores == pytest.approx(expected, abs=1e-6)
    assert ter(ANSWERS, REFERENCES).value == pytest.approx(35.714286, abs=1e-6)
    assert length_ratio(ANSWERS, REFERENCES).value == pytest.approx(12 / 14)


def test_golden_corpus_of_the_first_two():
    assert bleu(ANSWERS[:2], REFERENCES[:2]).value == pytest.approx(53.895617, abs=1e-6)
    scores = {name: score.value for name, score in rouge(ANSWERS[:2], REFERENCES[:2]).items()}
    expected = {"rouge1": 0.916667, "rouge2": 0.8, "rougeL": 0.916667, "rougeLsum": 0.916667}
    assert scores == pytest.approx(expected, abs=1e-6)
    assert exact_match(ANSWERS[:2], REFERENCES[:2]).value == 0.5
    assert chrf(ANSWERS[:2], REFERENCES[:2], word_order=0).value == pytest.approx(86.035589, abs=1e-6)


def test_signatures_name_the_settings():
    assert bleu(ANSWERS, REFERENCES).signature.startswith("nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:2.")
    assert "|nc:6|nw:0|" in chrf(ANSWERS, REFERENCES, word_order=0).signature
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


def test_rouge_of_characters_counts_parts_of_words():
    # c a t s against c a t: 3 shared of 4 and of 3, F1 6/7; as words they share nothing
    assert rouge(["Cats"], ["cat"], tokenizer="char")["rouge1"].value == pytest.approx(6 / 7)
    assert rouge(["Cats"], ["cat"], tokenizer="words")["rouge1"].value == 0.0
    assert rouge(["a b"], ["ab"], tokenizer="char")["rougeL"].value == 1.0
    assert "tok:char|stem:no" in rouge(["a"], ["a"], tokenizer="char")["rouge1"].signature


def test_rouge_l_reads_on_over_lines_and_rouge_lsum_takes_each_as_a_sentence():
    found = rouge(["a b c\nd e f"], ["d e f\na b c"], use_stemmer=False)
    assert (found["rougeL"].value, found["rougeLsum"].value) == (0.5, 1.0)


def test_bleu_tokenizers_for_texts_without_spaces():
    # sacrebleu 2.6.0 on its command line
    answers, references = ["我喜欢吃红苹果"], ["我喜欢吃绿苹果"]
    assert bleu(answers, references).value == 0.0
    expected = BLEU(tokenize="zh").corpus_score(answers, [references]).score
    assert bleu(answers, references, tokenizer="zh").value == pytest.approx(expected)
    assert bleu(answers, references, tokenizer="char").value == pytest.approx(expected)
    assert expected == pytest.approx(48.892302)
    assert "|tok:zh|" in bleu(answers, references, tokenizer="zh").signature
    assert bleu(answers, references, tokenizer="zh").examples.kind == "bleu/zh"


@pytest.mark.parametrize("tokenizer", ["13a", "intl", "none", "char", "zh"])
def test_every_bleu_tokenizer_is_sacrebleus(tokenizer):
    answers, references = ["Hello, world! It's 3.5 €.", "a b c d e"], ["Hello world! It's 3,5 €.", "a b c d f"]
    expected = BLEU(tokenize=tokenizer, force=True).corpus_score(answers, [references])
    found = bleu(answers, references, tokenizer=tokenizer)
    assert found.value == pytest.approx(expected.score)
    sentence = BLEU(tokenize=tokenizer, effective_order=True)
    assert found.per_example == pytest.approx(
        [sentence.sentence_score(a, [b]).score for a, b in zip(answers, references, strict=True)]
    )


def test_ter_counts_a_shifted_phrase_as_one_edit():
    # "c d" moved to the front: one shift of 4 words, where word for word there would be 4 edits
    assert ter(["c d a b"], ["a b c d"]).value == 25.0
    assert ter(["a b x y z w"], ["a b"]).value == 200.0


def test_token_f1_is_squads():
    # "paris france" against "paris": precision 1/2, recall 1
    assert token_f1(["The Paris, France!"], ["paris"]).value == pytest.approx(2 / 3)
    # the same word twice counts as often as the reference has it: 1 shared of 3 and of 1
    assert token_f1(["no no no"], ["no"]).value == pytest.approx(0.5)
    assert token_f1(["", "", "x", "the"], ["", "x", "", "a"]).per_example == [1.0, 0.0, 0.0, 1.0]


def test_token_f1_takes_ideographs_as_words_and_drops_punctuation_of_every_script():
    assert token_f1(["我喜欢猫。"], ["我喜欢狗"]).value == pytest.approx(0.75)
    assert token_f1(["«Да»"], ["да"]).value == 1.0


def test_distinct_counts_different_words_within_each_answer():
    found = distinct(["to be or not to be", "yes", "  "])
    # to be or not: 4 of 6; "to be" twice: 4 of 5; one word has no pair; no word counts nowhere
    assert found["distinct1"].per_example == [pytest.approx(4 / 6), 1.0, None]
    assert found["distinct2"].per_example == [pytest.approx(4 / 5), None, None]
    assert found["distinct1"].value == pytest.approx((4 / 6 + 1) / 2)
    assert (found["distinct1"].rows, found["distinct2"].rows) == ([0, 1], [0])
    assert len(found["distinct2"].examples) == 1


def test_no_row_that_counts_is_no_number():
    assert math.isnan(distinct(["", "?"])["distinct1"].value)
    assert mean_score([None, 0.25, None, 0.75], "").value == 0.5


def test_length_ratio_is_of_the_sums():
    found = length_ratio(["a b c d", "猫 は"], ["a b", "いぬ です"])
    # 4 + 2 words against 2 + 4
    assert found.value == 1.0
    assert found.per_example == [2.0, 0.5]
    assert length_ratio(["a b"], ["?!"]).value == 2.0
    low, high = interval(found.examples, resamples=200)
    assert 0.5 <= low <= 1.0 <= high <= 2.0


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


def test_answers_of_punctuation_alone_match_only_their_like():
    assert exact_match(["+", " + ", "?", ""], ["-", "+", "", "..."]).per_example == [0.0, 1.0, 0.0, 0.0]


def test_an_empty_answer_scores_zero_everywhere():
    assert rouge([""], ["a cat"])["rougeL"].value == bleu([""], ["a cat"]).value == exact_match([""], ["a"]).value == 0
    assert chrf([""], ["a cat"]).value < 1e-10


@pytest.mark.parametrize("score", [bleu, chrf, exact_match, rouge, ter, token_f1, length_ratio])
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
    assert ter(answers, references).value == pytest.approx(TER().corpus_score(answers, [references]).score)
    scorer = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=True)
    mean = sum(scorer.score(b, a)["rougeL"].fmeasure for a, b in pairs) / len(pairs)
    assert rouge(answers, references)["rougeL"].value == pytest.approx(mean)
