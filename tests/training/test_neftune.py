from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from transformers.integrations.neftune import neftune_post_forward_hook

from ftcli.training.neftune import noise


def test_rows_of_equal_length_get_the_noise_of_transformers() -> None:
    embeddings = nn.Embedding(50, 16)
    ids = torch.randint(50, (3, 7))
    plain = embeddings(ids)
    embeddings.neftune_noise_alpha = 5.0  # type: ignore[assignment]
    torch.manual_seed(1)
    theirs = neftune_post_forward_hook(embeddings.train(), None, plain)
    torch.manual_seed(1)
    with noise(embeddings, 5.0, torch.tensor([7, 7, 7]), packed=False):
        ours = embeddings(ids)
    torch.testing.assert_close(ours, theirs)


def test_each_packed_row_gets_noise_by_its_own_length() -> None:
    lengths = torch.tensor([2, 30, 1])
    embeddings = nn.Embedding(50, 64)
    ids = torch.randint(50, (1, 33))
    with noise(embeddings, 5.0, lengths, packed=True):
        added = (embeddings(ids) - nn.functional.embedding(ids, embeddings.weight))[0].abs()
    for row, length in zip(added.split(lengths.tolist()), lengths.tolist(), strict=True):
        bound = 5.0 / math.sqrt(length * 64)
        assert float(row.max()) <= bound + 1e-6  # as 64 draws or more are uniform, the largest is near it
        assert float(row.max()) == pytest.approx(bound, rel=0.15)


def test_nothing_is_left_behind() -> None:
    embeddings = nn.Embedding(5, 4)
    with pytest.raises(RuntimeError), noise(embeddings, 5.0, torch.tensor([1]), packed=False):
        raise RuntimeError
    assert torch.equal(embeddings(torch.tensor([[1]])), embeddings.weight[1][None, None])
