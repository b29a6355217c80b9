"""The one place where models under test are in memory: a base at a time, and on it an adapter at a time."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ftcli.core.stage import Artifact
from ftcli.models.load import adapt, is_low_rank_alone, load_base, read_base_record


@dataclass(frozen=True)
class Base:
    """What a loading of a base is shared by: the weights and how they are stored."""

    digest: str
    quantization: str | None = None
    double_quant: bool = True


def base_of(artifact: Artifact) -> Base:
    """The weights under ``artifact``: its own, or those that the adapter was trained on, quantised as they were then."""
    if artifact.base is None:
        return Base(artifact.digest)
    record = read_base_record(artifact.path)
    return Base(artifact.base.digest, record.get("quantization"), record.get("double_quant", True))


def by_base(models: Sequence[Artifact]) -> list[Artifact]:
    """``models`` in an order in which each base is loaded once: that of their first appearance."""
    bases = [base_of(model) for model in models]
    places = sorted(range(len(models)), key=lambda place: bases.index(bases[place]))
    return [models[place] for place in places]


class Bench:
    """Models in ``dtype`` on ``device``, loaded when they are asked for and dropped for the next one that needs the room."""

    def __init__(self, dtype: torch.dtype, device: torch.device) -> None:
        self.dtype, self.device = dtype, device
        self.loadings = 0
        """How many bases were loaded."""
        self._base: Base | None = None
        self._adapter: str | None = None
        self._model: Any = None
        self._can_go_back = True
        """Whether the base is as it was loaded once the adapter on it is taken off."""

    def model(self, artifact: Artifact) -> Any:
        """``artifact`` ready to compute. It is valid until another is asked for; whoever keeps it keeps its memory taken."""
        base, adapter = base_of(artifact), artifact.digest if artifact.base is not None else None
        if (self._base, self._adapter) == (base, adapter):
            return self._model
        self._take_off_adapter()
        if self._base != base:
            self.clear()
            folder = (artifact.base or artifact).path
            self._model = load_base(folder, self.dtype, self.device, base.quantization, base.double_quant)
            self._base = base
            self.loadings += 1
        if adapter is not None:
            try:
                self._model = adapt(self._model, artifact, self.dtype).eval()
            except BaseException:
                self.clear()  # it may have been changed half-way
                raise
            self._adapter, self._can_go_back = adapter, is_low_rank_alone(artifact.path)
        return self._model

    def _take_off_adapter(self) -> None:
        """Leave the base as it was loaded; one that the adapter has changed goes."""
        if self._adapter is None:
            return
        if self._can_go_back:
            self._model, self._adapter = self._model.unload(), None
        else:
            self.clear()

    def clear(self) -> None:
        """Give the memory back. A model is full of reference cycles, so it goes only when they are collected."""
        self._model = self._base = self._adapter = None
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
