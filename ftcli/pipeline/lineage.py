"""Where results came from: the tree of a run's outputs and inputs, and whether they are still what was recorded."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ftcli.core.errors import Corrupt
from ftcli.core.rundir import MANIFEST, Published, RunDir


def lineage(run: RunDir) -> list[dict[str, Any]]:
    """For each latest output and all it was made from: its inputs (by digest), its settings and software."""
    return [
        {
            "id": item.id,
            "stage": item.manifest["stage"],
            "path": str(item.path.relative_to(run.root)),
            "fingerprint": item.manifest["fingerprint"],
            "config": item.manifest["config"],
            "inputs": item.manifest["inputs"],
            "outputs": item.manifest["outputs"],
            "software": item.manifest["software"],
            "git": item.manifest["git"],
            "started": item.manifest["started"],
            "ended": item.manifest["ended"],
        }
        for item in _reachable(run, {str(item.path.relative_to(run.root)): item for item in run.all_published()})
    ]


def _reachable(run: RunDir, by_path: Mapping[str, Published]) -> list[Published]:
    """The latest outputs and, once each, what they were made from."""
    found: dict[str, Published] = {}
    left = run.all_latest()
    while left:
        item = left.pop(0)
        if str(item.path) not in found:
            found[str(item.path)] = item
            left += [by_path[path] for record in _records(item) if (path := _producer(record)) in by_path]
    return list(found.values())


def tree(run: RunDir) -> list[str]:
    """Lines that show each latest output above what it was made from; what was shown already is not opened again."""
    by_path = {str(item.path.relative_to(run.root)): item for item in run.all_published()}
    used = {_producer(record) for item in _reachable(run, by_path) for record in _records(item)}
    lines: list[str] = []
    shown: set[str] = set()
    for item in run.all_latest():
        path = str(item.path.relative_to(run.root))
        if path not in used:
            lines += _branch(item, by_path, "", shown)
    return lines


def _branch(item: Published, by_path: Mapping[str, Published], indent: str, shown: set[str]) -> list[str]:
    path = f"stages/{item.id}/{item.path.name}"
    lines = [f"{indent}{item.id}  {item.path.name}  ({item.manifest['stage']}, {item.manifest['ended']})"]
    if path in shown:
        return [f"{lines[0]}  (above)"] if item.manifest["inputs"] else lines
    shown.add(path)
    for name, records in item.manifest["inputs"].items():
        for record in records:
            producer = by_path.get(_producer(record))
            if producer is not None:
                inner = _branch(producer, by_path, indent + "    ", shown)
                lines += [f"{indent}  {name}: {inner[0].strip()}", *inner[1:]]
            else:
                lines.append(f"{indent}  {name}: {record['ref']}  {record['digest'][:19]}")
                if "base" in record:
                    lines.append(f"{indent}    base: {record['base']['ref']}  {record['base']['digest'][:19]}")
    return lines


def _records(item: Published) -> list[dict[str, Any]]:
    return [record for records in item.manifest["inputs"].values() for record in records]


def _producer(record: Mapping[str, Any]) -> str:
    return str(record["ref"]).rpartition("/")[0]


def verify(run: RunDir) -> dict[str, list[str]]:
    """Rehash every published output; return what is not as recorded, by folder relative to the run."""
    found = {}
    for folder in run.folders():
        damage = _damage(run, folder)
        if damage:
            found[str(folder.relative_to(run.root))] = damage
    return found


def _damage(run: RunDir, folder: Path) -> list[str]:
    try:
        item = run.published(folder.parent.name, folder.name)
        return item.damage(rehash=True) if item else [f"{MANIFEST}: missing"]
    except Corrupt as error:
        return [error.message.removeprefix(f"{folder}/")]
