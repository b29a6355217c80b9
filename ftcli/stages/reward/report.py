"""The report on a reward model: report.html (one file, no script, no network, light and dark), summary.txt, card.json with every
figure, and pairs.jsonl with every held-out pair that people decided.

All text of rows is escaped by the template engine and its control and direction characters are shown as what they are; a content
security policy forbids scripts and loading of anything, in case something slips through.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ftcli import __version__
from ftcli.core.artifacts import write_json
from ftcli.core.stage import Artifact
from ftcli.data.rows import write_jsonl
from ftcli.metrics import plots
from ftcli.metrics.pages import page_style, visible
from ftcli.metrics.plots import Point
from ftcli.rl.judged import Judged
from ftcli.rl.preferences import Comparison
from ftcli.rl.reward_card import reward_gate

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Json = Mapping[str, Any]
NONE = "-"
WORST, ANSWER_CHARACTERS, PROMPT_CHARACTERS, LABEL_CHARACTERS = 10, 1500, 500, 28
"""How many of the pairs that are most wrong are shown, and how much of each answer, of each message of the prompt, and of the name
of a source."""
RULES = {"longer": "Prefer the longer", "shorter": "Prefer the shorter", "random": "Toss a coin"}
BIAS = {"shorter_won": "The shorter one won", "longer_won": "The longer one won", "alike": "Of like length"}


@dataclass(frozen=True)
class Shown:
    """A pair with its texts: the prompt's messages, what people chose and what they rejected."""

    row: str
    prompt: Sequence[Json]
    chosen: str
    rejected: str
    figures: Json


