"""What a review came to, as plain figures: report/figures.json, and all that the page and the summary show."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from statistics import median
from typing import Any

from ftcli.data.rows import SPLITS, Row
from ftcli.human.agreement import review_agreement
from ftcli.human.tasks import Judgement
from ftcli.metrics.statistics import wilson
from ftcli.stages.review.config import TIE, ReviewConfig
from ftcli.stages.review.decide import Reviewed, standing

Json = Mapping[str, Any]
NOT_TOLD = "not told"


def figures_of(reviewed: Sequence[Reviewed], judgements: Sequence[Judgement], config: ReviewConfig) -> dict[str, Any]:
    """``accept_rate`` is the share of judged rows accepted as they are, with its 95 % Wilson interval; None where nobody looked."""
    decisions = [one.decision for one in reviewed if one.decision is not None]
    verdicts = Counter(decision.verdict for decision in decisions)
    reasons = Counter(decision.reason for decision in decisions if decision.verdict == "reject")
    asked, accepted = len(decisions), verdicts["accept"]
    low, high = wilson(accepted, asked) if asked else (None, None)
    return {
        "mode": config.mode,
        "overlap": config.overlap,
        "rows_in": len(reviewed),
        "rows_out": len(reviewed) - verdicts["reject"],
        "judged": asked,
        "unreviewed": len(reviewed) - asked,
        "accepted": accepted,
        "edited": verdicts["edit"],
        "rejected": verdicts["reject"],
        "reasons": dict(reasons.most_common()),
        "ties": reasons[TIE],
        "accept_rate": accepted / asked if asked else None,
        "accept_low": low,
        "accept_high": high,
        "min_accept_rate": config.min_accept_rate,
        "splits": _splits(reviewed),
        "reviewers": _reviewers(judgements),
        "agreement": _agreement(judgements, config.seed),
        "licences": licences([one.row for one in reviewed]),
    }


def rate_text(accepted: int, asked: int) -> str:
    """``8 of 10 accepted as they are (80.0%, 95% interval 49.0% to 94.3%)``."""
    low, high = wilson(accepted, asked)
    return f"{accepted} of {asked} accepted as they are ({accepted / asked:.1%}, 95% interval {low:.1%} to {high:.1%})"


def reasons_text(reasons: Mapping[str, int]) -> str:
    """``wrong 3, unsafe 1``."""
    return ", ".join(f"{reason} {count}" for reason, count in reasons.items())


def _splits(reviewed: Sequence[Reviewed]) -> dict[str, dict[str, int]]:
    found = {split: {"rows_in": 0, "rows_out": 0, "judged": 0} for split in SPLITS}
    for one in reviewed:
        counts = found[one.split]
        counts["rows_in"] += 1
        counts["judged"] += one.decision is not None
        counts["rows_out"] += one.decision is None or one.decision.verdict != "reject"
    return found


def _reviewers(judgements: Sequence[Judgement]) -> list[dict[str, Any]]:
    """What each said, and the median of the seconds it took them, where that was told."""
    said: dict[str, list[Judgement]] = {}
    for judgement in (one for found in standing(judgements).values() for one in found):
        said.setdefault(judgement.grader, []).append(judgement)
    found = []
    for name, own in sorted(said.items()):
        verdicts = Counter(judgement.verdict for judgement in own)
        seconds = [judgement.seconds for judgement in own if judgement.seconds > 0]
        counts = {verdict: verdicts[verdict] for verdict in ("accept", "edit", "reject")}
        found.append({"name": name, "judged": len(own), **counts, "seconds": median(seconds) if seconds else None})
    return found


def _agreement(judgements: Sequence[Judgement], seed: int) -> dict[str, Any] | None:
    """How far people agree on the rows that several judged, on accept, edit or reject; None without such rows."""
    found = review_agreement([one for said in standing(judgements).values() for one in said], seed=seed)
    if not found.items:
        return None
    names = ("raw", "alpha", "low", "high", "ordinal", "words")
    about = {name: getattr(found, name) for name in names}
    return {"rows": found.items, **about, "pairs": [asdict(pair) for pair in found.pairs]}


def licences(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """How many rows come from which teacher, under which licences, by what ``meta.prov`` tells; rows that tell nothing of it are in
    none of these."""
    counts: Counter[tuple[str, ...]] = Counter()
    for row in rows:
        prov = (row.get("meta") or {}).get("prov", {})
        teacher = prov.get("teacher") or {}
        about = teacher if isinstance(teacher, dict) else {"name": teacher}
        told = about.get("name"), about.get("license") or prov.get("license"), prov.get("source_license")
        if any(told):
            counts[tuple(str(value or NOT_TOLD) for value in told)] += 1
    names = ("teacher", "license", "source_license")
    return [{**dict(zip(names, told, strict=True)), "rows": count} for told, count in counts.most_common()]


def forbids_trade(one: Json) -> bool:
    """Whether a licence names itself non-commercial, as ``cc-by-nc-4.0`` does."""
    return any("nc" in re.split(r"[^a-z]+", one[name].lower()) for name in ("license", "source_license"))
