"""From sources to a data folder and a report, in three passes.

1. Each row alone (`row_steps`): read, recognise, clean, check, measure; in chunks, in several processes.
2. Rows against each other (`compare`, `splits`): duplicates, contamination, conflicts, limit, groups, split; on columns in memory.
3. Files (`publish`): splits, rejects, flags, duplicates, conflicts, statistics, report.

Every record that was read is in one split or among the rejects; the ledger is checked before anything is published.
"""

from __future__ import annotations

import shutil
import time
from collections import Counter
from pathlib import Path
from typing import Any

from ftcli.core.artifacts import write_json
from ftcli.core.errors import BadData, GateFailed, UsageError
from ftcli.core.stage import Context
from ftcli.data.language import CODES
from ftcli.data.sources.paths import find_files
from ftcli.stages.prep.chunks import Store
from ftcli.stages.prep.compare import decide
from ftcli.stages.prep.config import PrepConfig
from ftcli.stages.prep.decisions import Decisions
from ftcli.stages.prep.gates import check_gates
from ftcli.stages.prep.plan import plan_of
from ftcli.stages.prep.publish import write_conflicts, write_duplicates, write_flags, write_rejects, write_splits
from ftcli.stages.prep.report.write import write_report
from ftcli.stages.prep.row_steps import run_all, worker_count
from ftcli.stages.prep.stage import run_elsewhere
from ftcli.stages.prep.statistics import collect


def prepare(ctx: Context[PrepConfig]) -> None:
    """Run the stage. Raises `BadData` if nothing usable is left or too much is malformed, `GateFailed` if a gate fails."""
    started = time.monotonic()
    config, notes = ctx.config, []
    sources = ctx.many("source")
    check_settings(ctx)
    plan = plan_of(ctx, notes)
    chunks = Path(plan.folder)
    rows = [0]

    def on_chunk(count: int) -> None:
        rows[0] += count
        ctx.events.progress("prep: reading", rows[0], max(rows[0], 1), rows=rows[0])

    if config.executor == "here":
        workers = worker_count(config.workers, sum(bytes_of(item.ref, Path(item.path)) for item in plan.sources))
        run_all(plan, workers, on_chunk)
    else:
        run_elsewhere(plan, config)
    store = Store(chunks)
    notes += [note for note in store.notes if note not in notes]
    check_malformed(store, config, ", ".join(item.ref for item in sources))
    decisions = decide(store, plan, ctx)
    data, report = ctx.output("data"), ctx.output("report")
    written = write_splits(store, decisions, config, [item.label for item in sources], data)
    refused_later, files_later = write_rejects(store, decisions, report / "rejects.jsonl")
    refused = store.tally.refused + refused_later
    store.tally.file_refused += files_later
    check_ledger(store, decisions, refused)
    write_flags(store, decisions, report / "flags.jsonl")
    write_duplicates(store, decisions, report / "duplicates.jsonl")
    write_conflicts(decisions.conflicts, report / "conflicts.jsonl")
    stats = collect(ctx, plan, store, decisions, refused, written, notes)
    check_usable(stats, ", ".join(item.ref for item in sources))
    stats["gates"] = check_gates(stats, config)
    write_json(report / "stats.json", stats)
    write_report(report)
    tell(ctx, stats, time.monotonic() - started)
    store.close()
    failed = [gate for gate in stats["gates"] if not gate["passed"]]
    if failed:
        keep = ctx.scratch / "report"
        shutil.rmtree(keep, ignore_errors=True)
        shutil.copytree(report, keep)
        raise GateFailed(
            "; ".join(f"{gate['name']}: {gate['value']} (limit {gate['limit']})" for gate in failed),
            f"nothing was published; the report is {keep / 'report.html'}",
        )
    shutil.rmtree(chunks)


def check_settings(ctx: Context[PrepConfig]) -> None:
    """Refuse settings that nothing could honour with these inputs."""
    config, labels = ctx.config, [item.label for item in ctx.many("source")]
    if config.max_length and ctx.maybe("model") is None:
        raise UsageError("max_length needs a tokenizer to count with", "give the model: --model demo:smollm2")
    unknown = [label for label in config.weights if label not in labels]
    if unknown:
        raise UsageError(f"weights: no source is labelled {', '.join(unknown)}", f"there are: {', '.join(labels)}")
    strange = [code for code in config.keep_languages if code not in CODES]
    if strange:
        raise UsageError(f"keep_languages: {', '.join(strange)} cannot be told", f"known: {' '.join(sorted(CODES))}")
    if config.max_auc is not None and ctx.maybe("reference") is None:
        raise UsageError("max_auc compares with a reference sample", "give one: --reference FILE")


def bytes_of(ref: str, path: Path) -> int:
    """Bytes of the files of a source; 0 for docstrings and the hub, which one process reads."""
    if ref.startswith(("pydoc:", "hf:")):
        return 0
    return sum(found.stat().st_size for found, _ in find_files(path, []))


def check_malformed(store: Store, config: PrepConfig, ref: str) -> None:
    """Raise `BadData` if the source is empty or too much of it is malformed."""
    tally = store.tally
    if not tally.rows_in:
        raise BadData(f"{ref}: no rows in it", "is it the right file?")
    malformed = tally.malformed
    if malformed and malformed / tally.rows_in > config.max_reject_rate:
        raise BadData(
            f"{ref}: {malformed} of {tally.rows_in} rows are malformed ({counted(tally.reasons)}), "
            f"the first is {tally.first_malformed}",
            "correct them, name the --format, or raise --max-reject-rate",
        )
    if not len(store):
        raise BadData(
            f"{ref}: none of {tally.rows_in} rows is left ({counted(tally.reasons)})", "see what refuses them"
        )


def check_usable(stats: dict[str, Any], ref: str) -> None:
    if not stats["rows_out"]:
        reasons = counted(Counter(stats["rejected"]))
        raise BadData(f"{ref}: none of {stats['rows_in']} rows is left ({reasons})", "see which settings refuse them")


def counted(reasons: Counter[str]) -> str:
    return ", ".join(f"{reason} {count}" for reason, count in sorted(reasons.items()))


def check_ledger(store: Store, decisions: Decisions, refused: Counter[str]) -> None:
    """Every record read is kept or refused; anything else is a bug here, never a fault of the data."""
    rows_out = int((decisions.refusal == 0).sum())
    if store.tally.rows_in != rows_out + refused.total():
        raise RuntimeError(f"rows were lost: {store.tally.rows_in} in, {rows_out} out, {refused.total()} rejected")


def tell(ctx: Context[PrepConfig], stats: dict[str, Any], seconds: float) -> None:
    """Say the outcome to people, and record it as metrics and facts."""
    for note in stats["notes"]:
        ctx.events.note(note)
    metrics = {f"data/{split}_rows": part["rows"] for split, part in stats["splits"].items()}
    metrics |= {
        "data/rows_in": stats["rows_in"],
        "data/rejected_rows": sum(stats["rejected"].values()),
        "data/near_duplicates": stats["duplicates"]["near_removed"],
        "data/conflicting_prompts": stats["conflicts"]["prompts"],
    }
    if stats["lengths"]["unit"] == "tokens":
        metrics["data/tokens"] = stats["lengths"]["total"]["sum"]
    ctx.events.metrics(0, metrics)
    formats = sorted({source["format"] for source in stats["sources"]})
    ctx.events.summarize(
        {**metrics, "format": ", ".join(formats), "row_type": stats["row_type"], "perf/seconds": seconds}
    )
    ctx.events.progress("prep", 1, 1, rows=stats["rows_out"])
