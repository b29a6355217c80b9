"""Find what a reference points to, check that it is usable, and digest it: from `Reference` to `Artifact`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from ftcli.core.errors import Corrupt, UsageError
from ftcli.core.rundir import Published
from ftcli.core.stage import Artifact, Kind
from ftcli.data.rows import SPLITS
from ftcli.data.sources import pydoc
from ftcli.pipeline.digests import content_digest
from ftcli.pipeline.fetch import demo_model, gguf_model, hub_model

WEIGHTS = ("*.safetensors", "pytorch_model*.bin")


def from_published(item: Published, output: str, kind: Kind, label: str) -> Artifact:
    """The artifact of a published output; its digest comes from stage.json. Its ``ref`` is relative to the run directory."""
    ref = f"stages/{item.id}/{item.path.name}/{output}"
    digest = str(item.manifest["outputs"][output]["digest"])
    path = item.output(output)
    facts = {**item.manifest["facts"], "bytes": item.manifest["outputs"][output]["bytes"]}
    return Artifact(kind, ref, path, digest, label, _base_of(path, fetch=True), facts)


def from_outside(ref: str, kind: Kind, label: str, *, fetch: bool = True) -> Artifact:
    """The artifact of an external reference. Raises `UsageError` if it is not what ``kind`` needs.

    With ``fetch`` false, nothing is downloaded or converted: `NotFetched` is raised instead.
    """
    if kind is Kind.MODEL:
        return replace(_model(ref, fetch=fetch), label=label)
    if kind is Kind.SOURCE:
        return _source(ref, label)
    path = Path(ref)
    _check_folder(path, kind)
    return Artifact(kind, ref, path, content_digest(path), label, _base_of(path, fetch=fetch))


def _source(ref: str, label: str) -> Artifact:
    if ref.startswith("pydoc:"):
        return Artifact(Kind.SOURCE, ref, Path(), f"pydoc:{pydoc.identity(ref.removeprefix('pydoc:'))}", label)
    if ref.startswith("hf:"):
        commit = _dataset_commit(ref.removeprefix("hf:"))
        return Artifact(
            Kind.SOURCE, f"{ref.partition('@')[0]}@{commit}", Path(), f"{ref.partition('@')[0]}@{commit}", label
        )
    path = Path(ref)
    return Artifact(Kind.SOURCE, ref, path, content_digest(path), label)


def _dataset_commit(name_and_revision: str) -> str:
    from huggingface_hub import HfApi

    name, _, revision = name_and_revision.partition("@")
    try:
        sha = HfApi().dataset_info(name, revision=revision or None).sha
    except Exception as error:  # the hub client raises many unrelated classes for "not there" and "no network"
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
    return Artifact(Kind.MODEL, ref, path, content_digest(path), "", _base_of(path, fetch=fetch), facts)


def _check_folder(path: Path, kind: Kind) -> None:
    """Refuse a folder that cannot be a ``kind``, with what is missing."""
    if not path.is_dir():
        raise UsageError(f"{path}: a {kind} is a folder")
    names = sorted(item.name for item in path.iterdir())
    have = f"it holds {', '.join(names[:8])}{' ...' if len(names) > 8 else ''}" if names else "it is empty"
    if kind is Kind.DATA and not any((path / f"{split}.jsonl").is_file() for split in SPLITS):
        raise UsageError(
            f"{path}: no train.jsonl, validation.jsonl or test.jsonl ({have})", "make data with `ftcli prep`"
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
        return _foreign_base(folder, json.loads(config.read_text(encoding="utf-8")), fetch=fetch)
    wanted = json.loads(record.read_text(encoding="utf-8"))
    ref = str(wanted["ref"])
    inside = ref.startswith("..")
    base = _model(str((folder / ref).resolve()) if inside else ref, fetch=fetch)
    if base.digest != wanted["digest"]:
        raise Corrupt(
            f"{folder}: this adapter was trained on {ref} with digest {wanted['digest'][:19]}, which is now {base.digest[:19]}",
            "restore that base, or train the adapter again",
        )
    if inside:
        base = replace(base, ref="stages/" + base.path.as_posix().rpartition("/stages/")[2])
    return base


def _foreign_base(folder: Path, config: dict[str, Any], *, fetch: bool) -> Artifact:
    """The base of an adapter that another tool made: what PEFT recorded, a path or a hub id."""
    name = config.get("base_model_name_or_path")
    if not name:
        raise UsageError(
            f"{folder / 'adapter_config.json'}: no base_model_name_or_path", "write the base's path or hub id there"
        )
    path = next((path for path in (folder / name, Path(name)) if path.is_dir()), None)
    revision = f"@{config['revision']}" if config.get("revision") else ""
    return _model(str(path.resolve()) if path else f"hf:{name}{revision}", fetch=fetch)
