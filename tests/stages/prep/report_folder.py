"""A report folder as prep leaves it, written by hand: what stats.json and the files beside it hold."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

Json = dict[str, Any]

STATS: Json = {
    "sources": [
        {"label": "alpaca", "ref": "alpaca.jsonl", "format": "alpaca", "weight": 1.0, "rows_out": 700},
        {"label": "support", "ref": "support.csv", "format": "prompt-completion", "weight": 2.0, "rows_out": 200},
    ],
    "notes": ["alpaca: format alpaca does not read the columns tags"],
    "row_type": "messages",
    "rows_in": 1000,
    "rows_out": 900,
    "rejected": {"contaminated": 7, "empty_answer": 28, "exact_duplicate": 40, "near_duplicate": 21, "parse_json": 4},
    "ledger": [
        {"step": "read", "rows_in": 1000, "rows_out": 996, "rejected": {"parse_json": 4}},
        {"step": "empty", "rows_in": 996, "rows_out": 968, "rejected": {"empty_answer": 28}},
        {"step": "exact duplicates", "rows_in": 968, "rows_out": 928, "rejected": {"exact_duplicate": 40}},
        {"step": "near duplicates", "rows_in": 928, "rows_out": 907, "rejected": {"near_duplicate": 21}},
        {"step": "contamination", "rows_in": 907, "rows_out": 900, "rejected": {"contaminated": 7}},
    ],
    "files": [
        {"file": "alpaca.jsonl", "rows_in": 790, "rejected": 30},
        {"file": "support.csv", "rows_in": 210, "rejected": 2},
    ],
    "changed": {"rule:noinput": 120, "unicode": 11, "whitespace": 64},
    "flags": {"boilerplate": 9, "pii:email": 5, "secret:aws_key": 1},
    "lengths": {
        "unit": "tokens",
        "max_length": 512,
        "too_long": {"policy": "truncate", "rows": 12, "trained_tokens_lost": 1840},
        **{
            part: {
                "mean": mean,
                "p50": 40,
                "p95": 300,
                "max": 900,
                "sum": int(mean * 900),
                "histogram": {
                    "edges": [0, 100, 200, 300, 400, 500, 600, 900],
                    "counts": [500, 210, 100, 50, 20, 8, 12],
                },
            }
            for part, mean in (("prompt", 50.5), ("answer", 100.0), ("total", 150.5))
        },
    },
    "languages": {"en": 820, "de": 60, "und": 20},
    "turns": {"1": 850, "2": 40, "10": 10},
    "duplicates": {
        "exact": 40,
        "near_removed": 21,
        "near_flagged": 13,
        "shingle": "char5",
        "threshold": 0.9,
        "flag_threshold": 0.8,
        "largest_cluster": 6,
        "largest_cluster_share": 0.006,
    },
    "contamination": [{"label": "gsm8k_test", "items": 1319, "dropped": 7, "flagged": 0}],
    "conflicts": {"policy": "report", "prompts": 6, "hard": 2, "soft": 4, "cycles": 0, "labels": 0, "rows_dropped": 0},
    "pii": {
        "counts": {"pii:email": 5, "secret:aws_key": 1},
        "policy": "flag",
        "secrets_policy": "redact",
        "samples": [{"kind": "pii:email", "masked": "a***@e***.com"}],
    },
    "splits": {
        "train": {"rows": 810, "groups": 700, "share": 0.9, "wanted_share": 0.9},
        "validation": {"rows": 50, "groups": 44, "share": 0.055556, "wanted_share": 0.05},
        "test": {"rows": 40, "groups": 40, "share": 0.044444, "wanted_share": 0.05},
    },
    "leakage": {
        "threshold": 0.7,
        "exact_pairs": 0,
        "near_pairs": 0,
        "held_out_rows": 90,
        "largest_group": 12,
        "largest_group_share": 0.013333,
        "groups": 784,
    },
    "representativeness": {
        "rows": {"train": 900, "reference": 400, "compared": 400},
        "classifier": {
            "auc": 0.612,
            "chance_se": 0.0204,
            "light": "amber",
            "over_represented": [{"ngram": "write a", "weight": 1.5, "train_share": 0.12, "reference_share": 0.01}],
            "missing": [{"ngram": "refund", "weight": -2.1, "train_share": 0.002, "reference_share": 0.09}],
        },
        "divergence": {
            "jsd": 0.31,
            "chance_mean": 0.27,
            "chance_sd": 0.0012,
            "excess": 0.04,
            "p": 0.004975,
            "light": "amber",
        },
        "lengths": {
            "prompt tokens": {
                "ks": 0.08,
                "p": 0.05,
                "light": "green",
                "quantiles": {"p5": [4, 5], "p50": [40, 44], "p95": [300, 350], "max": [700, 690]},
            }
        },
        "categories": {
            "language": {
                "psi": 0.31,
                "by_chance": 0.01,
                "light": "red",
                "table": [{"value": "de", "train_share": 0.07, "reference_share": 0.3, "psi": 0.3}],
            },
            "source": {"psi": None, "light": None, "reason": "12 rows on the smaller side, at least 30 needed"},
        },
        "coverage": {
            "share": 0.7,
            "expected": 0.83,
            "light": "amber",
            "least_covered": [{"text": "How do I return a kettle?", "similarity": 0.012}],
        },
    },
    "diversity": {
        "rows": 900,
        "near_unique_share": 0.9258,
        "distinct2": {"value": 0.61, "ngrams": 20000},
        "vendi": {"value": 287.4, "rows": 600, "share": 0.479},
        "compression": {"ratio": 2.8, "bytes": 431000},
        "first_words": [{"text": "write", "rows": 80, "share": 0.088889}],
        "phrases": [{"text": "in the following", "rows": 31, "share": 0.034444}],
    },
    "consistency": {
        "answers": 900,
        "features": {"ends_with": {"punctuation": 850, "other": 50}},
        "minorities": [
            {
                "feature": "ends_with",
                "class": "other",
                "rows": 50,
                "share": 0.055556,
                "examples": [{"file": "alpaca.jsonl", "line": 17}],
            }
        ],
        "broken": [],
    },
    "preference": None,
    "gates": [
        {"name": "min_rows", "value": 900, "limit": 500, "passed": True},
        {"name": "max_auc", "value": 0.612, "limit": 0.6, "passed": False},
    ],
    "seed": 42,
}

REJECTS: list[Json] = [
    {
        "file": "alpaca.jsonl",
        "line": 10 * number,
        "reason": reason,
        "detail": f"{reason} number {number}",
        "raw": f'{{"instruction": "raw {reason} {number}"',
    }
    for reason, rows in STATS["rejected"].items()
    for number in range(1, rows + 1)
]
FLAGS: list[Json] = [
    {"id": f"f{number}", "file": "support.csv", "line": number, "kind": kind, "detail": f"{kind} seen, {number}"}
    for kind, rows in STATS["flags"].items()
    for number in range(1, rows + 1)
]
CONFLICTS: list[Json] = [
    {
        "kind": "soft",
        "prompt": "Name a city.",
        "answers": [
            {"text": "Paris is one.", "count": 1, "rows": [{"file": "alpaca.jsonl", "line": 3}]},
            {"text": "Rome, for example.", "count": 1, "rows": [{"file": "alpaca.jsonl", "line": 4}]},
        ],
        "entropy": None,
        "min_similarity": 0.21,
        "action": "reported",
    },
    {
        "kind": "hard",
        "prompt": "Is this spam?",
        "answers": [
            {"text": "yes", "count": 8, "rows": [{"file": "support.csv", "line": line} for line in range(20, 28)]},
            {"text": "no", "count": 1, "rows": [{"file": "support.csv", "line": 40}]},
        ],
        "entropy": 0.503258,
        "min_similarity": None,
        "action": "reported",
    },
]


def pair(number: int, jaccard: float, action: str) -> Json:
    return {
        "id": f"d{number}",
        "file": "alpaca.jsonl",
        "line": number,
        "kept_id": f"k{number}",
        "kept_file": "alpaca.jsonl",
        "kept_line": number + 1000,
        "jaccard": jaccard,
        "action": action,
        "text": f"Give {number} tips for staying healthy.",
        "kept_text": f"Give {number} tips to stay healthy.",
    }


PAIRS: list[Json] = [
    pair(number, round(0.8 + number * 0.005, 6), "removed" if number >= 20 else "flagged") for number in range(34)
]
"""Similarities 0.800, 0.805 up to 0.965; 14 of them from the threshold 0.9 on."""


def stats() -> Json:
    """A copy of `STATS` to change."""
    return copy.deepcopy(STATS)


def write_folder(
    folder: Path,
    stats: Json = STATS,
    *,
    rejects: list[Json] = REJECTS,
    flags: list[Json] = FLAGS,
    conflicts: list[Json] = CONFLICTS,
    pairs: list[Json] = PAIRS,
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "stats.json").write_text(json.dumps(stats), encoding="utf-8")
    for name, records in (("rejects", rejects), ("flags", flags), ("conflicts", conflicts), ("duplicates", pairs)):
        lines = [json.dumps(record, ensure_ascii=False) + "\n" for record in records]
        (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
    return folder
