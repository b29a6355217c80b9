"""Figures: one metric of one model with the statistics behind it, and the file that keeps them (examples.json).

The file holds what a later comparison needs and no text: a run is compared with it without a model, and a copy kept in git is the
baseline of a gate. One line a figure, columns rather than rows, a column that does not vary as one number, rows that several
figures share written once::

    {"format": 1,
     "rows": [["id", ...], ...],
     "models": {label: {name: {"metric": {...}, "kind": "quotient", "signature": "...", "comparable": "...", "rows": 0,
                               "columns": [[0.31, 0.42, ...], 1]}}}}

Numbers are written so that they come back bit for bit; one that is not finite is null, and comes back as NaN.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ftcli.core.errors import BadData, UsageError
from ftcli.metrics.corpus import corpus_of
from ftcli.metrics.names import Metric
from ftcli.metrics.statistics import Array, Examples

FORMAT = 1


@dataclass(frozen=True)
class Figure:
    """One metric of one model, with what its spread is computed from.

    ``ids`` are the rows, in the order of ``examples``, each once. ``signature`` says how the metric was computed; ``comparable``
    what two sides must share beside that for a difference to mean anything (tokenizer, dtype, prefix), "" for nothing. Both are
    parts joined by ``|``. The examples of a ratio metric give its logarithm (log perplexity). ``unfit`` is why it may not decide a
    gate: a judge's that cannot judge.
    """

    name: str
    metric: Metric
    examples: Examples
    ids: tuple[str, ...]
    signature: str
    comparable: str = ""
    unfit: str = ""

    def __post_init__(self) -> None:
        if len(self.ids) != len(self.examples):
            raise ValueError(f"{self.name}: {len(self.ids)} ids for {len(self.examples)} examples")
        if len(set(self.ids)) != len(self.ids):
            raise ValueError(f"{self.name}: two examples with the same id")

    def value(self) -> float:
        """The metric as it is shown: a perplexity, not its logarithm."""
        return shown(self.metric, self.examples.value())

    def only(self, ids: Collection[str]) -> Figure:
        """The figure of the rows among ``ids``, in the order of ``ids`` if that is a sequence; rows it lacks are left out."""
        at = {row: index for index, row in enumerate(self.ids)}
        kept = [row for row in ids if row in at]
        chosen = np.asarray([at[row] for row in kept], dtype=np.intp)
        examples = Examples(self.examples.statistics[chosen], self.examples.corpus, self.examples.kind)
        return replace(self, examples=examples, ids=tuple(kept))


def shown(metric: Metric, value: float) -> float:
    """``value`` of the examples, or a difference of two, as people read it: ratio metrics are computed as logarithms."""
    with np.errstate(over="ignore"):
        return float(np.exp(value)) if metric.is_ratio else value


Figures = dict[str, Figure]
"""Of one model, by the metric's name."""


def write_figures(path: Path, models: Mapping[str, Figures]) -> None:
    """Write ``{label: Figures}`` to ``path``."""
    rows: dict[tuple[str, ...], int] = {}
    written = {
        label: {name: _to_json(figure, rows.setdefault(figure.ids, len(rows))) for name, figure in figures.items()}
        for label, figures in models.items()
    }
    lines = [f'{{"format": {FORMAT},', f'"rows": {_block("[", [_line(ids) for ids in rows], "]")},', '"models": {']
    lines.append(
        ",\n".join(
            f"{_line(label)}: " + _block("{", [f"{_line(name)}: {_line(one)}" for name, one in figures.items()], "}")
            for label, figures in written.items()
        )
    )
    path.write_text("\n".join([*lines, "}}", ""]), encoding="utf-8")


def read_figures(path: Path) -> dict[str, Figures]:
    """``{label: Figures}`` of a file that `write_figures` wrote. Raises `UsageError` for a file that is not there or of another
    format, `BadData` for one that is damaged; both name it."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}", "name an examples.json that an eval stage wrote") from None
    except ValueError as error:
        raise BadData(f"{path}: not JSON ({error})", "write it again with ftcli eval") from None
    if not isinstance(content, dict) or "format" not in content:
        raise UsageError(f"{path}: not a file of figures", "name an examples.json that an eval stage wrote")
    if content["format"] != FORMAT:
        raise UsageError(
            f"{path}: format {content['format']}, and this version of ftcli reads format {FORMAT}",
            "write it again with this version's ftcli eval",
        )
    where = str(path)
    try:
        found: dict[str, Figures] = {}
        for label, figures in content["models"].items():
            found[label] = {}
            for name, one in figures.items():
                where = f"{path}: {label}: {name}"
                found[label][name] = _from_json(name, one, content["rows"])
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise BadData(f"{where}: damaged ({error!r})", "write it again with ftcli eval") from None
    return found


def _to_json(figure: Figure, rows: int) -> dict[str, Any]:
    return {
        "metric": asdict(figure.metric),
        "kind": figure.examples.kind,
        "signature": figure.signature,
        "comparable": figure.comparable,
        "rows": rows,
        "columns": [_column(column) for column in figure.examples.statistics.T],
        **({"unfit": figure.unfit} if figure.unfit else {}),
    }


def _from_json(name: str, one: Mapping[str, Any], rows: list[list[str]]) -> Figure:
    ids = tuple(rows[one["rows"]])
    columns = [_values(column, len(ids)) for column in one["columns"]]
    kind, signature, comparable = (str(one[part]) for part in ("kind", "signature", "comparable"))
    examples = Examples(np.stack(columns, axis=1), corpus_of(kind), kind)
    examples.value()  # the wrong number of columns shows here
    return Figure(name, Metric(**one["metric"]), examples, ids, signature, comparable, str(one.get("unfit", "")))


def _column(values: Array) -> Any:
    """One number for a column that does not vary; whole numbers without a fraction."""
    numbers = [_number(float(value)) for value in values]
    return numbers[0] if len(set(numbers)) == 1 else numbers


def _values(column: Any, n: int) -> Array:
    numbers = column if isinstance(column, list) else [column] * n
    if len(numbers) != n:
        raise ValueError(f"{len(numbers)} numbers for {n} rows")
    return np.asarray([math.nan if number is None else number for number in numbers], dtype=np.float64)


def _number(value: float) -> float | int | None:
    if not math.isfinite(value):
        return None
    return int(value) if value.is_integer() and abs(value) < 2**53 else value


def _block(opening: str, lines: list[str], closing: str) -> str:
    return opening + "".join(f"\n {line}{',' if line is not lines[-1] else ''}" for line in lines) + closing


def _line(value: Any) -> str:
    return json.dumps(value, allow_nan=False)
