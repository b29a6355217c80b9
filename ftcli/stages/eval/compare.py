"""Two earlier results of eval against each other, from the statistics that they keep (examples.json). No model is loaded."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ftcli.core.errors import UsageError
from ftcli.metrics.figures import Figures, read_figures
from ftcli.metrics.gates import judge_gate
from ftcli.metrics.rules import Rule
from ftcli.metrics.verdicts import Verdict
from ftcli.stages.eval.config import EvalConfig
from ftcli.stages.eval.results import Json, compared, described_models, drawing_of, listed
from ftcli.stages.eval.summary import WIDTH, blocks, undecided
from ftcli.stages.eval.tables import short_table

EARLIER = "A:{}"
LATER = "B:{}"


def compare_results(a: Path, b: Path, models: Sequence[str], config: EvalConfig) -> tuple[Json, Verdict | None]:
    """Compare each model of ``b`` with the one of ``a`` that ``models`` pair it with, by default that of the same label.

    The first value is the result as JSON, with ``pairs``, ``metrics``, ``models``, ``comparisons`` and ``gate``; ``A:label`` and
    ``B:label`` are the two sides. Rules of ``config`` are about the later models unless they name another. Raises `UsageError`
    for labels that are not there.
    """
    first, second = read_figures(a), read_figures(b)
    pairs = [(EARLIER.format(one), LATER.format(other)) for one, other in _paired(models, first, second, a, b)]
    figures = {
        **{EARLIER.format(label): own for label, own in first.items()},
        **{LATER.format(label): own for label, own in second.items()},
    }
    drawing = drawing_of(config)
    chosen = {label: figures[label] for pair in pairs for label in pair}
    found = compared(figures, [(later, earlier) for earlier, later in pairs], drawing)
    verdict = _gate(config, chosen, pairs)
    result: Json = {
        "a": str(a),
        "b": str(b),
        "pairs": [list(pair) for pair in pairs],
        "settings": {"confidence": config.confidence, "resamples": config.resamples, "seed": config.seed},
        **described_models(chosen, drawing),
        "comparisons": listed(found),
        "gate": None if verdict is None else verdict.to_json(),
    }
    return result, verdict


def comparison_text(result: Json) -> str:
    """A table for each pair, and what the gate says."""
    lines = [f"A  {result['a']}", f"B  {result['b']}"]
    for earlier, later in result["pairs"]:
        one = _as_evaluation(result, earlier, later)
        lines += ["", *blocks(short_table(one))]
        lines += undecided(one)
    note = (
        "Values are of all rows of a side, changes of the rows that both have, "
        f"with their {result['settings']['confidence']:.0%} interval. MDE: the smallest change found 4 times in 5. "
        "--json has every metric."
    )
    lines += ["", *textwrap.wrap(note, WIDTH)]
    if result["gate"]:
        told = [
            f"{one['status']}: {one['model']}: {one['text']}: {one['message']}" for one in result["gate"]["results"]
        ]
        lines += ["", *(line for text in told for line in textwrap.wrap(text, WIDTH, subsequent_indent="  "))]
        lines.append(result["gate"]["headline"])
    return "\n".join(lines)


def _paired(
    asked: Sequence[str], first: Mapping[str, Figures], second: Mapping[str, Figures], a: Path, b: Path
) -> list[tuple[str, str]]:
    pairs = [tuple(text.split("=", 1)) if "=" in text else (text, text) for text in asked]
    for own, others, path in ((0, first, a), (1, second, b)):
        unknown = [pair[own] for pair in pairs if pair[own] not in others]
        if unknown:
            raise UsageError(f"{path}: no model {', '.join(unknown)}", f"it has {', '.join(others)}")
    found = list(dict.fromkeys((pair[0], pair[1]) for pair in pairs)) or [
        (label, label) for label in first if label in second
    ]
    if not found:
        raise UsageError(
            f"no model stands in both: {', '.join(first)} and {', '.join(second)}", "pair them with --model A=B"
        )
    return found


def _gate(config: EvalConfig, figures: Mapping[str, Figures], pairs: Sequence[tuple[str, str]]) -> Verdict | None:
    """Each rule for each pair that it is about. Raises `UsageError` for rules that are about none."""
    rules = [*config.gate, *(Rule(expr=text) for text in config.fail_if)]
    if not rules:
        return None
    drawing = drawing_of(config)
    about = {
        rule: [pair for pair in pairs if rule.against in _names(pair[0]) and rule.model in _names(pair[1])]
        for rule in rules
    }
    if lost := [rule for rule, own in about.items() if not own]:
        told = [
            f"gate: {rule}{f' (model {rule.model})' if rule.model else ''}: no such pair is compared" for rule in lost
        ]
        those = ", ".join(f"{later} against {earlier}" for earlier, later in pairs)
        raise UsageError("\n".join(told), f"there is {those}; a rule without model and against is about each")
    spread = [
        rule.model_copy(update={"model": later, "against": "" if rule.is_absolute else earlier})
        for rule, own in about.items()
        for earlier, later in own
    ]
    return judge_gate(
        spread,
        figures,
        baseline="",
        mode=config.gate_mode,
        alpha=drawing.alpha,
        drawing=drawing,
        strict=config.strict,
    )


def _names(label: str) -> tuple[str, ...]:
    """What a rule may call one side of a pair: nothing, ``A:lora``, or ``lora``."""
    return "", label, label.partition(":")[2]


def _as_evaluation(result: Json, earlier: str, later: str) -> dict[str, Any]:
    """One pair in the shape of metrics.json, for its table."""
    models = {label: result["models"][label] for label in (earlier, later)}
    return {
        **result,
        "baseline": earlier,
        "models": models,
        "artifacts": {label: {"facts": {}, "bytes": None} for label in models},
        "comparisons": [one for one in result["comparisons"] if (one["against"], one["model"]) == (earlier, later)],
    }
