from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from ftcli.core.config import parse, semantic
from ftcli.core.errors import BadData, Diverged, Stopped, UsageError
from ftcli.core.events import Events
from ftcli.core.stage import Artifact, Context, Kind
from ftcli.core.stop import Stop
from ftcli.data.pairs import encode_pairs
from ftcli.models.load import load_tokenizer
from ftcli.rl.reward_model import load_reward_model
from ftcli.rl.sequences import Exchange
from ftcli.stages.reward.config import RewardConfig, leaner, learning_rates
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


def ranking_row(index: int) -> dict[str, Any]:
    """Four answers to a prompt of its own, the last two of them equally bad."""
    row = dict(preference_row(index))
    texts = [row["chosen"][0]["content"], "look at the mat", "the the the file file", "a a list"]
    candidates = [{"content": text, "rank": rank} for text, rank in zip(texts, (1, 2, 3, 3), strict=True)]
    return {"id": row["id"], "prompt": row["prompt"], "candidates": candidates, "meta": {}}


def metrics(folder: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if not name.startswith("perf/")} for line in lines]


def data(folder: Path, row: Any = preference_row, train: int = 4, validation: int = 4, test: int = 0) -> Artifact:
    return artifact(Kind.DATA, write_data(folder, row, train, validation, test))


def test_it_learns_what_is_easy_to_tell_apart(trained: Context[Any]) -> None:
    facts = trained.events.summary
    assert facts["val/accuracy"] == 1.0
    assert facts["val/loss"] < 0.2
    assert (facts["train/pairs"], facts["train/prompts"], facts["val/pairs"]) == (24, 24, 8)
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
    found = encode_pairs(tokenizer, rows, frozenset({tokenizer.eos_token_id}), 1024, "truncate", ties="drop")
    chosen = [
        model.score_exchanges([Exchange(one.prompt, one.answers[pair.winner])])[0]
        for one in found.prompts
        for pair in one.pairs
    ]
    assert stats["split"] == "validation"
    assert sum(chosen) / len(chosen) == pytest.approx(0, abs=1e-4)  # so that no constant is left in the scores
    assert stats["chosen"]["mean"] == pytest.approx(0, abs=1e-4)
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
    with pytest.raises(BadData, match="preference or ranking needed"):
        run_stage(REWARD, tmp_path, {"model": base, "data": artifact(Kind.DATA, tiny_data)})


def test_empty_splits_are_refused(base: Artifact, tmp_path: Path) -> None:
    with pytest.raises(BadData, match="no train rows"):
        run_stage(REWARD, tmp_path / "a", {"model": base, "data": data(tmp_path / "no train", train=0)})
    with pytest.raises(BadData, match="no validation rows and no test rows"):
        run_stage(REWARD, tmp_path / "b", {"model": base, "data": data(tmp_path / "no held-out", validation=0)})


def test_when_all_pairs_are_too_long_the_limit_is_named(base: Artifact, pairs: Artifact, tmp_path: Path) -> None:
    with pytest.raises(BadData, match="24 longer than max_length 8") as caught:
        run_stage(REWARD, tmp_path, {"model": base, "data": pairs}, max_length=8)
    assert "max_length (now 8)" in caught.value.hint


def test_when_all_pairs_are_identical_it_says_so(base: Artifact, tmp_path: Path) -> None:
    def same(index: int) -> dict[str, Any]:
        row = dict(preference_row(index))
        return row | {"rejected": row["chosen"]}

    with pytest.raises(BadData, match="4 of two equal answers") as caught:
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
    assert any("prompts without their beginning" in note for note in notes)
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


def test_a_ranking_is_trained_as_all_its_pairs(base: Artifact, tmp_path: Path) -> None:
    found = run_stage(
        REWARD, tmp_path, {"model": base, "data": data(tmp_path / "data", ranking_row)}, max_steps=2, **FAST
    )
    facts = found.events.summary
    assert (facts["train/pairs"], facts["train/prompts"], facts["train/ties_dropped"]) == (20, 4, 4)
    assert (facts["val/pairs"], facts["val/prompts"]) == (20, 4)


@pytest.mark.parametrize("weighting", ["prompt", "pair"])
def test_neither_rankings_nor_ties_depend_on_micro_batches(base: Artifact, tmp_path: Path, weighting: str) -> None:
    def mixed(index: int) -> dict[str, Any]:
        return dict(preference_row(index)) if index % 2 else ranking_row(index)

    inputs = {"model": base, "data": data(tmp_path / "data", mixed, train=6)}
    settings = FAST | {"max_steps": 2, "ties": "davidson", "pair_weighting": weighting, "label_smoothing": 0.1}
    runs = [
        run_stage(REWARD, tmp_path / str(size), inputs, **(settings | {"micro_batch_size": size})) for size in (1, 2, 6)
    ]
    first, *others = [metrics(run.scratch) for run in runs]
    for other in others:
        for one, two in zip(first, other, strict=True):
            for name in ("train/loss", "train/grad_norm", "train/margin", "train/nu"):
                assert one[name] == pytest.approx(two[name], rel=1e-4)


