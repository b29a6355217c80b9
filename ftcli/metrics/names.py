"""The metrics that ftcli knows, by name: what each is called, which way is better, how it is printed. Imports nothing heavy.

A *family* is what a user asks for (``rouge``); a *metric* is one number of the result (``rougeL``).
"""

from __future__ import annotations

from dataclasses import dataclass

from ftcli.core.config import nearest


@dataclass(frozen=True)
class Metric:
    """``higher_is_better`` is None where neither direction is good by itself (the length of an answer).

    ``is_share`` marks counts of yes and no, whose interval is Wilson's; ``is_ratio`` metrics that are compared by their quotient.
    """

    title: str
    family: str
    higher_is_better: bool | None
    decimals: int
    help: str
    is_share: bool = False
    is_ratio: bool = False


METRICS: dict[str, Metric] = {
    "perplexity": Metric(
        "Perplexity",
        "perplexity",
        False,
        2,
        "exp of the mean negative log-likelihood of the reference's tokens",
        is_ratio=True,
    ),
    "rouge1": Metric("ROUGE-1", "rouge", True, 3, "F1 of shared words, mean over rows"),
    "rouge2": Metric("ROUGE-2", "rouge", True, 3, "F1 of shared word pairs, mean over rows"),
    "rougeL": Metric("ROUGE-L", "rouge", True, 3, "F1 of the longest common word sequence, mean over rows"),
    "bleu": Metric("BLEU", "bleu", True, 2, "sacreBLEU of all rows together, 0 to 100"),
    "chrf": Metric("chrF++", "chrf", True, 2, "character and word n-gram F-score of all rows together, 0 to 100"),
    "exact_match": Metric(
        "Exact match", "exact_match", True, 3, "share of answers equal to the reference", is_share=True
    ),
    "reward_sampled": Metric("Reward, sampled", "reward", True, 3, "reward model's mean score of sampled answers"),
    "reward_greedy": Metric("Reward, greedy", "reward", True, 3, "reward model's mean score of greedy answers"),
    "empty_rate": Metric("Empty", "health", False, 3, "share of answers without any text", is_share=True),
    "hit_max_rate": Metric(
        "Hit max tokens", "health", False, 3, "share of answers cut off at max_new_tokens", is_share=True
    ),
    "repetition_rate": Metric("Repetition", "health", False, 3, "share of an answer's 4-grams that it said before"),
    "mean_length": Metric("Length", "health", None, 1, "mean tokens of an answer"),
}

FAMILIES: tuple[str, ...] = ("perplexity", "rouge", "bleu", "chrf", "exact_match", "health")
"""What a user may ask for; rewards are measured whenever a reward model is given."""


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
