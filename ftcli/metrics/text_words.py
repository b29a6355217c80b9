"""How texts are cut into words, and put into one spelling, before they are compared."""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Sequence

from rouge_score import tokenizers

_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_WORD = re.compile(rf"[{_CJK}]|[^\W_{_CJK}]+")
_IDEOGRAPH_OR_RUN = re.compile(rf"[{_CJK}]|[^\s{_CJK}]+")
_PUNCTUATION = re.compile(r"[^\w\s]|_")
_ARTICLE = re.compile(r"\b(a|an|the)\b")
_ASCII_WORD = re.compile(r"[A-Za-z0-9]")


def words(text: str) -> list[str]:
    """Lower-cased runs of letters and digits of any script; each ideograph or kana is a word of its own."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).lower())


def characters(text: str) -> list[str]:
    """Lower-cased characters without white space: for scripts without spaces, or where parts of words count."""
    return list("".join(unicodedata.normalize("NFKC", text).lower().split()))


def squad_words(text: str) -> list[str]:
    """The words that SQuAD's F1 compares: lower case, no punctuation, no English articles, cut at white space.

    As in the MLQA evaluation script, punctuation is that of all scripts and an ideograph is a word; English is SQuAD 1.1's.
    """
    kept = "".join(character for character in text.lower() if not _is_punctuation(character))
    return _IDEOGRAPH_OR_RUN.findall(_ARTICLE.sub(" ", kept))


def _is_punctuation(character: str) -> bool:
    return character in string.punctuation or unicodedata.category(character).startswith("P")


def normalise(text: str) -> str:
    """NFKC, case folded, punctuation dropped unless there is nothing else (``+`` is not ``-``), white space collapsed."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(_PUNCTUATION.sub(" ", folded).split() or folded.split())


def non_ascii_share(texts: Sequence[str]) -> float:
    """The share of letters and digits that the ``ascii`` tokenizer of ROUGE does not see."""
    letters = [character for text in texts for character in text if character.isalnum()]
    if not letters:
        return 0.0
    return sum(not _ASCII_WORD.match(character) for character in letters) / len(letters)


class Words(tokenizers.Tokenizer):  # type: ignore[misc]
    """`words` as rouge_score takes it."""

    def tokenize(self, text: str) -> list[str]:
        return words(text)


class Characters(tokenizers.Tokenizer):  # type: ignore[misc]
    """`characters` as rouge_score takes it."""

    def tokenize(self, text: str) -> list[str]:
        return characters(text)
