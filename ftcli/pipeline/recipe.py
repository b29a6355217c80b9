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
from ftcli.pipeline.references import (
    ID_PATTERN,
    Reference,
    StageOutput,
    external,
    labelled_references,
    repeated_label,
)
from ftcli.pipeline.yaml_lines import Document, read, scalar, value_for
from ftcli.stages import STAGES

RECIPE_KEYS = ("name", "defaults", "stages")
ENTRY_KEYS = ("use", "id", "inputs", "with", "launch")
LAUNCH_KEYS = ("processes",)


@dataclass(frozen=True)
class Entry:
    """One stage of a plan. ``inputs`` maps each input to ``(label, reference)`` pairs; ``origins`` each set key to its origin;
    ``processes`` of one machine share its work."""

    id: str
    target: str
    stage: Stage[Any]
    config: StageConfig
    inputs: Mapping[str, tuple[tuple[str, Reference], ...]]
    origins: Mapping[str, str] = field(default_factory=dict)
    processes: int = 1


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
    except (OSError, UnicodeDecodeError) as error:
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
    for key in value if isinstance(value, dict) else ():
        if key not in RECIPE_KEYS:
            reader.problem(document.line(key), f"unknown key {key}", nearest(key, RECIPE_KEYS))
    if not isinstance(value, dict) or not isinstance(value.get("stages"), list) or not value["stages"]:
        reader.problem(1, "a recipe is a mapping with a list of stages", "see recipes/README.md")
        return None
    name = _name(reader, value.get("name", reader.path.stem))
    defaults = _mapping(reader, value.get("defaults"), "defaults", ("defaults",)) or {}
    found = [_header(reader, index, item) for index, item in enumerate(value["stages"])]
    headers = [header for header in found if header is not None]
    _check_ids(reader, headers)
    _check_defaults(reader, defaults, headers)
    settings = _overrides(reader, overrides, headers)
    entries = [_entry(reader, header, headers, defaults, settings.get(header.id, {})) for header in headers]
    return Recipe(name, tuple(entry for entry in entries if entry is not None))


def _name(reader: _Reader, name: Any) -> str:
    """The recipe's name, which is also the name of its folder under runs/."""
    if not isinstance(name, str) or name.startswith(".") or not name.isprintable() or "/" in name or not name:
        reader.problem(reader.document.line("name"), f"name {name!r}: one word that can name a folder is needed")
    return str(name)


def _mapping(reader: _Reader, value: Any, what: str, path: tuple[str | int, ...]) -> dict[str, Any] | None:
    """``value`` if it is a mapping, an empty one for nothing, or None with a problem."""
    if value is None or isinstance(value, dict):
        return value or {}
    reader.problem(reader.document.line(*path), f"{what} is a mapping, got {value!r}")
    return None


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
            stage = headers[ids.index(id)].stage
            settings.setdefault(id, {})[key] = _typed(stage, key, value)
    return settings


def _typed(stage: Stage[Any], key: str, text: str) -> Any:
    """The value of an override: a reference stays text unless it is a list or mapping of several."""
    if key in stage.config.model_fields:
        return value_for(stage.config.model_fields[key].annotation, text)
    value = scalar(text)
    return value if isinstance(value, list | dict) and key in stage.inputs and stage.inputs[key].many else text


def _entry(
    reader: _Reader, header: _Header, headers: list[_Header], defaults: Mapping[str, Any], overrides: Mapping[str, Any]
) -> Entry | None:
    document, index = reader.document, header.index
    fields = header.stage.config.model_fields
    own, given = (
        _mapping(reader, header.item.get(key), f"{header.id}: {key}", ("stages", index, key))
        for key in ("with", "inputs")
    )
    if own is None or given is None:
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
    inputs = _inputs(reader, header, headers, given, {key for key in overrides if key in header.stage.inputs})
    processes = _processes(reader, header)
    if config is None:
        return None
    return Entry(header.id, header.target, header.stage, config, inputs, origins, processes)


def _processes(reader: _Reader, header: _Header) -> int:
    """How many processes ``launch:`` of an entry asks for; 1 where it is missing or wrong."""
    path = ("stages", header.index, "launch")
    launch = _mapping(reader, header.item.get("launch"), f"{header.id}: launch", path) or {}
    if launch and not header.stage.parallel:
        text = f"{header.id}: launch: the work of {header.stage.name} cannot be shared by several processes"
        reader.problem(reader.document.line(*path), text, "leave launch out")
        return 1
    for key in launch:
        if key not in LAUNCH_KEYS:
            line = reader.document.line(*path, key)
            hint = nearest(key, LAUNCH_KEYS) or f"it has {', '.join(LAUNCH_KEYS)}"
            reader.problem(line, f"{header.id}: launch: unknown key {key}", hint)
    value = launch.get("processes", 1)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        line = reader.document.line(*path, "processes")
        reader.problem(line, f"{header.id}: launch: processes: a number from 1 on is needed, got {value!r}")
        return 1
    return value


