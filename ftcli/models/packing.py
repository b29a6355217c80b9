"""Rows laid end to end in one long row, so that no layer computes padding, and no row sees another.

Everything but attention works on single tokens; attention alone gets the rows apart again, pads them, and computes each by
itself. Rows keep their own positions 0, 1, 2, ... The boundaries travel under the names of transformers' flash-attention
arguments (``cu_seq_lens_q``, ``max_length_q``), which models pass through to the attention function.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from ftcli.models.attention import plain_attention

ATTENTION = "ftcli_rows"
"""The name of the attention function below; it is sdpa for calls that bring no boundaries."""

SHORT_ROW_TOKENS = 256
"""Up to here a CPU computes attention faster without PyTorch's fused kernel, whose backward pass is slow there: a LoRA step of
SmolLM2 on rows of about 60 tokens takes 1.4 times as long with it. Plain attention's memory grows with the square."""


MORE_THAN_ATTENTION = ("softcap", "s_aux", "position_bias")
"""Arguments by which some models change the scores; they are not done here."""


def enable_packing(model: PreTrainedModel) -> bool:
    """Let ``model`` take packed rows if it keeps them apart, and say whether it does; calls with plain rows stay as they are.

    Tried on two short rows: another first row must leave the second one's hidden states as they were. Nothing that a model says
    of itself rules out a layer that mixes neighbours, as convolutions and recurrent states do.
    """
    if not model._supports_attention_backend:
        return False
    usual = model.config._attn_implementation
    was_training = model.training
    ids = torch.arange(16, device=model.device).view(2, 8) % model.config.get_text_config().vocab_size
    other = torch.stack([ids[0].flip(0), ids[1]])
    lengths = torch.tensor([8, 6], device=model.device)
    model.set_attn_implementation(ATTENTION)
    model.eval()
    try:
        with torch.no_grad():
            first, second = (model.base_model(**pack(rows, lengths), use_cache=False) for rows in (ids, other))
        apart = torch.allclose(first.last_hidden_state[:, 8:], second.last_hidden_state[:, 8:])
    except _NotPlain:
        apart = False
    model.train(was_training)
    if not apart:
        model.set_attn_implementation(usual)
    return apart


class _NotPlain(Exception):
    """A model asks for more than attention of packed rows can do."""


def takes_packed_rows(model: Any) -> bool:
    """Whether `enable_packing` succeeded for ``model``, which may be a backbone or have adapters by now."""
    return bool(model.config._attn_implementation == ATTENTION)


def pack(input_ids: Tensor, lengths: Tensor) -> dict[str, Any]:
    """What a model's forward takes for right-padded rows ``input_ids`` [B, T] of ``lengths`` [B], laid end to end [1, N]."""
    kept = within(input_ids.shape[1], lengths)  # [B, T]
    ends = lengths.cumsum(0)  # [B]
    boundaries = pad(ends, (1, 0)).to(torch.int32)  # [B + 1]
    longest = int(lengths.max())
    positions = torch.arange(input_ids.shape[1], device=input_ids.device).expand_as(input_ids)
    return {
        "input_ids": input_ids[kept][None],
        "position_ids": positions[kept][None],
        # Not used; with four dimensions models take it as it is, and build none of N x N.
        "attention_mask": torch.ones(1, 1, 1, 1, dtype=torch.bool, device=input_ids.device),
        "cu_seq_lens_q": boundaries,
        "cu_seq_lens_k": boundaries,
        "max_length_q": longest,
        "max_length_k": longest,
    }


def within(width: int, lengths: Tensor) -> Tensor:
    """[B, width], True at the first ``lengths`` [B] places of each row."""
    return torch.arange(width, device=lengths.device) < lengths[:, None]


def unpack(packed: Tensor, lengths: Tensor, width: int) -> Tensor:
    """Values [N, ...] of packed tokens as [B, width, ...], zero beyond each row's end."""
    rows = packed.new_zeros(len(lengths), width, *packed.shape[1:])
    return rows.index_put((within(width, lengths),), packed)


def rows_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Causal attention of packed rows: ``query`` [1, H, N, D], ``key`` and ``value`` [1, G, N, D]; returns [1, N, H, D]."""
    boundaries = kwargs.get("cu_seq_lens_q")
    if boundaries is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    if any(kwargs.get(name) is not None for name in MORE_THAN_ATTENTION):
        raise _NotPlain
    lengths, width = boundaries.diff(), int(kwargs["max_length_q"])
    kept = within(width, lengths)  # [B, T]
    places = kept.flatten().nonzero()[:, 0]  # [N], where each token stands in the rows laid out with padding
    q, k, v = (_spread(tensor, places, kept.shape) for tensor in (query, key, value))  # [B, H or G, T, D]
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    mask = _window(width, sliding_window, q.device) if sliding_window and sliding_window < width else None
    if q.device.type == "cpu" and width <= SHORT_ROW_TOKENS:
        seen = _window(width, None, q.device) if mask is None else mask
        out = plain_attention(q, k, v, seen, scale, dropout)
    else:
        out = scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=mask,
            dropout_p=dropout,
            is_causal=mask is None,
            scale=scale,
            enable_gqa=q.shape[1] != k.shape[1],
        )
    tokens = out.transpose(1, 2).flatten(0, 1).index_select(0, places)  # [N, H, D]
    return tokens[None], None


def _spread(tensor: Tensor, places: Tensor, shape: torch.Size) -> Tensor:
    """[1, H, N, D] as [B, H, T, D], zero where no token stands."""
    tokens = tensor[0].transpose(0, 1)  # [N, H, D]
    rows = tokens.new_zeros(shape.numel(), *tokens.shape[1:]).index_copy(0, places, tokens)
    return rows.view(*shape, *tokens.shape[1:]).transpose(1, 2)


def _window(width: int, sliding_window: int | None, device: torch.device) -> Tensor:
    """[T, T], True where a query (row) may see a key (column): itself and what came before, within the window."""
    places = torch.arange(width, device=device)
    distance = places[:, None] - places
    seen = distance >= 0
    return seen & (distance < sliding_window) if sliding_window else seen


AttentionInterface.register(ATTENTION, rows_attention)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)
