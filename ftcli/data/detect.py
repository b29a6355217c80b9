"""Which format raw rows have.

A format's score is the share of the first rows that have its columns, with values of the right kind. The winner must have nearly
all rows and be alone on its tier (`ftcli.data.converters.Format`); otherwise the candidates are listed, with what to type next. A
wrong guess would train on the wrong column, so nothing is guessed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import get_args

from ftcli.core.errors import BadData
from ftcli.data.converters import FORMATS, FormatName, Value, columns_of
from ftcli.data.records import Reason, Record, Refused
from ftcli.data.rows import RowType
from ftcli.data.shapes import has_shape

SAMPLE_ROWS = 200
"""How many rows the format is detected from."""
ENOUGH = 0.95
"""The share of them that the format must fit."""
NAMES: tuple[FormatName, ...] = get_args(FormatName)


def scores(sample: Sequence[Record], columns: Mapping[str, str] | None = None) -> dict[FormatName, float]:
    """The score of every format that reads all of ``columns`` (a map given by the user), the best first."""
    mapped = set(columns or ())
    found: dict[FormatName, float] = {
        name: sum(FORMATS[name].fits(record.value) for record in sample) / len(sample)
        for name in NAMES
        if mapped <= set(FORMATS[name].columns)
    }
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def detect(sample: Sequence[Record], columns: Mapping[str, str] | None = None) -> FormatName:
    """The format of ``sample``, which must not be empty. Raises `BadData` that lists the candidates with their scores."""
    sample = sample[:SAMPLE_ROWS]
    found = scores(sample, columns)
    best = _lowest_tier([name for name, score in found.items() if score >= ENOUGH])
    if len(best) == 1:
        return best[0]
    there = ", ".join(dict.fromkeys(name for record in sample for name in record.value)) or "none"
    listed = ", ".join(f"{name} {score:.1%}" for name, score in found.items() if score)
    if best:
        alike = ", ".join(best)
        raise BadData(
            f"the rows fit the formats {alike} alike; their columns are: {there}", f"say which: --format {best[0]}"
        )
    if listed:
        raise BadData(
            f"no format fits {ENOUGH:.0%} of the first {len(sample)} rows: {listed}; their columns are: {there}",
            f"--format {next(iter(found))} takes those that fit, --format mixed asks row by row; or name the columns: "
            f"--map '{_suggested_map(sample)}'",
        )
    raise BadData(
        f"no known format has these columns: {there}",
        f"say which column is what, e.g. --map '{_suggested_map(sample)}'; "
        + "; ".join(f"{name} needs {'+'.join(FORMATS[name].required[0])}" for name in NAMES),
    )


def _lowest_tier(names: list[FormatName]) -> list[FormatName]:
    tier = min((FORMATS[name].tier for name in names), default=0)
    return [name for name in names if FORMATS[name].tier == tier]


def _suggested_map(sample: Sequence[Record]) -> str:
    """A map to type next, with columns of text that are there."""
    texts = [name for name in sample[0].value if has_shape(sample[0].value, name)]
    if len(texts) == 1:
        return f"{{text: {texts[0]}}}"
    prompt, completion = texts[:2] if texts else ("COLUMN", "COLUMN")
    return f"{{prompt: {prompt}, completion: {completion}}}"


def detect_row(value: Value) -> FormatName:
    """The format of one row by itself. Raises `Refused` if none fits, or several do alike."""
    best = _lowest_tier([name for name in NAMES if FORMATS[name].fits(value)])
    if len(best) == 1:
        return best[0]
    detail = f"fits the formats {', '.join(best)} alike" if best else f"fits no format; the row has {columns_of(value)}"
    raise Refused(Reason.MISSING_FIELD, detail)


def detect_row_type(sample: Sequence[Record]) -> RowType:
    """The row type that most rows of ``sample`` have, each detected by itself.

    Raises `BadData` if none is recognised, or two types are equally frequent.
    """
    counts: Counter[RowType] = Counter()
    for record in sample[:SAMPLE_ROWS]:
        try:
            counts[FORMATS[detect_row(record.value)].row_type] += 1
        except Refused:
            continue
    if not counts:
        return FORMATS[detect(sample)].row_type  # which says what is wrong, if they do not even fit together
    (first, most), *others = counts.most_common()
    if others and others[0][1] == most:
        raise BadData(
            f"the first rows are {most} {first} and {most} {others[0][0]} rows; a data folder holds one type",
            "prepare them one by one",
        )
    return first
