"""Outcomes of two models on three rows, made by hand."""

from __future__ import annotations

from dataclasses import replace

from ftcli.stages.eval.outcome import Answer, Outcome

REFERENCES = ["a cat sat here", "the list", "open the file"]
ROWS = list(zip(("r0", "r1", "r2"), REFERENCES, strict=True))
READS = "tokenizer abc|float32"


def answers(*texts: str) -> list[Answer]:
    return [Answer(text, [1, 2, 3], "stop") for text in texts]


FIRST = Outcome([6.0, 2.0, 4.0], [4, 2, 3], [14, 8, 13], answers("a dog", "", "open the file"))
SECOND = replace(FIRST, nll=[3.0, 1.0, 2.0], greedy=answers(*REFERENCES))
