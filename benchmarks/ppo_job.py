"""What both sides of `benchmarks/ppo.py` share: the job, the rules that score responses, and the meter of a run.

Nothing of the project nor of TRL is imported here, since each side runs in an environment of its own.
"""

from __future__ import annotations

import hashlib
import json
import resource
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

EOS = 1
"""End-of-turn id of the tiny models."""


@dataclass(frozen=True)
class Job:
    """One run of one side. ``prompts`` are token ids; each update takes the next ``rollouts`` of them, each side in an
    order of its own."""

    mode: str
    """Of ours: ``reward``, ``head_only`` (LoRA) or ``full``; of TRL: ``lora``, ``lora-critic`` or ``full``."""
    model: str
    prompts: list[list[int]]
    updates: int
    rollouts: int
    response_length: int
    epochs: int
    """Passes over a rollout, each one optimizer step."""
    micro_batch: int
    learning_rate: float
    kl_coef: float
    seed: int
    bf16: bool
    rule: str = ""
    """A key of `RULES`; empty takes a reward model."""
    reward: str = ""
    """Folder of our reward model; TRL's is made from ``model`` with a new head."""
    stop_id: int | None = None
    """None: every response has ``response_length`` tokens."""

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Job:
        return cls(**json.loads(path.read_text(encoding="utf-8")))


def even(prompt: Sequence[int], response: Sequence[int]) -> float:
    """Share of even ids among the tokens before the end of turn."""
    content = [token for token in response if token > EOS]
    return sum(token % 2 == 0 for token in content) / max(len(content), 1)


def context(prompt: Sequence[int], response: Sequence[int]) -> float:
    """Share of ids with the parity of the prompt's last id; what ignores the prompt gets one half at best."""
    content = [token for token in response if token > EOS]
    return sum(token % 2 == prompt[-1] % 2 for token in content) / max(len(content), 1)


def length(prompt: Sequence[int], response: Sequence[int]) -> float:
    """1 for six tokens, end of turn included, and a tenth less for each one more or less."""
    return 1 - abs(len(response) - 6) / 10


RULES: dict[str, Callable[[Sequence[int], Sequence[int]], float]] = {"even": even, "ctx": context, "len": length}


def digests(prompts: Iterable[Sequence[int]]) -> list[str]:
    """A short digest of each prompt's ids."""
    return [hashlib.sha256(json.dumps(list(ids)).encode()).hexdigest()[:12] for ids in prompts]


class Meter:
    """Counts what a run does. `lap` ends an update; ``seen`` are the prompts answered, ``tokens`` their responses'."""

    def __init__(self) -> None:
        from torch.optim.optimizer import register_optimizer_step_post_hook

        self.steps = 0
        self.tokens = 0
        self.seen: list[str] = []
        self.scores: list[float] = []
        self.phases: list[dict[str, float]] = []
        self._ends: list[tuple[float, float]] = []
        register_optimizer_step_post_hook(self._count)

    def _count(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        self.steps += 1

    def lap(self) -> None:
        """Call before the first update and after each."""
        self._ends.append((time.perf_counter(), time.process_time()))

    def write(self, path: Path, optimizer: Any) -> None:
        """The record of the run; what ``optimizer`` holds counts as trained."""
        import torch

        pairs = list(zip(self._ends, self._ends[1:], strict=False))
        record = {
            "wall": [after[0] - before[0] for before, after in pairs],
            "cpu": [after[1] - before[1] for before, after in pairs],
            "phases": self.phases,
            "scores": self.scores,
            "prompts": sorted(self.seen),
            "tokens": self.tokens,
            "optimizer_steps": self.steps,
            "trainable": sum(weight.numel() for group in optimizer.param_groups for weight in group["params"]),
            "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
            "threads": torch.get_num_threads(),
        }
        path.write_text(json.dumps(record), encoding="utf-8")
