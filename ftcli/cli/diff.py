"""The command diff: what changed between two results of prep."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from ftcli.core.errors import BadData, UsageError
from ftcli.core.rundir import MANIFEST, RunDir
from ftcli.stages.prep.report.compare import changes, compare_rows
from ftcli.stages.prep.report.text import count, counted, one_line

STATS = "stats.json"
SHOWN = 20
"""Figures of a section that are printed; --json has them all."""
CELL, LINE = 36, 110
"""Characters of a value, and of a line that shows a row."""
ABSENT = "-"


@dataclass(frozen=True)
class Taken:
    """What a path stood for: a report folder, and the data and the stage.json beside it where they are."""

    report: Path
    data: Path | None
    manifest: Mapping[str, Any]
    stats: Mapping[str, Any]

    def settings(self) -> dict[str, Any]:
        return dict(self.manifest.get("config", {}))

    def inputs(self) -> dict[str, Any]:
        """Each input's references with the digests of what they were."""
        inputs: Mapping[str, Any] = self.manifest.get("inputs", {})
        return {
            name: [{"ref": item["ref"], "digest": item["digest"]} for item in items] for name, items in inputs.items()
        }

    def to_json(self) -> dict[str, Any]:
        return {
            "report": str(self.report),
            "data": str(self.data) if self.data else None,
            "fingerprint": self.manifest.get("fingerprint"),
        }


def diff(
    a: Annotated[
        Path, typer.Argument(help="The earlier result: a run directory, a stage's folder, or a report folder.")
    ],
    b: Annotated[Path, typer.Argument(help="The later result.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compare two results of prep: settings, counts, reasons, lengths, duplicates, gates, and the rows themselves.

    Rows are told apart by id, which is made of what they say: one that was edited is removed and added, one that differs
    in case or white space only is rewritten.

    Example:

      ftcli diff runs/monday runs/friday
    """
    one, other = take(a), take(b)
    found = {
        "a": one.to_json(),
        "b": other.to_json(),
        "settings": _differing(one.settings(), other.settings()),
        "inputs": _differing(one.inputs(), other.inputs()),
        "figures": changes(_figures(one.stats), _figures(other.stats)),
        "rows": compare_rows(one.data, other.data) if one.data and other.data else None,
    }
    print(json.dumps(found, indent=2) if as_json else "\n".join(_lines(found)))


def take(path: Path) -> Taken:
    """Find the report that ``path`` stands for. Raises `UsageError` if there is none or more than one."""
    report = path if (path / STATS).is_file() else _stage_folder(path) / "report"
    if not (report / STATS).is_file():
        raise UsageError(f"{path}: no result of prep", f"name a run directory, or a folder with {STATS} in it")
    stage = report.parent
    data = stage / "data" if any(stage.glob("data/train.*")) else None
    manifest = _read(stage / MANIFEST) if (stage / MANIFEST).is_file() else {}
    return Taken(report, data, manifest, _read(report / STATS))


def _stage_folder(path: Path) -> Path:
    """The folder of one published result of prep."""
    if (path / "stages").is_dir():
        found = [item for item in RunDir(path).all_latest() if item.manifest["stage"] == "prep"]
        if len(found) > 1:
            names = ", ".join(str(path / "stages" / item.id) for item in found)
            raise UsageError(f"{path}: it has several results of prep", f"name one of {names}")
        return found[0].path if found else path
    return (path / "latest").resolve() if (path / "latest").is_dir() else path


def _read(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8", errors="surrogateescape"))
    except ValueError as error:
        raise BadData(
            f"{path}: no JSON: {error}", "the file was changed after prep wrote it; prepare the rows again"
        ) from None
    if not isinstance(value, dict):
        raise BadData(f"{path}: no JSON object", "the file was changed after prep wrote it; prepare the rows again")
    return value


def _differing(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    keys = dict.fromkeys([*before, *after])
    return {key: (before.get(key), after.get(key)) for key in keys if before.get(key) != after.get(key)}


def _figures(stats: Mapping[str, Any]) -> dict[str, Any]:
    """What of stats.json is compared; the ledger repeats the reasons, step by step."""
    return {name: value for name, value in stats.items() if name != "ledger"}


def _lines(found: Mapping[str, Any]) -> Iterator[str]:
    yield f"A  {found['a']['report']}"
    yield f"B  {found['b']['report']}"
    sections = {"settings": found["settings"], "inputs": found["inputs"], **found["figures"]}
    table = [line for name, values in sections.items() if values for line in _section(name, values)]
    yield from (
        ("", *_aligned([("", "A", "B", "change"), *table])) if table else ("", "The settings and figures are the same.")
    )
    yield ""
    rows = found["rows"]
    if rows is None:
        missing = " and ".join(name.upper() for name in ("a", "b") if found[name]["data"] is None)
        yield f"Rows were not compared: no data folder beside the report of {missing}."
    else:
        yield from _rows(rows)


Cells = tuple[str, str, str, str]


def _section(name: str, values: Mapping[str, Any]) -> Iterator[Cells]:
    yield (name, "", "", "")
    for key, (before, after) in list(values.items())[:SHOWN]:
        yield (f"  {one_line(key, CELL)}", _cell(before), _cell(after), _change(before, after))
    if len(values) > SHOWN:
        yield (f"  {len(values) - SHOWN} more (--json)", "", "", "")


def _cell(value: Any) -> str:
    if value is None:
        return ABSENT
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return count(value)
    if isinstance(value, list) and value and isinstance(value[0], dict):  # an input: what its files are called and hold
        value = ", ".join(f"{item['digest'].removeprefix('sha256:')[:8]} {Path(item['ref']).name}" for item in value)
    return f"{value:.6g}" if isinstance(value, float) else one_line(str(value), CELL)


def _change(before: Any, after: Any) -> str:
    """The difference of two numbers; what is absent counts as 0 where the other is a whole number."""
    known = [value for value in (before, after) if value is not None]
    if not all(type(value) in (int, float) for value in known) or (len(known) == 1 and type(known[0]) is float):
        return ""
    change = (after or 0) - (before or 0)
    return f"{change:+,}" if isinstance(change, int) else f"{change:+.6g}"


def _aligned(table: Sequence[Cells]) -> Iterator[str]:
    """Lines with the first column to the left, the others to the right."""
    widths = [max(len(row[column]) for row in table) for column in range(4)]
    for name, *cells in table:
        line = name.ljust(widths[0]) + "".join(
            f"  {cell:>{width}}" for cell, width in zip(cells, widths[1:], strict=True)
        )
        yield line.rstrip()


def _rows(rows: Mapping[str, Any]) -> Iterator[str]:
    yield f"{counted(rows['before'], 'row')} in A, {count(rows['after'])} in B, {count(rows['in_both'])} in both"
    for name, group in rows["found"].items():
        if group["rows"]:
            splits = ", ".join(f"{split} {count(number)}" for split, number in group["splits"].items() if number)
            yield f"{name}: {count(group['rows'])} ({splits})"
            for row in group["examples"]:
                yield "    " + one_line(f"{row['split']} {row['place']} {row['text']}", LINE)
