"""The rows of the reward stage as comparisons in token ids: which rows are trained on, which are held out, and what is left
out of either, said aloud."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ftcli.core.errors import BadData
from ftcli.core.stage import Context
from ftcli.data.pairs import Encoded, encode_pairs, without_prompts
from ftcli.data.rows import Row, RowType, read_split
from ftcli.rl.preferences import Comparison
from ftcli.rl.sequences import Exchange
from ftcli.stages.reward.config import RewardConfig

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def read_rows(ctx: Context[RewardConfig]) -> tuple[list[Row], list[Row], str]:
    """The rows to train on, held-out rows and the split that these are from: validation, or test where that is empty.

    A train row whose prompt is held out too is left out. Raises `BadData` where either is empty.
    """
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
    if not kept:
        raise BadData(f"{data.ref}: all prompts of train are in {split} too", "split by prompt, as `ftcli prep` does")
    if len(kept) < len(rows):
        ctx.events.note(
            f"train: {len(rows) - len(kept)} of {len(rows)} rows left out, their prompts are in {split} too"
        )
    ctx.events.summarize({"train/asked_in_held_out": len(rows) - len(kept)})
    return kept, held_out, split


def encode(
    ctx: Context[RewardConfig],
    tokenizer: PreTrainedTokenizerBase,
    stop_ids: frozenset[int],
    split: str,
    rows: list[Row],
) -> Encoded:
    """The pairs of one split; what was cut or left out is said aloud.

    Raises `BadData` where no pair with a winner is left, or the settings ask for margins or ties that the rows do not have.
    """
    config, ref = ctx.config, ctx.one("data").ref
    use_margin = config.use_margin and split == "train"  # held-out pairs are judged by who wins alone
    found = encode_pairs(
        tokenizer, rows, stop_ids, config.max_length, config.overlong, ties=config.ties, use_margin=use_margin
    )
    lost = _listed(
        {
            f"longer than max_length {config.max_length}": found.overlong,
            "of two equal answers": found.identical,
            "said before": found.repeated,
            "ties": found.ties_dropped,
        }
    )
    decided = found.pairs - found.ties
    if not decided:
        raise BadData(
            f"{ref}: none of the {len(rows)} {split} rows has a pair with a winner that can be used; left out: {lost}",
            f"raise max_length (now {config.max_length})" if found.overlong else "the answers of a pair must differ",
        )
    if found.without_margin == decided:
        raise BadData(
            f"{ref}: use_margin, and no {split} row has meta.margin, meta.chosen_score or meta.scores",
            "put the numbers there (prep keeps the meta of rows that have an id), or turn use_margin off",
        )
    if split == "train" and config.ties == "davidson" and not found.ties:
        raise BadData(
            f"{ref}: ties davidson, and no two answers tie in train",
            "rankings with equal ranks have ties; for data without any, leave ties at drop",
        )
    kept = _listed(
        {
            "ties": found.ties,
            "contradicted by another": found.contradicted,
            "without a margin": found.without_margin,
            "prompts without their beginning": found.truncated_prompts,
        }
    )
    told = f", {kept}" if kept else ""
    ctx.events.note(
        f"{split}: {found.pairs} pairs of {len(found.prompts)} prompts{told}" + (f"; left out: {lost}" if lost else "")
    )
    return found


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items() if count)


def comparisons(pairs: Encoded) -> list[Comparison]:
    """One for each prompt."""
    found = []
    for one in pairs.prompts:
        decided = [pair for pair in one.pairs if not pair.is_tie]
        found.append(
            Comparison(
                [Exchange(one.prompt, answer, row=one.row) for answer in one.answers],
                [(pair.winner, pair.loser) for pair in decided],
                [(pair.winner, pair.loser) for pair in one.pairs if pair.is_tie],
                [pair.margin for pair in decided],
            )
        )
    return found
