"""What prep is going to do with each source, decided from its first rows before any work."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

from ftcli.core.errors import BadData
from ftcli.core.stage import Artifact, Context
from ftcli.data.detect import SAMPLE_ROWS, detect, detect_row_type
from ftcli.data.formats import FORMATS, FormatChoice, check_columns, rename, require_columns, to_row, unused_columns
from ftcli.data.records import Record, Refused, RowNotes
from ftcli.data.rows import RowType
from ftcli.data.sources.open import open_source
from ftcli.data.texts import answer_text, prompt_text
from ftcli.stages.prep.config import PrepConfig


@dataclass(frozen=True)
class PlannedSource:
    label: str
    ref: str
    path: str
    format: FormatChoice
    row_type: RowType | None
    """The type of its rows, where each row's format is found by itself."""


@dataclass(frozen=True)
class Plan:
    """All that a process needs for its part of the first pass; goes to other machines as JSON."""

    config: dict[str, Any]
    sources: tuple[PlannedSource, ...]
    tokenizer: str | None
    """The folder of the model whose tokenizer counts, if any."""
    folder: str
    """Where the chunks go."""

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Plan:
        data = json.loads(text)
        sources = [
            PlannedSource(**{**item, "row_type": RowType(item["row_type"]) if item["row_type"] else None})
            for item in data["sources"]
        ]
        return cls(**{**data, "sources": tuple(sources)})


def plan_of(ctx: Context[PrepConfig], notes: list[str]) -> Plan:
    """The format of each source, and where the chunks go; ``notes`` gets what a person should know."""
    config, model = ctx.config, ctx.maybe("model")
    sources = []
    for item in ctx.many("source"):
        found: list[str] = []
        name, kind = format_of(item, config, found)
        sources.append(PlannedSource(item.label, item.ref, str(item.path), name, kind))
        notes += [f"{item.label}: {note}" if len(ctx.many("source")) > 1 else note for note in found]
    check_types(sources)
    folder = tokenizer_folder(model) if model else None
    return Plan(config.model_dump(mode="json"), tuple(sources), folder, str(ctx.scratch / "chunks"))


def check_types(sources: Sequence[PlannedSource]) -> None:
    """Refuse sources whose rows are of different types: a data folder holds one."""
    types = {
        source.label: source.row_type or FORMATS[source.format].row_type
        for source in sources
        if source.row_type or source.format != "mixed"  # an empty source has no type
    }
    if len(set(types.values())) > 1:
        raise BadData(
            f"the sources hold rows of different types: {', '.join(f'{label}: {kind}' for label, kind in types.items())}",
            "prepare them one by one",
        )


def tokenizer_folder(model: Artifact) -> str:
    """Where the tokenizer is: an adapter's own, or else its base's."""
    has_own = model.base is None or (model.path / "tokenizer_config.json").is_file()
    return str(model.path if has_own or model.base is None else model.base.path)


def format_of(source: Artifact, config: PrepConfig, notes: list[str]) -> tuple[FormatChoice, RowType | None]:
    """The format of ``source``, and its row type where rows may differ in format.

    ``notes`` gets a line that names the columns which the format does not read.
    """
    if source.ref.startswith("pydoc:") and config.format == "auto" and not (config.map or kept_columns(config)):
        return "question_answer", None  # what docstrings are made into; finding the first ones takes seconds
    sample = list(islice(_records(source), SAMPLE_ROWS))
    if not sample:
        return "mixed", None
    check_columns(sample, config.map, kept_columns(config))
    renamed = [rename(record, config.map) for record in sample]
    if config.format == "mixed":
        return "mixed", detect_row_type(renamed)
    name = detect(renamed, config.map) if config.format == "auto" else config.format
    require_columns(renamed, name)
    unused = [column for column in unused_columns(renamed, name) if column not in kept_columns(config)]
    if unused:
        notes.append(f"format {name} does not read the columns {', '.join(unused)}")
    return name, None


def kept_columns(config: PrepConfig) -> list[str]:
    """Columns of the source that go into ``meta``, to group or stratify by."""
    names = (config.group_by, config.stratify_by)
    return list(dict.fromkeys(name for name in names if name and name not in ("language", "source")))


def _records(source: Artifact) -> Iterator[Record]:
    return (item for item in open_source(source.ref, source.path, []) if isinstance(item, Record))


def prompts_of(source: Artifact) -> Iterator[str]:
    """The prompts of an evaluation set or reference sample, in any format; a text row is its own prompt.

    Rows that cannot be read are passed over: what they are compared with is the rest.
    """
    plain = PrepConfig(format="auto")  # the settings are about the source, not about this
    name, kind = format_of(source, plain, [])
    for record in _records(source):
        try:
            row = to_row(record, name, RowNotes(), kind=kind)
        except Refused:
            continue
        if text := prompt_text(row) or answer_text(row):
            yield text