def test_davidsons_nu_is_learned_kept_and_shown(base: Artifact, tmp_path: Path) -> None:
    inputs = {"model": base, "data": data(tmp_path / "data", ranking_row)}
    found = run_stage(REWARD, tmp_path, inputs, max_steps=3, ties="davidson", **FAST)
    nus = [line["train/nu"] for line in metrics(found.scratch)]
    # One of six pairs ties, so nu starts at 2 t / (1 - t) = 0.4; AdamW moves its logarithm by at most its rate, 0.01 at first.
    assert nus[0] == pytest.approx(0.4, rel=0.011)
    assert nus[0] != nus[-1]
    stats = json.loads((found.out / "reward" / "reward_stats.json").read_text())
    assert stats["davidson_nu"] == found.events.summary["val/davidson_nu"] == nus[-1]


def test_davidson_without_ties_is_refused(base: Artifact, pairs: Artifact, tmp_path: Path) -> None:
    with pytest.raises(BadData, match="no two answers tie in train"):
        run_stage(REWARD, tmp_path, {"model": base, "data": pairs}, ties="davidson")


def test_a_margin_asks_for_scores_further_apart(base: Artifact, pairs: Artifact, tmp_path: Path) -> None:
    def scored(index: int) -> dict[str, Any]:
        return dict(preference_row(index)) | {"meta": {"chosen_score": 5, "rejected_score": "2.5"}}

    inputs = {"model": base, "data": data(tmp_path / "data", scored)}
    one = run_stage(REWARD, tmp_path / "one", inputs, max_steps=1, use_margin=True, **FAST)
    other = run_stage(REWARD, tmp_path / "other", inputs, max_steps=1, **FAST)
    margin = metrics(one.scratch)[0]["train/margin"]
    assert margin == metrics(other.scratch)[0]["train/margin"]  # before the first update
    assert metrics(one.scratch)[0]["train/loss"] > metrics(other.scratch)[0]["train/loss"] + 1
    with pytest.raises(BadData, match="use_margin, and no train row has"):
        run_stage(REWARD, tmp_path / "none", {"model": base, "data": pairs}, use_margin=True)


def test_held_out_pairs_need_no_margin(base: Artifact, tmp_path: Path) -> None:
    def scored(index: int) -> dict[str, Any]:
        return dict(preference_row(index)) | ({"meta": {"margin": 1}} if index < 4 else {})

    inputs = {"model": base, "data": data(tmp_path / "data", scored)}
    found = run_stage(REWARD, tmp_path, inputs, max_steps=1, use_margin=True, **FAST)
    assert (found.events.summary["train/without_margin"], found.events.summary["val/pairs"]) == (0, 4)


def test_a_prompt_that_is_held_out_is_not_trained_on(base: Artifact, tmp_path: Path) -> None:
    folder = write_data(tmp_path / "data", preference_row, 4, 3, 0)
    shared = dict(preference_row(1)) | {"id": "again"}
    with (folder / "validation.jsonl").open("a") as file:
        file.write(json.dumps(shared) + "\n")
    notes: list[str] = []
    found = run_stage(
        REWARD,
        tmp_path,
        {"model": base, "data": artifact(Kind.DATA, folder)},
        sink=lambda event: notes.append(str(event.get("text", ""))),
        max_steps=1,
        **FAST,
    )
    assert any("1 of 4 rows left out, their prompts are in validation too" in note for note in notes)
    assert (found.events.summary["train/asked_in_held_out"], found.events.summary["train/pairs"]) == (1, 3)


def test_when_all_prompts_are_held_out_it_says_so(base: Artifact, tmp_path: Path) -> None:
    folder = write_data(tmp_path / "data", lambda index: dict(preference_row(0)), 4, 3, 0)
    with pytest.raises(BadData, match="all prompts of train are in validation too"):
        run_stage(REWARD, tmp_path, {"model": base, "data": artifact(Kind.DATA, folder)})