def _report(reader: _Reader, header: _Header, problem: Problem, origins: Mapping[str, str]) -> None:
    origin = origins.get(problem.key, "")
    if origin == "--set":
        reader.set_problem(f"{header.id}.{problem.key}: {problem.message}", problem.hint)
    elif origin.endswith("(defaults)"):
        line = reader.document.line("defaults", problem.key, *problem.at)
        reader.problem(line, f"{header.id}: {problem.message}", problem.hint)
    else:
        line = reader.document.line("stages", header.index, "with", problem.key, *problem.at)
        reader.problem(line, f"{header.id}: {problem.message}", problem.hint)


def _inputs(
    reader: _Reader, header: _Header, headers: list[_Header], given: Mapping[str, Any], overridden: set[str]
) -> dict[str, tuple[tuple[str, Reference], ...]]:
    """The checked references. A path in ``overridden`` is relative to the current folder, others to the recipe's."""
    known = header.stage.inputs
    result = {}
    for name, value in given.items():
        line = reader.document.line("stages", header.index, "inputs", name)
        if name in overridden:
            found, problems = _input(header, headers, Path.cwd(), name, value)
            for text, hint in problems:
                reader.set_problem(f"{header.id}.{name}: {text}", hint)
        else:
            found, problems = _input(header, headers, reader.path.parent, name, value)
            for text, hint in problems:
                reader.problem(line, f"{header.id}: {text}", hint)
        result[name] = tuple(found)
    named = {name for name, value in given.items() if value not in ([], {})}
    for name, spec in known.items():
        if name not in named and spec.is_needed(named):
            line = reader.document.line("stages", header.index)
            instead = f", and so is {spec.unless} (a {known[spec.unless].kind}), which would do" if spec.unless else ""
            reader.problem(line, f"{header.id}: input {name} (a {spec.kind}) is missing{instead}", spec.help)
    return result


def _input(
    header: _Header, headers: list[_Header], folder: Path, name: str, value: Any
) -> tuple[list[tuple[str, Reference]], list[tuple[str, str]]]:
    """``(label, reference)`` pairs of one input as written, and ``(problem, hint)`` pairs."""
    known = header.stage.inputs
    if name not in known:
        return [], [(f"unknown input {name}", nearest(name, known) or f"it has {', '.join(known)}")]
    labelled = labelled_references(value, many=known[name].many)
    if labelled is None:
        what = "a list or a mapping from label to reference" if known[name].many else "one reference"
        return [], [(f"input {name}: {what} is needed, got {value!r}", known[name].help)]
    found: list[tuple[str, Reference]] = []
    problems = []
    if twice := repeated_label([label for label, _ in labelled]):
        problems.append((f"input {name}: {twice}", "give labels: a mapping from label to reference"))
    for label, text in labelled:
        try:
            found.append((label, _reference(folder, header, headers, known[name].kind, text)))
        except UsageError as error:
            problems.append((f"input {name}: {error.message}", error.hint))
    return found, problems


def _reference(folder: Path, header: _Header, headers: list[_Header], kind: Kind, text: str) -> Reference:
    """Turn the text of a reference into one that fits ``kind``; raises `UsageError` with a hint."""
    by_id = {other.id: other for other in headers}
    id, dot, output = text.partition(".")
    if dot and id in by_id and kind is not Kind.FUNCTION:  # no stage makes one, and ids look like files' names
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
        circle = _mentions(producer, header.id)
        what = f"{header.id} and {producer.id} need each other" if circle else f"{producer.id} comes later"
        what = "a stage cannot use its own output" if producer.id == header.id else what
        raise UsageError(f"{producer.id}.{output}: {what}", "a stage uses the outputs of stages above it")
    return StageOutput(producer.id, output)


def _mentions(header: _Header, id: str) -> bool:
    given = header.item.get("inputs")
    values = given.values() if isinstance(given, dict) else []
    flat = [text for value in values for _, text in labelled_references(value, many=True) or []]
    return any(text.startswith(f"{id}.") for text in flat)
