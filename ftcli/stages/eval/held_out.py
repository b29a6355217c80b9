"""The rows that models are measured on: chat rows, whose last answer is the reference, or rows of plain text."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from ftcli.core.errors import BadData, UsageError
from ftcli.core.stage import Context
from ftcli.data.chat import render_answer, stop_token_ids
from ftcli.data.rows import Row, RowType, prompt_of, read_split, reference_of, row_type
from ftcli.metrics.perplexity import Pair
from ftcli.metrics.text import non_ascii_share
from ftcli.models.load import load_tokenizer_of, longest_input
from ftcli.stages.eval.config import EvalConfig


@dataclass(frozen=True)
class HeldOut:
    """The rows to compute, and how many of the split were left out. ``is_text``: plain text, which nobody answers."""

    rows: list[Row]
    left_out: int
    is_text: bool

    @property
    def references(self) -> list[str]:
        return [row["text"] if self.is_text else str(reference_of(row)) for row in self.rows]

    @property
    def ids(self) -> list[str]:
        return [row["id"] for row in self.rows]

    def answered(self, config: EvalConfig) -> list[Row]:
        """The rows that the models answer."""
        return [] if self.is_text else self.rows[: config.generation_limit]


def read_held_out(ctx: Context[EvalConfig], tokenizer: PreTrainedTokenizerBase) -> HeldOut:
    """The rows of the split; `BadData` is raised where none can be used."""
    config, folder = ctx.config, ctx.one("data").path
    read = read_split(folder, config.split, RowType.MESSAGES, RowType.TEXT, limit=config.limit)
    texts = sum(row_type(row) is RowType.TEXT for row in read)
    if 0 < texts < len(read):
        raise BadData(f"{folder}: split {config.split} has both chat and text rows", "evaluate them apart")
    twice = [id for id, count in Counter(row["id"] for row in read).items() if count > 1]
    if twice:
        raise BadData(
            f"{folder}: split {config.split} has rows with the same id: {', '.join(twice[:3])}",
            "models are compared row by row: give each row an id of its own",
        )
    kept = _texts(ctx, read, tokenizer) if texts else _short_enough(ctx, _with_answers(ctx, read), tokenizer)
    return HeldOut(kept, len(read) - len(kept), is_text=texts > 0)


def wants_answers(ctx: Context[EvalConfig]) -> bool:
    """Whether the models are to answer the rows."""
    readers = any(ctx.many(name) for name in ("reward", "judge", "metric")) or ctx.config.judge_url
    return bool(readers) or bool(set(ctx.config.metrics) - {"perplexity"})


def _room(ctx: Context[EvalConfig]) -> tuple[float, str]:
    """The tokens that every model can read, and the label of the one that reads the fewest."""
    known = [(longest_input((model.base or model).path), model.label) for model in ctx.many("models")]
    return min([(longest, label) for longest, label in known if longest is not None], default=(math.inf, ""))


def _texts(ctx: Context[EvalConfig], rows: list[Row], tokenizer: PreTrainedTokenizerBase) -> list[Row]:
    kept = [row for row in rows if row["text"].strip()]
    if not kept:
        raise BadData(f"{ctx.one('data').path}: all {len(rows)} text rows are empty", "give prep other data")
    if len(kept) < len(rows):
        ctx.events.note(f"{len(rows) - len(kept)} of {len(rows)} rows left out: they are empty")
    room, label = _room(ctx)
    if ctx.config.max_length > room:
        longest = max(len(tokenizer(row["text"], add_special_tokens=False).input_ids) for row in kept) + 1
        if longest > room:
            raise UsageError(
                f"max_length {ctx.config.max_length}: {label} can read {room} tokens, and there are longer text rows",
                f"set max_length to {room}: longer rows are read in windows",
            )
    return kept


def _with_answers(ctx: Context[EvalConfig], read: list[Row]) -> list[Row]:
    plain = [model.label for model in ctx.many("models") if not load_tokenizer_of(model).chat_template]
    if plain:
        raise UsageError(
            f"models: {', '.join(plain)}: no chat template, so chat rows cannot be rendered",
            "put a chat_template.jinja into the model's folder, or evaluate text rows",
        )
    rows = [row for row in read if reference_of(row) is not None]
    if not rows:
        raise BadData(
            f"{ctx.one('data').path}: split {ctx.config.split} has no rows with an answer in text",
            "give prep more data, or a larger share of it to this split",
        )
    if len(rows) < len(read):
        ctx.events.note(f"{len(read) - len(rows)} of {len(read)} rows left out: their last answer calls a tool")
    return rows


def _short_enough(ctx: Context[EvalConfig], rows: list[Row], tokenizer: PreTrainedTokenizerBase) -> list[Row]:
    config, stop_ids = ctx.config, stop_token_ids(tokenizer)
    room, label = _room(ctx)
    pairs = [encode(tokenizer, row, stop_ids) for row in rows]
    new = config.max_new_tokens if wants_answers(ctx) else 0
    short = [len(prompt) + len(answer) <= config.max_length for prompt, answer in pairs]
    fits = [len(prompt) + max(len(answer), new) <= room for prompt, answer in pairs]
    kept = [row for row, *is_in in zip(rows, short, fits, strict=True) if all(is_in)]
    beyond = sum(is_short and not is_in for is_short, is_in in zip(short, fits, strict=True))
    reasons = [
        (short.count(False), f"more than {config.max_length} tokens (max_length)", "raise max_length"),
        (
            beyond,
            f"more tokens, with an answer, than the {room} that {label} can read",
            "lower max_new_tokens, or give shorter rows",
        ),
    ]
    if not kept:
        told = [f"{count} of {len(rows)} rows have {reason}" for count, reason, _ in reasons if count]
        raise BadData("; ".join(told), max(reasons)[2])
    for count, reason, _ in reasons:
        if count:
            ctx.events.note(f"{count} of {len(rows)} rows left out: {reason}")
    unseen = non_ascii_share([str(reference_of(row)) for row in kept])
    if "rouge" in config.metrics and config.rouge_tokenizer == "ascii" and unseen > 0.2:
        ctx.events.note(f"ROUGE does not see {unseen:.0%} of the references' letters; set rouge_tokenizer: words")
    return kept


def encode(tokenizer: PreTrainedTokenizerBase, row: Row, stop_ids: frozenset[int]) -> Pair:
    """The tokens of a chat row's prompt and of its reference."""
    return render_answer(tokenizer, prompt_of(row), str(reference_of(row)), stop_ids, tools=row.get("tools"))
