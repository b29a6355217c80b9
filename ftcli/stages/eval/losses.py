"""Which rows the page shows: those on which a model lost most against the baseline, and some that nobody picked."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from ftcli.metrics.pages import visible
from ftcli.metrics.words import word_diff
from ftcli.stages.eval.tables import number

Json = Mapping[str, Any]
CUT = 4_000
"""Characters of a text that are shown."""
TEXT_METRICS = ("rougeL", "chrf", "token_f1", "exact_match", "bleu")


class Loss(NamedTuple):
    """How a row's change is measured: ``value`` of a model's record of the row, None where it has none; ``worse`` is 1 if more is
    worse and -1 if less is."""

    title: str
    short: str
    worse: int
    value: Callable[[Json], float | None]
    text: Callable[[float], str]


def shown_rows(result: Json, samples: Sequence[Json], model: str) -> list[dict[str, Any]]:
    """Groups of rows of ``model`` beside the baseline: worst by text metric, worst by the reference's nll, and at even distances.

    A row that stands in an earlier group already is named there only (``repeated``). The baseline alone has the last group, with
    its own answers.
    """
    count = result["settings"]["shown_samples"]
    answered = [record for record in samples if all("greedy" in own for own in _both(result, record, model))]
    is_alone = model == result["baseline"]
    found = () if is_alone else (_text_loss(result, answered, model), _nll_loss(result, samples, model))
    losses = [loss for loss in found if loss]
    groups: list[dict[str, Any]] = [
        {
            "title": f"Lost most: {loss.title}",
            "note": f"{len(lost)} of {measured} rows lost, {won} gained",
            "rows": lost[:count],
        }
        for loss in losses
        for lost, won, measured in [_worst(result, samples, model, loss)]
    ]
    note = f"{min(count, len(answered))} of {len(answered)} answered rows at even distances"
    groups.append({"title": "Nobody picked these", "note": note, "rows": evenly(answered, count)})
    seen: set[str] = set()
    for group in groups:
        rows = group["rows"]
        group["rows"] = [
            {"id": row["id"], "repeated": row["id"] in seen, **_row(result, row, model, losses)} for row in rows
        ]
        seen |= {row["id"] for row in rows}
    return [group for group in groups if group["rows"] or group["title"].startswith("Lost")]


def evenly(rows: Sequence[Json], count: int) -> list[Json]:
    """``count`` of ``rows`` at even distances."""
    count = min(count, len(rows))
    return [rows[place * len(rows) // count] for place in range(count)]


def _both(result: Json, record: Json, model: str) -> tuple[Json, Json]:
    return record["models"].get(result["baseline"], {}), record["models"].get(model, {})


def _worst(result: Json, samples: Sequence[Json], model: str, loss: Loss) -> tuple[list[Json], int, int]:
    """Rows that lost, the largest loss first; how many gained; how many were measured."""
    changes = []
    for record in samples:
        before, after = (loss.value(own) for own in _both(result, record, model))
        if before is not None and after is not None:
            changes.append((loss.worse * (after - before), record))
    lost = sorted((one for one in changes if one[0] > 0), key=lambda one: -one[0])
    return [record for _, record in lost], sum(change < 0 for change, _ in changes), len(changes)


def _text_loss(result: Json, answered: Sequence[Json], model: str) -> Loss | None:
    """The first text metric that answers of both models have a value of their own for."""
    for name in TEXT_METRICS:
        metric = result["metrics"].get(name)
        if metric is None or not answered:
            continue
        if any(all(name in own["greedy"]["metrics"] for own in _both(result, row, model)) for row in answered):

            def value(own: Json, name: str = name) -> float | None:
                return own["greedy"]["metrics"].get(name) if "greedy" in own else None

            def text(found: float, metric: Json = metric) -> str:
                return number(metric, found)

            return Loss(metric["title"], metric["title"], -1 if metric["higher_is_better"] else 1, value, text)
    return None


def _nll_loss(result: Json, samples: Sequence[Json], model: str) -> Loss | None:
    """The reference's nll a token, and in all where two tokenizers cut it into different tokens."""
    pairs = [_both(result, record, model) for record in samples]
    scored = [pair for pair in pairs if all("reference_nll" in own for own in pair)]
    if not scored:
        return None
    is_same = all(before["reference_tokens"] == after["reference_tokens"] for before, after in scored)

    def value(own: Json) -> float | None:
        if own.get("reference_nll") is None or not own["reference_tokens"]:
            return None
        found = own["reference_nll"] / (own["reference_tokens"] if is_same else 1)
        return found if math.isfinite(found) else None

    unit = "nats a token" if is_same else "nats in all"
    return Loss(f"nll of the reference, {unit}", "nll", 1, value, "{:.3f}".format)


def _row(result: Json, record: Json, model: str, losses: Sequence[Loss]) -> dict[str, Any]:
    before, after = _both(result, record, model)
    figures = []
    for loss in losses:
        values = [loss.value(own) for own in (before, after)]
        if None not in values:
            shown = [loss.text(value) for value in values if value is not None]
            is_worse = loss.worse * (values[1] - values[0]) > 0  # type: ignore[operator]
            figures.append({"title": loss.short, "text": " → ".join(shown), "is_worse": is_worse})
    return {
        "prompt": [{"role": one["role"], "content": _cut(one["content"])} for one in record["prompt"]],
        "reference": _cut(record["reference"]),
        "figures": figures,
        "answers": _answers(result["baseline"], before, model, after),
    }


def _answers(baseline: str, before: Json, model: str, after: Json) -> list[dict[str, Any]]:
    """Both greedy answers, each with what the other lacks marked; none where one did not answer."""
    if "greedy" not in before or "greedy" not in after:
        return []
    texts = [_cut(own["greedy"]["text"]) for own in (before, after)]
    pieces = word_diff(*texts)
    both = ((baseline, "del", pieces[0], before), (model, "ins", pieces[1], after))
    return [
        {
            "label": label,
            "tag": tag,
            "pieces": side,
            "tokens": own["greedy"]["tokens"],
            "is_cut": own["greedy"]["finish_reason"] == "length",
            "score": own["greedy"].get("score"),
            "sampled": [{**one, "text": _cut(one["text"])} for one in own.get("sampled", ())[:1]],
        }
        for label, tag, side, own in (both[:1] if model == baseline else both)
    ]


def _cut(text: str) -> str:
    """What a page would hide is shown, and the end of a long text is left to samples.jsonl."""
    if len(text) <= CUT:
        return visible(text)
    return f"{visible(text[:CUT])} … {len(text) - CUT:,} more characters in samples.jsonl"
