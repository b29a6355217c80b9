"""Figures as text: how a number, a change and a status are printed, and the result as one table. Needs metrics.json only."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

HEADLINE = (
    "perplexity",
    "bits_per_byte",
    "text_perplexity",
    "text_bits_per_byte",
    "rougeL",
    "bleu",
    "chrf",
    "exact_match",
    "reward_sampled",
    "general.nll",
    "judge.reward",
    "judge.llm",
)
"""What is shown first, where it was measured; a user's own metrics and those that a rule names stand with them."""
BITS = {"perplexity": "bits_per_byte", "text_perplexity": "text_bits_per_byte"}
"""What stands in for a perplexity that two tokenizers keep from being compared."""
OWN = ("custom.", "lm_eval.")
HEALTH = ("empty_rate", "hit_max_rate", "repetition_rate", "mean_length", "length_ratio", "distinct1", "distinct2")
STATUSES = ("improved", "regressed", "equivalent", "inconclusive", "not evaluable", "changed")
MARKS = dict(zip(STATUSES, ("▲", "▼", "=", "?", "!", "↔"), strict=True))
"""Stand behind a value for what its comparison with the baseline found."""
NONE = "-"
TIMES = "\u00d7"

Json = Mapping[str, Any]


def number(metric: Json, value: float | None) -> str:
    return NONE if value is None else f"{value:.{metric['decimals']}f}"


def amount(entry: Json, metric: Json, value: float) -> str:
    """A change without its interval: ``+0.049``, or for a ratio the factor. What would round to no change keeps one digit."""
    if entry["scale"] == "ratio":
        return f"{TIMES}{value:.3f}"
    text = f"{value:+.{metric['decimals']}f}"
    return text if value == 0 or float(text) != 0 else f"{value:+.0e}"


def interval(entry: Json, metric: Json) -> str:
    """``[+0.028, +0.072]``; nothing without one."""
    if not entry.get("ci"):
        return ""
    return f"[{', '.join(amount(entry, metric, value).removeprefix(TIMES) for value in entry['ci'])}]"


def change(entry: Json, metric: Json) -> str:
    """``+0.112 [+0.080, +0.141]``, or for a ratio factors."""
    if entry["change"] is None:
        return NONE
    return f"{amount(entry, metric, entry['change'])} {interval(entry, metric)}".rstrip()


def detectable(entry: Json, metric: Json) -> str:
    """The minimum detectable effect: ``0.031``, of a ratio ``9.0 %``; none where no row varies."""
    found = entry.get("mde")
    if found is None or found == (1 if entry["scale"] == "ratio" else 0):
        return NONE
    return f"{found - 1:.1%}".replace("%", " %") if entry["scale"] == "ratio" else f"{found:.{metric['decimals']}f}"


def status(entry: Json, metric: Json) -> str:
    """For a terminal: a regression is loud, and what could not be told says how large it would have had to be."""
    found = str(entry["status"])
    if found == "regressed":
        return found.upper()
    if found == "inconclusive" and detectable(entry, metric) != NONE:
        return f"{found} (MDE {detectable(entry, metric)})"
    return found


def oriented(entry: Json, metric: Json) -> tuple[float, float, float] | None:
    """Change and interval so that more is better, a ratio as its logarithm; None where there is none."""
    if entry["change"] is None or not entry.get("ci"):
        return None
    sign = -1.0 if metric["higher_is_better"] is False else 1.0
    is_ratio = entry["scale"] == "ratio"
    values = [math.log(value) if is_ratio else value for value in (entry["change"], *entry["ci"])]
    change, low, high = (sign * value for value in values)
    return change, min(low, high), max(low, high)


def size(count: float | None) -> str:
    if count is None:
        return NONE
    for unit, scale in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= scale:
            return f"{count / scale:.{1 if count < 100 * scale else 0}f} {unit}"
    return f"{count:.0f} B"


def duration(seconds: float | None) -> str:
    if seconds is None:
        return NONE
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{seconds:.1f} s"


def share(value: float | None) -> str:
    return NONE if value is None else f"{value:.2%}" if value < 0.1 else f"{value:.0%}"


COSTS: dict[str, tuple[Callable[[Json], float | None], Callable[[float | None], str]]] = {
    "Trained": (lambda artifact: artifact["facts"].get("trainable_share"), share),
    "Training time": (lambda artifact: artifact["facts"].get("perf/seconds"), duration),
    "Peak memory": (lambda artifact: artifact["facts"].get("perf/peak_memory_bytes"), size),
    "On disk": (lambda artifact: artifact["bytes"], size),
}
"""What making a model took: share of the weights trained, training time, the worker's peak memory, its folder's size."""


def comparison(result: Json, model: str, metric: str, against: str | None = None) -> Json | None:
    """The comparison of ``model`` with the baseline (or ``against``), if there is one."""
    wanted = (model, against or result["baseline"], metric)
    return next(
        (item for item in result["comparisons"] if (item["model"], item["against"], item["metric"]) == wanted), None
    )


