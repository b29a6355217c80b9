"""Where training on preferences or rewards starts: an adapter trained further, a new one, or a whole model.

``auto`` is an adapter on the base as its record says: in 4 bits where the policy was trained on 4 bits. An adapter learned
beside rounded weights does not fit the unrounded ones, nor the other way round, so ``lora`` and ``qlora`` are refused where
they contradict the record of an adapter that is kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch

from ftcli.core.errors import UsageError
from ftcli.core.stage import Artifact
from ftcli.models.load import (
    fit_vocabulary,
    is_adapter,
    load_adapter,
    load_base,
    load_tokenizer_of,
    read_base_record,
)
from ftcli.training.adapters import add_lora, trains_modules_whole, widen_trained_modules

Method = Literal["auto", "lora", "qlora", "full"]


@dataclass(frozen=True)
class Start:
    """A model ready to train. ``quantization`` and ``double_quant`` go into its record (`ftcli.models.load.write_base_record`)."""

    model: Any
    """A `PeftModel` whose adapter ``default`` is trained, or, for ``full``, a whole model with float32 weights."""
    is_fresh: bool
    """Whether an adapter was put on it whose product is still 0."""
    quantization: str | None = None
    double_quant: bool | None = None

    @property
    def is_whole(self) -> bool:
        return not hasattr(self.model, "peft_config")

    @property
    def needs_autocast(self) -> bool:
        """Whether computing in bfloat16 takes autocast, since float32 weights are trained that layers compute with.

        Otherwise they lie beside frozen weights that are held in bfloat16, and nothing is cast.
        """
        return self.is_whole or trains_modules_whole(self.model)

    def contradicted(self, given: Mapping[str, Any]) -> str:
        """Those of the ``given`` settings lora_r and lora_alpha that an adapter which was there already has otherwise, listed
        with its own values; empty where there are none."""
        if self.is_whole or self.is_fresh:
            return ""
        adapter = self.model.peft_config["default"]
        own = {name: getattr(adapter, of, None) for name, of in (("lora_r", "r"), ("lora_alpha", "lora_alpha"))}
        wrong = [name for name in own if given.get(name, own[name]) != own[name]]
        return ", ".join(f"{name} {given[name]} (it has {own[name] or 'none'})" for name in wrong)


def load_start(
    source: Artifact,
    method: Method,
    dtype: torch.dtype,
    device: torch.device,
    *,
    r: int,
    alpha: int,
    keeps_adapter: bool = True,
) -> Start:
    """``source`` with what ``method`` trains in float32 and requiring gradients, the rest frozen and in ``dtype``.

    ``r`` and ``alpha`` are a new adapter's, on all linear layers and without dropout; ``keeps_adapter`` False puts a new one on
    the base of a ``source`` that is an adapter. Raises `UsageError` where ``method`` does not fit ``source``.
    """
    if method == "full":
        if is_adapter(source.path):
            raise UsageError(
                f"{source.ref} is an adapter, and method full trains all weights of a whole model",
                f"set method to auto, or merge it first: ftcli export --from {source.ref} --to merged",
            )
        return Start(load_base(source.path, torch.float32, device, packing=True), is_fresh=False)
    record = read_base_record(source.path)
    recorded = record.get("quantization")
    wanted = {"auto": recorded, "lora": None, "qlora": "nf4"}[method]
    if keeps_adapter and is_adapter(source.path) and wanted != recorded:
        raise UsageError(
            f"{source.ref} was trained on its base {'in 4 bits' if recorded else 'unrounded'}, which method {method} does not keep",
            "set method to auto",
        )
    double_quant = bool(record.get("double_quant", True)) if wanted else None
    base = load_base((source.base or source).path, dtype, device, wanted, double_quant is not False, packing=True)
    if source.base is not None and keeps_adapter:
        fit_vocabulary(base, source.path)
        model = load_adapter(base, source, trainable=True)
        widen_trained_modules(model)
        return Start(model, False, wanted, double_quant)
    if source.base is not None and not _has_all_tokens(base, source):
        raise UsageError(f"{source.ref} brings tokens that the bare base has not", "set init_from to policy")
    return Start(add_lora(base, r=r, alpha=alpha), True, wanted, double_quant)


def _has_all_tokens(base: Any, source: Artifact) -> bool:
    """Whether ``base`` has a row of embeddings for every token of ``source``'s tokenizer."""
    rows: int = base.get_input_embeddings().weight.shape[0]
    return max(load_tokenizer_of(source).get_vocab().values()) < rows
