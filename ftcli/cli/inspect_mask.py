"""The command inspect-mask: which tokens of a row are trained on, seen through the collator that training uses."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ftcli.cli.inputs import find, stage_of
from ftcli.core.errors import BadData, UsageError
from ftcli.core.rundir import RunDir
from ftcli.core.stage import Artifact, Kind
from ftcli.data.rows import SPLITS, Row, RowType, read_split
from ftcli.launch.environment import ENVIRONMENT
from ftcli.pipeline.references import external
from ftcli.stages.prep.report.text import counted
from ftcli.stages.sft.config import SftConfig
from ftcli.stages.sft.encode import Encoded, TooLong, encode

if TYPE_CHECKING:
    from ftcli.data.template_doctor import Finding
    from ftcli.stages.sft.masked_rows import Seen

LOOKED_AT = 1000
"""Rows that the findings come from."""
HOPELESS = {"no_chat_template", "template_fails", "content_left_out", "no_pad_token"}
"""Findings with which no row can be shown."""


def inspect_mask(
    data: Annotated[
        str,
        typer.Option(
            "--data",
            metavar="REF",
            help="Rows: a data folder of prep, an output such as prep.data, or raw rows in any format that prep reads.",
        ),
    ],
    model: Annotated[str, typer.Option("--model", metavar="REF", help="The model whose tokenizer and template count.")],
    run: Annotated[Path, typer.Option("--run", help="Run directory of such outputs.", envvar="FTCLI_RUN")] = Path(
        "runs/default"
    ),
    split: Annotated[str, typer.Option("--split", help="Of a data folder: train, validation or test.")] = "train",
    rows: Annotated[int, typer.Option("--rows", min=0, help="How many rows to print, from the first on.")] = 3,
    max_length: Annotated[
        int, typer.Option("--max-length", min=8, help="As in sft: tokens of a row.")
    ] = SftConfig.model_fields["max_length"].default,
    too_long: Annotated[
        TooLong, typer.Option("--too-long", help="As in sft: what becomes of longer rows.")
    ] = "truncate",
    ids: Annotated[bool, typer.Option("--ids", help="One line for each token, with its id.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show which tokens of each row sft, lora and qlora train on, and what is wrong with the model's chat template.

    Trained tokens are green on a terminal; elsewhere, and with NO_COLOR set, they stand in the brackets of U+27E6 and
    U+27E7. A character that cannot be seen is spelled as its code. Raw rows are read as prep reads them, without its
    cleaning. The exit code is 65 if training would refuse the template or the rows.

    Example:

      ftcli inspect-mask --data rows.jsonl --model demo:smollm2 --rows 2
    """
    os.environ.update(ENVIRONMENT)  # before a library reads it
    directory = RunDir(run)
    source = _data(directory, data)
    artifact = find(directory, "--model", model, Kind.MODEL, "")
    notes: list[str] = []
    found = _rows(source, split, max(rows, LOOKED_AT), notes)

    from ftcli.data.chat import generation_eos, stop_token_ids
    from ftcli.data.template_doctor import check_template
    from ftcli.models.load import load_tokenizer_of
    from ftcli.stages.sft.masked_rows import lines_of, seen_rows

    tokenizer = load_tokenizer_of(artifact)
    eos = generation_eos((artifact.base or artifact).path)
    stop_ids = stop_token_ids(tokenizer, eos)
    findings = check_template(tokenizer, stop_ids, found, eos)
    faults = [item.name for item in findings if item.level == "error"]
    total: Encoded | None = None
    refusal: BadData | None = None
    if faults:
        refusal = BadData(f"training would refuse this: {', '.join(faults)}", "do what is said below each error above")
    else:
        try:
            total = encode(tokenizer, found, stop_ids, max_length, too_long)
        except BadData as error:
            refusal = error
    shown = [] if HOPELESS & set(faults) else found[:rows]
    seen = seen_rows(tokenizer, shown, stop_ids, max_length, too_long)
    if as_json:
        print(json.dumps(_as_json(findings, total, seen, len(found), notes, with_ids=ids), indent=2))
    else:
        colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        for line in lines_of(findings, total, seen, len(found), notes, colour=colour, with_ids=ids):
            print(line)
    if refusal:
        raise refusal


