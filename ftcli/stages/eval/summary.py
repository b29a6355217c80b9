"""The report in a few lines for a terminal: the short table, what its marks mean, and the first answers side by side."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ftcli.core.text import aligned

WIDTH = 110


def summary_text(
    table: Sequence[Sequence[str]], note: str, samples: Sequence[Mapping[str, Any]], shown: int = 2
) -> str:
    """``samples`` are records of samples.jsonl; the first ``shown`` that were answered are printed."""
    answered = [record for record in samples if any("greedy" in one for one in record["models"].values())]
    lines = [*aligned(table), "", *textwrap.wrap(note, WIDTH)]
    for record in answered[:shown]:
        lines += ["", *_sample(record)]
    return "\n".join(lines) + "\n"


def _sample(record: Mapping[str, Any]) -> Iterator[str]:
    answers = {label: found["greedy"]["text"] for label, found in record["models"].items() if "greedy" in found}
    width = max(len(name) for name in ("reference", *answers))
    yield from _wrapped("", record["prompt"][-1]["content"], 0)
    yield from _wrapped("reference", record["reference"], width)
    for label, text in answers.items():
        yield from _wrapped(label, text, width)


def _wrapped(name: str, text: str, width: int) -> list[str]:
    first = f"  {name.ljust(width)}  " if width else ""
    whole = textwrap.shorten(text, 3 * WIDTH, placeholder=" ...") or "(empty)"
    return textwrap.wrap(whole, WIDTH, initial_indent=first, subsequent_indent=" " * len(first))
