"""The text metrics as `evaluate.Metric` classes: made without the hub and without dynamic modules, fit for `evaluate.combine`.

    evaluate.combine([Rouge(), SacreBleu()]).compute(predictions=[...], references=[...])

`evaluate.load("rouge")` fetches a script from the hub and runs it, so nothing here or elsewhere in ftcli calls it with a bare name.
`score` gives what `compute` gives, with the per-example values and statistics that intervals need; the eval stage calls that.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import datasets
import evaluate

from ftcli.metrics import text

Scores = dict[str, text.TextScore]


class _TextMetric(evaluate.Metric):  # type: ignore[misc]
    """``compute`` gives the values of ``score`` and, for each metric, ``<name>_signature``."""

    score: Callable[..., Scores]

    def _info(self) -> evaluate.MetricInfo:
        features = datasets.Features({"predictions": datasets.Value("string"), "references": datasets.Value("string")})
        return evaluate.MetricInfo(
            description=type(self).__doc__,
            citation="",
            inputs_description="predictions: answers; references: one reference answer each.",
            features=features,
        )

    def _compute(self, predictions: list[str], references: list[str], **settings: Any) -> dict[str, Any]:
        scores = self.score(predictions, references, **settings)
        values: dict[str, Any] = {name: score.value for name, score in scores.items()}
        return values | {f"{name}_signature": score.signature for name, score in scores.items()}


class Rouge(_TextMetric):
    """``rouge1``, ``rouge2``, ``rougeL``, ``rougeLsum``: plain means of F1, 0 to 1."""

    def score(
        self,
        predictions: list[str],
        references: list[str],
        tokenizer: text.RougeTokenizer = "ascii",
        use_stemmer: bool = True,
    ) -> Scores:
        return text.rouge(predictions, references, tokenizer=tokenizer, use_stemmer=use_stemmer)


class SacreBleu(_TextMetric):
    """``bleu`` of the corpus, 0 to 100."""

    def score(self, predictions: list[str], references: list[str], tokenizer: text.BleuTokenizer = "13a") -> Scores:
        return {"bleu": text.bleu(predictions, references, tokenizer=tokenizer)}


class ChrF(_TextMetric):
    """``chrf`` (chrF++) of the corpus, 0 to 100."""

    def score(self, predictions: list[str], references: list[str]) -> Scores:
        return {"chrf": text.chrf(predictions, references)}


class Ter(_TextMetric):
    """``ter`` of the corpus, edits per 100 words of the references; lower is better."""

    def score(self, predictions: list[str], references: list[str]) -> Scores:
        return {"ter": text.ter(predictions, references)}


class ExactMatch(_TextMetric):
    """``exact_match``: share of answers equal to the reference after case, punctuation and white space are normalised."""

    def score(self, predictions: list[str], references: list[str]) -> Scores:
        return {"exact_match": text.exact_match(predictions, references)}


class TokenF1(_TextMetric):
    """``token_f1``: SQuAD's F1 of shared words, mean over rows, 0 to 1."""

    def score(self, predictions: list[str], references: list[str]) -> Scores:
        return {"token_f1": text.token_f1(predictions, references)}


class Distinct(_TextMetric):
    """``distinct1`` and ``distinct2``, 0 to 1; the references are not looked at."""

    def score(self, predictions: list[str], references: list[str]) -> Scores:
        return text.distinct(predictions)


class LengthRatio(_TextMetric):
    """``length_ratio``: words of the answers over words of the references."""

    def score(self, predictions: list[str], references: list[str]) -> Scores:
        return {"length_ratio": text.length_ratio(predictions, references)}


TEXT_METRICS: dict[str, type[_TextMetric]] = {
    "rouge": Rouge,
    "bleu": SacreBleu,
    "chrf": ChrF,
    "ter": Ter,
    "exact_match": ExactMatch,
    "token_f1": TokenF1,
    "distinct": Distinct,
    "length": LengthRatio,
}
"""By the family names of `ftcli.metrics.names`."""
