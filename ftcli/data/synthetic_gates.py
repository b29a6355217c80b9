"""What a synthetic row must pass before it counts: the gates in their order, each with a reason of its own.

A row is compared with the seeds and with every row that was admitted before it, so the order in which rows come decides which
of two alike stays. ROUGE-L is that of Self-Instruct (Wang et al. 2023, section 2.2): the F1 of the longest common subsequence
of two prompts' words, 2 LCS / (m + n), which is rapidfuzz's normalised Indel similarity.
"""

from __future__ import annotations

import re
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
from rapidfuzz import process
from rapidfuzz.distance import Indel

from ftcli.data.boilerplate import find_boilerplate
from ftcli.data.contamination import EvaluationIndex
from ftcli.data.dedup import keys_of, normalise, target_text, whole_text
from ftcli.data.minhash import NO_KEY, band_keys
from ftcli.data.pii import Policy, guard
from ftcli.data.records import Refused, RowNotes
from ftcli.data.rows import Row, RowType, row_type
from ftcli.data.shingles import jaccard, shingle
from ftcli.data.texts import prompt_text

NEAR_BANDS, NEAR_ROWS = 10, 6
"""As prep removes near-duplicates: a pair at similarity .9 shares a band with probability .9995."""
_IDEOGRAPHS = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_WORD = re.compile(rf"[{_IDEOGRAPHS}]|[^\W_{_IDEOGRAPHS}]+")
_SURROGATES = range(0xD800, 0xE000)


class Drop(StrEnum):
    """Why a reply became no row. The values are part of the output format; those of prep mean the same."""

    REFUSED = "request_refused"
    PARSE = "synth_parse"
    QUOTE = "quote_not_found"
    TOO_SHORT = "too_short"
    TOO_LONG = "too_long"
    COPY = "copy_of_seed"
    ROUGE_L = "rouge_l"
    EXACT = "exact_duplicate"
    NEAR = "near_duplicate"
    CONTAMINATED = "contaminated"
    PII = "pii"
    BOILERPLATE = "boilerplate"


class Dropped(Exception):
    """A row does not pass."""

    def __init__(self, reason: Drop, detail: str) -> None:
        super().__init__(detail)
        self.reason, self.detail = reason, detail


@dataclass(frozen=True)
class Limits:
    """Lengths in characters; similarities in [0, 1], a row at its limit is dropped."""

    min_chars: int = 1
    max_chars: int = 8000
    rouge_l: float = 0.7
    near: float = 0.9
    containment: float = 0.5


@dataclass(frozen=True)
class Candidate:
    """A row to judge. ``written`` are the texts in it that the teacher wrote; ``copied`` is what the first of them must not
    repeat. ``is_new_prompt`` says that its prompt is the teacher's."""

    row: Row
    written: tuple[str, ...]
    copied: str = ""
    is_new_prompt: bool = True


@dataclass
class Gates:
    """``pool`` are the rows that there are already; ``held_out`` the prompts of evaluation sets, by name."""

    pool: Sequence[Row]
    held_out: Mapping[str, Sequence[str]]
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        self._prompts = Prompts()
        self._rows = Rows()
        self._seeds = {_letters(prompt_text(row)) for row in self.pool}
        self._indices = {name: EvaluationIndex.of(list(texts)) for name, texts in self.held_out.items() if texts}
        self._join(self.pool)

    def admit(self, candidate: Candidate) -> dict[str, float]:
        """Add the row to those that later ones are compared with; its scores by gate. Raises `Dropped`."""
        scores: dict[str, float] = {}
        for gate in (self._length, self._copy, self._rouge, self._duplicate, self._contamination, self._pii):
            gate(candidate, scores)
        self._refusal(candidate)
        self._join([candidate.row])
        return scores

    def _join(self, rows: Sequence[Row]) -> None:
        for row in rows:
            self._prompts.add(prompt_text(row), row["id"])
        self._rows.add(rows)

    def _length(self, candidate: Candidate, scores: dict[str, float]) -> None:
        for text in candidate.written:
            if len(text) < self.limits.min_chars:
                raise Dropped(Drop.TOO_SHORT, f"{len(text)} characters, at least {self.limits.min_chars} wanted")
            if len(text) > self.limits.max_chars:
                raise Dropped(Drop.TOO_LONG, f"{len(text)} characters, at most {self.limits.max_chars} wanted")

    def _copy(self, candidate: Candidate, scores: dict[str, float]) -> None:
        said = _letters(candidate.written[0])
        if candidate.is_new_prompt and said in self._seeds:
            raise Dropped(Drop.COPY, "the prompt is a seed's, but for case and punctuation")
        if candidate.copied and normalise(candidate.written[-1]) == normalise(candidate.copied):
            raise Dropped(Drop.COPY, "the answer is the reference itself")

    def _rouge(self, candidate: Candidate, scores: dict[str, float]) -> None:
        if not candidate.is_new_prompt:
            return
        score, name = self._prompts.nearest(prompt_text(candidate.row))
        scores["rouge_l"] = round(score, 4)
        if score >= self.limits.rouge_l:
            raise Dropped(Drop.ROUGE_L, f"ROUGE-L {score:.2f} with the prompt of row {name}")

    def _duplicate(self, candidate: Candidate, scores: dict[str, float]) -> None:
        if name := self._rows.equal(candidate.row):
            raise Dropped(Drop.EXACT, f"row {name} is the same")
        score, name = self._rows.nearest(candidate.row)
        scores["near"] = round(score, 4)
        if score >= self.limits.near:
            raise Dropped(Drop.NEAR, f"similarity {score:.2f} with row {name}")

    def _contamination(self, candidate: Candidate, scores: dict[str, float]) -> None:
        row = candidate.row
        scores["containment"] = 0.0
        for name, index in self._indices.items():
            found = index.match([whole_text(row)], [prompt_text(row)], self.limits.containment)
            share = float(found.containment[0])
            scores["containment"] = max(scores["containment"], round(share, 4))
            if found.contaminated[0]:
                raise Dropped(Drop.CONTAMINATED, f"{share:.2f} of prompt {found.item[0] + 1} of {name}")

    def _pii(self, candidate: Candidate, scores: dict[str, float]) -> None:
        try:
            guard(candidate.row, Policy("drop", "drop"), RowNotes())
        except Refused as refused:
            raise Dropped(Drop.PII, refused.detail) from None

    def _refusal(self, candidate: Candidate) -> None:
        for text in candidate.written:
            for phrase, words in find_boilerplate(text):
                if phrase.spoils:
                    raise Dropped(Drop.BOILERPLATE, f"{phrase.name}: {words}")


