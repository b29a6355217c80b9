"""What a model was made from, read out of the manifests that came with it: its first base, its data, its licences, its tree."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from ftcli.core.stage import Artifact, Kind

Record = Mapping[str, Any]
"""An input as stage.json keeps it: ref, kind, digest, and where known source and base."""
UNKNOWN = "unknown"


def producer(ref: str) -> str:
    """The folder in the run directory that made ``ref``; an empty string for what came from outside."""
    return "/".join(ref.split("/")[:3]) if ref.startswith("stages/") else ""


def as_record(artifact: Artifact) -> Record:
    base = {"base": as_record(artifact.base)} if artifact.base else {}
    source = {"source": artifact.facts["source"]} if "source" in artifact.facts else {}
    return {"ref": artifact.ref, "kind": str(artifact.kind), "digest": artifact.digest, **source, **base}


def first_base(artifact: Artifact) -> Record:
    """The model from outside that everything began with, as far back as the manifests tell."""
    record: Record = as_record(artifact)
    seen: set[str] = set()
    while True:
        record = record.get("base", record)
        place = producer(record["ref"])
        inputs = artifact.made.get(place, {}).get("inputs", {})
        models = [item for name in ("model", "from") for item in inputs.get(name, ()) if item["kind"] == Kind.MODEL]
        if not models or place in seen:
            return record
        seen.add(place)
        record = models[0]


def outside(artifact: Artifact, kind: Kind) -> list[Record]:
    """Inputs of one kind that came from outside the run, each once."""
    found = {
        record["ref"]: record
        for made in artifact.made.values()
        for records in made["inputs"].values()
        for record in records
        if record["kind"] == kind and not producer(record["ref"])
    }
    return list(found.values())


def training_data(artifact: Artifact) -> list[tuple[str, Record, Mapping[str, Any]]]:
    """``(id, input record, figures)`` of the data folders that the stages behind ``artifact`` read; figures are those of prep."""
    found = {}
    for made in artifact.made.values():
        for record in (record for records in made["inputs"].values() for record in records):
            if record["kind"] == Kind.DATA:
                place = producer(record["ref"])
                facts = artifact.made.get(place, {}).get("facts", {})
                found[record["digest"]] = (shown_ref(record["ref"]), record, facts)
    return list(found.values())


def hub_id(record: Record) -> str | None:
    """``org/name`` of something that has its home on the hub."""
    if record["ref"].startswith("hf:"):
        return str(record["ref"].removeprefix("hf:").partition("@")[0])
    source = record.get("source", {})
    return str(source["name"]) if source.get("from") == "hub" else None


def shown_ref(ref: str) -> str:
    """A reference without the folders of this machine."""
    place = producer(ref)
    if place:
        return f"{place.split('/')[1]} ({place.split('/')[2]})"
    return ref if re.match(r"[a-z]+:", ref) else Path(ref).name


def model_name(artifact: Artifact) -> str:
    """A name for what is exported: that of the first base, and of the stage that trained it."""
    base = first_base(artifact)
    root = (hub_id(base) or shown_ref(base["ref"]).partition(":")[2] or shown_ref(base["ref"])).rpartition("/")[2]
    place = producer(artifact.ref)
    return f"{root}-{place.split('/')[1]}" if place else root


def licence(record: Record, folder: Path | None = None) -> str:
    """The licence that something from outside is under: its source record's, else that of a README.md beside it."""
    source = record.get("source", {})
    if source.get("license"):
        return str(source["license"])
    path = Path(record["ref"])
    places = [folder, path if path.is_dir() else path.parent] if path.is_absolute() else [folder]
    for place in places:
        found = front_matter(place / "README.md").get("license") if place is not None else None
        if found:
            return str(found)
    return UNKNOWN


def front_matter(path: Path) -> dict[str, Any]:
    """The YAML block at the head of a model or data card; empty where there is none."""
    try:
        text = path.read_text(encoding="utf-8")
        block = re.match(r"---\s*\n(.*?)\n---\s*(\n|\Z)", text, flags=re.DOTALL)
        value = yaml.safe_load(block[1]) if block else None
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return value if isinstance(value, dict) else {}


def tree(artifact: Artifact) -> list[str]:
    """Lines that show ``artifact`` above what it was made from, each folder opened once."""
    shown: set[str] = set()

    def lines(name: str, record: Record, indent: str) -> list[str]:
        place = producer(record["ref"])
        made = artifact.made.get(place)
        stage = f" by {made['stage']}" if made else ""
        found = [f"{indent}{name}: {shown_ref(record['ref'])}{stage}  {_short(record['digest'])}".rstrip()]
        if "base" in record and made is None:
            found += lines("base", record["base"], indent + "  ")
        if made is not None and place not in shown:
            shown.add(place)
            for input_name, records in made["inputs"].items():
                for item in records:
                    found += lines(input_name, item, indent + "  ")
        return found

    return lines("model", as_record(artifact), "")


def _short(digest: str) -> str:
    return digest[:19] if digest.startswith("sha256:") else ""


def eval_figures(report: Artifact, digest: str) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """``(metrics.json, its figures of the model with that digest)`` of an eval report; None if it did not measure it."""
    path = report.path / "metrics.json"
    found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    for label, item in found.get("artifacts", {}).items():
        if item.get("digest") == digest:
            return found, found["models"][label]
    return None
