"""Signs of a broken model that overlap scores hide: empty answers, answers that never end, loops."""

from __future__ import annotations

from collections.abc import Sequence


def is_empty(text: str) -> bool:
    return not text.strip()


def repetition(ids: Sequence[int], order: int = 4) -> float:
    """The share of n-grams (of token ids, so for any language) that occurred before in the same answer; 0 if there are none."""
    grams = [tuple(ids[start : start + order]) for start in range(len(ids) - order + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def health(
    texts: Sequence[str], token_ids: Sequence[Sequence[int]], finish_reasons: Sequence[str]
) -> dict[str, list[float]]:
    """Per-example values of ``empty_rate``, ``hit_max_rate``, ``repetition_rate`` and ``mean_length`` (tokens)."""
    return {
        "empty_rate": [float(is_empty(text)) for text in texts],
        "hit_max_rate": [float(reason == "length") for reason in finish_reasons],
        "repetition_rate": [repetition(ids) for ids in token_ids],
        "mean_length": [float(len(ids)) for ids in token_ids],
    }