def write_report(
    folder: Path,
    card: Json,
    comparisons: Sequence[Comparison],
    judged: Sequence[Judged],
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    """Fill ``folder``. ``card`` is reward_stats.json with ``stability`` and ``about`` (`provenance`)."""
    pairs = list(pair_rows(comparisons, judged))
    write_json(folder / "card.json", card)
    write_jsonl(folder / "pairs.jsonl", pairs)
    worst = sorted((row for row in pairs if row["margin"] < 0), key=lambda row: row["margin"])[:WORST]
    shown = [_with_texts(row, comparisons[row["prompt"]], tokenizer) for row in worst]
    (folder / "summary.txt").write_text(summary_text(card), encoding="utf-8")
    (folder / "report.html").write_text(render_report(card, shown), encoding="utf-8")


def pair_rows(comparisons: Sequence[Comparison], judged: Sequence[Judged]) -> Iterator[dict[str, Any]]:
    """One record a decided pair; ``prompt`` numbers the prompts, ``answers`` are the two answers' places among its answers."""
    for number, (comparison, one) in enumerate(zip(comparisons, judged, strict=True)):
        for winner, loser in one.pairs:
            yield {
                "prompt": number,
                "row": str(comparison.exchanges[0].row.get("id", "")),
                "source": one.source,
                "answers": [winner, loser],
                "margin": one.scores[winner] - one.scores[loser],
                "chosen_score": one.scores[winner],
                "rejected_score": one.scores[loser],
                "chosen_tokens": one.lengths[winner],
                "rejected_tokens": one.lengths[loser],
            }


def _with_texts(row: Json, comparison: Comparison, tokenizer: PreTrainedTokenizerBase) -> Shown:
    chosen, rejected = (
        cut(str(tokenizer.decode(comparison.exchanges[index].response, skip_special_tokens=True)), ANSWER_CHARACTERS)
        for index in row["answers"]
    )
    messages = [
        {"role": message["role"], "content": cut(message["content"], PROMPT_CHARACTERS)}
        for message in comparison.exchanges[0].row["prompt"]
    ]
    return Shown(row["row"], messages, chosen, rejected, row)


def cut(text: str, limit: int) -> str:
    more = len(text) - limit
    return text if more <= 0 else f"{text[:limit]} … ({more} more characters)"


def provenance(model: Artifact, data: Artifact, settings: Json, facts: Json) -> Json:
    """What the report says of the making: inputs with their digests, settings that differ from the defaults, and ``facts``."""
    return {
        "model": {"ref": model.ref, "digest": model.digest},
        "base": {"ref": model.base.ref, "digest": model.base.digest} if model.base else None,
        "data": {"ref": data.ref, "digest": data.digest},
        "settings": dict(settings),
        "facts": dict(facts),
    }


def verdict(card: Json) -> tuple[bool, str]:
    """Whether PPO may use the reward model, and one sentence on why."""
    reason = reward_gate(card)
    if reason:
        return False, f"PPO must not use this reward model: {reason}."
    rule, best = best_rule(card)
    return True, (
        f"PPO may use it: it orders {share(card['accuracy'])} of {counted(card['pairs'], 'held-out pair')} as people did "
        f"(95 % interval {share(card['accuracy_low'])} to {share(card['accuracy_high'])}); preferring the {rule} answer "
        f"gives {share(best)}."
    )


def best_rule(card: Json) -> tuple[str, float]:
    """The better of the two rules of length, and its accuracy."""
    found = {rule: float(card["baselines"][rule]["accuracy"]) for rule in ("longer", "shorter")}
    return max(found.items(), key=lambda item: item[1])


def summary_text(card: Json) -> str:
    """The report in a few lines for a terminal."""
    rule, best = best_rule(card)
    fitted = card["calibration"]["temperature"]
    bias = card["length_bias"]
    lines = [
        (
            "accuracy",
            f"{card['accuracy']:.3f}  ({card['accuracy_low']:.3f} to {card['accuracy_high']:.3f}, {card['interval']})",
        ),
        ("on", f"{counted(card['pairs'], 'pair')} of {counted(card['prompts'], 'prompt')}, split {card['split']}"),
        ("length alone", f"{best:.3f}  (prefer the {rule} answer)"),
        ("log-loss", f"{card['log_loss']:.3f}  (a coin {0.693:.3f}; temperature {number(fitted['value'])})"),
        ("calibration", f"{card['calibration']['ece']:.3f} expected error"),
        (
            "length bias",
            f"Spearman {number(bias['spearman'])} within prompts; prefers the longer answer in "
            f"{share(bias['prefers_longer'])}, people in {share(bias['people_prefer_longer'])}",
        ),
        ("order flips", ", ".join(f"{name} {share(row['order_flips'])}" for name, row in stability_rows(card))),
    ]
    return "\n".join([verdict(card)[1], "", *(f"  {name.ljust(14)}{text}" for name, text in lines)]) + "\n"


def stability_rows(card: Json) -> list[tuple[str, Json]]:
    """What was compared, in words, with how far the two scorings are apart."""
    found = card["stability"]
    rows = [(f"batches of 1 and {found['batch']['answers']}", found["batch"])]
    if found["format"]:
        rows.append((f"{found['format']['own']} and {found['format']['other']}", found["format"]))
    return rows


def render_report(card: Json, worst: Sequence[Shown]) -> str:
    """The page, from card.json and the pairs that are most wrong."""
    environment = Environment(
        loader=PackageLoader("ftcli.stages.reward", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_printable,
    )
    environment.filters |= {"share": share, "number": number, "counted": counted}
    may_use, sentence = verdict(card)
    return environment.get_template("report.html").render(
        version=__version__,
        style=page_style(),
        card=card,
        may_use=may_use,
        sentence=sentence,
        best=best_rule(card)[1],
        charts=charts(card),
        bias_chart=bias_chart(card),
        source_chart=source_chart(card),
        stability=stability_rows(card),
        worst=worst,
    )


def _printable(value: Any) -> Any:
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def charts(card: Json) -> list[Json]:
    """Accuracy beside the rules that know nothing of the text, reliability, margins, and scores of both sides."""
    rules = sorted(RULES, key=lambda name: -card["baselines"][name]["accuracy"])
    points = [_point("Reward model", card, "accuracy_low", "accuracy_high")]
    points += [_point(RULES[rule], card["baselines"][rule], is_base=True) for rule in rules]
    bins = [(row["confidence"], row["accuracy"], row["pairs"]) for row in card["calibration"]["bins"] if row["pairs"]]
    histogram, scores = card["margins"]["histogram"], card["scores"]
    sides = {name: [count / sum(scores[name]) for count in scores[name]] for name in ("rejected", "chosen")}
    said = plots.reliability(
        bins, x_label="probability it gives the answer it prefers", y_label="how often that one won"
    )
    margins = plots.signed(
        histogram["edges"], histogram["pairs"], x_label="score of chosen - rejected", y_label="pairs"
    )
    return [
        _chart(
            "Accuracy on held-out pairs",
            "95 % intervals; of the coin, where 95 % of its luck falls",
            plots.dots(points),
        ),
        _chart("Reliability", "on the dashed line it is as sure as it is right; larger dots are more pairs", said),
        _chart("Margins", "red: the rejected answer scored higher", margins),
        _chart("Scores", "each answer once", plots.outlines(scores["edges"], sides, x_label="score")),
    ]


def bias_chart(card: Json) -> Json:
    """Accuracy by which of the two answers people preferred, of the groups that there are."""
    found = {name: card["length_bias"][name] for name in BIAS}
    points = [
        Point(BIAS[name], row["accuracy"], None, None, f"{share(row['accuracy'])} of {row['pairs']}")
        for name, row in found.items()
        if row["pairs"]
    ]
    points.insert(
        0, Point("All pairs", card["accuracy"], None, None, f"{share(card['accuracy'])} of {card['pairs']}", True)
    )
    return _chart(
        "Accuracy by length",
        "a model that goes by length is right in one group and wrong in the other",
        plots.dots(points),
    )


def source_chart(card: Json) -> Json | None:
    points = [_point(row["source"] or "no source", row) for row in card["by_source"]]
    return _chart("Accuracy by source", "95 % intervals", plots.dots(points)) if points else None


def _chart(title: str, note: str, svg: str) -> Json:
    return {"title": title, "note": note, "svg": Markup(svg)}


def _point(label: str, row: Json, low: str = "low", high: str = "high", *, is_base: bool = False) -> Point:
    note = f"{share(row['accuracy'])}" + (f" of {row['pairs']}" if "pairs" in row else "")
    return Point(_label(label), row["accuracy"], row[low], row[high], note, is_base)


def _label(text: str) -> str:
    """``text`` short enough to stand beside a plot; of a path, the end tells more."""
    shown = visible(text)
    return shown if len(shown) <= LABEL_CHARACTERS else f"…{shown[1 - LABEL_CHARACTERS :]}"


def share(value: float | None) -> str:
    return NONE if value is None else f"{value:.1%}"


def number(value: float | None, digits: int = 2) -> str:
    return NONE if value is None else f"{value:.{digits}f}"


def counted(count: int, name: str) -> str:
    return f"{count:,} {name}{'' if count == 1 else 's'}"
