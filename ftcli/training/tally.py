"""What a training run has counted so far. It is part of every checkpoint, so a resumed run reports as an unbroken
one.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import asdict, dataclass, field
from typing import Any

RECENT_STEPS, FEWEST_STEPS = 64, 16
SPIKE = 6.0
"""Robust standard deviations of the log of the loss above the median of the last `RECENT_STEPS` steps."""
SMALLEST_DEVIATION = 0.05
"""Of the log of the loss; a loss that hardly moves would else call every tremor a spike."""


@dataclass
class Window:
    """Sums since the last line of metrics."""

    nll: float = 0.0
    labels: int = 0
    tokens: int = 0
    seconds: float = 0.0


@dataclass
class Best:
    step: int
    loss: float


@dataclass
class Tally:
    """``tokens`` are those fed to the model without padding, ``seconds`` the wall time of training steps alone."""

    tokens: int = 0
    seconds: float = 0.0
    window: Window = field(default_factory=Window)
    last: dict[str, float] = field(default_factory=dict)
    """The newest value of each metric."""
    dropped: int = 0
    """Steps whose loss or gradient was not finite; they changed no weight."""
    dropped_in_a_row: int = 0
    recent: list[float] = field(default_factory=list)
    """The logs of the losses of the last `RECENT_STEPS` steps."""
    spikes: list[int] = field(default_factory=list)
    """Steps whose loss stood out."""
    best: Best | None = None
    """The lowest validation loss."""
    since_best: int = 0
    """Validations after it."""

    def add_step(self, nll: float, labels: int, tokens: int) -> None:
        self.tokens += tokens
        self.dropped_in_a_row = 0
        self.window.nll += nll
        self.window.labels += labels
        self.window.tokens += tokens

    def drop_step(self) -> None:
        self.dropped += 1
        self.dropped_in_a_row += 1

    def is_spike(self, step: int, loss: float) -> bool:
        """Whether the loss of ``step`` stands out from the steps before it; remembers it."""
        value = math.log(max(loss, 1e-12))
        before, self.recent = self.recent, [*self.recent, value][-RECENT_STEPS:]
        if len(before) < FEWEST_STEPS:
            return False
        median = statistics.median(before)
        # 1.4826 median absolute deviations of a normal distribution are one standard deviation.
        deviation = 1.4826 * statistics.median(abs(one - median) for one in before)
        found = value - median > SPIKE * max(deviation, SMALLEST_DEVIATION)
        if found:
            self.spikes.append(step)
        return found

    def add_validation(self, step: int, loss: float) -> bool:
        """Whether ``loss`` is the lowest so far."""
        if self.best is None or loss < self.best.loss:
            self.best, self.since_best = Best(step, loss), 0
            return True
        self.since_best += 1
        return False

    def add_seconds(self, seconds: float) -> None:
        self.seconds += seconds
        self.window.seconds += seconds

    def close_window(self) -> Window:
        closed, self.window = self.window, Window()
        return closed

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Tally:
        best = data["best"]
        return cls(**{**data, "window": Window(**data["window"]), "best": best and Best(**best)})
