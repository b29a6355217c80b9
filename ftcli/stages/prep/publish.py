"""The third pass: decisions become files. Splits in their drawn order, every refused row with its reason, what people should see.

Nothing here decides anything; it asks `Decisions` about each row and writes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from ftcli.data.records import Reason, Reject
from ftcli.data.rows import SPLITS, Row, RowType, row_type, write_rows
from ftcli.data.split import draw
from ftcli.data.texts import answer_text, prompt_text
from ftcli.stages.prep.chunks import Store
from ftcli.stages.prep.config import PrepConfig
from ftcli.stages.prep.decisions import REFUSALS, Decisions, ids_of

SHOWN_CHARS = 500


def write_splits(
    store: Store, decisions: Decisions, config: PrepConfig, labels: list[str], folder: Path
) -> dict[str, int]:
    """Write the three splits; return the rows in each, repeats by weight included."""
    kept = decisions.kept
    with_tools = bool(store.columns["tools"][kept].any())
    written = {}
    for number, split in enumerate(SPLITS):
        chosen = kept[decisions.split[kept] == number]
        order = decisions.draws[chosen].argsort(kind="stable")
        lines = _weighted(store, chosen[order], config, labels if split == "train" else [])
        path = folder / f"{split}.{config.output_format}"
        if config.output_format == "jsonl":
            written[split] = _write_lines(path, lines)
        else:
            kind = row_type(store.row(int(kept[0]))) if len(kept) else None
            rows = (orjson.loads(line) for line in lines)
            written[split] = write_rows(path, rows, "parquet", kind or RowType.MESSAGES, with_tools=with_tools)
    return written


def _weighted(store: Store, chosen: np.ndarray, config: PrepConfig, labels: list[str]) -> Iterator[bytes]:
    """The JSON lines of ``chosen`` rows, as often as the weight of their source says; repeats get an id of their own."""
    weights = {number: config.weights.get(label, 1.0) for number, label in enumerate(labels)}
    rounds = max([1.0, *weights.values()])
    for turn in range(int(np.ceil(rounds))):
        if turn == 0 and min([1.0, *weights.values()]) == 1:
            yield from store.lines(chosen)
            continue
        for index in chosen.tolist():
            weight = weights.get(int(store.columns["source"][index]), 1.0)
            if weight >= turn + 1:
                taken = True
            elif weight > turn:
                taken = (
                    draw(config.seed, f"weight/{turn}", next(ids_of(store.columns["exact"][index : index + 1])))
                    < weight - turn
                )
            else:
                taken = False
            if taken:
                yield store.line(index) if turn == 0 else _repeated(store.row(index), turn)


def _repeated(row: Row, turn: int) -> bytes:
    return orjson.dumps({**row, "id": f"{row['id']}#{turn + 1}"})


def _write_lines(path: Path, lines: Iterable[bytes]) -> int:
    count = 0
    with path.open("wb") as file:
        for line in lines:
            file.write(line + b"\n")
            count += 1
    return count


def write_rejects(store: Store, decisions: Decisions, path: Path) -> tuple[Counter[str], Counter[str]]:
    """rejects.jsonl: what the first pass refused, in input order, then what the comparison refused, step by step.

    Returns how many of the latter, by step/reason and by file.
    """
    counts: Counter[str] = Counter()
    files: Counter[str] = Counter()
    with path.open("wb") as file:
        file.writelines(store.lines_of("rejects"))
        for code, (step, reason) in enumerate(REFUSALS, start=1):
            for index in np.flatnonzero(decisions.refusal == code).tolist():
                counts[f"{step}/{reason}"] += 1
                row = store.row(index)
                detail = decisions.detail(store, index, reason)
                meta = row["meta"]
                files[meta["file"]] += 1
                reject = Reject(meta["file"], meta["line"], Reason(reason), detail, store.line(index).decode())
                file.write(orjson.dumps(reject.to_json()) + b"\n")
    return counts, files


def write_flags(store: Store, decisions: Decisions, path: Path) -> None:
    """flags.jsonl: what a person may want to look at, of the rows that stayed and of those that went."""
    with path.open("wb") as file:
        file.writelines(store.lines_of("flags"))
        for index, kind, detail in decisions.flags:
            row = store.row(index)
            meta = row["meta"]
            item = {"id": row["id"], "file": meta["file"], "line": meta["line"], "kind": kind, "detail": detail}
            file.write(orjson.dumps(item) + b"\n")


def write_duplicates(store: Store, decisions: Decisions, path: Path) -> None:
    """duplicates.jsonl: near-duplicate pairs, removed or only flagged, the most similar first."""
    pairs = sorted(decisions.near_pairs, key=lambda pair: (-pair[2], pair[0], pair[1]))
    with path.open("wb") as file:
        for index, kept, similarity, action in pairs:
            row, other = store.row(index), store.row(kept)
            item = {
                "id": row["id"],
                "file": row["meta"]["file"],
                "line": row["meta"]["line"],
                "kept_id": other["id"],
                "kept_file": other["meta"]["file"],
                "kept_line": other["meta"]["line"],
                "jaccard": round(similarity, 6),
                "action": action,
                "text": shown(row),
                "kept_text": shown(other),
            }
            file.write(orjson.dumps(item) + b"\n")


def shown(row: Row) -> str:
    """The beginning of a row, for people."""
    text = f"{prompt_text(row)}\n{answer_text(row)}".strip()
    return text if len(text) <= SHOWN_CHARS else text[: SHOWN_CHARS - 1] + "\u2026"


def write_conflicts(conflicts: Iterable[dict[str, Any]], path: Path) -> None:
    with path.open("wb") as file:
        for item in conflicts:
            file.write(orjson.dumps(item) + b"\n")
