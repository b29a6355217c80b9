"""What the page says first: the gate in words, where each model stands, and how small a change this run could have seen."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ftcli.stages.eval.tables import NONE, compared_models, comparison, counts, detectable, headline

Json = Mapping[str, Any]

BANNERS = {
    0: ("good", "Gate passed"),
    6: ("bad", "Gate failed"),
    7: ("look", "Gate could not be evaluated"),
}
LEVELS = {"failed": "bad", "not evaluable": "look", "inconclusive": "look", "passed": "good"}
ROUNDING = 1e-6
"""0.031 by 0.01 is not 3.1 to the last bit."""
MODES = {
    "proven": "A rule fails where a regression is proven.",
    "non-inferior": "A rule fails unless it is shown that nothing was lost beyond its margin.",
    "point": "A rule looks at the value alone, without its uncertainty.",
}


def banner(result: Json) -> dict[str, Any]:
    """``level``, ``title``, ``text`` and the gate's rules, those that stand out first."""
    gate = result["gate"]
    if gate is None:
        return {
            "level": "none",
            "title": "No gate was set",
            "text": "These are findings; no rule says what is good enough.",
            "rules": [],
            "open": [],
        }
    level, title = BANNERS[gate["exit_code"]]
    order = list(LEVELS)
    rules = [{**one, "level": LEVELS[one["status"]]} for one in gate["results"]]
    open_rules = sorted(
        (one for one in rules if one["status"] != "passed"),
        key=lambda one: (one["severity"] == "soft", order.index(one["status"])),
    )
    strict = " What is inconclusive counts as not evaluable." if gate["strict"] else ""
    note = f"{MODES[gate['mode']]} alpha {gate['alpha']:g}, Holm's correction over the rules.{strict}"
    return {"level": level, "title": title, "text": _told(rules), "note": note, "rules": rules, "open": open_rules}


def _told(rules: Sequence[Json]) -> str:
    """``2 of 5 checks failed, 1 not evaluable; 1 soft check did not pass``."""
    hard = [one["status"] for one in rules if one["severity"] == "hard"]
    soft = sum(one["severity"] == "soft" and one["status"] != "passed" for one in rules)
    found = [f"{count} {name}" for name in LEVELS if (count := hard.count(name))]
    words = [f"Of {len(hard)} {'check' if len(hard) == 1 else 'checks'}: {', '.join(found)}."] if hard else []
    words += [f"{soft} soft {'check' if soft == 1 else 'checks'} did not pass."] if soft else []
    return " ".join(words)


def standings(result: Json) -> list[dict[str, Any]]:
    """For each compared model its metrics by status, with their titles."""
    return [
        {
            "label": label,
            "statuses": [
                {"name": name, "titles": [result["metrics"][one]["title"] for one in names]}
                for name, names in counts(result, label).items()
            ],
        }
        for label in compared_models(result)
    ]


def power(result: Json) -> list[dict[str, Any]]:
    """For each headline metric, in words, how small a change against the baseline would have been found."""
    found = []
    for name in headline(result):
        entries = [one for label in compared_models(result) if (one := comparison(result, label, name))]
        told = [one for one in entries if one["status"] != "not evaluable"]  # an unfit judge detects nothing
        seen = [one for one in told if detectable(one, result["metrics"][name]) != NONE]
        if seen:
            found.append({"name": name, "title": result["metrics"][name]["title"], **_words(result, name, seen)})
    return found


def _words(result: Json, name: str, entries: Sequence[Json]) -> dict[str, Any]:
    metric = result["metrics"][name]
    sizes: dict[str, list[str]] = {}
    for one in entries:
        sizes.setdefault(detectable(one, metric), []).append(one["model"])
    many = len(sizes) > 1
    text = ", ".join(f"{size}" + (f" ({', '.join(labels)})" if many else "") for size, labels in sizes.items())
    worst = max(entries, key=lambda one: one["mde"])
    needed = rows_for_margin(worst)
    margin = worst["margin"]
    return {
        "n": worst["n"],
        "text": text,
        "margin": None if margin is None else detectable({**worst, "mde": margin}, metric),
        "needed": needed,
        "is_enough": needed is not None and needed <= worst["n"],
        "inconclusive": [one["model"] for one in entries if one["status"] == "inconclusive"],
    }


def rows_for_margin(entry: Json) -> int | None:
    """Rows with which a change as large as the margin would be found: the detectable effect falls with the root of the rows."""
    mde, margin = entry["mde"], entry["margin"]
    if entry["scale"] == "ratio":
        mde, margin = math.log(mde), None if margin is None else math.log(margin)
    return None if not margin else math.ceil(entry["n"] * (mde / margin) ** 2 - ROUNDING)
