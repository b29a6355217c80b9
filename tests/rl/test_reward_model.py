from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn.functional import pad

from ftcli.core.errors import UsageError
from ftcli.core.stage import Kind
from ftcli.models.heads import random_head
from ftcli.models.packing import enable_packing
from ftcli.rl.reward_model import RewardModel, load_reward_model, read_stats
from ftcli.rl.sequences import Exchange, collate
from tests.conftest import artifact
from tests.rl.conftest import EOS, PAD, random_exchanges, tiny_adapter


def model(pad_id: int = PAD) -> RewardModel:
    return RewardModel(tiny_adapter().eval(), random_head(64, seed=0), pad_id)


def score_alone(exchange: Exchange) -> float:
    """Hugging Face's own forward of one unpadded row, with the head applied by hand at its last token."""
    found = model()
    ids = torch.tensor([exchange.prompt + exchange.response])
    with torch.no_grad():
        hidden = found.model(input_ids=ids, output_hidden_states=True).hidden_states[-1][0, -1]
        return float(hidden @ found.head.weight[0] + found.head.bias)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("pad_id", [PAD, EOS])
def test_a_score_is_that_of_the_last_token_whatever_else_is_in_the_batch(pad_id: int, packed: bool) -> None:
    exchanges = random_exchanges(12)
    expected = [score_alone(one) for one in exchanges]
    reward = model(pad_id)
    if packed:
        assert enable_packing(reward.model.get_base_model())
    for size in (1, 5, 12):
        found = reward.score_exchanges(exchanges, size)
        assert found == pytest.approx(expected, abs=1e-5)


def test_more_padding_changes_no_score() -> None:
    batch = collate(random_exchanges(6), EOS)
    wider = replace(batch, ids=pad(batch.ids, (0, 7), value=EOS))
    torch.testing.assert_close(model().score(batch), model().score(wider))


def test_a_folder_without_head_or_statistics_is_no_reward_model(tmp_path: Path) -> None:
    (tmp_path / "some.txt").write_text("x")
    with pytest.raises(UsageError, match=r"head\.safetensors"):
        load_reward_model(artifact(Kind.REWARD, tmp_path), torch.float32, torch.device("cpu"), PAD)
    with pytest.raises(UsageError, match=r"reward_stats\.json"):
        read_stats(tmp_path)


def test_a_reward_model_needs_its_base(tmp_path: Path) -> None:
    from ftcli.models.heads import save_head

    save_head(tmp_path, random_head(8, 0))
    with pytest.raises(UsageError, match="so this is no reward model"):
        load_reward_model(artifact(Kind.REWARD, tmp_path), torch.float32, torch.device("cpu"), PAD)
