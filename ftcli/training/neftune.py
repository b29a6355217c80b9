"""Noise on the embeddings of training rows (NEFTune, arXiv 2310.05914, algorithm 1), also where rows are packed.

transformers' own hook takes the width of the input for a row's length, which for packed rows is that of all rows together, so
each would get too little noise.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


@contextmanager
def noise(embeddings: nn.Module, alpha: float, lengths: Tensor, *, packed: bool) -> Iterator[None]:
    """Meanwhile ``embeddings`` adds uniform noise in +- ``alpha / sqrt(L * H)``, L being the tokens of each row (``lengths`` [B]).

    Their input is [B, T], or [1, N] with the rows end to end if ``packed``.
    """
    sizes = (
        lengths.repeat_interleave(lengths)[None, :, None] if packed else lengths[:, None, None]
    )  # [1, N, 1], [B, 1, 1]

    def add(module: nn.Module, args: Any, output: Tensor) -> Tensor:
        reach = alpha / (sizes * output.shape[-1]).sqrt()
        return output + torch.empty_like(output).uniform_(-1, 1) * reach.to(output.dtype)

    hook = embeddings.register_forward_hook(add)
    try:
        yield
    finally:
        hook.remove()
