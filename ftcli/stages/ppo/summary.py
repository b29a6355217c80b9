"""A ppo run in words: the verdict, the table of what changed, and the short form for a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ftcli.core.text import aligned
from ftcli.metrics.pages import visible

Json = Mapping[str, Any]
WIDTH = 110
SUMMARY_SAMPLES = 2
SUFFIX = "_change"
PARTS = ("before", "after", "change", "change_se", "change_z", "change_low", "change_high", "change_p", "n", "gap")
KINDS = {"score": "optimised", "source": "part of the score", "eval": "not optimised"}


def verdict(changes: Json, name: str = "eval/score") -> str:
    """``rose`` or ``fell`` where the 95 % interval of the paired change is on one side of 0, else ``within noise``."""
    low, high = changes.get(f"{name}_change_low"), changes.get(f"{name}_change_high")
    if low is None or high is None:
        return "within noise"
    return "rose" if low > 0 else "fell" if high < 0 else "within noise"


def rows_of_changes(changes: Json) -> list[dict[str, Any]]:
    """One row for each reward of the held-out answers: the ``score`` that is optimised, each ``source`` of it if there are
    several, and each ``eval`` that is not optimised."""
    rows = []
    for name in [key.removesuffix(SUFFIX) for key in changes if key.endswith(SUFFIX)]:
        group, _, label = name.partition("/")
        kind = {"eval_source": "source", "eval_reward": "eval"}.get(group, "score")
        own = {part: changes.get(f"{name}_{part}") for part in PARTS}
        title = "Score" if kind == "score" else label
        rows.append({"title": title, "kind": kind, "verdict": verdict(changes, name), **own})
    return rows


def number(value: float | None, places: int = 3) -> str:
    return "-" if value is None else f"{value:.{places}f}"


def signed(value: float | None, places: int = 3) -> str:
    return "-" if value is None else f"{value:+.{places}f}"


def p_value(value: float | None) -> str:
    return "-" if value is None else f"{value:.2g}"


def duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{seconds:.1f} s"


def sentence(changes: Json) -> str:
    """The verdict in one line."""
    before, after = number(changes["eval/score_before"]), number(changes["eval/score_after"])
    told = {
        "rose": f"The score rose from {before} to {after}",
        "fell": f"The score fell from {before} to {after}",
        "within noise": f"The score did not change beyond chance ({before} to {after})",
    }[verdict(changes)]
    return f"{told}, at a KL of {number(changes['eval/kl'], 2)} nats an answer"


def summary_text(figures: Json, samples: Sequence[Json]) -> str:
    """``figures`` are those of figures.json, ``samples`` the records of samples.jsonl."""
    changes = figures["changes"]
    table = [["on held-out prompts", "before", "after", "change", "95 % interval", "z"]]
    for row in rows_of_changes(changes):
        interval = f"{number(row['change_low'])} to {number(row['change_high'])}"
        title = row["title"] if row["kind"] == "score" else f"{row['title']} ({KINDS[row['kind']]})"
        values = [number(row[name]) for name in ("before", "after", "change")]
        table.append([visible(title), *values, interval, number(row["change_z"], 1)])
    for title, name in (("tokens an answer", "eval/length"), ("ended by itself", "eval/eos_rate")):
        table.append([title, number(changes[f"{name}_before"], 2), number(changes[f"{name}_after"], 2), "", "", ""])
    lines = [sentence(changes), "", *aligned(table), ""]
    for alarm in figures["alarms"]:
        lines += textwrap.wrap(
            f"alarm after rollout {alarm['rollout']}: {alarm['text']}", WIDTH, subsequent_indent="  "
        )
        lines += textwrap.wrap(f"hint: {alarm['hint']}", WIDTH, initial_indent="  ", subsequent_indent="  ")
    if not figures["alarms"]:
        lines.append("no alarms")
    return "\n".join([*lines, *_answers(samples)]) + "\n"


def _answers(samples: Sequence[Json]) -> Iterator[str]:
    """The first prompts with their sampled answers at the start and at the end."""
    rollouts = sorted({record["rollout"] for record in samples})
    shown = [record for record in samples if record["decoding"] == "sampled"]
    for first in [record for record in shown if record["rollout"] == rollouts[0]][:SUMMARY_SAMPLES]:
        last = next((one for one in shown if one["id"] == first["id"] and one["rollout"] == rollouts[-1]), None)
        yield ""
        yield from _wrapped("", first["prompt"][-1]["content"])
        for name, record in (("start", first), ("end", last)):
            if record is not None:
                yield from _wrapped(f"{name} {number(record['score'], 2)}", record["text"])


def _wrapped(name: str, text: str) -> list[str]:
    first = f"  {name.ljust(12)} " if name else ""
    whole = textwrap.shorten(visible(text), 3 * WIDTH, placeholder=" ...") or "(empty)"
    return textwrap.wrap(whole, WIDTH, initial_indent=first, subsequent_indent=" " * len(first))