@pytest.fixture(scope="module")
def whole(base: Artifact, pairs: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Context[Any]:
    settings = FAST | {"max_steps": 6, "save_steps": 2, "method": "full", "learning_rate": 1e-3}
    return run_stage(REWARD, tmp_path_factory.mktemp("whole"), {"model": base, "data": pairs}, **settings)


def test_full_trains_all_weights_and_leaves_a_plain_model_with_a_head(whole: Context[Any], base: Artifact) -> None:
    folder = whole.out / "reward"
    before, after = (
        AutoModelForCausalLM.from_pretrained(path).get_decoder().state_dict() for path in (base.path, folder)
    )
    assert all(not torch.equal(before[name], after[name]) for name in before)
    assert whole.events.summary["val/accuracy"] == 1.0
    assert whole.events.summary["trainable_share"] == 1.0
    tokenizer, device = load_tokenizer(folder), torch.device("cpu")
    model = load_reward_model(artifact(Kind.REWARD, folder), torch.float32, device, int(tokenizer.pad_token_id))
    rows = [preference_row(index) for index in range(24, 32)]
    found = encode_pairs(tokenizer, rows, frozenset({tokenizer.eos_token_id}), 1024, "truncate", ties="drop")
    losers = model.score_exchanges([Exchange(one.prompt, one.answers[one.pairs[0].loser]) for one in found.prompts])
    stats = json.loads((folder / "reward_stats.json").read_text())
    assert sum(losers) / len(losers) == pytest.approx(stats["rejected"]["mean"], abs=1e-4)


def test_full_and_killed_equals_uninterrupted(
    whole: Context[Any], base: Artifact, pairs: Artifact, tmp_path: Path
) -> None:
    settings = FAST | {"max_steps": 6, "save_steps": 2, "method": "full", "learning_rate": 1e-3}
    run_until(REWARD, tmp_path, {"model": base, "data": pairs}, 5, **settings)
    again = run_stage(REWARD, tmp_path, {"model": base, "data": pairs}, **settings)
    assert metrics(again.scratch) == metrics(whole.scratch)
    for name in ("model.safetensors", "head.safetensors", "reward_stats.json"):
        assert (again.out / "reward" / name).read_bytes() == (whole.out / "reward" / name).read_bytes()


def test_full_in_bf16_keeps_float32_weights_and_scores(base: Artifact, pairs: Artifact, tmp_path: Path) -> None:
    settings = FAST | {"max_steps": 2, "method": "full", "precision": "bf16", "learning_rate": 1e-5}
    found = run_stage(REWARD, tmp_path, {"model": base, "data": pairs}, **settings)
    before, after = (load_file(path / "model.safetensors") for path in (base.path, found.out / "reward"))
    moved = [float((before[name] - after[name]).abs().max()) for name in before]
    assert all(tensor.dtype is torch.float32 for tensor in after.values())
    assert 0 < max(moved) < 3e-5  # less than bfloat16 could hold of a weight of size 0.1
    margins = [line["train/margin"] for line in metrics(found.scratch)]
    assert any(margin != float(torch.tensor(margin).bfloat16()) for margin in margins)


def test_full_does_not_fit_an_adapter_or_its_settings(policy: Artifact, pairs: Artifact, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="method full trains all weights of a whole model") as caught:
        run_stage(REWARD, tmp_path, {"model": policy, "data": pairs}, method="full")
    assert "ftcli export" in caught.value.hint
    _, problems = parse(RewardConfig, {"method": "full", "lora_r": 4})
    assert "lora_r would do nothing" in problems[0].message


def test_the_learning_rate_follows_what_is_trained() -> None:
    assert learning_rates(RewardConfig(), is_whole=False) == (1e-4, 1e-4)
    assert learning_rates(RewardConfig(), is_whole=True) == (1e-5, 1e-4)
    assert learning_rates(RewardConfig(learning_rate=2e-4), is_whole=False) == (2e-4, 2e-4)
    assert learning_rates(RewardConfig(learning_rate=2e-4, head_learning_rate=1e-3), is_whole=True) == (2e-4, 1e-3)


def test_a_stopped_run_goes_on_as_if_unbroken(
    trained: Context[Any], base: Artifact, pairs: Artifact, tmp_path: Path
) -> None:
    stop = Stop()

    def ask(event: dict[str, Any]) -> None:
        if event.get("task") == "reward" and event["done"] == 3:
            stop.ask("SIGTERM")

    inputs = {"model": base, "data": pairs}
    with pytest.raises(Stopped, match="stopped by SIGTERM after step 3 of 6, with a checkpoint"):
        run_stage(REWARD, tmp_path, inputs, sink=ask, stop=stop, max_steps=6, **FAST)
    assert not (tmp_path / "out" / "reward").exists()
    again = run_stage(REWARD, tmp_path, inputs, max_steps=6, **FAST)
    assert metrics(again.scratch) == metrics(trained.scratch)
    for name in ("adapter_model.safetensors", "head.safetensors", "reward_stats.json"):
        assert (again.out / "reward" / name).read_bytes() == (trained.out / "reward" / name).read_bytes()


def test_with_less_memory_it_halves_the_micro_batch_for_the_same_result(trained: Context[Any]) -> None:
    config = RewardConfig(micro_batch_size=3)
    assert trained.events.summary["micro_batch_size"] == 4
    smaller, text = leaner(config, {"micro_batch_size": 3}) or (None, "")
    assert smaller == RewardConfig(micro_batch_size=1)
    assert text == "with micro_batch_size 1 instead of 3, the same global_batch_size"
    assert semantic(config) == semantic(smaller)
    assert leaner(config, {"micro_batch_size": 1}) is None
    assert leaner(config, {}) is None
    assert REWARD.leaner is leaner
    assert REWARD.stoppable
