"""Overlap of answers with references: ROUGE, sacreBLEU, chrF++, exact match. Pure functions on lists of strings.

Each returns a `TextScore`: the corpus value, a value for each example, the signature that makes a number repeatable, and the
additive statistics that intervals and paired tests are computed from (`ftcli.metrics.statistics`).

ROUGE is the plain mean of F1. `evaluate`'s own ROUGE is the median of a bootstrap seeded by numpy's global state, which moves it
by 0.001 from run to run. rouge_score's own tokenizer keeps ``[a-z0-9]`` only, so that equal Chinese or Cyrillic strings score 0;
``tokenizer="words"`` keeps every letter of every script.
"""

from __future__ import annotations

import importlib.metadata
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from rouge_score import rouge_scorer, tokenizers
from sacrebleu.metrics import BLEU, CHRF

from ftcli.metrics.statistics import Array, Examples, mean_of

RougeTokenizer = Literal["ascii", "words"]
ROUGE_TYPES = ("rouge1", "rouge2", "rougeL")

_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_WORD = re.compile(rf"[{_CJK}]|[^\W_{_CJK}]+")
_PUNCTUATION = re.compile(r"[^\w\s]|_")
_ASCII_WORD = re.compile(r"[A-Za-z0-9]")


@dataclass(frozen=True)
class TextScore:
    """``per_example`` is on the metric's scale; for corpus metrics (BLEU, chrF++) its mean is not ``value``."""

    per_example: list[float]
    signature: str
    examples: Examples

    @property
    def value(self) -> float:
        return self.examples.value()


class _Words(tokenizers.Tokenizer):  # type: ignore[misc]
    """Lower-cased runs of letters and digits of any script; each ideograph or kana is a word of its own."""

    def tokenize(self, text: str) -> list[str]:
        return _WORD.findall(unicodedata.normalize("NFKC", text).lower())


def rouge(
    predictions: Sequence[str],
    references: Sequence[str],
    *,
    tokenizer: RougeTokenizer = "ascii",
    use_stemmer: bool = True,
) -> dict[str, TextScore]:
    """ROUGE-1, ROUGE-2 and ROUGE-L, each 0 to 1. The stemmer (Porter, English) belongs to the ``ascii`` tokenizer only."""
    _check(predictions, references)
    words = _Words() if tokenizer == "words" else tokenizers.DefaultTokenizer(use_stemmer)
    scorer = rouge_scorer.RougeScorer(list(ROUGE_TYPES), tokenizer=words)
    scored = [scorer.score(reference, answer) for answer, reference in zip(predictions, references, strict=True)]
    stemmed = "yes" if use_stemmer and tokenizer == "ascii" else "no"
    signature = f"f1|mean|tok:{tokenizer}|stem:{stemmed}|rouge_score:{importlib.metadata.version('rouge_score')}"
    return {name: _mean([row[name].fmeasure for row in scored], signature) for name in ROUGE_TYPES}


def bleu(predictions: Sequence[str], references: Sequence[str]) -> TextScore:
    """sacreBLEU (13a tokens, exponential smoothing) of the corpus, 0 to 100; per example the sentence BLEU.

    Sentence BLEU uses the orders that an answer is long enough for; corpus BLEU of answers shorter than 4 words is 0.
    """
    sentence = BLEU(effective_order=True)
    return _sacrebleu(BLEU(force=True), sentence, predictions, references)


def chrf(predictions: Sequence[str], references: Sequence[str]) -> TextScore:
    """chrF++ (characters to 6, words to 2) of the corpus, 0 to 100."""
    metric = CHRF(word_order=2)
    return _sacrebleu(metric, metric, predictions, references)


def exact_match(predictions: Sequence[str], references: Sequence[str]) -> TextScore:
    """The share of answers equal to the reference after `normalise`."""
    _check(predictions, references)
    equal = [float(normalise(a) == normalise(b)) for a, b in zip(predictions, references, strict=True)]
    return _mean(equal, "nfkc|casefold|no punctuation|white space")


def normalise(text: str) -> str:
    """NFKC, case folded, punctuation dropped, white space collapsed."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(_PUNCTUATION.sub(" ", folded).split())


def non_ascii_share(texts: Sequence[str]) -> float:
    """The share of letters and digits that the ``ascii`` tokenizer of ROUGE does not see."""
    letters = [character for text in texts for character in text if character.isalnum()]
    if not letters:
        return 0.0
    return sum(not _ASCII_WORD.match(character) for character in letters) / len(letters)


def _sacrebleu(metric: Any, sentence: Any, predictions: Sequence[str], references: Sequence[str]) -> TextScore:
    """sacreBLEU's own resampling tests use the two methods named with an underscore in this way."""
    _check(predictions, references)
    counts = metric._extract_corpus_statistics(list(predictions), [list(references)])

    def corpus(sums: Array) -> Array:
        flat = sums.reshape(-1, sums.shape[-1]).tolist()
        scores = [metric._compute_score_from_stats(row).score for row in flat]
        return np.asarray(scores, dtype=np.float64).reshape(sums.shape[:-1])

    metric.corpus_score(
        list(predictions), [list(references)]
    )  # the signature knows the number of references after a score
    per_example = [sentence.sentence_score(a, [b]).score for a, b in zip(predictions, references, strict=True)]
    return TextScore(per_example, str(metric.get_signature()), Examples(np.asarray(counts, dtype=np.float64), corpus))


def _mean(values: list[float], signature: str) -> TextScore:
    return TextScore(values, signature, mean_of(values))


def _check(predictions: Sequence[str], references: Sequence[str]) -> None:
    if not predictions or len(predictions) != len(references):
        raise ValueError(
            f"{len(predictions)} answers for {len(references)} references: one each is needed, at least one"
        )
