"""What people prefer is what reward and dpo then train on, with the folder as it is; and eval knows what was trained on."""

from __future__ import annotations

from pathlib import Path

import pytest

from ftcli.core.errors import NeedsHuman, UsageError
from ftcli.core.events import Events
from ftcli.core.stage import Artifact, Context, Kind
from ftcli.data.chat import generation_eos, stop_token_ids
from ftcli.data.rows import read_jsonl
from ftcli.models.load import load_tokenizer
from ftcli.stages.dpo import pairs as dpo
from ftcli.stages.dpo.config import DpoConfig
from ftcli.stages.eval.leakage import check_leakage
from ftcli.stages.rank.stage import RANK
from ftcli.stages.reward import encode as reward
from ftcli.stages.reward.config import RewardConfig
from tests.conftest import artifact, run_stage
from tests.stages.rank.judging import at_desk, by_text, two_models


@pytest.fixture
def judged(tmp_path: Path) -> Path:
    """The output of a rank stage whose grader prefers answers that begin with "good"."""
    inputs = {"samples": two_models(tmp_path / "s", ["train"] * 9 + ["validation"] * 4 + ["test"] * 2)}
    with pytest.raises(NeedsHuman):
        run_stage(RANK, tmp_path, inputs, desk=tmp_path / "desk.sqlite")
    at_desk(tmp_path / "desk.sqlite", by_text("good"))
    return run_stage(RANK, tmp_path, inputs, desk=tmp_path / "desk.sqlite").out


@pytest.mark.parametrize("name", ["pairs", "rankings"])
def test_reward_reads_the_planted_preference(tmp_path: Path, judged: Path, tiny_model: Path, name: str) -> None:
    inputs = {"model": (artifact(Kind.MODEL, tiny_model),), "data": (artifact(Kind.DATA, judged / name),)}
    context = Context(RewardConfig(), inputs, tmp_path, tmp_path, Events(tmp_path))
    rows, held_out, split = reward.read_rows(context)
    assert (len(rows), len(held_out), split) == (9, 4, "validation")
    tokenizer = load_tokenizer(tiny_model)
    found = reward.encode(context, tokenizer, stop_token_ids(tokenizer, generation_eos(tiny_model)), "train", rows)
    assert found.pairs == 9
    for one in found.prompts:
        (pair,) = one.pairs
        assert tokenizer.decode(one.answers[pair.winner]).startswith("good answer")
        assert tokenizer.decode(one.answers[pair.loser]).startswith("bad answer")


def test_dpo_reads_the_planted_preference(tmp_path: Path, judged: Path, tiny_model: Path) -> None:
    inputs = {"model": (artifact(Kind.MODEL, tiny_model),), "data": (artifact(Kind.DATA, judged / "pairs"),)}
    context = Context(DpoConfig(), inputs, tmp_path, tmp_path, Events(tmp_path))
    rows, _, _ = dpo.read_rows(context)
    tokenizer = load_tokenizer(tiny_model)
    stop_ids = stop_token_ids(tokenizer, generation_eos(tiny_model))
    columns = dpo.encode_split(context, tokenizer, stop_ids, "train", rows).columns
    assert len(columns["chosen_ids"]) == 9
    assert all(tokenizer.decode(ids).startswith("good") for ids in columns["chosen_ids"])
    assert all(tokenizer.decode(ids).startswith("bad") for ids in columns["rejected_ids"])


def test_a_model_trained_on_judged_prompts_is_not_evaluated_on_them_in_silence(tmp_path: Path, judged: Path) -> None:
    data = artifact(Kind.DATA, judged / "pairs")
    inputs = {"data": [{"label": "rank", "ref": str(data.path), "kind": "data", "digest": data.digest}]}
    made = {"stages/dpo/0123456789ab": {"stage": "dpo", "inputs": inputs}}
    model = Artifact(Kind.MODEL, "dpo.model", tmp_path, "sha256:1", "dpo", made=made)
    file = tmp_path / "s" / "samples.jsonl"
    rows = {split: [row for row in read_jsonl(file) if row["split"] == split] for split in ("train", "test")}
    with pytest.raises(UsageError, match="9 of 9 rows have a prompt that dpo was trained on"):
        check_leakage(rows["train"], file, [model])
    assert not check_leakage(rows["test"], file, [model]).exact, "judged, but never trained on"
