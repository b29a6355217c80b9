"""What people look at while a policy learns: answers to the same prompts through training, histograms of each rollout, alarms.

Three files of JSON lines, each with the rollout that it belongs to. They are written before the checkpoint of that rollout, so
that a resumed run drops what came after its checkpoint and writes it again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import floor
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any, Literal

from ftcli.data.rows import Row, prompt_of
from ftcli.rl.guards import Alarm
from ftcli.stages.ppo.held_out import Exam

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Decoding = Literal["sampled", "greedy"]
SCORE_BINS, LENGTH_BINS = 48, 32
SPREADS = (4.0, 8.0)
"""Standard deviations of the starting policy's scores below and above their mean that a histogram covers; scores are to rise."""


class Journal:
    """A file of JSON lines, each with a ``rollout``."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, records: Iterable[Mapping[str, Any]]) -> None:
        with self.path.open("a", encoding="utf-8", errors="backslashreplace") as file:  # "\\ud800" is JSON for it
            file.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in records)

    def records(self) -> list[dict[str, Any]]:
        """All whole lines; a torn last one, of a process that was killed, is left out."""
        if not self.path.exists():
            return []
        found = []
        for line in self.path.read_text(encoding="utf-8").split("\n"):
            try:
                found.append(dict(json.loads(line)))
            except ValueError:
                break
        return found

    def rewind(self, rollout: int) -> None:
        """Drop what came after ``rollout``."""
        if not self.path.exists():
            return
        kept = [record for record in self.records() if record["rollout"] <= rollout]
        temporary = Journal(self.path.with_suffix(".tmp"))
        temporary.path.unlink(missing_ok=True)
        temporary.append(kept)
        os.replace(temporary.path, self.path)


@dataclass(frozen=True)
class Bins:
    """Bins ``width`` wide from ``low`` on, with one for all below and one for all above."""

    low: float
    width: float
    count: int

    def counts(self, values: Iterable[float]) -> list[int]:
        """How many values are below, in each bin (its lower edge included), and above."""
        found = [0] * (self.count + 2)
        for value in values:
            found[min(max(floor((value - self.low) / self.width) + 1, 0), self.count + 1)] += 1
        return found

    def to_json(self, values: Iterable[float]) -> dict[str, Any]:
        return {"low": self.low, "width": self.width, "counts": self.counts(values)}


def score_bins(scores: Sequence[float]) -> Bins:
    """Bins around the starting policy's ``scores``, the same for the whole run."""
    mean, spread = fmean(scores) if scores else 0.0, stdev(scores) if len(scores) > 1 else 0.0
    spread = spread or max(abs(mean), 1.0) / 4
    below, above = SPREADS
    return Bins(mean - below * spread, (below + above) * spread / SCORE_BINS, SCORE_BINS)


def length_bins(longest: int) -> Bins:
    """Bins for responses of 1 to ``longest`` tokens."""
    width = -(-longest // LENGTH_BINS)
    return Bins(1.0, float(width), -(-longest // width))


class Watch:
    """Writes samples.jsonl, histograms.jsonl and alarms.jsonl in ``folder``.

    ``rows`` are those of the prompts that are shown; ``start_scores`` the starting policy's, which fix the bins.
    """

    def __init__(
        self,
        folder: Path,
        rows: Sequence[Row],
        tokenizer: PreTrainedTokenizerBase,
        start_scores: Sequence[float],
        response_length: int,
    ) -> None:
        self.samples = Journal(folder / "samples.jsonl")
        self.histograms = Journal(folder / "histograms.jsonl")
        self.alarms = Journal(folder / "alarms.jsonl")
        self._rows = rows
        self._tokenizer = tokenizer
        self._scores = score_bins(start_scores)
        self._lengths = length_bins(response_length)

    def rewind(self, rollout: int) -> None:
        """Forget what came after ``rollout``; -1 forgets everything."""
        for journal in (self.samples, self.histograms, self.alarms):
            journal.rewind(rollout)

    def answers(self, rollout: int, sampled: Exam, greedy: Exam) -> None:
        """Keep the first answers of both, one for each row, in place of those that a killed run left of this rollout."""
        self.samples.rewind(rollout - 1)
        self.samples.append([*self._shown(rollout, "sampled", sampled), *self._shown(rollout, "greedy", greedy)])

    def rollout(self, rollout: int, scores: Sequence[float], lengths: Sequence[int], alarms: Sequence[Alarm]) -> None:
        """Keep what a rollout looked like, and the alarms that it raised."""
        histograms = {"score": self._scores.to_json(scores), "length": self._lengths.to_json(lengths)}
        self.histograms.append([{"rollout": rollout, **histograms}])
        self.alarms.append({"rollout": rollout, **asdict(alarm)} for alarm in alarms)

    def _shown(self, rollout: int, decoding: Decoding, exam: Exam) -> list[dict[str, Any]]:
        return [
            {
                "rollout": rollout,
                "id": row["id"],
                "prompt": prompt_of(row),
                "decoding": decoding,
                "text": self._tokenizer.decode(answer.response, skip_special_tokens=True),
                "tokens": len(answer.response),
                "finish_reason": "stop" if answer.ended else "length",
                "score": answer.judged,
                "parts": answer.parts,
                "evals": answer.evals,
                "kl": answer.kl,
            }
            for row, answer in zip(self._rows, exam.answers, strict=False)
        ]
