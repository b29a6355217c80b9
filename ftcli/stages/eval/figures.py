"""From what a model said and what texts cost it to figures, and which models are compared on them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from ftcli.core.artifacts import walk
from ftcli.core.stage import Artifact
from ftcli.metrics.figures import Figure, Figures
from ftcli.metrics.health import health
from ftcli.metrics.hf import TEXT_METRICS
from ftcli.metrics.names import METRICS, Metric
from ftcli.metrics.perplexity import AnswerScore, bits_per_byte, log_perplexity
from ftcli.metrics.statistics import Examples, mean_of
from ftcli.metrics.text import TextScore
from ftcli.models.load import read_base_record
from ftcli.stages.eval.config import EvalConfig
from ftcli.stages.eval.outcome import Outcome

Json = dict[str, Any]


def figures_of(
    outcome: Outcome,
    rows: Sequence[tuple[str, str]],
    config: EvalConfig,
    *,
    reads: str,
    reward_reads: str = "",
) -> Figures:
    """Every metric that was asked for, in the order of `ftcli.metrics.names.METRICS`.

    ``rows`` are (id, reference) of all scored rows, of which the first are the answered ones. ``reads`` names tokenizer and
    number format, ``reward_reads`` the reward model: costs and scores of two models compare only where these are the same.
    """
    ids = tuple(id for id, _ in rows)
    references = [reference for _, reference in rows]
    found: Figures = {}

    def add(name: str, examples: Examples, signature: str, comparable: str = "") -> None:
        found[name] = Figure(name, METRICS[name], examples, ids[: len(examples)], signature, comparable)

    if outcome.nll:
        _add_costs(add, outcome, config, reads)
    if outcome.greedy:
        for name, score in _text_scores(outcome, references, config).items():
            found[name] = of_text(name, METRICS[name], score, ids)
        if "health" in config.metrics:
            reasons = [answer.finish_reason for answer in outcome.greedy]
            texts, tokens = [one.text for one in outcome.greedy], [one.ids for one in outcome.greedy]
            for name, values in health(texts, tokens, reasons).items():
                add(name, mean_of(values), f"greedy|max {config.max_new_tokens} tokens")
    if outcome.sampled_scores:
        repeats = config.samples_per_prompt
        drawn = f"temperature {config.temperature:g}|{repeats} a prompt|seed {config.seed}"
        add("reward_sampled", mean_of(means(outcome.sampled_scores, repeats)), drawn, reward_reads)
        add("reward_greedy", mean_of(outcome.greedy_scores), "greedy", reward_reads)
    return {name: found[name] for name in METRICS if name in found and found[name].ids}  # none where no row has a value


def of_text(name: str, metric: Metric, score: TextScore, ids: Sequence[str]) -> Figure:
    """The figure of a text score over rows ``ids``, of which those without a value do not count."""
    counted = tuple(id for id, value in zip(ids, score.per_example, strict=False) if value is not None)
    return Figure(name, metric, score.examples, counted, score.signature)


def _add_costs(add: Any, outcome: Outcome, config: EvalConfig, reads: str) -> None:
    scores = [AnswerScore(nll, tokens) for nll, tokens in zip(outcome.nll, outcome.tokens, strict=True)]
    if outcome.whole_texts:
        how = f"whole text|windows of {config.max_length}, {config.window_stride} apart|prefix {config.prefix}"
        names = ("text_perplexity", "text_bits_per_byte")
    else:
        how, names = "completion|chat template|end of turn", ("perplexity", "bits_per_byte")
    # What bytes cost can be compared across tokenizers, if the same number format computed it.
    add(names[0], log_perplexity(scores), how, reads)
    add(names[1], bits_per_byte(scores, outcome.sizes), how, reads.rpartition("|")[2])


def _text_scores(outcome: Outcome, references: Sequence[str], config: EvalConfig) -> dict[str, TextScore]:
    texts = [answer.text for answer in outcome.greedy]
    settings: dict[str, Any] = {
        "rouge": {"tokenizer": config.rouge_tokenizer},
        "bleu": {"tokenizer": config.bleu_tokenizer},
    }
    found: dict[str, TextScore] = {}
    for family in config.metrics:
        if family in TEXT_METRICS:
            metric = TEXT_METRICS[family](keep_in_memory=True)
            found |= metric.score(texts, list(references[: len(texts)]), **settings.get(family, {}))
    return found


def means(values: Sequence[float], size: int) -> list[float]:
    """Means of consecutive groups of ``size``: samples of one prompt are no independent examples."""
    return [sum(values[first : first + size]) / size for first in range(0, len(values), size)]


def pairs_of(models: Sequence[Artifact]) -> list[tuple[str, str]]:
    """Each model with the baseline, which is the first, and with the one among ``models`` that it was trained from."""
    pairs = [(item.label, models[0].label) for item in models[1:]]
    starts = [(item.label, start.label) for item in models if (start := start_of(item, models)) is not None]
    return pairs + [pair for pair in starts if pair not in pairs]


def without(figures: Mapping[str, Figures], ids: Collection[str]) -> dict[str, Figures]:
    """The figures that some of the rows ``ids`` count in, on the other rows."""
    return {
        label: {
            name: figure.only([id for id in figure.ids if id not in ids])
            for name, figure in own.items()
            if not set(ids).isdisjoint(figure.ids)
        }
        for label, own in figures.items()
    }


def start_of(artifact: Artifact, models: Sequence[Artifact]) -> Artifact | None:
    """The model among ``models`` that ``artifact`` was trained from, by the digest its stage recorded."""
    digest = artifact.facts.get("start_digest")
    return next((item for item in models if item.digest == digest and item.label != artifact.label), None)


def described_artifact(artifact: Artifact, models: Sequence[Artifact]) -> Json:
    """Where a model came from and what making it took. ``bytes`` is its own folder: for an adapter, without its base."""
    quantization = read_base_record(artifact.path).get("quantization") if artifact.base is not None else None
    start = start_of(artifact, models)
    storage = "full model" if artifact.base is None else f"adapter on {quantization or 'unquantised'} base"
    return {
        "ref": artifact.ref,
        "digest": artifact.digest,
        "storage": storage,
        "base": None if artifact.base is None else {"ref": artifact.base.ref, "digest": artifact.base.digest},
        "start": None if start is None else start.label,
        "bytes": artifact.facts.get("bytes") or sum(path.stat().st_size for path in walk(artifact.path)),
        "facts": {name: value for name, value in artifact.facts.items() if name != "bytes"},
    }
