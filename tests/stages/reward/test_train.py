from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from ftcli.core.config import parse
from ftcli.core.errors import BadData, Diverged, UsageError
from ftcli.core.events import Events
from ftcli.core.stage import Artifact, Context, Kind
from ftcli.models.load import load_tokenizer
from ftcli.rl.reward_model import load_reward_model
from ftcli.stages.reward.config import RewardConfig
from ftcli.stages.reward.pairs import encode_pairs
from ftcli.stages.reward.stage import REWARD
from tests.conftest import artifact, run_stage, write_data
from tests.stages.reward.adapters import write_adapter
from tests.stages.reward.killing import run_until
from tests.tiny import messages_row, preference_row

FAST = {"global_batch_size": 8, "micro_batch_size": 4, "learning_rate": 3e-3, "precision": "fp32"}


@pytest.fixture(scope="module")
def base(tiny_model: Path) -> Artifact:
    return artifact(Kind.MODEL, tiny_model)


@pytest.fixture(scope="module")
def policy(base: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return write_adapter(tmp_path_factory.mktemp("policy") / "adapter", base)


@pytest.fixture(scope="module")
def pairs(tiny_pairs: Path) -> Artifact:
    return artifact(Kind.DATA, tiny_pairs)


@pytest.fixture(scope="module")
def trained(base: Artifact, pairs: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Context[Any]:
    return run_stage(REWARD, tmp_path_factory.mktemp("reward"), {"model": base, "data": pairs}, max_steps=6, **FAST)


def metrics(folder: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if not name.startswith("perf/")} for line in lines]


def data(folder: Path, row: Any = preference_row, train: int = 4, validation: int = 4, test: int = 0) -> Artifact:
    return artifact(Kind.DATA, write_data(folder, row, train, validation, test))


def test_it_learns_what_is_easy_to_tell_apart(trained: Context[Any]) -> None:
    facts = trained.events.summary
    assert facts["val/accuracy"] == 1.0
    assert facts["val/loss"] < 0.2
    losses = [line["train/loss"] for line in metrics(trained.scratch)]
    assert losses[-1] < 0.2 < losses[0]
    assert facts["train/loss"] == losses[-1]
    assert facts["steps"] == len(losses) == 6
    assert facts["val/accuracy_low"] == pytest.approx(0.6756, abs=1e-4)  # Wilson, 8 of 8


def test_the_output_is_an_adapter_a_head_statistics_and_the_way_to_its_base(
    trained: Context[Any], base: Artifact
) -> None:
    folder = trained.out / "reward"
    names = {path.name for path in folder.iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors", "head.safetensors", "reward_stats.json"} <= names
    assert {"base_model.json", "tokenizer.json", "chat_template.jinja"} <= names
    assert json.loads((folder / "base_model.json").read_text())["digest"] == base.digest
    head = load_file(folder / "head.safetensors")
    assert head["weight"].shape == (1, 64)
    assert head["weight"].dtype is torch.float32


def test_the_saved_model_gives_the_scores_that_its_statistics_tell(trained: Context[Any], base: Artifact) -> None:
    folder = trained.out / "reward"
    stats = json.loads((folder / "reward_stats.json").read_text())
    tokenizer = load_tokenizer(folder)
    model = load_reward_model(
        artifact(Kind.REWARD, folder, base=base), torch.float32, torch.device("cpu"), int(tokenizer.pad_token_id)
    )
    rows = [preference_row(index) for index in range(24, 32)]
    found = encode_pairs(tokenizer, rows, frozenset({tokenizer.eos_token_id}), 1024, "truncate")
    chosen = [model.score_exchanges([one.exchanges[winner]])[0] for one in found.comparisons for winner, _ in one.pairs]
    assert stats["split"] == "validation"
    assert stats["chosen"]["mean"] == pytest.approx(sum(chosen) / len(chosen), abs=1e-4)
    assert stats["chosen"]["p50"] == pytest.approx(float(torch.tensor(chosen).quantile(0.5)), abs=1e-4)


def test_micro_batches_change_nothing_but_rounding(
    trained: Context[Any], base: Artifact, pairs: Artifact, tmp_path: Path
) -> None:
    settings = FAST | {"micro_batch_size": 3}
    other = run_stage(REWARD, tmp_path, {"model": base, "data": pairs}, max_steps=2, **settings)
    whole = run_stage(
        REWARD, tmp_path / "whole", {"model": base, "data": pairs}, max_steps=2, **(FAST | {"micro_batch_size": 8})
    )
    for one, two in zip(metrics(other.scratch), metrics(whole.scratch), strict=True):
        assert one["train/loss"] == pytest.approx(two["train/loss"], rel=1e-4)
        assert one["train/grad_norm"] == pytest.approx(two["train/grad_norm"], rel=1e-4)


@pytest.mark.parametrize("killed_at", [1, 5], ids=["before a checkpoint", "after one"])
def test_killed_and_run_again_equals_uninterrupted(
    trained: Context[Any], base: Artifact, pairs: Artifact, tmp_path: Path, killed_at: int
) -> None:
    inputs, settings = {"model": base, "data": pairs}, FAST | {"max_steps": 6, "save_steps": 2}
    run_until(REWARD, tmp_path, inputs, killed_at, **settings)
    again = run_stage(REWARD, tmp_path, inputs, **settings)
    assert metrics(again.scratch) == metrics(trained.scratch)
    for name in ("adapter_model.safetensors", "head.safetensors", "reward_stats.json"):
        assert (again.out / "reward" / name).read_bytes() == (trained.out / "reward" / name).read_bytes()
    assert again.events.summary["tokens"] == trained.events.summary["tokens"]


def test_from_an_adapter_it_starts_as_a_copy_and_keeps_its_base(
    policy: Artifact, base: Artifact, pairs: Artifact, tmp_path: Path
) -> None:
    settings = FAST | {"max_steps": 1, "learning_rate": 1e-12}
    found = run_stage(REWARD, tmp_path, {"model": policy, "data": pairs}, **settings)
    folder = found.out / "reward"
    before, after = (load_file(path / "adapter_model.safetensors") for path in (policy.path, folder))
    assert before.keys() == after.keys()
    assert all(torch.allclose(before[name], after[name], atol=1e-9) for name in before)
    assert json.loads((folder / "base_model.json").read_text())["digest"] == base.digest


def test_init_from_base_puts_a_new_adapter_on_the_base(policy: Artifact, pairs: Artifact, tmp_path: Path) -> None:
    settings = FAST | {"max_steps": 1, "learning_rate": 1e-12, "init_from": "base", "lora_r": 2}
    found = run_stage(REWARD, tmp_path, {"model": policy, "data": pairs}, **settings)
    tensors = load_file(found.out / "reward" / "adapter_model.safetensors")
    assert all(tensor.shape[0] == 2 for name, tensor in tensors.items() if "lora_A" in name)
    assert all(tensor.abs().max() < 1e-9 for name, tensor in tensors.items() if "lora_B" in name)


def test_a_setting_that_the_copied_adapter_cannot_take_is_refused(
    policy: Artifact, pairs: Artifact, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=r"lora_r 32 \(it has 4\)") as caught:
        run_stage(REWARD, tmp_path, {"model": policy, "data": pairs}, lora_r=32)
    assert "init_from" in caught.value.hint


def test_held_out_pairs_come_from_test_where_validation_is_empty(base: Artifact, tmp_path: Path) -> None:
    found = run_stage(
        REWARD, tmp_path, {"model": base, "data": data(tmp_path / "data", validation=0, test=3)}, max_steps=1, **FAST
    )
    assert json.loads((found.out / "reward" / "reward_stats.json").read_text())["split"] == "test"
    assert found.events.summary["val/pairs"] == 3


def test_rows_of_another_type_are_refused(base: Artifact, tiny_data: Path, tmp_path: Path) -> None:
    with pytest.raises(BadData, match="preference needed"):
        run_stage(REWARD, tmp_path, {"model": base, "data": artifact(Kind.DATA, tiny_data)})


def test_empty_splits_are_refused(base: Artifact, tmp_path: Path) -> None:
    with pytest.raises(BadData, match="no train rows"):
        run_stage(REWARD, tmp_path / "a", {"model": base, "data": data(tmp_path / "no train", train=0)})
    with pytest.raises(BadData, match="no validation rows and no test rows"):
        run_stage(REWARD, tmp_path / "b", {"model": base, "data": data(tmp_path / "no held-out", validation=0)})


def test_when_all_pairs_are_too_long_the_limit_is_named(base: Artifact, pairs: Artifact, tmp_path: Path) -> None:
    with pytest.raises(BadData, match="24 overlong") as caught:
        run_stage(REWARD, tmp_path, {"model": base, "data": pairs}, max_length=8)
    assert "max_length (now 8)" in caught.value.hint


def test_when_all_pairs_are_identical_it_says_so(base: Artifact, tmp_path: Path) -> None:
    def same(index: int) -> dict[str, Any]:
        row = dict(preference_row(index))
        return row | {"rejected": row["chosen"]}

    with pytest.raises(BadData, match="4 identical") as caught:
        run_stage(REWARD, tmp_path, {"model": base, "data": data(tmp_path / "data", same)})
    assert "must differ" in caught.value.hint


def test_what_is_cut_or_left_out_is_said_aloud(base: Artifact, pairs: Artifact, tmp_path: Path) -> None:
    notes: list[str] = []
    out, scratch = tmp_path / "out", tmp_path / "scratch"
    out.mkdir()
    scratch.mkdir()
    events = Events(scratch, lambda event: notes.append(str(event.get("text", ""))))
    config = RewardConfig(max_length=24, max_steps=1)
    REWARD.run(Context(config, {"model": (base,), "data": (pairs,)}, out, scratch, events))
    assert any("truncated prompts" in note for note in notes)
    assert any("length alone gives" in note for note in notes)
    assert events.summary["train/truncated_prompts"] > 0


def test_a_loss_that_is_not_finite_stops_the_run(base: Artifact, pairs: Artifact, tmp_path: Path) -> None:
    with pytest.raises(Diverged, match="not finite"):
        run_stage(REWARD, tmp_path, {"model": base, "data": pairs}, max_steps=6, **(FAST | {"learning_rate": 1e30}))
    assert not (tmp_path / "out" / "reward").exists()


def test_messages_rows_are_no_pairs(base: Artifact, tmp_path: Path) -> None:
    with pytest.raises(BadData, match="messages row"):
        run_stage(REWARD, tmp_path, {"model": base, "data": data(tmp_path / "data", messages_row)})


def test_an_unknown_setting_names_the_nearest() -> None:
    _, problems = parse(RewardConfig, {"centre_rewards_coefficient": 0.1})
    assert "center_rewards_coefficient" in problems[0].hint
