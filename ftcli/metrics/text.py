"""Answers beside references: ROUGE, sacreBLEU, chrF++, TER, exact match, token F1; and by themselves: distinct-n, length.

Pure functions on lists of strings. Each returns a `TextScore`: the corpus value, a value for each example, the signature that makes
a number repeatable, and the additive statistics that intervals and paired tests are computed from (`ftcli.metrics.statistics`).

ROUGE is the plain mean of F1. `evaluate`'s own ROUGE is the median of a bootstrap seeded by numpy's global state, which moves it
by 0.001 from run to run. rouge_score's own tokenizer keeps ``[a-z0-9]`` only, so that equal Chinese or Cyrillic strings score 0;
``tokenizer="words"`` keeps every letter of every script.
"""

from __future__ import annotations

import importlib.metadata
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from rouge_score import rouge_scorer, tokenizers
from sacrebleu.metrics import BLEU, CHRF, TER

from ftcli.metrics.corpus import corpus_of
from ftcli.metrics.statistics import Examples, mean_of
from ftcli.metrics.text_words import Characters, Words, non_ascii_share, normalise, squad_words, words

__all__ = [
    "BleuTokenizer",
    "RougeTokenizer",
    "TextScore",
    "bleu",
    "chrf",
    "corpus_of",
    "distinct",
    "exact_match",
    "length_ratio",
    "mean_score",
    "non_ascii_share",
    "normalise",
    "rouge",
    "ter",
    "token_f1",
]

RougeTokenizer = Literal["ascii", "words", "char"]
BleuTokenizer = Literal["13a", "intl", "zh", "char", "none"]
ROUGE_TYPES = ("rouge1", "rouge2", "rougeL", "rougeLsum")
_WORDS = "nfkc|lower|letters and digits|ideographs single"


@dataclass(frozen=True)
class TextScore:
    """``per_example`` is on the metric's scale, None for a row that does not count (an empty answer has no distinct words).

    For corpus metrics (BLEU, chrF++, TER, length ratio) its mean is not ``value``. ``examples`` holds the rows that count.
    """

    per_example: list[float | None]
    signature: str
    examples: Examples

    @property
    def value(self) -> float:
        """NaN where no row counts."""
        return self.examples.value() if len(self.examples) else math.nan

    @property
    def rows(self) -> list[int]:
        """The indices of the rows that count: those of ``examples``."""
        return [row for row, value in enumerate(self.per_example) if value is not None]


def rouge(
    predictions: Sequence[str],
    references: Sequence[str],
    *,
    tokenizer: RougeTokenizer = "ascii",
    use_stemmer: bool = True,
) -> dict[str, TextScore]:
    """ROUGE-1, -2, -L and -Lsum, each 0 to 1. The stemmer (Porter, English) belongs to the ``ascii`` tokenizer only.

    ROUGE-L reads an answer as one sequence; ROUGE-Lsum takes each line as a sentence (Lin 2004, summary-level ROUGE-L), whose order
    does not matter. ``words`` sees every script, ``char`` compares characters.
    """
    _check(predictions, references)
    by_name = {"ascii": tokenizers.DefaultTokenizer(use_stemmer), "words": Words(), "char": Characters()}
    scorer = rouge_scorer.RougeScorer(list(ROUGE_TYPES), tokenizer=by_name[tokenizer])
    scored = [scorer.score(reference, answer) for answer, reference in zip(predictions, references, strict=True)]
    stemmed = "yes" if use_stemmer and tokenizer == "ascii" else "no"
    signature = f"f1|mean|tok:{tokenizer}|stem:{stemmed}|rouge_score:{importlib.metadata.version('rouge_score')}"
    return {name: mean_score([row[name].fmeasure for row in scored], signature) for name in ROUGE_TYPES}


def bleu(predictions: Sequence[str], references: Sequence[str], *, tokenizer: BleuTokenizer = "13a") -> TextScore:
    """sacreBLEU (exponential smoothing) of the corpus, 0 to 100; per example the sentence BLEU.

    Sentence BLEU uses the orders that an answer is long enough for; corpus BLEU of answers shorter than 4 words is 0. ``13a`` is
    the usual tokenizer, for languages with spaces; ``zh`` and ``char`` are for those without, ``intl`` splits at punctuation of
    every script, ``none`` takes texts as they are.
    """
    sentence = BLEU(effective_order=True, tokenize="none")
    metric = BLEU(force=True, tokenize=tokenizer)
    return _sacrebleu(metric, f"bleu/{tokenizer}", predictions, references, sentence)


