"""From the rows of a data folder to pairs of token ids, with a word for everything that is left out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ftcli.core.errors import BadData
from ftcli.core.stage import Context
from ftcli.data.pairs import Answers, Encoded, Pair, encode_pairs, without_prompts
from ftcli.data.rows import Row, RowType, read_split
from ftcli.stages.dpo.config import DpoConfig


@dataclass(frozen=True)
class Pairs:
    """One split. ``columns`` has a pair at each place: ``prompt_ids``, ``chosen_ids``, ``rejected_ids`` and its prompt's
    ``number``; the longest pair comes first."""

    columns: dict[str, list[Any]]
    lengths: list[int]
    """Tokens that each pair takes, both answers padded to the longer one."""
    encoded: Encoded


def read_rows(ctx: Context[DpoConfig]) -> tuple[list[Row], list[Row], str]:
    """The rows to train on, held-out rows and the split that these are from. A prompt is in one of the two alone."""
    data = ctx.one("data")
    kinds = (RowType.PREFERENCE, RowType.RANKING)
    split = "validation" if read_split(data.path, "validation", *kinds, limit=1) else "test"
    rows, held_out = read_split(data.path, "train", *kinds), read_split(data.path, split, *kinds)
    if not rows or not held_out:
        raise BadData(
            f"{data.ref}: no {'validation rows and no test rows' if rows else 'train rows'}",
            "preference rows come from `ftcli sample`, or from raw pairs and rankings through `ftcli prep`",
        )
    kept = without_prompts(rows, held_out)
    if len(kept) < len(rows):
        ctx.events.note(
            f"train: {len(rows) - len(kept)} of {len(rows)} rows left out, their prompts are in {split} too"
        )
    if not kept:
        raise BadData(f"{data.ref}: all prompts of train are in {split} too", "split by prompt, as `ftcli prep` does")
    ctx.events.summarize({"train/asked_in_held_out": len(rows) - len(kept)})
    return kept, held_out, split


def encode_split(
    ctx: Context[DpoConfig], tokenizer: Any, stop_ids: frozenset[int], split: str, rows: list[Row]
) -> Pairs:
    """The pairs of one split, ties left out; what was cut or left out is said aloud. Raises `BadData` if none is left."""
    config, ref = ctx.config, ctx.one("data").ref
    found = encode_pairs(tokenizer, rows, stop_ids, config.max_length, config.overlong, ties="drop")
    counts = {name: count for name, count in found.counts().items() if count and name not in ("pairs", "prompts")}
    told = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in counts.items())
    if not found.pairs:
        raise BadData(
            f"{ref}: none of the {len(rows)} {split} rows has a pair that can be used: {told}",
            f"raise max_length (now {config.max_length})" if found.overlong else "the answers of a pair must differ",
        )
    ctx.events.note(f"{split}: {found.pairs} pairs of {len(found.prompts)} prompts" + (f"; {told}" if told else ""))
    flat = [(number, one, pair) for number, one in enumerate(found.prompts) for pair in one.pairs]
    # By length, so that micro-batches of held-out pairs hold little padding; those of training are shuffled later.
    flat.sort(key=lambda item: -_length(item[1], item[2]))
    columns = {
        "prompt_ids": [one.prompt for _, one, _ in flat],
        "chosen_ids": [one.answers[pair.winner] for _, one, pair in flat],
        "rejected_ids": [one.answers[pair.loser] for _, one, pair in flat],
        "number": [number for number, _, _ in flat],
    }
    return Pairs(columns, [_length(one, pair) for _, one, pair in flat], found)


def _length(one: Answers, pair: Pair) -> int:
    return 2 * (len(one.prompt) + max(len(one.answers[pair.winner]), len(one.answers[pair.loser])))
