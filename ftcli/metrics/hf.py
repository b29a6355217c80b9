"""The text metrics as `evaluate.Metric` classes: made without the hub and without dynamic modules, fit for `evaluate.combine`.

    evaluate.combine([Rouge(), SacreBleu()]).compute(predictions=[...], references=[...])

`evaluate.load("rouge")` fetches a script from the hub and runs it, so nothing here or elsewhere in ftcli calls it with a bare name.
`score` gives what `compute` gives, with the per-example values and statistics that intervals need; the eval stage calls that.
"""

from __future__ import annotations

from typing import Any

import datasets
import evaluate

from ftcli.metrics import text


def _info(description: str) -> evaluate.MetricInfo:
    features = datasets.Features({"predictions": datasets.Value("string"), "references": datasets.Value("string")})
    return evaluate.MetricInfo(
        description=description,
        citation="",
        inputs_description="predictions: answers; references: one reference answer each.",
        features=features,
    )


class Rouge(evaluate.Metric):  # type: ignore[misc]
    """``rouge1``, ``rouge2``, ``rougeL``, ``rougeLsum``: plain means of F1, 0 to 1."""

    def score(
        self,
        predictions: list[str],
        references: list[str],
        tokenizer: text.RougeTokenizer = "ascii",
        use_stemmer: bool = True,
    ) -> dict[str, text.TextScore]:
        return text.rouge(predictions, references, tokenizer=tokenizer, use_stemmer=use_stemmer)

    def _info(self) -> evaluate.MetricInfo:
        return _info("ROUGE F1, plain mean")

    def _compute(self, predictions: list[str], references: list[str], **settings: Any) -> dict[str, Any]:
        return _values(self.score(predictions, references, **settings))


class SacreBleu(evaluate.Metric):  # type: ignore[misc]
    """``bleu``, 0 to 100."""

    def score(
        self, predictions: list[str], references: list[str], tokenizer: text.BleuTokenizer = "13a"
    ) -> dict[str, text.TextScore]:
        return {"bleu": text.bleu(predictions, references, tokenizer=tokenizer)}

    def _info(self) -> evaluate.MetricInfo:
        return _info("sacreBLEU of the corpus")

    def _compute(self, predictions: list[str], references: list[str], **settings: Any) -> dict[str, Any]:
        return _values(self.score(predictions, references, **settings))


class ChrF(evaluate.Metric):  # type: ignore[misc]
    """``chrf`` (chrF++), 0 to 100."""

    def score(self, predictions: list[str], references: list[str]) -> dict[str, text.TextScore]:
        return {"chrf": text.chrf(predictions, references)}

    def _info(self) -> evaluate.MetricInfo:
        return _info("chrF++ of the corpus")

    def _compute(self, predictions: list[str], references: list[str]) -> dict[str, Any]:
        return _values(self.score(predictions, references))


class Ter(evaluate.Metric):  # type: ignore[misc]
    """``ter``, edits per 100 words of the references; lower is better."""

    def score(self, predictions: list[str], references: list[str]) -> dict[str, text.TextScore]:
        return {"ter": text.ter(predictions, references)}

    def _info(self) -> evaluate.MetricInfo:
        return _info("Translation edit rate of the corpus")

    def _compute(self, predictions: list[str], references: list[str]) -> dict[str, Any]:
        return _values(self.score(predictions, references))


class ExactMatch(evaluate.Metric):  # type: ignore[misc]
    """``exact_match``: share of answers equal to the reference after normalisation."""

    def score(self, predictions: list[str], references: list[str]) -> dict[str, text.TextScore]:
        return {"exact_match": text.exact_match(predictions, references)}

    def _info(self) -> evaluate.MetricInfo:
        return _info("Exact match after case, punctuation and white space are normalised")

    def _compute(self, predictions: list[str], references: list[str]) -> dict[str, Any]:
        return _values(self.score(predictions, references))


class TokenF1(evaluate.Metric):  # type: ignore[misc]
    """``token_f1``: SQuAD's F1 of shared words, 0 to 1."""

    def score(self, predictions: list[str], references: list[str]) -> dict[str, text.TextScore]:
        return {"token_f1": text.token_f1(predictions, references)}

    def _info(self) -> evaluate.MetricInfo:
        return _info("SQuAD's F1 of shared words, mean over rows")

    def _compute(self, predictions: list[str], references: list[str]) -> dict[str, Any]:
        return _values(self.score(predictions, references))


class Distinct(evaluate.Metric):  # type: ignore[misc]
    """``distinct1`` and ``distinct2``, 0 to 1; the references are not looked at."""

    def score(self, predictions: list[str], references: list[str]) -> dict[str, text.TextScore]:
        return text.distinct(predictions)

    def _info(self) -> evaluate.MetricInfo:
        return _info("Different words and word pairs of an answer over all of its, mean over rows")

    def _compute(self, predictions: list[str], references: list[str]) -> dict[str, Any]:
        return _values(self.score(predictions, references))


class LengthRatio(evaluate.Metric):  # type: ignore[misc]
    """``length_ratio``: words of the answers over words of the references."""

    def score(self, predictions: list[str], references: list[str]) -> dict[str, text.TextScore]:
        return {"length_ratio": text.length_ratio(predictions, references)}

    def _info(self) -> evaluate.MetricInfo:
        return _info("Words of all answers over words of all references")

    def _compute(self, predictions: list[str], references: list[str]) -> dict[str, Any]:
        return _values(self.score(predictions, references))


TEXT_METRICS: dict[str, type[evaluate.Metric]] = {
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


def _values(scores: dict[str, text.TextScore]) -> dict[str, Any]:
    """Values, and for each metric ``<name>_signature``."""
    values: dict[str, Any] = {name: score.value for name, score in scores.items()}
    return values | {f"{name}_signature": score.signature for name, score in scores.items()}
