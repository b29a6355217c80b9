"""What a training run has counted so far. It is part of every checkpoint, so a resumed run reports as an unbroken
one.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class Window:
    """Sums since the last line of metrics."""

    nll: float = 0.0
    labels: int = 0
    tokens: int = 0
    seconds: float = 0.0


@dataclass
class Tally:
    """``tokens`` are those fed to the model without padding, ``seconds`` the wall time of training steps alone."""

    tokens: int = 0
    seconds: float = 0.0
    window: Window = field(default_factory=Window)
    last: dict[str, float] = field(default_factory=dict)
    """The newest value of each metric."""

    def add_step(self, nll: float, labels: int, tokens: int) -> None:
        self.tokens += tokens
        self.window.nll += nll
        self.window.labels += labels
        self.window.tokens += tokens

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
        return cls(data["tokens"], data["seconds"], Window(**data["window"]), data["last"])
