"""What a reward function is told of a row: columns by name, as TRL passes those of its data sets."""

from __future__ import annotations

from typing import Any

from ftcli.data.rows import Row, prompt_of, reference_of

_NOT_PASSED = ("meta", "prompts", "completion", "completions", "completion_ids")
"""Beside meta, whose keys are columns themselves, the names under which a function gets the model's own answers."""


def reward_columns(row: Row) -> dict[str, Any]:
    """``prompt`` (messages), all columns of ``row``, those that prep kept in ``meta``, and ``reference``: the reference answer's
    text, None where there is none. A ``reference`` in ``meta`` goes before ours."""
    columns = {"reference": reference_of(row), **(row.get("meta") or {}), **row, "prompt": prompt_of(row)}
    return {name: value for name, value in columns.items() if name not in _NOT_PASSED}
