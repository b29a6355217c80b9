"""Generated prose, and copies of it that differ in a known way."""

from __future__ import annotations

import itertools
import random

ONSETS = [
    "",
    *"bcdfghjklmnprstvwz",
    "br",
    "ch",
    "cl",
    "dr",
    "fl",
    "gr",
    "pl",
    "pr",
    "qu",
    "sh",
    "st",
    "str",
    "th",
    "tr",
]
VOWELS = [*"aaeeiou", "ai", "ea", "ee", "io", "oo", "ou"]
CODAS = ["", "", "", "", *"bcdklmnprst", "ck", "ld", "ll", "nd", "ng", "nt", "rd", "rn", "ss", "st"]
WORDS = 4000
PREFIX = "You are a helpful assistant who answers briefly. "


class Prose:
    """Sentences of made-up words whose frequencies fall as those of a language do (Zipf)."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        words = sorted({self._word() for _ in range(2 * WORDS)})
        self.words = self.random.sample(words, WORDS)
        self.weights = list(itertools.accumulate(1 / (rank + 3) for rank in range(WORDS)))

    def _word(self) -> str:
        choice = self.random.choice
        return "".join(
            choice(ONSETS) + choice(VOWELS) + choice(CODAS) for _ in range(self.random.choice([1, 1, 1, 2, 2, 3]))
        )

    def some(self, count: int) -> list[str]:
        return self.random.choices(self.words, cum_weights=self.weights, k=count)

    def text(self, words: int = 38) -> str:
        """About ``6 * words`` characters."""
        parts = []
        while words > 0:
            length = min(words, self.random.randint(6, 16))
            parts.append(" ".join(self.some(length)).capitalize() + ".")
            words -= length
        return " ".join(parts)

    def problem(self) -> str:
        """A text with three numbers in it."""
        numbers = [str(self.random.randint(2, 999)) for _ in range(3)]
        return " ".join(f"{self.text(10)[:-1]} {number}." for number in numbers)

    def reformatted(self, text: str) -> str:
        """The same in other case and spacing."""
        return "  ".join(word.upper() if self.random.random() < 0.3 else word for word in text.split()) + "\n"

    def edited(self, text: str, share: float) -> str:
        """``share`` of the words, at least one, replaced, deleted or followed by another."""
        words = text.split()
        for place in self.random.sample(range(len(words)), max(1, round(share * len(words)))):
            change = self.random.choice("rdi")
            words[place] = {"r": self.some(1)[0], "d": "", "i": f"{words[place]} {self.some(1)[0]}"}[change]
        return " ".join(word for word in words if word)

    def truncated(self, text: str, share: float = 0.2) -> str:
        words = text.split()
        return " ".join(words[: round(len(words) * (1 - share))])

    def renumbered(self, text: str) -> str:
        """One number made another one."""
        words = text.split()
        place = self.random.choice([index for index, word in enumerate(words) if word[0].isdigit()])
        words[place] = f"{int(words[place].strip('.')) + 1}."
        return " ".join(words)
