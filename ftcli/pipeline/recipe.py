"""Recipes: from YAML (or flags) to a checked list of stages, each with its config, inputs and where every value came from.

All problems of a recipe are found before anything runs, and reported together with file and line.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ftcli.core.config import Problem, StageConfig, nearest, parse
from ftcli.core.errors import UsageError
from ftcli.core.stage import Kind, Stage
from ftcli.launch.spec import load_stage
from ftcli.pipeline.references import ID_PATTERN, Reference, StageOutput, external, labelled_references
from ftcli.pipeline.yaml_lines import Document, read, scalar
from ftcli.stages import STAGES

RECIPE_KEYS = ("name", "defaults", "stages")
ENTRY_KEYS = ("use", "id", "inputs", "with")


@dataclass(frozen=True)
class Entry:
    """One stage of a plan. ``inputs`` maps each input to ``(label, reference)`` pairs; ``origins`` each set key to its origin."""

    id: str
    target: str
    stage: Stage[Any]
    config: StageConfig
    inputs: Mapping[str, tuple[tuple[str, Reference], ...]]
    origins: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Recipe:
    name: str
    entries: tuple[Entry, ...]

    def index(self, id: str) -> int:
        """The place of stage ``id``; raises `UsageError` with the nearest id."""
        ids = [entry.id for entry in self.entries]
        if id not in ids:
            raise UsageError(f"no stage {id} in recipe {self.name}", nearest(id, ids) or f"it has {', '.join(ids)}")
        return ids.index(id)


@dataclass
class _Reader:
    """Collects problems while a recipe is read; each with its place."""

    path: Path
    document: Document
    found: list[str] = field(default_factory=list)

    def problem(self, line: int, text: str, hint: str = "") -> None:
        self.found.append(f"{self.path}:{line}: {text}" + (f"\n  hint: {hint}" if hint else ""))

    def set_problem(self, text: str, hint: str = "") -> None:
        self.found.append(f"--set {text}" + (f"\n  hint: {hint}" if hint else ""))


def read_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read and check a recipe; ``overrides`` are ``id.key=value``. Raises `UsageError` with every problem found."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UsageError(f"{path}: no such recipe", "recipes/ holds examples: recipes/quickstart.yaml") from None
    except (IsADirectoryError, UnicodeDecodeError, PermissionError) as error:
        raise UsageError(f"{path}: cannot be read as a recipe: {error}") from None
    reader = _Reader(path, read(text))
    recipe = _check(reader, overrides)
    if reader.found or recipe is None:
        raise UsageError("\n".join(reader.found))
    return recipe


def _check(reader: _Reader, overrides: Sequence[str]) -> Recipe | None:
    document = reader.document
    for line, text in document.problems:
        reader.problem(line, text)
    if reader.found and document.value is None:
        return None
    value = document.value
    if not isinstance(value, dict) or not isinstance(value.get("stages"), list) or not value["stages"]:
        reader.problem(1, "a recipe is a mapping with a list of stages", "see recipes/README.md")
        return None
    for key in value:
        if key not in RECIPE_KEYS:
            reader.problem(document.line(key), f"unknown key {key}", nearest(key, RECIPE_KEYS))
    defaults = value.get("defaults") or {}
    if not isinstance(defaults, dict):
        reader.problem(document.line("defaults"), "defaults is a mapping of settings")
        defaults = {}
    found = [_header(reader, index, item) for index, item in enumerate(value["stages"])]
    headers = [header for header in found if header is not None]
    _check_ids(reader, headers)
    _check_defaults(reader, defaults, headers)
    settings = _overrides(reader, overrides, headers)
    entries = [_entry(reader, header, headers, defaults, settings.get(header.id, {})) for header in headers]
    return Recipe(str(value.get("name") or reader.path.stem), tuple(entry for entry in entries if entry is not None))


@dataclass(frozen=True)
class _Header:
    """The place, id and stage of an entry, known before its references can be checked."""

    index: int
    id: str
    target: str
    stage: Stage[Any]
    item: dict[str, Any]


def _header(reader: _Reader, index: int, item: Any) -> _Header | None:
    line = reader.document.line("stages", index)
    if not isinstance(item, dict) or "use" not in item:
        reader.problem(line, "each stage is a mapping with use: NAME", f"stages are {', '.join(STAGES)}")
        return None
    for key in item:
        if key not in ENTRY_KEYS:
            where = reader.document.line("stages", index, key)
            reader.problem(where, f"unknown key {key}", nearest(key, ENTRY_KEYS) or "settings go under with:")
    name = str(item["use"])
    if name not in STAGES:
        where = reader.document.line("stages", index, "use")
        reader.problem(where, f"unknown stage {name}", nearest(name, STAGES) or f"stages are {', '.join(STAGES)}")
        return None
    id = str(item.get("id") or name)
    if not ID_PATTERN.match(id):
        reader.problem(line, f"id {id!r}: lower-case letters, digits, - and _, a letter first")
    return _Header(index, id, STAGES[name][0], load_stage(STAGES[name][0]), item)


def _check_ids(reader: _Reader, headers: list[_Header]) -> None:
    seen: dict[str, int] = {}
    for header in headers:
        line = reader.document.line("stages", header.index)
        if header.id in seen:
            reader.problem(
                line, f"two stages have the id {header.id} (the other in line {seen[header.id]})", "give one an id:"
            )
        seen[header.id] = line


def _check_defaults(reader: _Reader, defaults: Mapping[str, Any], headers: list[_Header]) -> None:
    known = {name for header in headers for name in header.stage.config.model_fields}
    for key in defaults:
        if key not in known:
            reader.problem(
                reader.document.line("defaults", key), f"defaults: no stage here has {key}", nearest(key, known)
            )


def _overrides(reader: _Reader, overrides: Sequence[str], headers: list[_Header]) -> dict[str, dict[str, Any]]:
    """``{id: {key: value}}`` of ``id.key=value`` texts."""
    settings: dict[str, dict[str, Any]] = {}
    ids = [header.id for header in headers]
    for text in overrides:
        name, equals, value = text.partition("=")
        id, dot, key = name.partition(".")
        if not equals or not dot:
            reader.set_problem(f"{text}: id.key=value is needed", "for example --set lora.learning_rate=1e-4")
        elif id not in ids:
            reader.set_problem(f"{text}: no stage {id}", nearest(id, ids) or f"this recipe has {', '.join(ids)}")
        else:
            settings.setdefault(id, {})[key] = scalar(value)
    return settings


def _entry(
    reader: _Reader, header: _Header, headers: list[_Header], defaults: Mapping[str, Any], overrides: Mapping[str, Any]
) -> Entry | None:
    document, index = reader.document, header.index
    fields = header.stage.config.model_fields
    own = header.item.get("with") or {}
    given = header.item.get("inputs") or {}
    for key, value in (("with", own), ("inputs", given)):
        if not isinstance(value, dict):
            reader.problem(document.line("stages", index, key), f"{header.id}: {key} is a mapping")
            return None
    values = {key: value for key, value in defaults.items() if key in fields}
    origins = {key: f"{reader.path}:{document.line('defaults', key)} (defaults)" for key in values}
    values |= own
    origins |= {key: f"{reader.path}:{document.line('stages', index, 'with', key)}" for key in own}
    for key, value in overrides.items():
        (given := {**given, key: value}) if key in header.stage.inputs else values.update({key: value})
        origins[key] = "--set"
    config, problems = parse(header.stage.config, values)
    for problem in problems:
        _report(reader, header, problem, origins)
    inputs = _inputs(reader, header, headers, given)
    if config is None:
        return None
    return Entry(header.id, header.target, header.stage, config, inputs, origins)


def _report(reader: _Reader, header: _Header, problem: Problem, origins: Mapping[str, str]) -> None:
    origin = origins.get(problem.key, "")
    if origin == "--set":
        reader.set_problem(f"{header.id}.{problem.key}: {problem.message}", problem.hint)
    elif origin.endswith("(defaults)"):
        reader.problem(reader.document.line("defaults", problem.key), f"{header.id}: {problem.message}", problem.hint)
    else:
        line = reader.document.line("stages", header.index, "with", problem.key)
        reader.problem(line, f"{header.id}: {problem.message}", problem.hint)


def _inputs(
    reader: _Reader, header: _Header, headers: list[_Header], given: Mapping[str, Any]
) -> dict[str, tuple[tuple[str, Reference], ...]]:
    document, index, known = reader.document, header.index, header.stage.inputs
    result: dict[str, tuple[tuple[str, Reference], ...]] = {}
    for name, value in given.items():
        line = document.line("stages", index, "inputs", name)
        if name not in known:
            reader.problem(
                line, f"{header.id}: unknown input {name}", nearest(name, known) or f"it has {', '.join(known)}"
            )
            continue
        labelled = labelled_references(value, many=known[name].many)
        if labelled is None:
            what = "a list or a mapping from label to reference" if known[name].many else "one reference"
            reader.problem(line, f"{header.id}: input {name}: {what} is needed, got {value!r}")
            continue
        refs = []
        for label, text in labelled:
            try:
                refs.append((label, _reference(reader.path.parent, header, headers, known[name].kind, text)))
            except UsageError as error:
                reader.problem(line, f"{header.id}: input {name}: {error.message}", error.hint)
        result[name] = tuple(refs)
    for name, spec in known.items():
        if spec.required and not given.get(name):
            kind = f"a {spec.kind}"
            reader.problem(document.line("stages", index), f"{header.id}: input {name} ({kind}) is missing", spec.help)
    return result


def _reference(folder: Path, header: _Header, headers: list[_Header], kind: Kind, text: str) -> Reference:
    """Turn the text of a reference into one that fits ``kind``; raises `UsageError` with a hint."""
    by_id = {other.id: other for other in headers}
    id, dot, output = text.partition(".")
    if dot and id in by_id:
        return _stage_output(header, by_id[id], headers, kind, output)
    outputs = [
        f"{other.id}.{name}" for other in headers for name, found in other.stage.outputs.items() if found == kind
    ]
    return external(folder, kind, text, nearest(text, outputs))


def _stage_output(header: _Header, producer: _Header, headers: list[_Header], kind: Kind, output: str) -> StageOutput:
    outputs = producer.stage.outputs
    if output not in outputs:
        have = ", ".join(f"{producer.id}.{name}" for name in outputs)
        raise UsageError(f"stage {producer.id} has no output {output}", f"it has {have}")
    if outputs[output] != kind:
        raise UsageError(f"{producer.id}.{output} is a {outputs[output]}, a {kind} is needed")
    if producer.index >= header.index:
        circle = _mentions(producer, header.id) or producer.id == header.id
        what = f"{header.id} and {producer.id} need each other" if circle else f"{producer.id} comes later"
        raise UsageError(f"{producer.id}.{output}: {what}", "a stage uses the outputs of stages above it")
    return StageOutput(producer.id, output)


def _mentions(header: _Header, id: str) -> bool:
    given = header.item.get("inputs")
    values = given.values() if isinstance(given, dict) else []
    flat = [text for value in values for _, text in labelled_references(value, many=True) or []]
    return any(text.startswith(f"{id}.") for text in flat)
