"""What a run begins with: seeds to ask about, documents, rows that must not be repeated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ftcli.core.errors import BadData, UsageError
from ftcli.core.stage import Artifact, Context
from ftcli.data.rows import Row, RowType, read_split
from ftcli.data.texts import prompt_text
from ftcli.stages.synth.config import SynthConfig
from ftcli.stages.synth.plan import NEEDS_ANSWER, Exemplar, Passage, exemplar_of, passages_of

SEED_TYPES = (RowType.MESSAGES, RowType.PROMPT, RowType.PREFERENCE)
HELD_OUT = ("validation", "test")


@dataclass(frozen=True)
class Material:
    """``pool`` are all rows that there are, ``exemplars`` those of them that can be asked about; ``held_out`` prompts by name."""

    pool: list[Row]
    exemplars: list[Exemplar]
    passages: list[Passage]
    held_out: dict[str, list[str]]


def material_of(ctx: Context[SynthConfig]) -> Material:
    """Raises `UsageError` for an input that the mode lacks, `BadData` for one with nothing to use."""
    mode, seeds, documents = ctx.config.mode, ctx.maybe("seeds"), ctx.maybe("documents")
    if mode == "from_documents" and documents is None:
        raise UsageError("mode from_documents has no documents", "give --documents DATA, text rows from prep")
    if mode != "from_documents" and seeds is None:
        raise UsageError(f"mode {mode} has no seeds", "give --seeds DATA, or --mode from_documents")
    if mode != "from_documents" and documents is not None:
        raise UsageError(f"mode {mode} reads no documents", "leave them out, or give --mode from_documents")
    pool = read_split(seeds.path, "train", *SEED_TYPES) if seeds else []
    passages: list[Passage] = []
    if documents is not None:
        rows = read_split(documents.path, "train", RowType.TEXT)
        passages = [passage for row in rows for passage in passages_of(row, ctx.config.passage_chars)]
        if not passages:
            raise BadData(f"{documents.path}: no text in train to ask about", "look at its train split")
    exemplars = [] if passages or seeds is None else _exemplars(pool, seeds, ctx.config, ctx.events.note)
    return Material(pool, exemplars, passages, _held_out(ctx))


def _exemplars(pool: list[Row], seeds: Artifact, config: SynthConfig, note: Callable[[str], None]) -> list[Exemplar]:
    found = [item for row in pool if (item := exemplar_of(row))]
    usable = [item for item in found if item.answer or config.mode not in NEEDS_ANSWER]
    several, unanswered = len(pool) - len(found), len(found) - len(usable)
    if not usable:
        raise BadData(
            f"{seeds.path}: none of {len(pool)} rows in train can be a seed of {config.mode}: {several} are not one request of a "
            f"user, {unanswered} have no answer",
            "give rows of one request and its answer, from prep",
        )
    if several or unanswered:
        note(
            f"{len(usable)} of {len(pool)} rows are seeds: {several} are not one request of a user, {unanswered} have no answer"
        )
    return usable


def _held_out(ctx: Context[SynthConfig]) -> dict[str, list[str]]:
    """The prompts of the validation and test rows of ``against``, which must have some, and of the seeds."""
    given = ctx.many("against")
    found: dict[str, list[str]] = {}
    for artifact in (*given, *ctx.many("seeds")):
        rows = [row for split in HELD_OUT for row in read_split(artifact.path, split, *RowType)]
        texts = [text for row in rows if (text := prompt_text(row) or str(row.get("text", "")))]
        if artifact in given and not texts:
            raise BadData(
                f"{artifact.path}: no validation or test rows to compare with", "give evaluation data as those splits"
            )
        found[f"{artifact.label or artifact.ref}"] = texts
    return found
