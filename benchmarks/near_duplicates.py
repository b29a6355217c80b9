"""Near-duplicate search on short rows: ours beside datasketch and datatrove, in CPU-seconds of one process.

    python -m benchmarks.near_duplicates                                    # generated rows
    python -m benchmarks.near_duplicates --data rows.jsonl more.json        # the texts of these files' rows
    python -m benchmarks.near_duplicates --datatrove                        # its MinHash stages as well

All see the same texts: the rows, and planted copies of some of them. Time counts everything from text to the list of
duplicates: normalising, shingles (five characters), signatures, buckets, and for ours also the exact comparison of every
candidate. datasketch has 128 permutations and an LSH index and verifies nothing; datatrove has its default 14 bands of 8, the
same shingles through its own interface, and files between its four stages. `recall` is of the planted copies whose exact
similarity is .8 or more: one of the two must be reported. `wrong` is the share of reported pairs that are less similar.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from datasketch import MinHash, MinHashLSH
from numpy.typing import NDArray

from ftcli.data.dedup import normalise, rank_by
from ftcli.data.minhash import band_keys
from ftcli.data.near import Columns, assign_leaders, group
from ftcli.data.shingles import Shingles, jaccard, shingle
from ftcli.data.similar import Pairs
from tests.data.planted import Prose

Pair = tuple[int, int]
Found = tuple[set[int], list[Pair] | None]
"""The rows that are reported, and the reported pairs where a tool tells them."""

KINDS = ("format", "edit 2%", "edit 5%", "edit 10%")
COPIES = 200
"""Planted copies of each kind."""
THRESHOLD = 0.8
BLOCK = 4096


def texts_of(paths: list[Path]) -> Iterator[str]:
    """The text columns of each row, joined."""
    for path in paths:
        content = path.read_text(encoding="utf-8")
        rows = json.loads(content) if path.suffix == ".json" else map(json.loads, content.splitlines())
        for row in rows:
            yield "\n".join(value for value in row.values() if isinstance(value, str))


def plant(texts: list[str], prose: Prose) -> dict[str, list[Pair]]:
    """Add copies to ``texts``; return the pairs of original and copy by kind."""
    planted: dict[str, list[Pair]] = {}
    originals = iter(prose.random.sample(range(len(texts)), COPIES * len(KINDS)))
    for kind in KINDS:
        planted[kind] = []
        for original in (next(originals) for _ in range(COPIES)):
            text = texts[original]
            share = 0.0 if kind == "format" else float(kind.split()[1].strip("%")) / 100
            planted[kind].append((original, len(texts)))
            texts.append(prose.edited(text, share) if share else prose.reformatted(text))
    return planted


def ours(texts: list[str]) -> Found:
    """Removal at .9 and flags from .8, without number guard, as the others have none."""
    blocks = [texts[first : first + BLOCK] for first in range(0, len(texts), BLOCK)]
    keys = np.concatenate([band_keys(shingle(block), 10, 6) for block in blocks])
    lengths = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))

    def view(places: NDArray[np.int64]) -> Shingles:
        return shingle([texts[place] for place in places])

    columns = Columns(keys, rank_by(keys[:, 0], np.arange(len(texts))), lengths, [view])
    found = assign_leaders(columns, np.zeros(len(texts), dtype=np.uint64), 0.9, THRESHOLD)
    gone = np.flatnonzero(found.leader >= 0)
    removed = Pairs(found.leader[gone], gone, found.similarity[gone])
    return _found(Pairs.joined([removed, found.flagged]))


def our_groups(texts: list[str]) -> Found:
    """Groups at .7, for splits."""
    keys = band_keys(shingle(texts), 28, 5)
    lengths = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))
    columns = Columns(
        keys,
        rank_by(keys[:, 0], np.arange(len(texts))),
        lengths,
        [lambda places: shingle([texts[place] for place in places])],
    )
    groups = group(columns, 0.7)
    _, sizes = np.unique(groups, return_counts=True)
    return set(np.flatnonzero(np.isin(groups, np.unique(groups)[sizes > 1])).tolist()), None


def windows(text: str) -> list[str]:
    normal = normalise(text).ljust(5, "\0")
    return [normal[start : start + 5] for start in range(len(normal) - 4)]


def with_datasketch(texts: list[str]) -> Found:
    index = MinHashLSH(threshold=THRESHOLD, num_perm=128)
    found = []
    for row, text in enumerate(texts):
        signature = MinHash(num_perm=128, seed=1)
        signature.update_batch([part.encode() for part in windows(text)])
        found += [(other, row) for other in index.query(signature)]
        index.insert(row, signature)
    return {row for pair in found for row in pair}, found


def with_datatrove(texts: list[str]) -> Found:
    from datatrove.data import Document
    from datatrove.pipeline.dedup import (
        MinhashDedupBuckets,
        MinhashDedupCluster,
        MinhashDedupFilter,
        MinhashDedupSignature,
    )
    from datatrove.pipeline.dedup.minhash import MinhashConfig
    from datatrove.utils.word_tokenizers import WhitespaceTokenizer

    class Signature(MinhashDedupSignature):
        def get_shingles(self, text: str) -> NDArray[np.uint64]:
            return np.array([self._hash_func(part) for part in windows(text)], dtype=np.uint64).reshape(-1, 1)

    def documents() -> Iterator[Document]:
        return (Document(text=text, id=str(row)) for row, text in enumerate(texts))

    config = MinhashConfig()
    with tempfile.TemporaryDirectory() as folder:
        Signature(f"{folder}/signatures", config=config, language=WhitespaceTokenizer()).run(documents(), 0, 1)
        for bucket in range(config.num_buckets):
            step = MinhashDedupBuckets(f"{folder}/signatures", f"{folder}/buckets", config=config)
            step.run(None, bucket, config.num_buckets)
        MinhashDedupCluster(f"{folder}/buckets", f"{folder}/removed", config=config).run(None, 0, 1)
        kept = {int(document.id) for document in MinhashDedupFilter(f"{folder}/removed").run(documents(), 0, 1)}
    return set(range(len(texts))) - kept, None


def _found(pairs: Pairs) -> Found:
    listed = list(zip(pairs.left.tolist(), pairs.right.tolist(), strict=True))
    return {row for pair in listed for row in pair}, listed


def report(name: str, run: Callable[[list[str]], Found], texts: list[str], planted: dict[str, list[Pair]]) -> float:
    """Run one tool, print its line, and return its rows per CPU-second."""
    started = time.process_time()
    reported, pairs = run(texts)
    seconds = time.process_time() - started
    sets = shingle(texts)

    def alike(listed: list[Pair]) -> NDArray[np.bool_]:
        left, right = np.array(listed, dtype=np.int64).reshape(-1, 2).T
        return jaccard(sets.take(left), sets.take(right)) >= THRESHOLD

    cells = []
    for listed in planted.values():
        similar = [pair for pair, is_similar in zip(listed, alike(listed), strict=True) if is_similar]
        hits = sum(one in reported or other in reported for one, other in similar)
        cells.append(f"{hits / len(similar):.3f}" if similar else "-")
    wrong = "-" if pairs is None else f"{1 - alike(pairs).mean():.1%}" if pairs else "0.0%"
    rate = len(texts) / seconds
    print(
        f"{name:22} {len(texts):>8,} {seconds:>8.1f} {rate:>10,.0f}  {'  '.join(f'{cell:>8}' for cell in cells)} {wrong:>8}"
    )
    return rate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=30_000, help="rows for ours")
    parser.add_argument("--peer-rows", type=int, default=5_000, help="rows for all tools, the slower ones among them")
    parser.add_argument("--data", type=Path, nargs="*", default=[], help="JSON or JSON lines files of rows")
    parser.add_argument("--datatrove", action="store_true", help="run its MinHash stages too")
    args = parser.parse_args()
    prose = Prose(1)
    rows = list(texts_of(args.data)) if args.data else [prose.text(30) for _ in range(args.rows)]
    rows = prose.random.sample(rows, min(args.rows, len(rows)))
    print(f"{len(rows):,} rows of {np.mean([len(row) for row in rows]):.0f} characters, and planted copies of some")
    print(
        f"{'':22} {'rows':>8} {'CPU-s':>8} {'rows/CPU-s':>10}  {'  '.join(f'{kind:>8}' for kind in KINDS)} {'wrong':>8}"
    )
    few = rows[: args.peer_rows]
    planted = plant(few, prose)
    rate = report("ours, removal", ours, few, planted)
    peer = report("datasketch", with_datasketch, few, planted)
    if args.datatrove:
        report("datatrove", with_datatrove, few, planted)
    planted = plant(rows, prose)
    report("ours, removal", ours, rows, planted)
    report("ours, groups at .7", our_groups, rows, planted)
    print(f"ours is {rate / peer:.1f} times as fast as datasketch on the same rows")


if __name__ == "__main__":
    main()
