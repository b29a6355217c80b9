"""The report in at most 25 lines of plain text: what the command prints when prep has ended."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

from ftcli.stages.prep.report.lights import compared_rows, is_balanced
from ftcli.stages.prep.report.text import SEPARATOR, count, decimals, one_line, share, tally

Stats = Mapping[str, Any]

WIDTH = 110
NAME, NUMBER = 18, 11
GATES, NOTES = 4, 2
"""How many are printed, so that there are never more than 25 lines."""
MARKS = {"green": "●", "amber": "◐", "red": "○"}


def summary_text(stats: Stats) -> str:
    """Lines of ``name  number  what else``, none of them wider than `WIDTH`. What was not looked for has no line."""
    lines = [
        *_line("read", stats["rows_in"], ", ".join(item["ref"] for item in stats["sources"]), lines=2),
        *_line("rejected", sum(stats["rejected"].values()), tally(stats["rejected"]), "rejects.jsonl", lines=2),
        *_line("changed", None, tally(stats["changed"])),
        *_line("flagged", None, tally(stats["flags"]), "flags.jsonl"),
        *_duplicates(stats),
        *_contamination(stats),
        *_conflicts(stats),
        *_personal_data(stats),
        *_lengths(stats),
        *_splits(stats),
        *_ledger(stats),
        *_representativeness(stats),
        *_gates(stats),
        *(line for note in stats["notes"][:NOTES] for line in _line("note", None, note)),
    ]
    return "\n".join(lines) + "\n"


def _line(name: str, number: int | None, text: str, file: str = "", lines: int = 1) -> list[str]:
    """One entry, cut to ``lines``, with the file that tells more at its end; nothing where there is nothing to say."""
    if not number and not text:
        return []
    head = "  " + name.ljust(NAME) + (" " * NUMBER if number is None else f"{count(number):>{NUMBER}}") + "  "
    tail = f"  → {file}" if file else ""
    plain = one_line(text, 4 * WIDTH)
    folded = textwrap.wrap(plain, WIDTH - len(head) - len(tail), max_lines=lines, placeholder=" …") or [""]
    folded[-1] += tail
    return [((head if index == 0 else " " * len(head)) + part).rstrip() for index, part in enumerate(folded)]


def _duplicates(stats: Stats) -> list[str]:
    found = stats.get("duplicates")
    if not found:
        return []
    if not compared_rows(stats):
        return _line("exact duplicates", found["exact"], "near ones not looked for")
    near = f"near {count(found['near_removed'])} (≥ {decimals(found['threshold'])})"
    flagged = f"flagged {count(found['near_flagged'])} (≥ {decimals(found['flag_threshold'])})"
    return _line("exact duplicates", found["exact"], near + SEPARATOR + flagged, "duplicates.jsonl")


def _contamination(stats: Stats) -> list[str]:
    found = stats.get("contamination") or []
    text = SEPARATOR.join(f"{item['label']} {count(item['dropped'] + item['flagged'])}" for item in found)
    return _line("contamination", sum(item["dropped"] + item["flagged"] for item in found), text)


def _conflicts(stats: Stats) -> list[str]:
    found = stats.get("conflicts")
    if not found or not found["prompts"]:
        return []
    kinds = tally({name: found[name] for name in ("hard", "labels", "cycles", "soft")})
    dropped = f", {count(found['rows_dropped'])} rows dropped" if found["rows_dropped"] else ""
    return _line("conflicts", found["prompts"], f"prompts ({kinds}){dropped}", "conflicts.jsonl")


def _personal_data(stats: Stats) -> list[str]:
    found = stats.get("pii")
    if not found:
        return []
    return _line("personal data", None, tally(found["counts"]))


def _lengths(stats: Stats) -> list[str]:
    lengths = stats["lengths"]
    total, limit = lengths["total"], lengths["max_length"]
    text = f"mean {count(total['mean'])} · 95 % up to {count(total['p95'])} · longest {count(total['max'])} {lengths['unit']}"
    if lengths["too_long"]:
        text += f" · {count(lengths['too_long']['rows'])} over {count(limit)} ({lengths['too_long']['policy']})"
    return _line(lengths["unit"], total["sum"], text)


def _splits(stats: Stats) -> list[str]:
    sizes = " / ".join(count(part["rows"]) for part in stats["splits"].values())
    text = f"{sizes}  ({' / '.join(stats['splits'])})"
    leakage = stats.get("leakage")
    if leakage:
        pairs = f"{count(leakage['exact_pairs'])} equal, {count(leakage['near_pairs'])} alike (≥ {decimals(leakage['threshold'])})"
        return [
            *_line("splits", None, text),
            *_line("across splits", None, f"{pairs} · {count(leakage['groups'])} groups"),
        ]
    return _line("splits", None, text)


def _ledger(stats: Stats) -> list[str]:
    refused = sum(stats["rejected"].values())
    sign, mark = ("=", "✓") if is_balanced(stats) else ("≠", "✗ rows are unaccounted for")
    return _line("ledger", stats["rows_in"], f"{sign} {count(stats['rows_out'])} + {count(refused)} {mark}")


def _representativeness(stats: Stats) -> list[str]:
    found = stats.get("representativeness")
    if not found:
        return []
    classifier, coverage = found["classifier"], found["coverage"]
    if classifier["auc"] is None:
        return _line("representativeness", None, classifier["reason"])
    mark = MARKS.get(classifier["light"], "")
    covered = f" · coverage {share(coverage['share'])}" if coverage["share"] is not None else ""
    return _line("representativeness", None, f"AUC {decimals(classifier['auc'])} {mark}{covered}")


def _gates(stats: Stats) -> list[str]:
    gates = stats["gates"]
    failed = [gate for gate in gates if not gate["passed"]]
    if not failed:
        return _line("gates", None, f"{len(gates)} of {len(gates)} passed ✓" if gates else "")
    lines = [
        line
        for gate in failed[:GATES]
        for line in _line(
            "gate failed", None, f"{gate['name']} {_figure(gate['value'])}, limit {_figure(gate['limit'])} ✗"
        )
    ]
    return lines + _line("gates failed", None, f"{len(failed) - GATES} more" if len(failed) > GATES else "")


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:g}"