def _data(run: RunDir, text: str) -> Artifact:
    """The prepared data that ``text`` names, of ``run`` or in a folder, else a source of raw rows."""
    item, (_, dot, output) = stage_of(run, text), text.partition(".")
    if item is not None and (not dot or output in item.manifest["outputs"]):
        return find(run, "--data", text, Kind.DATA, "")
    hint = f"or name an output of {run.root} as STAGE.OUTPUT; --run names another run directory"
    try:
        ref = external(Path.cwd(), Kind.SOURCE, text, hint).ref
    except UsageError as error:
        raise UsageError(f"--data: {error.message}", error.hint) from None
    path = Path() if ref.startswith(("hf:", "pydoc:")) else Path(ref)
    is_data = path.is_dir() and any(
        (path / f"{split}.{end}").is_file() for split in SPLITS for end in ("jsonl", "parquet")
    )
    kind = Kind.DATA if is_data else Kind.SOURCE
    return Artifact(kind, ref, path, digest="")  # which only what is published needs


def _rows(source: Artifact, split: str, limit: int, notes: list[str]) -> list[Row]:
    """The first messages rows; ``notes`` gets what was refused on the way."""
    if split not in SPLITS:
        raise UsageError(f"--split {split}: no such split", f"one of {', '.join(SPLITS)}")
    if source.kind is Kind.DATA:
        found = read_split(source.path, split, RowType.MESSAGES, limit=limit)
        where = f"{source.ref}: the split {split} is empty"
    else:
        found = _raw_rows(source, limit, notes)
        where = f"{source.ref}: no row of it can be read" + "".join(f"\n  {note}" for note in notes)
    if not found:
        raise BadData(where, "give rows of a conversation, each ending with the assistant's message")
    return found


def _raw_rows(source: Artifact, limit: int, notes: list[str]) -> list[Row]:
    from ftcli.data.formats import FORMATS, to_row
    from ftcli.data.records import Record, Refused, RowNotes
    from ftcli.data.sources.open import open_source
    from ftcli.stages.prep.config import PrepConfig
    from ftcli.stages.prep.plan import format_of

    try:
        name, kind = format_of(source, PrepConfig(), notes)
    except BadData as error:
        hint = (
            f"these settings are prep's: run `ftcli prep --source {source.ref}` with them, and give --data its result"
        )
        raise BadData(f"{source.ref}: {error.message}", f"{error.hint}\n{hint}") from None
    kind = kind or (FORMATS[name].row_type if name != "mixed" else None)
    if kind not in (None, RowType.MESSAGES):
        raise BadData(
            f"{source.ref}: format {name} gives {kind} rows, messages rows are needed",
            "sft, lora and qlora train on conversations; reward and ppo take other rows",
        )
    found: list[Row] = []
    refused: list[str] = []
    for item in islice(open_source(source.ref, source.path, notes), limit):
        if isinstance(item, Record):
            try:
                found.append(to_row(item, name, RowNotes()))
            except Refused as why:
                refused.append(f"{item.file}:{item.line}: {why.reason}: {why.detail}")
        elif item is not None:
            refused.append(str(item))
    if refused:
        notes.append(f"{counted(len(refused), 'row')} that prep would refuse left out, the first: {refused[0]}")
    return found


def _as_json(
    findings: Sequence[Finding],
    total: Encoded | None,
    seen: Sequence[Seen],
    looked_at: int,
    notes: list[str],
    *,
    with_ids: bool,
) -> dict[str, Any]:
    figures = (
        {
            "rows": looked_at,
            "kept": len(total.input_ids),
            "truncated": total.truncated,
            "dropped": total.dropped_by,
            "tokens": sum(total.lengths),
            "trained": total.labels_kept,
            "trained_lost": total.labels_lost,
        }
        if total
        else None
    )
    return {
        "findings": [asdict(item) for item in findings],
        "looked_at": figures or {"rows": looked_at},
        "notes": notes,
        "rows": [item.to_json(with_ids=with_ids) for item in seen],
    }
