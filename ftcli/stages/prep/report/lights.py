"""The traffic lights at the head of the report: what a person must know before training on these rows.

A light says its value and by which limits it was judged. Where something was not measured it is grey and says why.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ftcli.data.records import MALFORMED
from ftcli.stages.prep.report.text import count, counted, decimals, share

Stats = Mapping[str, Any]
Level = Literal["good", "look", "bad", "none"]

WORDS: dict[Level, str] = {"good": "good", "look": "worth a look", "bad": "act on it", "none": "not measured"}
MARKS: dict[Level, str] = {"good": "✓", "look": "!", "bad": "✕", "none": "?"}
COLOURS: dict[str | None, Level] = {"green": "good", "amber": "look", "red": "bad", None: "none"}
"""The lights of `ftcli.data.representativeness` in this report's words."""

MALFORMED_LIMITS = (0.0, 0.05)
CONTRADICTION_LIMITS = (0.0, 0.01)
LENGTH_LIMITS = (0.0, 0.05)
LEAK_LIMITS = (0.0, 0.01)
DUPLICATE_LIMITS = (0.10, 0.50)
CLUSTER_LIMIT, CLUSTER_ROWS = 0.05, 20
"""A cluster of so many near-duplicates, with a larger share of all rows, is more often a template taken for content."""


@dataclass(frozen=True)
class Light:
    name: str
    level: Level
    value: str
    rule: str
    section: str
    """Where on the page the details are."""


def lights(stats: Stats) -> list[Light]:
    """All lights, in the order of the work."""
    return [
        ledger(stats),
        malformed(stats),
        leakage(stats),
        near_duplicates(stats),
        conflicts(stats),
        personal_data(stats),
        over_length(stats),
        representativeness(stats),
    ]


def judge(value: float, limits: tuple[float, float]) -> Level:
    """Good up to the first limit, worth a look up to the second."""
    return "good" if value <= limits[0] else "look" if value <= limits[1] else "bad"


def of(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def is_balanced(stats: Stats) -> bool:
    """Whether every row that came in went out or was refused, over all and in each step."""
    steps = [*stats["ledger"], stats]
    return all(step["rows_in"] == step["rows_out"] + sum(step["rejected"].values()) for step in steps)


def ledger(stats: Stats) -> Light:
    refused = sum(stats["rejected"].values())
    balanced = is_balanced(stats)
    value = f"{count(stats['rows_in'])} {'=' if balanced else '≠'} {count(stats['rows_out'])} + {count(refused)}"
    return Light(
        "Ledger", "good" if balanced else "bad", value, "rows in = rows out + rejected, in every step", "ledger"
    )


def malformed(stats: Stats) -> Light:
    rows = sum(number for reason, number in stats["rejected"].items() if reason in MALFORMED)
    rate = of(rows, stats["rows_in"])
    value = f"{counted(rows, 'row')}, {share(rate)}"
    return Light(
        "Malformed rows", judge(rate, MALFORMED_LIMITS), value, "good at none, to look at up to 5 %", "rejected"
    )


def leakage(stats: Stats) -> Light:
    name, found = "Leakage", stats.get("leakage")
    rule = "good with no pair across splits, to look at while near pairs are up to 1 % of held-out rows"
    if not found or not found["held_out_rows"]:
        return Light(name, "none", "no held-out rows", rule, "splits")
    exact, near = found["exact_pairs"], found["near_pairs"]
    level = "bad" if exact else judge(of(near, found["held_out_rows"]), LEAK_LIMITS)
    value = f"{count(exact)} exact, {count(near)} near (≥ {decimals(found['threshold'])}) pairs across splits"
    return Light(name, level, value, rule, "splits")


def near_duplicates(stats: Stats) -> Light:
    name, found = "Duplicates", stats.get("duplicates")
    rule = "share of rows removed: good up to 10 %, to look at up to 50 %; no cluster over 5 % of all rows"
    if not found:
        return Light(name, "none", "not looked for", rule, "duplicates")
    removed = found["exact"] + found["near_removed"]
    level = judge(of(removed, stats["rows_in"]), DUPLICATE_LIMITS)
    if found["largest_cluster_share"] > CLUSTER_LIMIT and found["largest_cluster"] >= CLUSTER_ROWS:
        level = "bad"
    near = f"{count(found['near_removed'])} near removed, {count(found['near_flagged'])} flagged"
    value = f"{count(found['exact'])} exact removed, {near if compared_rows(stats) else 'near ones not looked for'}"
    return Light(name, level, value, rule, "duplicates")


def compared_rows(stats: Stats) -> bool:
    """Whether near-duplicates were looked for."""
    found = stats.get("duplicates")
    return bool(found) and found.get("policy") != "off"


def conflicts(stats: Stats) -> Light:
    name, found = "Conflicts", stats.get("conflicts")
    rule = "contradictions left: good at none, to look at up to 1 % of the rows"
    if not found:
        return Light(name, "none", "not looked for", rule, "conflicts")
    contradictions = found["hard"] + found["cycles"] + found["labels"]
    value = f"{counted(contradictions, 'contradiction')}, {count(found['soft'])} soft"
    if found["policy"] != "report":
        dropped = counted(found["rows_dropped"], "row")
        return Light(name, "good", f"{value}; {dropped} dropped ({found['policy']})", rule, "conflicts")
    level = judge(of(contradictions, stats["rows_out"]), CONTRADICTION_LIMITS)
    return Light(name, level, value, rule, "conflicts")


def personal_data(stats: Stats) -> Light:
    name, found = "Personal data", stats.get("pii")
    rule = "good if none is left, to look at if flagged rows are, to act on if secrets are"
    if not found or found["policy"] == found["secrets_policy"] == "off":
        return Light(name, "none", "not looked for", rule, "pii")
    secrets = sum(rows for kind, rows in found["counts"].items() if kind.startswith("secret"))
    personal = sum(found["counts"].values()) - secrets
    level: Level = "look" if personal and found["policy"] == "flag" else "good"
    if secrets and found["secrets_policy"] == "flag":
        level = "bad"
    value = f"personal data {count(personal)} ({found['policy']}), secrets {count(secrets)} ({found['secrets_policy']})"
    return Light(name, level, value, rule, "pii")


def over_length(stats: Stats) -> Light:
    name, lengths = "Over-length", stats["lengths"]
    rule = "rows over max_length: good at none, to look at up to 5 %"
    found = lengths["too_long"]
    if lengths["max_length"] is None or not found:
        return Light(name, "none", "no max_length set", rule, "lengths")
    value = f"{counted(found['rows'], 'row')} over {count(lengths['max_length'])} {lengths['unit']} ({found['policy']})"
    return Light(name, judge(of(found["rows"], stats["rows_in"]), LENGTH_LIMITS), value, rule, "lengths")


def representativeness(stats: Stats) -> Light:
    name, found = "Representativeness", stats.get("representativeness")
    rule = "how well a classifier tells the prompts from the reference's: AUC good up to 0.55, to look at up to 0.65"
    if not found:
        return Light(name, "none", "no reference given", rule, "representativeness")
    classifier = found["classifier"]
    if classifier["auc"] is None:
        return Light(name, "none", classifier["reason"], rule, "representativeness")
    value = f"AUC {decimals(classifier['auc'])}"
    if classifier["light"] is None:
        value += ", too few rows to judge by"
    return Light(name, COLOURS[classifier["light"]], value, rule, "representativeness")
