"""The metrics that ftcli knows, by name: what each is called, which way is better, how it is printed. Imports nothing heavy.

A *family* is what a user asks for (``rouge``); a *metric* is one number of the result (``rougeL``). Suites, judges, a user's own
functions and lm-evaluation-harness bring a `Metric` of their own, under names with a dot: ``general.nll``, ``custom.brevity``.
"""

from __future__ import annotations

from dataclasses import dataclass

from ftcli.core.config import nearest


@dataclass(frozen=True)
class Metric:
    """``higher_is_better`` is None where neither direction is good by itself (the length of an answer).

    ``is_share`` marks counts of yes and no, whose interval is Wilson's; ``is_ratio`` metrics that are compared by their quotient.
    ``margin`` is the change that makes no practical difference, on the metric's scale: a difference, or a factor above 1 for
    ratio metrics. None: no such size is known beforehand, and no change is ever called equivalent.
    """

    title: str
    family: str
    higher_is_better: bool | None
    decimals: int
    help: str
    is_share: bool = False
    is_ratio: bool = False
    margin: float | None = None


# Margins are conventions, and a gate's rule may name its own: one point of a share or an F1, as these are reported in percent; half
# a point of BLEU and chrF, which rarely shows in the text; 2 % of perplexity, or 0.02 nats a token, and the 0.01 bits a byte that
# this comes to at 3 to 4 bytes a token; 5 % of the length. A reward's scale is its model's own, so it has none.
METRICS: dict[str, Metric] = {
    "perplexity": Metric(
        "Perplexity",
        "perplexity",
        False,
        2,
        "exp of the mean negative log-likelihood of the reference's tokens",
        is_ratio=True,
        margin=1.02,
    ),
    "bits_per_byte": Metric(
        "Bits per byte",
        "perplexity",
        False,
        4,
        "negative log-likelihood of the references in bits, per byte of their text: fit to compare two tokenizers",
        margin=0.01,
    ),
    "text_perplexity": Metric(
        "Perplexity, raw text",
        "perplexity",
        False,
        2,
        "exp of the mean negative log-likelihood of plain text, in sliding windows",
        is_ratio=True,
        margin=1.02,
    ),
    "text_bits_per_byte": Metric(
        "Bits per byte, raw text",
        "perplexity",
        False,
        4,
        "negative log-likelihood of plain text in bits, per byte",
        margin=0.01,
    ),
    "rouge1": Metric("ROUGE-1", "rouge", True, 3, "F1 of shared words, mean over rows", margin=0.01),
    "rouge2": Metric("ROUGE-2", "rouge", True, 3, "F1 of shared word pairs, mean over rows", margin=0.01),
    "rougeL": Metric(
        "ROUGE-L", "rouge", True, 3, "F1 of the longest common word sequence, mean over rows", margin=0.01
    ),
    "rougeLsum": Metric(
        "ROUGE-Lsum", "rouge", True, 3, "ROUGE-L line by line: their order does not matter, mean over rows", margin=0.01
    ),
    "bleu": Metric("BLEU", "bleu", True, 2, "sacreBLEU of all rows together, 0 to 100", margin=0.5),
    "chrf": Metric(
        "chrF++", "chrf", True, 2, "character and word n-gram F-score of all rows together, 0 to 100", margin=0.5
    ),
    "ter": Metric("TER", "ter", False, 2, "edits per 100 words of the references, all rows together", margin=1.0),
    "exact_match": Metric(
        "Exact match",
        "exact_match",
        True,
        3,
        "share of answers equal to the reference",
        is_share=True,
        margin=0.01,
    ),
    "token_f1": Metric("Token F1", "token_f1", True, 3, "SQuAD's F1 of shared words, mean over rows", margin=0.01),
    "distinct1": Metric(
        "Distinct-1", "distinct", None, 3, "share of an answer's words that are different ones", margin=0.01
    ),
    "distinct2": Metric(
        "Distinct-2", "distinct", None, 3, "share of an answer's word pairs that are different ones", margin=0.01
    ),
    "length_ratio": Metric(
        "Length ratio", "length", None, 3, "words of all answers over words of all references", margin=0.05
    ),
    "reward_sampled": Metric("Reward, sampled", "reward", True, 3, "reward model's mean score of sampled answers"),
    "reward_greedy": Metric("Reward, greedy", "reward", True, 3, "reward model's mean score of greedy answers"),
    "empty_rate": Metric("Empty", "health", False, 3, "share of answers without any text", is_share=True, margin=0.01),
    "hit_max_rate": Metric(
        "Hit max tokens", "health", False, 3, "share of answers cut off at max_new_tokens", is_share=True, margin=0.01
    ),
    "repetition_rate": Metric(
        "Repetition", "health", False, 3, "share of an answer's 4-grams that it said before", margin=0.01
    ),
    "mean_length": Metric("Length", "health", None, 1, "mean tokens of an answer"),
}

FROM_0_TO_1: frozenset[str] = frozenset(
    name
    for name, metric in METRICS.items()
    if metric.is_share or metric.family in ("rouge", "token_f1", "distinct") or name == "repetition_rate"
)
"""Metrics that others report in percent: a limit of 1 would let everything pass."""

FAMILIES: tuple[str, ...] = (
    "perplexity",
    "rouge",
    "bleu",
    "chrf",
    "ter",
    "exact_match",
    "token_f1",
    "distinct",
    "length",
    "health",
)
"""What a user may ask for; rewards are measured whenever a reward model is given."""

DEFAULT_FAMILIES: tuple[str, ...] = tuple(family for family in FAMILIES if family != "ter")
"""What is measured unless something else is asked for: TER takes a second or more for each long answer."""


def unknown_families(names: tuple[str, ...]) -> list[str]:
    """One message for each name that is no family, with the nearest known one."""
    return [_explain(name) for name in names if name not in FAMILIES]


def _explain(name: str) -> str:
    if name in METRICS and METRICS[name].family in FAMILIES:
        return f"unknown metric {name}; it is part of {METRICS[name].family}"
    if name.startswith("reward"):
        return f"unknown metric {name}; rewards are measured whenever the input `reward` is given"
    known = f"known: {', '.join(FAMILIES)}"
    return f"unknown metric {name}; {nearest(name, FAMILIES) or known}"
