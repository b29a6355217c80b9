"""Merge an adapter into its base, so that a plain model folder remains.

The sum is taken in float32, layer by layer, and stored in the base's own number format: PEFT adds in the base's format, which
rounds the change before it is added. An adapter that was trained on a 4-bit base belongs to the dequantised weights, not to those
that they were made from: merging into the latter, or rounding the merged weights to 4 bits again, gives another model (outputs
off by about 16 %, measured on a random one).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from peft.utils.other import AuxiliaryTrainingWrapper
from torch import nn
from transformers import AutoConfig, PreTrainedModel

from ftcli.core.errors import UsageError
from ftcli.core.stage import Artifact
from ftcli.models.load import fit_vocabulary, load_adapter, load_base, load_base_of, pick_dtype, read_base_record


class Merged(NamedTuple):
    """A plain model, and what people must know of how it differs in shape from its base."""

    model: PreTrainedModel
    notes: list[str]


def stored_dtype(artifact: Artifact) -> torch.dtype:
    """The number format that the weights of a model, or of an adapter's base, are stored in."""
    dtype = AutoConfig.from_pretrained((artifact.base or artifact).path).dtype
    return dtype if isinstance(dtype, torch.dtype) else torch.float32


def quantization_of(artifact: Artifact) -> str | None:
    """How the base was quantised while the adapter ``artifact`` was trained; None for a plain base or a whole model."""
    found = read_base_record(artifact.path).get("quantization") if artifact.base is not None else None
    return str(found) if found else None


def compute_dtype(artifact: Artifact, device: torch.device) -> torch.dtype:
    """What a model computes in as it was trained: a 4-bit base has no format of its own, others are used as they are stored."""
    return pick_dtype("auto", device) if quantization_of(artifact) else stored_dtype(artifact)


def merge(artifact: Artifact, device: torch.device) -> Merged:
    """``artifact`` as a plain model in the number format of its base; a whole model as it is.

    Raises `UsageError` for an adapter of a kind that cannot be merged.
    """
    stored = stored_dtype(artifact)
    notes = []
    if artifact.base is None:
        whole = load_base(artifact.path, stored, device)
        if is_quantized(whole):
            whole = whole.dequantize().to(stored)
            notes.append("the model was stored quantised; its weights are dequantised")
        return Merged(whole, notes)
    base = load_base_of(artifact, compute_dtype(artifact, device), device)
    if is_quantized(base):
        base = base.dequantize()
        notes.append("merged into the dequantised 4-bit base, which is what the adapter was trained on")
    if fit_vocabulary(base, artifact.path):
        notes.append(f"the vocabulary has {base.config.get_text_config().vocab_size} rows, as the adapter brings them")
    was_tied = _are_tied(base)
    model = load_adapter(base, artifact)
    if was_tied and _touches_embeddings(model):
        _untie(model)
    plain = _merged(model, artifact, stored).to(stored)
    if was_tied and not _tie_if_equal(plain):
        notes.append(
            "input embeddings and head were tied and are now two tensors: the adapter changed them differently"
        )
    return Merged(plain.eval(), notes)


def is_quantized(model: PreTrainedModel) -> bool:
    return getattr(model, "hf_quantizer", None) is not None


def _are_tied(model: PreTrainedModel) -> bool:
    head = model.get_output_embeddings()
    return head is not None and head.weight is model.get_input_embeddings().weight


def _touches_embeddings(model: PeftModel) -> bool:
    """Whether the adapter sits on the input embeddings or on the head."""
    inner = model.get_base_model()
    both = (inner.get_input_embeddings(), inner.get_output_embeddings())
    return any(isinstance(module, BaseTunerLayer | AuxiliaryTrainingWrapper) for module in both)


def _bare(module: Any) -> nn.Module:
    """The base's own layer beneath whatever an adapter has put around it."""
    while True:
        if isinstance(module, AuxiliaryTrainingWrapper):
            module = module.original_module
        elif isinstance(module, BaseTunerLayer):
            module = module.get_base_layer()
        else:
            return module  # type: ignore[no-any-return]


def _untie(model: PeftModel) -> None:
    """Give the head a weight of its own: an adapter on one of the two would else change both when it is merged."""
    head = _bare(model.get_base_model().get_output_embeddings())
    head.weight = nn.Parameter(head.weight.detach().clone(), requires_grad=False)  # type: ignore[union-attr,operator]


def _tie_if_equal(model: PreTrainedModel) -> bool:
    """Tie embeddings and head again if they are equal; else have the config say that they are two."""
    embeddings, head = model.get_input_embeddings(), model.get_output_embeddings()
    equal = embeddings.weight.shape == head.weight.shape and torch.equal(embeddings.weight, head.weight)
    if equal:
        head.weight = embeddings.weight
    model.config.get_text_config().tie_word_embeddings = equal
    model.config.tie_word_embeddings = equal
    return equal


def _merged(model: PeftModel, artifact: Artifact, stored: torch.dtype) -> PreTrainedModel:
    if not isinstance(model.base_model, BaseTuner):
        kind = model.peft_config["default"].peft_type
        raise UsageError(
            f"{artifact.ref}: an adapter of the kind {kind} has no weights of the base to be merged into",
            "export it with --to adapter",
        )
    try:
        for layer in [module for module in model.modules() if isinstance(module, BaseTunerLayer)]:
            with _in_float32(layer.get_base_layer(), then=stored):
                layer.merge(safe_merge=True)
        plain: PreTrainedModel = model.merge_and_unload()
    except (ValueError, NotImplementedError) as error:  # PEFT names the setting that is in the way
        raise UsageError(
            f"{artifact.ref}: this adapter cannot be merged: {error}", "export it with --to adapter"
        ) from None
    return plain


@contextmanager
def _in_float32(layer: nn.Module, then: torch.dtype) -> Iterator[None]:
    """Hold the layer's own weights in float32 meanwhile, and in the format ``then`` after."""
    own = [weight for weight in layer.parameters(recurse=False) if weight.is_floating_point()]
    for weight in own:
        weight.data = weight.data.float()
    yield
    for weight in own:
        weight.data = weight.data.to(then)
