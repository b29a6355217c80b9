"""From what several people said of a row to what becomes of it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ftcli.data.rows import Row
from ftcli.human.store import Judgement
from ftcli.stages.review.config import NO_REASON, OTHER, TIE


@dataclass(frozen=True)
class Decision:
    """What becomes of a row. ``row`` is the edited one where the verdict is edit; ``at`` is the time of the last judgement, empty
    where none was told."""

    verdict: Literal["accept", "edit", "reject"]
    reviewers: tuple[str, ...]
    at: str = ""
    reason: str = ""
    said: tuple[Judgement, ...] = ()
    row: Row | None = None


@dataclass(frozen=True)
class Reviewed:
    """A row as it came in, with the decision on it; None where people were not asked."""

    split: str
    row: Row
    decision: Decision | None = None

    def result(self) -> Row | None:
        """The row as it goes on, with its review in ``meta.prov``; None if it was rejected.

        An edited row keeps its id and meta: where it came from is not the reviewer's to change.
        """
        decision = self.decision
        if decision is None:
            return with_provenance(self.row, {"review": {"decision": "unreviewed"}})
        if decision.verdict == "reject":
            return None
        review: dict[str, Any] = {"decision": decision.verdict, "reviewers": list(decision.reviewers)}
        if decision.at:
            review["at"] = decision.at
        if decision.row is None:
            return with_provenance(self.row, {"review": review})
        return with_provenance(decision.row, {"review": review, "origin": "edited"})


def with_provenance(row: Row, more: dict[str, Any]) -> Row:
    meta = row.get("meta") or {}
    return {**row, "meta": {**meta, "prov": {**meta.get("prov", {}), **more}}}


def standing(judgements: Iterable[Judgement]) -> dict[str, list[Judgement]]:
    """``{row id: what each person says of it last}``, in the order given. A skipped row and the repeat of one that was judged
    before say nothing."""
    last: dict[tuple[str, str], Judgement] = {}
    for judgement in judgements:
        if not judgement.is_repeat:
            key = judgement.item, judgement.grader
            last.pop(key, None)  # so that the last one given is the last one here
            last[key] = judgement
    found: dict[str, list[Judgement]] = {}
    for judgement in last.values():
        if judgement.verdict != "skip":
            found.setdefault(judgement.item, []).append(judgement)
    return found


def reason_in(text: str, reasons: Sequence[str]) -> str:
    """The one of ``reasons`` that ``text`` is, or begins with (``wrong: the sum is 7``)."""
    if not text.strip():
        return NO_REASON
    begin = re.split(r"[:;,.\n]", text.strip(), maxsplit=1)[0]
    named = {text.strip().casefold(), begin.strip().casefold()}
    return next((reason for reason in reasons if reason.casefold() in named), OTHER)


def decide(said: Sequence[Judgement], overlap: int, reasons: Sequence[str]) -> Decision | None:
    """What the majority wants; None while fewer than ``overlap`` people have judged. ``said`` has one judgement for each person.

    A row that as many reject as keep is rejected: nobody should have to learn from what half of its readers refuse. Of those
    who keep it, if at least half edited it, the last edit counts: who corrects a row has seen what the others overlooked.
    """
    if len(said) < overlap:
        return None
    rejects = [judgement for judgement in said if judgement.verdict == "reject"]
    kept = [judgement for judgement in said if judgement.verdict != "reject"]
    edits = [judgement for judgement in kept if judgement.verdict == "edit"]
    about: dict[str, Any] = {
        "reviewers": tuple(sorted(judgement.grader for judgement in said)),
        "at": max(judgement.at for judgement in said),
        "said": tuple(said),
    }
    if len(rejects) >= len(kept):
        given = Counter(reason_in(judgement.reason, reasons) for judgement in rejects)
        reason = TIE if len(rejects) == len(kept) else given.most_common(1)[0][0]
        return Decision("reject", **about, reason=reason)
    if 2 * len(edits) >= len(kept):
        return Decision("edit", **about, row=dict(edits[-1].edited or {}))
    return Decision("accept", **about)