def compared_models(result: Json) -> list[str]:
    """Every model but the baseline."""
    return [label for label in result["models"] if label != result["baseline"]]


def measured(result: Json, names: Iterable[str]) -> list[str]:
    """Those of ``names`` that any model has."""
    return [name for name in names if any(name in own for own in result["models"].values())]


def headline(result: Json) -> list[str]:
    """What is shown first: `HEADLINE`, a user's own metrics, and whatever a rule of the gate names.

    Bits per byte stand in for perplexity and are left out where every perplexity could be compared.
    """
    ruled = {one.get("metric") for one in (result["gate"] or {}).get("results", ())}
    undecided = {one["metric"] for one in result["comparisons"] if one["status"] == "not evaluable"}
    hidden = {bits for ratio, bits in BITS.items() if ratio in result["metrics"] and ratio not in undecided}
    order = [*HEADLINE, *(name for name in result["metrics"] if name.startswith(OWN) or name in ruled)]
    return [name for name in measured(result, dict.fromkeys(order)) if name not in hidden - ruled]


def shown_names(result: Json) -> list[str]:
    """What a terminal shows: the headline, the health of the answers, and everything that regressed."""
    regressed = [one["metric"] for one in result["comparisons"] if one["status"] == "regressed"]
    return measured(result, dict.fromkeys([*headline(result), *HEALTH, *regressed]))


def cell(result: Json, model: str, name: str) -> str:
    """A value, with its standard error for rewards, and marked with what its comparison found."""
    found = result["models"][model].get(name)
    if found is None:
        return NONE
    metric = result["metrics"][name]
    text = number(metric, found["value"])
    if metric["family"] == "reward" and found["se"] is not None:
        text += f" ± {number(metric, found['se'])}"
    against = comparison(result, model, name)
    return f"{text} {MARKS[against['status']]}" if against else text


def short_table(result: Json) -> list[list[str]]:
    """The result in one table, the header first, a row for each metric.

    Of one compared model it has the change with its interval and the status in words; of several, each one's value with a mark.
    """
    baseline, others = result["baseline"], compared_models(result)
    rows = [_compared_row(result, name, others[0]) for name in shown_names(result)] if len(others) == 1 else []
    if len(others) == 1:
        header = ["", baseline, others[0], "change", "status"]
    else:
        header = ["", baseline, *others]
        rows = [[name, *(cell(result, label, name) for label in header[1:])] for name in shown_names(result)]
    for title, (cost, text) in COSTS.items():
        values = [text(cost(result["artifacts"][label])) for label in (baseline, *others)]
        if set(values) != {NONE}:
            rows.append([title.lower(), *values, *[""] * (len(header) - 1 - len(values))])
    return [header, *rows]


def _compared_row(result: Json, name: str, model: str) -> list[str]:
    metric, entry = result["metrics"][name], comparison(result, model, name)
    values = [
        number(metric, own[name]["value"]) if (own := result["models"][label]) and name in own else NONE
        for label in (result["baseline"], model)
    ]
    return [name, *values, *((change(entry, metric), status(entry, metric)) if entry else ("", ""))]


def marks(result: Json) -> str:
    """What the marks of this result mean."""
    seen = {one["status"] for one in result["comparisons"]}
    return ", ".join(f"{MARKS[name]} {name}" for name in STATUSES if name in seen)


def legend(result: Json) -> str:
    """How much was measured, and what the table's columns and marks mean."""
    rows, others = result["rows"], compared_models(result)
    words = [f"{rows['scored']} rows scored, {rows['answered']} answered"]
    if rows["left_out"]:
        words[0] += f", {rows['left_out']} left out"
    confidence = f"{result['settings']['confidence']:.0%} interval"
    if len(others) == 1:
        words.append(f"change of {others[0]} against {result['baseline']} with its {confidence}")
    elif others:
        words.append(f"against {result['baseline']}: {marks(result)}")
    if any(one["status"] == "inconclusive" and one.get("mde") is not None for one in result["comparisons"]):
        words.append("MDE: the smallest change found 4 times in 5")
    more = len(measured(result, result["metrics"])) - len(shown_names(result))
    if more:
        words.append(f"{more} more {'metric' if more == 1 else 'metrics'} in report.html")
    return "; ".join(words)


def counts(result: Json, model: str) -> dict[str, list[str]]:
    """Metrics of ``model`` against the baseline by status, in the order of `STATUSES`."""
    found: dict[str, list[str]] = {name: [] for name in STATUSES}
    for name in result["metrics"]:
        entry = comparison(result, model, name)
        if entry:
            found[entry["status"]].append(name)
    return {name: names for name, names in found.items() if names}


def markdown(table: Sequence[Sequence[str]], note: str) -> str:
    """``table`` in Markdown with ``note`` under it. Bars in a label would end a cell."""
    lines = ["| " + " | ".join(item.replace("|", "\\|") for item in row) + " |" for row in table]
    rule = "| " + " | ".join(["---"] + ["---:"] * (len(table[0]) - 1)) + " |"
    return "\n".join([lines[0], rule, *lines[1:], "", note, ""])
