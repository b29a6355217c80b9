"""From judgements to rows that train a model: what the graders of a prompt agree on, as pairs and as rankings.

A pair's winner is the answer that more graders ranked higher than the reverse. What gives no pair is counted: pairs of a tie, of
graders as many on either side, of answers that are all bad, and those on which too few agree.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from statistics import fmean

from ftcli.data.rows import SPLITS, Row
from ftcli.human.scores import pair_votes, sign
from ftcli.human.tasks import Item, Judgement
from ftcli.stages.rank.config import RankConfig
from ftcli.stages.rank.questions import Questions

SOURCE = "human"
"""``meta.source`` of the rows: told from what judges or reward models prefer."""


LEFT_OUT = {
    "ties": "ties",
    "split": "with as many graders for the one as for the other",
    "both_bad": "of answers that are all bad",
    "low_agreement": "on which fewer agree than min_agreement",
    "unjudged": "that nobody judged",
}
"""Why a pair of two different answers has no winner."""


@dataclass
class Preferences:
    """Rows by split. ``left_out`` counts the pairs without a winner by reason (`LEFT_OUT`): with ``pairs`` these are all pairs of
    two different answers that were asked about."""

    rows: dict[str, list[Row]] = field(default_factory=lambda: {split: [] for split in SPLITS})
    rankings: dict[str, list[Row]] = field(default_factory=lambda: {split: [] for split in SPLITS})
    pairs: int = 0
    left_out: Counter[str] = field(default_factory=Counter)

    def counts(self) -> dict[str, int]:
        left = {name: self.left_out[name] for name in LEFT_OUT}
        return {"pairs": self.pairs, **left, "rankings": sum(map(len, self.rankings.values()))}


def preferences(config: RankConfig, questions: Questions, judgements: Sequence[Judgement]) -> Preferences:
    """All rows of a prompt are in the split of the prompt."""
    found = Preferences()
    given: dict[str, list[Judgement]] = {}
    for one in judgements:
        if one.counts:
            given.setdefault(one.item, []).append(one)
    for item in questions.shown:
        own, row = given.get(item.id, []), questions.rows[item.id]
        pairs = _pairs(config, item, row, own, found)
        found.rows[item.split] += pairs
        found.pairs += len(pairs)
        ranked = [one for one in own if one.verdict == "ranked"]
        if ranked:
            found.rankings[item.split].append(_ranking(item, row, ranked))
    return found


def _pairs(config: RankConfig, item: Item, row: str, own: Sequence[Judgement], found: Preferences) -> list[Row]:
    texts = {one.id: one.text for one in item.distinct}
    votes = [(one, pair_votes(item, one)) for one in own]
    rows: list[Row] = []
    for pair in combinations(texts, 2):
        signs = [vote[pair] for _, vote in votes]
        balance = sum(signs)
        agreeing = [one for one, vote in votes if vote[pair] == sign(balance)]
        if not signs:
            found.left_out["unjudged"] += 1
        elif not any(signs):
            found.left_out["both_bad" if any(one.verdict == "both_bad" for one in own) else "ties"] += 1
        elif balance == 0:
            found.left_out["split"] += 1
        elif len(agreeing) / len(signs) < config.min_agreement:
            found.left_out["low_agreement"] += 1
        else:
            rejected, chosen = pair if balance > 0 else pair[::-1]
            rows.append(
                {
                    "id": f"{row}#{len(rows)}",
                    "prompt": item.prompt,
                    "chosen": [{"role": "assistant", "content": texts[chosen]}],
                    "rejected": [{"role": "assistant", "content": texts[rejected]}],
                    "meta": {
                        **_meta(item, row, own),
                        "agree": len(agreeing) / len(signs),
                        "chosen_from": _models(item, chosen),
                        "rejected_from": _models(item, rejected),
                        **_margin(config, agreeing),
                    },
                }
            )
    return rows


def _ranking(item: Item, row: str, ranked: Sequence[Judgement]) -> Row:
    """The distinct answers with the order of their mean ranks; equal means tie."""
    means = {one.id: fmean(judgement.ranks[one.id] for judgement in ranked) for one in item.distinct}
    places = {mean: place for place, mean in enumerate(sorted(set(means.values())), start=1)}
    return {
        "id": row,
        "prompt": item.prompt,
        "candidates": [{"content": one.text, "rank": places[means[one.id]]} for one in item.distinct],
        "meta": {**_meta(item, row, ranked), "from": [_models(item, one.id) for one in item.distinct]},
    }


def _meta(item: Item, row: str, own: Sequence[Judgement]) -> Row:
    graders = sorted(one.grader for one in own)
    return {"prompt_id": row, "item": item.id, "source": SOURCE, "n_votes": len(graders), "graders": graders}


def _models(item: Item, answer: str) -> str:
    """Who gave an answer: several models may have said the same."""
    return " + ".join(sorted({one.source for one in item.candidates if one.id == answer}))


def _margin(config: RankConfig, agreeing: Sequence[Judgement]) -> Mapping[str, float]:
    """The mean strength that the graders who prefer the winner gave it; none where none of them did."""
    strengths = [one.strength for one in agreeing if one.strength is not None]
    return {"margin": fmean(strengths)} if config.margin == "strength" and strengths else {}