class Prompts:
    """Prompts as strings with one character for each different word, and the one nearest to another by ROUGE-L."""

    def __init__(self) -> None:
        self._letters: dict[str, str] = {}
        self._texts: list[str] = []
        self._names: list[str] = []

    def add(self, prompt: str, name: str) -> None:
        self._texts.append(self._spelled(prompt))
        self._names.append(name)

    def nearest(self, prompt: str) -> tuple[float, str]:
        """The highest ROUGE-L F1 in [0, 1], and whose it is; 0 where there are no prompts."""
        found = process.extractOne(
            self._spelled(prompt), self._texts, scorer=Indel.normalized_similarity, processor=None
        )
        return (float(found[1]), self._names[found[2]]) if found else (0.0, "")

    def _spelled(self, prompt: str) -> str:
        return "".join(self._letter(word) for word in words_of(prompt))

    def _letter(self, word: str) -> str:
        if word not in self._letters:
            code = len(self._letters) + 1
            code += len(_SURROGATES) if code >= _SURROGATES.start else 0
            self._letters[word] = chr(min(code, sys.maxunicode))
        return self._letters[word]


class Rows:
    """Rows by their exact keys, and by the band keys that rows nearly equal to them share."""

    def __init__(self) -> None:
        self._rows: list[Row] = []
        self._exact: dict[int, str] = {}
        self._bands: dict[tuple[int, int], list[int]] = defaultdict(list)

    def add(self, rows: Sequence[Row]) -> None:
        for row, bands in zip(rows, _bands_of(rows), strict=True):
            self._exact.setdefault(keys_of(row).exact, row["id"])
            for band in bands:
                self._bands[band].append(len(self._rows))
            self._rows.append(row)

    def equal(self, row: Row) -> str:
        """The id of a row with the same exact key, or an empty string."""
        return self._exact.get(keys_of(row).exact, "")

    def nearest(self, row: Row) -> tuple[float, str]:
        """The highest similarity with a row of the same type and numbers, and that row's id; 0 where none shares a band.

        The similarity is the least of the Jaccard similarities of whole texts, prompts and answers, as in prep.
        """
        places = sorted({place for band in _bands_of([row])[0] for place in self._bands.get(band, ())})
        mine = _compared(row)
        others = [other for place in places if _compared(other := self._rows[place]) == mine]
        if not others:
            return 0.0, ""
        least = np.min([_alike(row, others, text_of) for text_of in (whole_text, prompt_text, target_text)], axis=0)
        best = int(least.argmax())
        return float(least[best]), others[best]["id"]


def words_of(text: str) -> list[str]:
    """Lower-cased runs of letters and digits, ideographs and kana one by one; of a text without any, its characters."""
    low = normalise(text)
    return _WORD.findall(low) or list(low.replace(" ", ""))


def _letters(text: str) -> str:
    return " ".join(words_of(text))


def _bands_of(rows: Sequence[Row]) -> list[list[tuple[int, int]]]:
    if not rows:
        return []
    keys = band_keys(shingle([whole_text(row) for row in rows]), NEAR_BANDS, NEAR_ROWS)
    return [[(band, key) for band, key in enumerate(row) if key != NO_KEY] for row in keys.tolist()]


def _compared(row: Row) -> tuple[RowType | None, int]:
    """Only rows that agree in this can be near-duplicates. A pair is none of the conversation that its chosen side is from."""
    return row_type(row), keys_of(row, whole_text(row)).guard


def _alike(row: Row, others: Sequence[Row], text_of: Callable[[Row], str]) -> np.ndarray:
    mine = shingle([text_of(row)]).take(np.zeros(len(others), np.int64))
    return jaccard(mine, shingle([text_of(other) for other in others]))
