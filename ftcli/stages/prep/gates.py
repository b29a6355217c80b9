"""Limits that the user set on what prep measured."""

from __future__ import annotations

from typing import Any

from ftcli.stages.prep.config import PrepConfig


def check_gates(stats: dict[str, Any], config: PrepConfig) -> list[dict[str, Any]]:
    """Each gate with its value, its limit and whether it passed. A value that could not be measured does not pass."""
    rows_in = stats["rows_in"]
    near = stats["duplicates"]["near_removed"] + stats["duplicates"]["near_flagged"]
    prompts = stats["conflicts"]["all_prompts"]
    auc = stats["representativeness"]["classifier"]["auc"] if stats["representativeness"] else None
    values = {
        "min_rows": stats["rows_out"],
        "max_near_duplicate_rate": round(near / rows_in, 6),
        "max_conflict_rate": round(stats["conflicts"]["prompts"] / prompts, 6) if prompts else None,
        "max_auc": auc,
    }
    gates = []
    for name, value in values.items():
        limit = getattr(config, name)
        if limit is None or (name == "min_rows" and limit == 1):
            continue
        passed = value is not None and (value >= limit if name == "min_rows" else value <= limit)
        gates.append({"name": name, "value": value, "limit": limit, "passed": passed})
    return gates