def chrf(predictions: Sequence[str], references: Sequence[str], *, word_order: int = 2) -> TextScore:
    """chrF++ (characters to 6, words to 2) of the corpus, 0 to 100; with ``word_order=0`` it is chrF."""
    return _sacrebleu(CHRF(word_order=word_order), "chrf", predictions, references)


def ter(predictions: Sequence[str], references: Sequence[str]) -> TextScore:
    """Translation edit rate of the corpus: insertions, deletions, substitutions and shifts per 100 words of the references.

    Lower is better, and above 100 is possible. Words are cut at white space and put into lower case, as Tercom does.
    """
    return _sacrebleu(TER(), "ter", predictions, references)


def exact_match(predictions: Sequence[str], references: Sequence[str]) -> TextScore:
    """The share of answers equal to the reference after `normalise`."""
    _check(predictions, references)
    equal = [float(normalise(a) == normalise(b)) for a, b in zip(predictions, references, strict=True)]
    return mean_score(equal, "nfkc|casefold|no punctuation|white space")


def token_f1(predictions: Sequence[str], references: Sequence[str]) -> TextScore:
    """SQuAD's F1 of shared words (Rajpurkar et al. 2016, arXiv 1606.05250), mean over rows, 0 to 1.

    Where either side has no word, it is 1 if both have none and else 0, as in SQuAD 2.0.
    """
    _check(predictions, references)
    scores = [_f1(squad_words(a), squad_words(b)) for a, b in zip(predictions, references, strict=True)]
    return mean_score(scores, "squad|lower|no punctuation|no articles|ideographs single")


def distinct(predictions: Sequence[str]) -> dict[str, TextScore]:
    """``distinct1`` and ``distinct2``: different words (word pairs) of an answer over all of its, mean over rows, 0 to 1.

    Li et al. 2016 (arXiv 1510.03055) count over all answers at once, which is no sum over rows and falls with their number; the
    mean over answers can be resampled, and tells loops within an answer but not answers that are all the same. An answer without
    words (pairs) does not count.
    """
    _check(predictions, predictions)
    cut = [words(text) for text in predictions]
    pairs = [list(pairwise(one)) for one in cut]
    return {
        "distinct1": mean_score([_different(one) for one in cut], f"per answer|mean|{_WORDS}"),
        "distinct2": mean_score([_different(one) for one in pairs], f"per answer|mean|{_WORDS}"),
    }


def length_ratio(predictions: Sequence[str], references: Sequence[str]) -> TextScore:
    """Words of all answers over words of all references; per example the same of one row. A reference counts one word at least."""
    _check(predictions, references)
    counts = [
        (float(len(words(a))), float(max(1, len(words(b))))) for a, b in zip(predictions, references, strict=True)
    ]
    return TextScore([own / other for own, other in counts], f"words|{_WORDS}", Examples(np.asarray(counts)))


def mean_score(values: Sequence[float | None], signature: str) -> TextScore:
    """A score that is the plain mean of the rows that have a value."""
    counted = [value for value in values if value is not None]
    return TextScore(list(values), signature, mean_of(counted))


def _f1(answer: list[str], reference: list[str]) -> float:
    if not answer or not reference:
        return float(answer == reference)
    shared = sum((Counter(answer) & Counter(reference)).values())
    return 2 * shared / (len(answer) + len(reference))


def _different(items: Sequence[Any]) -> float | None:
    return len(set(items)) / len(items) if items else None


def _sacrebleu(
    metric: Any, kind: str, predictions: Sequence[str], references: Sequence[str], sentence: Any = None
) -> TextScore:
    """The score of ``metric``, whose statistics are those of sacreBLEU's own resampling tests (hence the underscores).

    ``sentence`` scores one row from its statistics where the corpus function is unfit for that.
    """
    _check(predictions, references)
    counts = metric._extract_corpus_statistics(list(predictions), [list(references)])
    statistics, corpus = np.asarray(counts, dtype=np.float64), corpus_of(kind)
    if sentence is None:
        per_example = corpus(statistics).tolist()
    else:
        per_example = [sentence._compute_score_from_stats(row).score for row in counts]
    return TextScore(per_example, str(metric.get_signature()), Examples(statistics, corpus, kind))


def _check(predictions: Sequence[str], references: Sequence[str]) -> None:
    if not predictions or len(predictions) != len(references):
        raise ValueError(
            f"{len(predictions)} answers for {len(references)} references: one each is needed, at least one"
        )
