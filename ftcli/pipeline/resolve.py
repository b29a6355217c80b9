"""Find what a reference points to, check that it is usable, and digest it: from `Reference` to `Artifact`."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from ftcli.core.errors import Corrupt, UsageError
from ftcli.core.rundir import FP12, Published, RunDir
from ftcli.core.stage import Artifact, Kind
from ftcli.data.rows import SPLITS
from ftcli.data.sources import pydoc
from ftcli.data.sources.paths import find_files, is_pattern
from ftcli.pipeline.digests import content_digest, files_digest
from ftcli.pipeline.fetch import NotFetched, demo_model, gguf_model, hub_model
from ftcli.pipeline.functions import check_function, split_function

DATA_SUFFIXES = (".jsonl", ".parquet")
PRODUCER = re.compile(r"stages/(?P<id>[^/]+)/(?P<fp12>[0-9a-f]{12})/")
WEIGHTS = ("*.safetensors", "pytorch_model*.bin")


def from_published(item: Published, output: str, kind: Kind, label: str, *, fetch: bool = True) -> Artifact:
    """The artifact of a published output; its digest comes from stage.json. Its ``ref`` is relative to the run directory.

    Raises `Corrupt` if its files are not those of stage.json (by size; `ftcli verify` also rehashes).
    """
    damage = item.damage()
    if damage:
        raise Corrupt(f"{item.path}/{damage[0]}", f"make it again: run stage {item.id} once more")
    ref = f"stages/{item.id}/{item.path.name}/{output}"
    digest = str(item.manifest["outputs"][output]["digest"])
    path = item.output(output)
    facts = {**item.manifest["facts"], "bytes": item.manifest["outputs"][output]["bytes"]}
    base = _base_of(path, fetch=fetch)
    run = item.path.parents[2]
    if base is not None and base.path.is_relative_to(run / "stages"):
        base = replace(base, ref=base.path.relative_to(run).as_posix())
    exported = next(path.glob("*.gguf"), None) if kind is Kind.MODEL and not (path / "config.json").is_file() else None
    if exported is not None:
        path = gguf_model(exported, fetch=fetch)
    return Artifact(kind, ref, path, digest, label, base, facts, making(item))


def making(item: Published) -> dict[str, Any]:
    """How ``item`` came to be: excerpts of its manifest and of those it was made from, in the same run directory.

    ``stages/<id>/<fp12>`` of each, ``item``'s first, with ``settings`` that differ from their defaults, ``inputs``,
    ``outputs``, ``facts`` (figures only), the ``ftcli`` version, and the ``path`` of its folder. What is gone from the run
    directory is left out.
    """
    run = RunDir(item.path.parents[2])
    found: dict[str, Any] = {}
    left = [item]
    while left:
        one = left.pop(0)
        place = f"stages/{one.id}/{one.path.name}"
        if place not in found:
            found[place] = {**_excerpt(one.manifest), "path": str(one.path)}
            left += _producers(run, one.manifest)
    return found


def _excerpt(manifest: Mapping[str, Any]) -> dict[str, Any]:
    facts = manifest.get("facts", {})
    return {
        "stage": manifest.get("stage", ""),
        "settings": manifest.get("parts", {}).get("config", {}),
        "inputs": manifest.get("inputs", {}),
        "outputs": manifest.get("outputs", {}),
        "facts": {
            name: value
            for name, value in facts.items()
            if isinstance(value, int | float | str) and not name.startswith("perf/")
        },
        "ftcli": manifest.get("software", {}).get("ftcli", ""),
    }


def _producers(run: RunDir, manifest: Mapping[str, Any]) -> Iterator[Published]:
    """The published outputs that ``manifest`` names as inputs, or as bases of them."""
    records = [record for records in manifest.get("inputs", {}).values() for record in records]
    for record in [*records, *(record["base"] for record in records if "base" in record)]:
        found = PRODUCER.match(str(record["ref"]))
        with suppress(Corrupt):  # a torn manifest is `ftcli verify`'s business
            if found and (item := run.published(found["id"], found["fp12"])):
                yield item


def from_outside(ref: str, kind: Kind, label: str, *, fetch: bool = True) -> Artifact:
    """The artifact of an external reference. Raises `UsageError` if it is not what ``kind`` needs.

    With ``fetch`` false, nothing is downloaded or converted: `NotFetched` is raised instead.
    """
    if kind is Kind.MODEL:
        return replace(_model(ref, fetch=fetch), label=label, made=_made_elsewhere(Path(ref)))
    if kind is Kind.SOURCE:
        return _source(ref, label, fetch=fetch)
    if kind is Kind.FUNCTION:
        return _function(ref, label)
    path = Path(ref)
    _check_folder(path, kind)
    return Artifact(kind, ref, path, _digest(path), label, _base_of(path, fetch=fetch))


def _made_elsewhere(path: Path) -> dict[str, Any]:
    """How an output of another run directory came to be; empty for any other path."""
    folder = path.resolve()
    if not FP12.fullmatch(folder.parent.name) or len(folder.parents) < 4 or folder.parents[2].name != "stages":
        return {}
    with suppress(Corrupt):
        item = RunDir(folder.parents[3]).published(folder.parents[1].name, folder.parent.name)
        return making(item) if item is not None else {}
    return {}


def _digest(path: Path) -> str:
    try:
        return content_digest(path)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error}") from None


def _source(ref: str, label: str, *, fetch: bool) -> Artifact:
    if ref.startswith("pydoc:"):
        return Artifact(Kind.SOURCE, ref, Path(), f"pydoc:{pydoc.identity(ref.removeprefix('pydoc:'))}", label)
    if ref.startswith("hf:"):
        name, _, revision = ref.partition("@")
        repository = "/".join(name.removeprefix("hf:").split("/")[:2])  # a third part names a configuration
        pinned = f"{name}@{_dataset_commit(repository, revision, fetch=fetch)}"
        return Artifact(Kind.SOURCE, pinned, Path(), pinned, label)
    path = Path(ref)
    if not path.exists() and is_pattern(path):
        try:
            files = {name: found for found, name in find_files(path, [])}  # the names that rows keep
            return Artifact(Kind.SOURCE, ref, path, files_digest(files), label)
        except OSError as error:
            raise UsageError(f"{ref}: cannot be read: {error}") from None
    if not path.is_file() and not path.is_dir():
        raise UsageError(f"{path}: a pipe or device cannot be read again", "write it to a file first")
    return Artifact(Kind.SOURCE, ref, path, _digest(path), label)


def _function(ref: str, label: str) -> Artifact:
    """Digested by its whole file, since a function calls others beside it, and by its name."""
    file, name = split_function(ref)
    path = Path(file)
    check_function(path, name)
    return Artifact(Kind.FUNCTION, ref, path, f"{_digest(path)}:{name}", label)


def _dataset_commit(name: str, revision: str, *, fetch: bool) -> str:
    from huggingface_hub import HfApi

    if re.fullmatch(r"[0-9a-f]{40}", revision):
        return revision
    try:
        sha = HfApi().dataset_info(name, revision=revision or None).sha
    except Exception as error:  # the hub client raises many unrelated classes for "not there" and "no network"
        if not fetch:
            raise NotFetched(f"hf:{name} could not be looked up") from None
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UsageError(
            f"hf:{name}: cannot be found: {first}", "check the name, the network, and `hf auth login`"
        ) from None
    return str(sha)


def _model(ref: str, *, fetch: bool) -> Artifact:
    facts: dict[str, Any] = {}
    if ref.startswith("demo:"):
        path, source = demo_model(ref.removeprefix("demo:"), fetch=fetch)
        facts = {"source": source}
    elif ref.startswith("hf:"):
        name, _, revision = ref.removeprefix("hf:").partition("@")
        path, commit = hub_model(name, revision or None, fetch=fetch)
        ref = f"hf:{name}@{commit}"
    else:
        path = Path(ref)
        if path.is_file():
            if path.suffix != ".gguf":
                raise UsageError(f"{path}: a model is a folder or a .gguf file")
            path = gguf_model(path, fetch=fetch)
            facts = {"source": json.loads((path / "source.json").read_text(encoding="utf-8"))}
    _check_folder(path, Kind.MODEL)
    return Artifact(Kind.MODEL, ref, path, _digest(path), "", _base_of(path, fetch=fetch), facts)


def _check_folder(path: Path, kind: Kind) -> None:
    """Refuse a folder that cannot be a ``kind``, with what is missing."""
    if not path.is_dir():
        raise UsageError(f"{path}: a {kind} is a folder")
    names = sorted(item.name for item in path.iterdir())
    have = f"it holds {', '.join(names[:8])}{' ...' if len(names) > 8 else ''}" if names else "it is empty"
    if kind is Kind.DATA and not any((path / f"{split}{end}").is_file() for split in SPLITS for end in DATA_SUFFIXES):
        raise UsageError(
            f"{path}: no train.jsonl, validation.jsonl or test.jsonl, nor .parquet ({have})",
            "make data with `ftcli prep`",
        )
    if kind is Kind.MODEL and not (path / "config.json").is_file() and not (path / "adapter_config.json").is_file():
        raise UsageError(f"{path}: no config.json or adapter_config.json ({have})", "name a Hugging Face model folder")
    if kind in (Kind.MODEL, Kind.REWARD) and not any(next(path.glob(pattern), None) for pattern in WEIGHTS):
        raise UsageError(f"{path}: no weights (*.safetensors) in the model folder ({have})", "download the model again")


def _base_of(folder: Path, *, fetch: bool) -> Artifact | None:
    """The base model of an adapter folder; None for a full model or other data.

    Raises `Corrupt` when the base is not the one the adapter was trained on.
    """
    config = folder / "adapter_config.json"
    if not config.is_file():
        return None
    record = folder / "base_model.json"
    if not record.is_file():
        return _foreign_base(folder, _json(config, ()), fetch=fetch)
    wanted = _json(record, ("ref", "digest"))
    ref, digest = str(wanted["ref"]), str(wanted["digest"])
    # Not Path.resolve: below a linked run directory, ".." must lead back through the link.
    where = os.path.normpath(folder / ref) if ref.startswith("..") else ref
    try:
        base = _model(where, fetch=fetch)
    except UsageError as error:
        raise Corrupt(f"{folder}: the base of this adapter: {error.message}", "put the base back there") from None
    if base.digest != digest:
        raise Corrupt(
            f"{folder}: this adapter was trained on {ref} with digest {digest[:19]}, which is now {base.digest[:19]}",
            "restore that base, or train the adapter again",
        )
    return base


def _json(path: Path, keys: tuple[str, ...]) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise Corrupt(f"{path}: no valid JSON ({error})", "fetch or train this model again") from None
    if not isinstance(value, dict) or any(key not in value for key in keys):
        raise Corrupt(f"{path}: a JSON object{' with ' + ' and '.join(keys) if keys else ''} is needed", "")
    return value


def _foreign_base(folder: Path, config: dict[str, Any], *, fetch: bool) -> Artifact:
    """The base of an adapter that another tool made: what PEFT recorded, a path or a hub id."""
    name = config.get("base_model_name_or_path")
    if not name:
        raise UsageError(
            f"{folder / 'adapter_config.json'}: no base_model_name_or_path", "write the base's path or hub id there"
        )
    name = str(name)
    path = next((path for path in (folder / name, Path(name)) if path.is_dir()), None)
    revision = f"@{config['revision']}" if config.get("revision") else ""
    return _model(str(path.resolve()) if path else f"hf:{name}{revision}", fetch=fetch)
