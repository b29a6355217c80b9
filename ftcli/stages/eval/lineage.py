"""What a model was trained on, read out of the manifests that came with it (`ftcli.pipeline.resolve.making`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ftcli.core.artifacts import digest_records, file_records
from ftcli.core.stage import Artifact, Kind


@dataclass(frozen=True)
class TrainingData:
    """A data folder that a model was trained on."""

    ref: str
    path: Path


def trained_on(model: Artifact) -> tuple[dict[str, TrainingData], list[str]]:
    """The data folders that ``model`` was trained on, by digest, and in words what cannot be known of it.

    From the stage that made it back through the models and reward models that it began with, all in one run directory.
    """
    if not model.made:
        return {}, [f"{model.ref} was not made in a run directory, so its training data is not known"]
    found: dict[str, TrainingData] = {}
    reasons: list[str] = []
    left, seen = [next(iter(model.made))], set[str]()
    while left:
        place = left.pop(0)
        if place in seen:
            continue
        seen.add(place)
        if place not in model.made:
            reasons.append(f"{place} is gone from the run directory, so what it was trained on is not known")
            continue
        made = model.made[place]
        for record in [record for records in made["inputs"].values() for record in records]:
            if record["kind"] in (Kind.MODEL, Kind.REWARD):
                left += [_place(one["ref"]) for one in (record, record.get("base", {"ref": ""})) if _place(one["ref"])]
            elif record["kind"] == Kind.DATA and made["stage"] != "export":  # which only compares models on its rows
                path, reason = _folder(record, model.made)
                if path is None:
                    reasons.append(reason)
                else:
                    found[record["digest"]] = TrainingData(record["ref"], path)
    if not found and not reasons:
        reasons.append(f"no stage before {model.ref} was trained on data")
    return found, reasons


def _place(ref: str) -> str:
    """``stages/<id>/<fp12>`` of what was made in the run directory, else an empty string."""
    return "/".join(ref.split("/")[:3]) if ref.startswith("stages/") else ""


def _folder(record: Mapping[str, Any], made: Mapping[str, Any]) -> tuple[Path | None, str]:
    """The folder of an input that a stage was trained on, or why its rows cannot be had any more."""
    place = _place(record["ref"])
    if place:
        output = record["ref"].removeprefix(f"{place}/")
        if made.get(place, {}).get("outputs", {}).get(output, {}).get("digest") == record["digest"]:
            return Path(made[place]["path"], output), ""
        return None, f"the training data {record['ref']} is gone from the run directory"
    path = Path(record["ref"])
    if not path.is_dir():
        return None, f"the training data {path} is gone"
    if digest_records(file_records(path)) != record["digest"]:
        return None, f"the training data {path} has changed since"
    return path, ""
