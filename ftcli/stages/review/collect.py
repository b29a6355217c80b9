"""From rows to what people say of them to the rows that are kept, top to bottom."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ftcli.core.errors import BadData, GateFailed, NeedsHuman, UsageError
from ftcli.core.rundir import serve_command
from ftcli.core.stage import Context
from ftcli.data.rows import (
    SPLITS,
    Row,
    RowType,
    prompt_of,
    read_split,
    row_type,
    split_file,
    uses_tools,
    write_jsonl,
    write_rows,
)
from ftcli.data.split import draws
from ftcli.human.tasks import Item, Judgement
from ftcli.stages.review.config import ReviewConfig
from ftcli.stages.review.decide import Decision, Reviewed, decide, standing
from ftcli.stages.review.desk import ask, task_of
from ftcli.stages.review.figures import Json, figures_of, forbids_trade, rate_text, reasons_text
from ftcli.stages.review.report import write_report
from ftcli.stages.review.votes import read_votes

REPORT = "report"


def collect(ctx: Context[ReviewConfig]) -> None:
    config = ctx.config
    splits = read_splits(ctx.one("data").path)
    items = _drawn(config, splits)
    judgements = _judgements(ctx, items)
    decisions = _decided(config, items, judgements)
    if None in decisions.values():
        raise _needs_people(ctx, decisions, judgements)
    reviewed = [Reviewed(split, row, decisions.get(row["id"])) for split, rows in splits.items() for row in rows]
    figures = figures_of(reviewed, judgements, config)
    _check_gate(ctx, figures, reviewed)
    _write_data(ctx, reviewed)
    write_report(ctx.output(REPORT), figures, reviewed, ctx.one("data").ref)
    _summarize(ctx, figures)


def read_splits(folder: Path) -> dict[str, list[Row]]:
    """All rows by split. Raises `BadData` for rows that are not canonical or of different types, and for those that a review cannot
    name or mark: with an id of another row, or a meta or meta.prov that is no object."""
    found: dict[str, list[Row]] = {}
    places: dict[str, str] = {}
    wanted: tuple[RowType, ...] = tuple(RowType)
    for split in SPLITS:
        found[split] = read_split(folder, split, *wanted)
        path = split_file(folder, split)
        for number, row in enumerate(found[split], start=1):
            kind = row_type(row)
            if kind not in wanted:
                raise BadData(
                    f"{path}:{number}: a {kind} row among {wanted[0]} rows", "review rows of one type at a time"
                )
            wanted = (kind,)
            _check_row(f"{path}:{number}", row, places)
    if not places:
        raise BadData(f"{folder}: no rows to review", "look at what the stage before it left")
    return found


def _check_row(place: str, row: Row, places: dict[str, str]) -> None:
    id, meta = row["id"], row.get("meta") or {}
    if id in places:
        raise BadData(f"{place}: id {id!r}, as at {places[id]}", "give each row an id of its own")
    places[id] = place
    if not isinstance(meta, dict) or not isinstance(meta.get("prov", {}), dict):
        raise BadData(f"{place}: meta and meta.prov must be objects", "the review of a row is recorded in meta.prov")
    try:
        json.dumps(row, ensure_ascii=False, allow_nan=False).encode()
    except ValueError as error:
        raise BadData(f"{place}: cannot be written as JSON: {error}", "run `ftcli prep` on raw files first") from None


def _drawn(config: ReviewConfig, splits: Mapping[str, Sequence[Row]]) -> dict[str, Item]:
    """The rows that people are asked about, by id."""
    found = {
        row["id"]: Item(row["id"], [] if "text" in row else prompt_of(row), row=row, split=split)
        for split, rows in splits.items()
        for row in rows
    }
    if config.mode == "sample":
        order = draws(config.seed, "review", found).argsort(kind="stable")[: config.sample_size]
        ids = list(found)
        return {ids[index]: found[ids[index]] for index in sorted(order.tolist())}
    return found if config.mode == "all" else {}


def _judgements(ctx: Context[ReviewConfig], items: Mapping[str, Item]) -> list[Judgement]:
    """What the votes file and the desk say of ``items``, the oldest first; the desk is asked for what the votes leave open."""
    config, votes = ctx.config, ctx.maybe("votes")
    if not items:
        if votes is not None:
            raise UsageError("review: mode none reads no votes", "leave the votes out, or take mode all or sample")
        return []
    label = ctx.one("data").label or ctx.one("data").ref
    found: list[Judgement] = []
    if votes is not None:
        found, others = read_votes(votes.path, task_of(config, list(items.values()), label), items)
        if others:
            ctx.events.note(f"review: {others} of the votes are of rows that are not to be judged; they count nowhere")
    decisions = _decided(config, items, found)
    left = [item for id, item in items.items() if decisions[id] is None]
    if left and ctx.desk is not None:
        found += ask(ctx.desk, task_of(config, left, label), left)
    return sorted(found, key=lambda judgement: judgement.at)


def _decided(config: ReviewConfig, items: Iterable[str], judgements: Sequence[Judgement]) -> dict[str, Decision | None]:
    said = standing(judgements)
    return {id: decide(said.get(id, ()), config.overlap, config.reasons) for id in items}


def _needs_people(
    ctx: Context[ReviewConfig], decisions: Mapping[str, Decision | None], judgements: Sequence[Judgement]
) -> NeedsHuman:
    done = [decision for decision in decisions.values() if decision is not None]
    people = f" by {ctx.config.overlap} people each" if ctx.config.overlap > 1 else ""
    text = [f"review: {len(done)} of {len(decisions)} rows judged{people}"]
    if done:
        text.append(rate_text(sum(decision.verdict == "accept" for decision in done), len(done)))
    skipped = {one.item for one in judgements if one.verdict == "skip"} - {
        id for id, found in decisions.items() if found
    }
    if skipped:
        text.append(f"{len(skipped)} of the others skipped: somebody else has to judge them")
    hint = (
        f"{serve_command(ctx.desk)}, then the same command again"
        if ctx.desk
        else "give more judgements as the input votes"
    )
    return NeedsHuman("; ".join(text), hint)


def _check_gate(ctx: Context[ReviewConfig], figures: Json, reviewed: Sequence[Reviewed]) -> None:
    """Nothing is published if the gate fails: rows that failed it must not be found by a later stage, and a published verdict would
    stand though people judge again. The report stays in scratch."""
    least, is_whole = figures["min_accept_rate"], not figures["unreviewed"]
    reached = figures["accept_rate"] if is_whole else figures["accept_low"]
    failed = least is not None and reached < least
    if not failed and figures["rows_out"]:
        return
    folder = ctx.scratch / REPORT
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    write_report(folder, figures, reviewed, ctx.one("data").ref)
    text = f"review: {rate_text(figures['accepted'], figures['judged'])}"
    why = (
        f"{'' if is_whole else 'the lower end '}must reach min_accept_rate {least:.1%}" if failed else "no row is left"
    )
    said = f"; rejected: {reasons_text(figures['reasons'])}" if figures["rejected"] else ""
    raise GateFailed(f"{text}; {why}{said}", f"see {folder / 'report.html'}; correct what made these rows")


def _write_data(ctx: Context[ReviewConfig], reviewed: Sequence[Reviewed]) -> None:
    """The kept rows in the splits and the file format that they came in."""
    folder = ctx.output("data")
    results: dict[str, list[Row]] = {split: [] for split in SPLITS}
    for one in reviewed:
        row = one.result()
        if row is not None:
            results[one.split].append(row)
    kept = [row for rows in results.values() for row in rows]
    kind, with_tools = row_type(kept[0]) or RowType.TEXT, any(map(uses_tools, kept))
    for split, rows in results.items():
        if split_file(ctx.one("data").path, split).suffix == ".jsonl":
            write_jsonl(folder / f"{split}.jsonl", rows)
        else:
            write_rows(folder / f"{split}.parquet", rows, "parquet", kind, with_tools=with_tools)


def _summarize(ctx: Context[ReviewConfig], figures: Json) -> None:
    if not figures["judged"]:
        ctx.events.note(f"review: nobody looked at these {figures['rows_in']} rows (mode none); every row says so")
    else:
        said = f" ({reasons_text(figures['reasons'])})" if figures["rejected"] else ""
        ctx.events.note(
            f"review: {figures['rows_in']} rows in: {figures['accepted']} accepted, {figures['edited']} edited, "
            f"{figures['rejected']} rejected{said}, {figures['unreviewed']} not looked at; {figures['rows_out']} rows out"
        )
        ctx.events.note(f"review: {rate_text(figures['accepted'], figures['judged'])}")
    bound = sum(one["rows"] for one in figures["licences"] if forbids_trade(one))
    if bound:
        ctx.events.note(f"review: {bound} of the rows in are under a licence that calls itself non-commercial")
    names = ("rows_in", "rows_out", "judged", "unreviewed", "accepted", "edited", "rejected", "ties", "accept_rate")
    ctx.events.summarize({f"review/{name}": figures[name] for name in (*names, "accept_low", "accept_high")})
