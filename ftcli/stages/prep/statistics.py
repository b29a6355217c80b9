"""What stats.json says of a preparation; the report is drawn from it alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from ftcli.core.errors import BadData
from ftcli.core.stage import Context
from ftcli.data.dedup import whole_text
from ftcli.data.diversity import measure as measure_diversity
from ftcli.data.language import identify as language_of_text
from ftcli.data.rows import SPLITS, Row, RowType, row_type
from ftcli.data.texts import answer_text, prompt_text
from ftcli.stages.prep.chunks import Store
from ftcli.stages.prep.config import PrepConfig
from ftcli.stages.prep.decisions import REFUSALS, Decisions
from ftcli.stages.prep.plan import Plan, prompts_of
from ftcli.stages.prep.row_steps import ROW_STEPS

SAMPLE_TEXTS = 5000
PII_SAMPLES = 3
BINS = 40


def collect(
    ctx: Context[PrepConfig],
    plan: Plan,
    store: Store,
    decisions: Decisions,
    refused: Counter[str],
    written: dict[str, int],
    notes: list[str],
) -> dict[str, Any]:
    """Everything that stats.json holds, but the gates."""
    config, tally, columns = ctx.config, store.tally, store.columns
    kept = np.flatnonzero(decisions.refusal == 0)
    sample = store.rows(_drawn(decisions, kept, SAMPLE_TEXTS))
    kind = row_type(sample[0]) if sample else None
    reasons: Counter[str] = Counter()
    for key, count in refused.items():
        reasons[key.partition("/")[2]] += count
    languages = Counter(code.decode() or "und" for code in columns["language"][kept].tolist())
    return {
        "sources": [
            {
                "label": source.label,
                "ref": Path(source.ref).name if Path(source.ref).is_absolute() else source.ref,
                "format": source.format,
                "weight": config.weights.get(source.label, 1.0),
                "rows_in": store.source_rows[number],
                "rows_out": int((columns["source"][kept] == number).sum()),
            }
            for number, source in enumerate(plan.sources)
        ],
        "notes": [*notes, *decisions.notes],
        "row_type": str(kind or ""),
        "rows_in": tally.rows_in,
        "rows_out": len(kept),
        "rows_written": sum(written.values()),
        "rejected": dict(sorted(reasons.items())),
        "ledger": ledger_of(tally.rows_in, refused),
        "files": [
            {
                "file": name,
                "rows_in": count,
                "rows_out": count - tally.file_refused[name],
                "rejected": tally.file_refused[name],
            }
            for name, count in sorted(tally.file_rows.items())
        ],
        "changed": dict(sorted(tally.changed.items())),
        "flags": dict(sorted((tally.flags + Counter(kind for _, kind, _ in decisions.flags)).items())),
        "lengths": lengths_of(columns[kept], config, unit="tokens" if plan.tokenizer else "characters", tally=tally),
        "languages": dict(languages.most_common()) if config.detect_language else {},
        "turns": {str(turns): count for turns, count in sorted(Counter(columns["turns"][kept].tolist()).items())},
        "duplicates": decisions.duplicates | {"shingle": "char5"},
        "contamination": decisions.contamination,
        "conflicts": decisions.conflict_counts | {"policy": config.conflicts},
        "pii": pii_of(store, tally.flags, config),
        "splits": splits_of(decisions, kept, written, config),
        "leakage": decisions.leakage,
        "representativeness": representativeness_of(ctx, sample),
        "diversity": diversity_of(sample, decisions, config.seed),
        "consistency": store.style.result(),
        "preference": preference_of(sample) if kind in (RowType.PREFERENCE, RowType.RANKING) else None,
        "seed": config.seed,
    }


def _drawn(decisions: Decisions, kept: np.ndarray, limit: int) -> np.ndarray:
    """A sample of the kept rows that depends on their text and the seed only."""
    return kept[decisions.draws[kept].argsort(kind="stable")][:limit]


def ledger_of(rows_in: int, refused: Counter[str]) -> list[dict[str, Any]]:
    """The steps in order, each with what came in and what it refused."""
    steps = [*ROW_STEPS, *dict.fromkeys(step for step, _ in REFUSALS)]
    ledger = []
    for step in steps:
        gone = {key.partition("/")[2]: count for key, count in sorted(refused.items()) if key.startswith(f"{step}/")}
        ledger.append({"step": step, "rows_in": rows_in, "rows_out": rows_in - sum(gone.values()), "rejected": gone})
        rows_in -= sum(gone.values())
    return ledger


def lengths_of(columns: np.ndarray, config: PrepConfig, *, unit: str, tally: Any) -> dict[str, Any]:
    found: dict[str, Any] = {"unit": unit, "max_length": config.max_length, "too_long": None}
    if config.max_length:
        found["too_long"] = {
            "policy": config.too_long,
            "rows": tally.too_long,
            "trained_tokens_lost": tally.tokens_lost,
        }
    for name in ("prompt", "answer", "total"):
        values = columns[f"{name}_length"].astype(np.int64)
        found[name] = {**describe(values), "sum": int(values.sum()), "histogram": histogram(values)}
    return found


def describe(values: np.ndarray) -> dict[str, float]:
    """Mean, median, 95th percentile and maximum (nearest rank), all 0 without values."""
    if not len(values):
        return {"mean": 0, "p50": 0, "p95": 0, "max": 0}
    ordered = np.sort(values)
    at = {name: int(ordered[-(-share * len(ordered) // 100) - 1]) for name, share in (("p50", 50), ("p95", 95))}
    return {"mean": round(float(ordered.mean()), 2), **at, "max": int(ordered[-1])}


def histogram(values: np.ndarray) -> dict[str, list[int]]:
    """Counts in `BINS` equal bins up to the 99.5th percentile, and one more for what lies above."""
    if not len(values):
        return {"edges": [], "counts": []}
    top = max(int(np.percentile(values, 99.5)), BINS)
    edges = np.unique(np.linspace(0, top, BINS + 1).round().astype(int))
    counts = np.histogram(values, edges)[0].tolist()
    above = int((values > top).sum())
    return {
        "edges": [*edges.tolist(), *([int(values.max())] if above else [])],
        "counts": [*counts, *([above] if above else [])],
    }


def pii_of(store: Store, flags: Counter[str], config: PrepConfig) -> dict[str, Any]:
    """Rows by kind, and a few masked samples of each."""
    counts = {kind: count for kind, count in sorted(flags.items()) if kind.startswith(("pii:", "secret:"))}
    samples: list[dict[str, str]] = []
    missing = dict.fromkeys(counts, PII_SAMPLES)
    for line in store.lines_of("flags") if counts else ():
        if not any(missing.values()):
            break
        item = orjson.loads(line)
        if missing.get(item["kind"], 0):
            missing[item["kind"]] -= 1
            samples.append({"kind": item["kind"], "masked": item["detail"]})
    return {"counts": counts, "policy": config.pii, "secrets_policy": config.secrets, "samples": samples}


def splits_of(
    decisions: Decisions, kept: np.ndarray, written: dict[str, int], config: PrepConfig
) -> dict[str, dict[str, Any]]:
    wanted = {
        "train": 1 - config.validation_share - config.test_share,
        "validation": config.validation_share,
        "test": config.test_share,
    }
    found = {}
    for number, split in enumerate(SPLITS):
        here = kept[decisions.split[kept] == number]
        found[split] = {
            "rows": written[split],
            "groups": len(np.unique(decisions.group[here])),
            "share": round(len(here) / max(len(kept), 1), 6),
            "wanted_share": round(wanted[split], 6),
        }
    return found


def diversity_of(sample: list[Row], decisions: Decisions, seed: int) -> dict[str, Any]:
    compared, found = decisions.compared, decisions.duplicates
    near = found["near_removed"] + found["near_flagged"]
    share = 1 - (found["exact"] + near) / compared if compared else None
    return measure_diversity([whole_text(row) for row in sample], seed=seed, near_unique_share=share)


def preference_of(sample: list[Row]) -> dict[str, Any]:
    from ftcli.data.preference_bias import length_pairs, measure  # noqa: PLC0415  (imports scipy.optimize, which takes long)

    return measure((pair for row in sample for pair in length_pairs(row)), unit="characters")


def representativeness_of(ctx: Context[PrepConfig], sample: Sequence[Row]) -> dict[str, Any] | None:
    """How the prompts compare with those of the reference sample; None without one."""
    reference = ctx.maybe("reference")
    if reference is None:
        return None
    from ftcli.data.representativeness import compare  # noqa: PLC0415  (imports scipy.stats, which takes long)

    theirs = list(prompts_of(reference))
    ours = [prompt_text(row) or answer_text(row) for row in sample]
    if not theirs:
        raise BadData(f"{reference.ref}: no prompts in the reference sample", "give rows with prompts")
    languages = tuple([language_of_text(text)[0] for text in side] for side in (ours, theirs))
    categories = {"language": languages} if ctx.config.detect_language else {}
    found = compare(ours, theirs, seed=ctx.config.seed, categories=categories)
    return {"label": reference.label, **found}
