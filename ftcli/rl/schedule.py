"""Learning-rate schedules as a function of the step alone, so that a resumed run needs no scheduler state."""

from __future__ import annotations

import math
from typing import Literal

Schedule = Literal["linear", "cosine", "constant"]


def lr_factor(step: int, total: int, kind: Schedule, warmup_steps: float = 0.0) -> float:
    """What to multiply the learning rate with at ``step`` 0 ... ``total`` - 1; never 0, so that no step is lost.

    The first ``ceil(warmup_steps)`` steps rise linearly, the rest falls linearly or along half a cosine, or stays.
    """
    warmup = math.ceil(warmup_steps)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    done = (step - warmup) / max(total - warmup, 1)
    if kind == "linear":
        return 1.0 - done
    return 0.5 * (1.0 + math.cos(math.pi * done)) if kind == "cosine" else 1.0
