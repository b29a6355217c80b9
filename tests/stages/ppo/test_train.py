from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from ftcli.core.errors import BadData, Diverged, GateFailed, StageFailed, Stopped, UsageError
from ftcli.core.stage import Artifact, Context, Kind
from ftcli.core.stop import Stop
from ftcli.data.chat import render_prompt
from ftcli.data.rows import Row, prompt_of, read_split
from ftcli.models.load import load_model, load_tokenizer
from ftcli.pipeline.resolve import from_outside
from ftcli.rl.reward_model import load_reward_model
from ftcli.rl.sequences import Exchange
from ftcli.stages.ppo.held_out import check_reference
from ftcli.stages.ppo.stage import PPO
from ftcli.stages.reward.stage import REWARD
from tests.conftest import artifact, run_stage, write_data
from tests.stages.reward.adapters import write_adapter
from tests.stages.reward.killing import run_until
from tests.tiny import messages_row, preference_row, write_tiny_model

FAST: dict[str, Any] = {
    "total_episodes": 32,
    "rollout_batch_size": 8,
    "response_length": 10,
    "learning_rate": 1e-3,
    "eval_prompts": 4,
    "precision": "fp32",
    "value_init": "zero",
    "critic_warmup_steps": 0,
    "reward_gate": "warn",
    "num_sample_dumps": 2,
}
TENSORS = "adapter_model.safetensors"


@pytest.fixture(scope="module")
def base(tiny_model: Path) -> Artifact:
    return artifact(Kind.MODEL, tiny_model)


@pytest.fixture(scope="module")
def policy(base: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return write_adapter(tmp_path_factory.mktemp("policy") / "adapter", base, dropout=0.1)


@pytest.fixture(scope="module")
def reward(policy: Artifact, base: Artifact, tiny_pairs: Path, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    inputs = {"model": policy, "data": artifact(Kind.DATA, tiny_pairs)}
    found = run_stage(
        REWARD, tmp_path_factory.mktemp("reward"), inputs, max_steps=3, learning_rate=1e-3, precision="fp32"
    )
    return artifact(Kind.REWARD, found.out / "reward", base=base)


@pytest.fixture(scope="module")
def inputs(policy: Artifact, reward: Artifact, tiny_data: Path) -> dict[str, Artifact]:
    return {"model": policy, "reward": reward, "data": artifact(Kind.DATA, tiny_data)}


@pytest.fixture(scope="module")
def done(inputs: dict[str, Artifact], tmp_path_factory: pytest.TempPathFactory) -> Context[Any]:
    return run_stage(PPO, tmp_path_factory.mktemp("ppo"), inputs, **FAST)


def metrics(folder: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    clocks = ("perf/", "eps")
    return [{name: value for name, value in line.items() if not name.startswith(clocks)} for line in lines]


def samples(context: Context[Any]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (context.out / "report" / "samples.jsonl").read_text().splitlines()]


def data(folder: Path, row: Any = messages_row, train: int = 4, validation: int = 4, test: int = 0) -> Artifact:
    return artifact(Kind.DATA, write_data(folder, row, train, validation, test))


def test_the_policy_moves_and_stays_an_adapter_on_the_same_base(
    done: Context[Any], policy: Artifact, base: Artifact
) -> None:
    folder = done.out / "model"
    before, after = load_file(policy.path / TENSORS), load_file(folder / TENSORS)
    assert before.keys() == after.keys()
    assert not any(torch.equal(before[name], after[name]) for name in before)
    assert json.loads((folder / "base_model.json").read_text())["digest"] == base.digest
    model = load_model(artifact(Kind.MODEL, folder, base=base), torch.float32, torch.device("cpu"))
    assert model(input_ids=torch.arange(3, 9)[None]).logits.isfinite().all()


def test_metrics_begin_and_end_with_the_held_out_answers(done: Context[Any]) -> None:
    lines = metrics(done.scratch)
    assert [line["step"] for line in lines] == [0, 1, 1, 2, 2, 3, 3, 4, 4]
    facts = done.events.summary
    exams, rollouts = ([line for line in lines if name in line] for name in ("eval/score", "objective/kl"))
    assert exams[0]["eval/score"] == facts["eval/score_before"]
    assert exams[0]["eval/kl"] == 0.0
    assert lines[-1] == exams[-1]
    assert exams[-1]["eval/score"] == facts["eval/score_after"]
    assert exams[-1]["eval/kl"] == facts["eval/kl"] != 0.0
    assert facts["eval/score_change"] == pytest.approx(facts["eval/score_after"] - facts["eval/score_before"])
    assert rollouts[0]["objective/kl"] == 0.0
    assert all(line["check/first_mb_max_abs_logratio"] == 0.0 for line in rollouts)
    assert rollouts[3]["episode"] == 32


def test_samples_show_the_same_prompts_through_training(done: Context[Any], tiny_data: Path) -> None:
    found = samples(done)
    rows = read_split(tiny_data, "validation", "messages", limit=2)  # type: ignore[arg-type]
    assert [(one["rollout"], one["decoding"]) for one in found[::2]] == [
        (rollout, decoding) for rollout in range(5) for decoding in ("sampled", "greedy")
    ]
    assert all(
        one["prompt"] == prompt_of(row)
        for pair in zip(found[::2], found[1::2], strict=True)
        for one, row in zip(pair, rows, strict=True)
    )
    assert all(one["kl"] == 0.0 for one in found[:4])


def test_the_report_shows_the_run(done: Context[Any]) -> None:
    folder = done.out / "report"
    figures = json.loads((folder / "figures.json").read_text())
    assert [step for step, _ in figures["series"]["objective/kl"]] == [1, 2, 3, 4]
    assert figures["changes"]["eval/score_after"] == done.events.summary["eval/score_after"]
    assert len((folder / "histograms.jsonl").read_text().splitlines()) == 4
    assert "<svg" in (folder / "report.html").read_text()
    assert (folder / "summary.txt").read_text().strip()


def test_the_scores_are_those_of_the_reward_model_by_itself(
    done: Context[Any], reward: Artifact, tiny_data: Path
) -> None:
    tokenizer = load_tokenizer(reward.path)
    model = load_reward_model(reward, torch.float32, torch.device("cpu"), int(tokenizer.pad_token_id))
    rows = read_split(tiny_data, "validation", "messages", limit=4)  # type: ignore[arg-type]
    before = json.loads((done.scratch / "before.json").read_text())
    for row, answer in zip(rows, before, strict=True):
        exchange = Exchange(render_prompt(tokenizer, prompt_of(row)), answer["response"])
        assert model.score_exchanges([exchange])[0] == pytest.approx(answer["score"], abs=1e-5)


def test_run_twice_gives_equal_metrics(done: Context[Any], inputs: dict[str, Artifact], tmp_path: Path) -> None:
    again = run_stage(PPO, tmp_path, inputs, **FAST)
    assert metrics(again.scratch) == metrics(done.scratch)


@pytest.mark.parametrize("killed_at", [0, 1, 3], ids=["before the first rollout", "in the first", "half-way"])
def test_killed_and_run_again_equals_uninterrupted(
    done: Context[Any], inputs: dict[str, Artifact], tmp_path: Path, killed_at: int
) -> None:
    run_until(PPO, tmp_path, inputs, killed_at, **FAST)
    again = run_stage(PPO, tmp_path, inputs, **FAST)
    assert metrics(again.scratch) == metrics(done.scratch)
    for name in (f"model/{TENSORS}", "report/samples.jsonl", "report/histograms.jsonl"):
        assert (again.out / name).read_bytes() == (done.out / name).read_bytes()
    assert again.events.summary["tokens"] == done.events.summary["tokens"]


@pytest.mark.parametrize(("value_init", "from_zero"), [("reward", False), ("auto", False), ("head_only", True)])
def test_every_kind_of_critic_trains(
    inputs: dict[str, Artifact], tmp_path: Path, value_init: str, from_zero: bool
) -> None:
    found = run_stage(PPO, tmp_path, inputs, **(FAST | {"value_init": value_init, "total_episodes": 16}))
    lines = metrics(found.scratch)
    assert lines[1]["val/grad_norm"] > 0
    assert (lines[1]["val/mean"] == 0.0) is from_zero


def test_a_critic_from_the_reward_model_speaks_in_normalised_units(inputs: dict[str, Artifact], tmp_path: Path) -> None:
    settings = FAST | {"value_init": "reward", "total_episodes": 8}
    plain = run_stage(PPO, tmp_path / "a", inputs, **settings, reward_normalization="none")
    scaled = run_stage(PPO, tmp_path / "b", inputs, **settings, reward_normalization="policy")
    scores = torch.tensor([one["score"] for one in json.loads((scaled.scratch / "before.json").read_text())])
    raw, normal = (metrics(one.scratch)[1]["val/mean"] for one in (plain, scaled))
    assert normal == pytest.approx(float((raw - scores.mean()) / scores.std()), rel=1e-3)


def test_a_whole_model_gets_a_new_adapter_and_is_its_own_base(
    base: Artifact, tiny_pairs: Path, tiny_data: Path, tmp_path: Path
) -> None:
    pairs = artifact(Kind.DATA, tiny_pairs)
    trained = run_stage(REWARD, tmp_path / "reward", {"model": base, "data": pairs}, max_steps=2, precision="fp32")
    reward = artifact(Kind.REWARD, trained.out / "reward", base=base)
    given = {"model": base, "reward": reward, "data": artifact(Kind.DATA, tiny_data)}
    found = run_stage(PPO, tmp_path / "ppo", given, **(FAST | {"total_episodes": 16, "lora_r": 3}))
    assert metrics(found.scratch)[1]["objective/kl"] == 0.0
    tensors = load_file(found.out / "model" / TENSORS)
    assert all(tensor.shape[0] == 3 for name, tensor in tensors.items() if "lora_A" in name)
    assert json.loads((found.out / "model" / "base_model.json").read_text())["digest"] == base.digest


def test_a_policy_on_a_4_bit_base_keeps_it(base: Artifact, tiny_pairs: Path, tiny_data: Path, tmp_path: Path) -> None:
    policy = write_adapter(tmp_path / "adapter", base)
    record = json.loads((policy.path / "base_model.json").read_text())
    (policy.path / "base_model.json").write_text(json.dumps(record | {"quantization": "nf4", "double_quant": True}))
    pairs = artifact(Kind.DATA, tiny_pairs)
    trained = run_stage(REWARD, tmp_path / "reward", {"model": policy, "data": pairs}, max_steps=2)
    reward = artifact(Kind.REWARD, trained.out / "reward", base=base)
    given = {"model": policy, "reward": reward, "data": artifact(Kind.DATA, tiny_data)}
    found = run_stage(PPO, tmp_path / "ppo", given, **(FAST | {"total_episodes": 8}))
    assert metrics(found.scratch)[1]["objective/kl"] == 0.0
    for folder in (reward.path, found.out / "model"):
        assert json.loads((folder / "base_model.json").read_text())["quantization"] == "nf4"
    backbone = sum(weight.numel() for weight in AutoModelForCausalLM.from_pretrained(base.path).parameters())
    adapter = sum(weight.numel() for weight in load_file(policy.path / TENSORS).values())
    head = 64 + 1
    assert found.events.summary["trainable_parameters"] == 2 * adapter + head, "policy and critic"
    assert found.events.summary["total_parameters"] == backbone + 4 * adapter + head, "and reference and reward model"


def test_prompts_of_preference_rows_count_once(inputs: dict[str, Artifact], tmp_path: Path) -> None:
    def same_prompt(index: int) -> Row:
        row = dict(preference_row(index // 2))
        return row | {"id": f"pair-{index}"}

    given = inputs | {"data": data(tmp_path / "data", same_prompt, train=8, validation=6)}
    notes: list[str] = []
    found = run_stage(
        PPO,
        tmp_path / "run",
        given,
        sink=lambda event: notes.append(str(event.get("text", ""))),
        **(FAST | {"total_episodes": 8}),
    )
    assert found.events.summary["eval/prompts"] == 3
    assert "train: 4 prompts; 4 with a prompt said before left out" in notes
    assert "validation: 3 prompts of 4 asked for; 3 with a prompt said before left out" in notes


def test_train_prompts_that_are_held_out_too_are_left_out_and_counted(
    inputs: dict[str, Artifact], tmp_path: Path
) -> None:
    both = data(tmp_path / "data", lambda index: messages_row(index % 8), train=8, validation=4)
    said: list[str] = []
    settings = FAST | {"total_episodes": None, "rollout_batch_size": 4}
    found = run_stage(
        PPO,
        tmp_path / "run",
        inputs | {"data": both},
        sink=lambda event: said.append(event.get("text", "")),
        **settings,
    )
    assert "train: 4 of 8 prompts left out, they are held out in validation too" in said
    assert found.events.summary["train/asked_in_held_out"] == 4
    assert [line["step"] for line in metrics(found.scratch)] == [0, 1, 1], "one rollout of the 4 that are left"
    same = data(tmp_path / "same", lambda index: messages_row(index % 4), train=4, validation=4)
    with pytest.raises(BadData, match="all prompts of train are in validation too"):
        run_stage(PPO, tmp_path / "no", inputs | {"data": same}, **FAST)


def test_without_total_episodes_it_passes_over_the_prompts_once(inputs: dict[str, Artifact], tmp_path: Path) -> None:
    found = run_stage(PPO, tmp_path, inputs, **(FAST | {"total_episodes": None, "rollout_batch_size": 12}))
    assert [line["step"] for line in metrics(found.scratch)] == [0, 1, 1, 2, 2]  # 24 train prompts


def test_a_reward_model_on_another_base_is_held_beside_the_policy(
    inputs: dict[str, Artifact], tiny_pairs: Path, tmp_path: Path
) -> None:
    other = artifact(Kind.MODEL, write_tiny_model(tmp_path / "other", seed=1))
    given = {"model": other, "data": artifact(Kind.DATA, tiny_pairs)}
    trained = run_stage(REWARD, tmp_path / "reward", given, max_steps=2, precision="fp32")
    reward = artifact(Kind.REWARD, trained.out / "reward", base=other)
    settings = FAST | {"total_episodes": 8, "value_init": "auto"}
    found = run_stage(PPO, tmp_path / "run", inputs | {"reward": reward}, **settings)
    assert metrics(found.scratch)[1]["val/mean"] == 0.0, "a critic that starts as the policy with a head of zeros"
    tokenizer = load_tokenizer(reward.path)
    model = load_reward_model(reward, torch.float32, torch.device("cpu"), int(tokenizer.pad_token_id))
    before = json.loads((found.scratch / "before.json").read_text())
    row = read_split(inputs["data"].path, "validation", "messages", limit=1)[0]  # type: ignore[arg-type]
    exchange = Exchange(render_prompt(tokenizer, prompt_of(row)), before[0]["response"])
    assert model.score_exchanges([exchange])[0] == pytest.approx(before[0]["score"], abs=1e-5)
    with pytest.raises(UsageError, match="has a base of its own") as caught:
        run_stage(PPO, tmp_path / "no", inputs | {"reward": reward}, **(FAST | {"value_init": "reward"}))
    assert "ftcli reward" in caught.value.hint


@pytest.mark.parametrize("weights", [{"reward": -1.0}, {"reward": 2.0}])
def test_a_reward_model_alone_has_nothing_to_be_weighed_against(
    inputs: dict[str, Artifact], tmp_path: Path, weights: dict[str, float]
) -> None:
    with pytest.raises(UsageError, match="nothing to be weighed against") as caught:
        run_stage(PPO, tmp_path, inputs, **(FAST | {"reward_weights": weights}))
    assert caught.value.hint == "drop reward_weights"


def test_a_rank_that_the_policys_adapter_does_not_have_is_refused(inputs: dict[str, Artifact], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"adapter already, which cannot take lora_r 8 \(it has 4\)") as caught:
        run_stage(PPO, tmp_path, inputs, **(FAST | {"lora_r": 8}))
    assert "ftcli export" in caught.value.hint


@pytest.mark.parametrize("alone", [4, 9])
def test_a_policy_that_would_never_learn_is_refused(inputs: dict[str, Artifact], tmp_path: Path, alone: int) -> None:
    with pytest.raises(
        UsageError, match=f"critic_warmup_steps {alone}: the run has 4 rollouts, so the policy"
    ) as caught:
        run_stage(PPO, tmp_path, inputs, **(FAST | {"critic_warmup_steps": alone}))
    assert "raise total_episodes" in caught.value.hint
    assert not (tmp_path / "scratch" / "before.json").exists(), "said before anything is sampled"


def test_a_process_alone_does_not_look_at_variables_of_torchrun(
    inputs: dict[str, Artifact], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.delenv("RANK", raising=False)
    found = run_stage(PPO, tmp_path, inputs, **(FAST | {"total_episodes": 8}))
    assert metrics(found.scratch)[1]["episode"] == 8


def test_attention_drops_nothing_where_activations_are_computed_twice(tiny_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "base"
    shutil.copytree(tiny_model, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"attention_dropout": 0.5}))
    given = {
        "model": artifact(Kind.MODEL, folder),
        "data": data(tmp_path / "data"),
        "reward_func": function(tmp_path, RULES, "shortness"),
    }
    settings = FAST | {"total_episodes": 8, "gradient_checkpointing": True}
    found = run_stage(PPO, tmp_path / "run", given, **settings)
    line = metrics(found.scratch)[1]
    assert line["check/first_mb_max_abs_logratio"] == line["objective/kl"] == 0.0


def test_a_reward_model_with_another_vocabulary_is_refused(inputs: dict[str, Artifact], tmp_path: Path) -> None:
    folder = tmp_path / "reward"
    shutil.copytree(inputs["reward"].path, folder)
    tokenizer = load_tokenizer(folder)
    tokenizer.add_tokens(["another"])
    tokenizer.save_pretrained(folder)
    with pytest.raises(UsageError, match="another vocabulary"):
        run_stage(PPO, tmp_path / "run", inputs | {"reward": replace(inputs["reward"], path=folder)}, **FAST)


def test_a_reward_model_that_length_explains_is_refused_unless_told_otherwise(
    inputs: dict[str, Artifact], tmp_path: Path
) -> None:
    with pytest.raises(GateFailed) as caught:
        run_stage(PPO, tmp_path, inputs, **(FAST | {"reward_gate": "enforce"}))
    assert "reward_gate" in caught.value.hint


def function(folder: Path, text: str, name: str, label: str = "") -> Artifact:
    path = folder / "rewards.py"
    path.write_text(text)
    return from_outside(f"{path}:{name}", Kind.FUNCTION, label or name)


RULES = """
def shortness(completions, **kwargs):
    return [-float(len(one[0]["content"])) for one in completions]

def cats(completions, reference, **kwargs):
    return [None if reference_text is None else float("cat" in one[0]["content"])
            for one, reference_text in zip(completions, reference)]
"""


def test_a_function_can_be_all_that_is_rewarded(inputs: dict[str, Artifact], tmp_path: Path) -> None:
    rule = function(tmp_path, RULES, "shortness")
    given = {
        "model": inputs["model"],
        "data": inputs["data"],
        "reward_func": rule,
        "eval_func": function(tmp_path, RULES, "cats"),
    }
    found = run_stage(PPO, tmp_path / "run", given, **(FAST | {"value_init": "auto", "total_episodes": 16}))
    tokenizer = load_tokenizer(inputs["model"].path)
    for answer in json.loads((found.scratch / "before.json").read_text()):
        text = tokenizer.decode(answer["response"], skip_special_tokens=True)
        assert answer["score"] == -len(text)
        assert answer["evals"] == {"cats": float("cat" in text)}
    assert "reward/shortness/mean" in metrics(found.scratch)[1]
    assert "eval_reward/cats_change" in found.events.summary


def test_a_function_that_scores_no_answer_ends_with_a_report_that_says_so(
    inputs: dict[str, Artifact], tmp_path: Path
) -> None:
    rule = function(tmp_path, "def silent(completions, **kwargs):\n    return [None] * len(completions)\n", "silent")
    given = {"model": inputs["model"], "data": inputs["data"], "reward_func": rule}
    notes: list[str] = []
    found = run_stage(
        PPO,
        tmp_path / "run",
        given,
        sink=lambda event: notes.append(str(event.get("text", ""))),
        **(FAST | {"total_episodes": 16}),
    )
    facts = found.events.summary
    assert (facts["eval/score_before"], facts["eval/score_change"], facts["eval/score_n"]) == (None, None, 0)
    assert metrics(found.scratch)[1]["objective/scores"] is None
    assert metrics(found.scratch)[1]["reward/unscored"] == 8
    assert any("mean score of held-out samples - -> - (change -, standard error -)" in note for note in notes)
    assert "The score did not change beyond chance (- to -)" in (found.out / "report" / "summary.txt").read_text()
    assert (found.out / "report" / "report.html").is_file()


def test_a_reward_model_and_a_function_are_weighed_together(inputs: dict[str, Artifact], tmp_path: Path) -> None:
    given = inputs | {"reward_func": function(tmp_path, RULES, "shortness", "short")}
    settings = FAST | {"total_episodes": 8, "reward_weights": {"reward": 2.0, "short": 0.5}}
    found = run_stage(PPO, tmp_path / "run", given, **settings)
    for answer in json.loads((found.scratch / "before.json").read_text()):
        assert answer["score"] == pytest.approx(2.0 * answer["parts"]["reward"] + 0.5 * answer["parts"]["short"])


@pytest.mark.parametrize(
    ("label", "settings", "message"),
    [
        ("reward", {}, "two rewards have this name"),
        ("short", {"value_init": "reward"}, "must then be all that is rewarded"),
        ("short", {"reward_normalization": "reference"}, "functions are rewarded too"),
        ("short", {"reward_weights": {"shor": 1.0}}, "no source shor"),
    ],
)
def test_what_does_not_go_with_a_function_is_refused(
    inputs: dict[str, Artifact], tmp_path: Path, label: str, settings: dict[str, Any], message: str
) -> None:
    given = inputs | {"reward_func": function(tmp_path, RULES, "shortness", label)}
    with pytest.raises(UsageError, match=message):
        run_stage(PPO, tmp_path / "run", given, **(FAST | settings))


def test_all_weights_of_a_whole_model_can_be_trained(
    base: Artifact, reward: Artifact, tiny_data: Path, tmp_path: Path
) -> None:
    given = {"model": base, "reward": reward, "data": artifact(Kind.DATA, tiny_data)}
    settings = FAST | {"method": "full", "total_episodes": 16, "value_init": "reward"}
    found = run_stage(PPO, tmp_path / "run", given, **settings)
    assert metrics(found.scratch)[1]["objective/kl"] == 0.0
    before, after = (load_file(folder / "model.safetensors") for folder in (base.path, found.out / "model"))
    assert {name for name in before if torch.equal(before[name], after[name])} == set()
    assert not (found.out / "model" / "adapter_config.json").exists()


def test_a_signal_ends_it_with_a_checkpoint_and_it_goes_on(
    done: Context[Any], inputs: dict[str, Artifact], tmp_path: Path
) -> None:
    stop = Stop()

    def ask(event: Any) -> None:
        if event["event"] == "metrics" and event["step"] == 2:
            stop.ask("SIGTERM")

    with pytest.raises(Stopped, match="stopped by SIGTERM after rollout 2 of 4, with a checkpoint"):
        run_stage(PPO, tmp_path, inputs, sink=ask, stop=stop, **FAST)
    again = run_stage(PPO, tmp_path, inputs, **FAST)
    assert metrics(again.scratch) == metrics(done.scratch)
    assert (again.out / "model" / TENSORS).read_bytes() == (done.out / "model" / TENSORS).read_bytes()


def test_a_guard_ends_the_run_and_says_where_the_answers_are(inputs: dict[str, Artifact], tmp_path: Path) -> None:
    settings = FAST | {"max_kl": 1e-9, "guard_patience": 2, "learning_rate": 1e-2}
    with pytest.raises(Diverged, match=r"rollout 3: .*\(guard kl\)") as caught:
        run_stage(PPO, tmp_path, inputs, **settings)
    assert "samples.jsonl" in caught.value.hint


def test_another_guard_warns(inputs: dict[str, Artifact], tmp_path: Path) -> None:
    settings = FAST | {"max_length_change": 1.0001, "guard_patience": 1, "learning_rate": 1e-2}
    found = run_stage(PPO, tmp_path, inputs, **settings)
    figures = json.loads((found.out / "report" / "figures.json").read_text())
    assert "length" in {alarm["name"] for alarm in figures["alarms"]}


@pytest.mark.parametrize("lost", ["adapter_config.json", "head.safetensors", "reward_stats.json"])
def test_a_folder_that_is_no_reward_model_is_refused(inputs: dict[str, Artifact], tmp_path: Path, lost: str) -> None:
    folder = tmp_path / "reward"
    shutil.copytree(inputs["reward"].path, folder)
    (folder / lost).unlink()
    with pytest.raises(UsageError, match="no reward model"):
        run_stage(PPO, tmp_path / "run", inputs | {"reward": replace(inputs["reward"], path=folder)}, **FAST)


def test_a_reward_model_that_scores_all_alike_is_refused(inputs: dict[str, Artifact], tmp_path: Path) -> None:
    folder = tmp_path / "reward"
    shutil.copytree(inputs["reward"].path, folder)
    head = load_file(folder / "head.safetensors")
    save_file({name: torch.zeros_like(tensor) for name, tensor in head.items()}, folder / "head.safetensors")
    with pytest.raises(UsageError, match="every answer has the score"):
        run_stage(PPO, tmp_path / "run", inputs | {"reward": replace(inputs["reward"], path=folder)}, **FAST)


def test_a_reference_that_is_not_the_starting_policy_is_refused() -> None:
    check_reference([0.0])
    with pytest.raises(StageFailed, match="reference is not the starting policy"):
        check_reference([0.0, -1e-7])


def test_rows_without_prompts_are_refused(inputs: dict[str, Artifact], tmp_path: Path) -> None:
    text = data(tmp_path / "data", lambda index: {"id": str(index), "text": "the cat", "meta": {}})
    with pytest.raises(BadData, match="a text row"):
        run_stage(PPO, tmp_path / "run", inputs | {"data": text}, **FAST)


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({"train": 0}, "no train rows"),
        ({"validation": 0}, "no validation rows and no test rows"),
        ({"validation": 1}, "one held-out prompt in validation, at least 2 needed"),
    ],
)
def test_too_few_rows_are_refused(
    inputs: dict[str, Artifact], tmp_path: Path, counts: dict[str, int], message: str
) -> None:
    with pytest.raises(BadData, match=message):
        run_stage(PPO, tmp_path / "run", inputs | {"data": data(tmp_path / "data", **counts)}, **FAST)


def test_when_all_prompts_are_too_long_the_limit_is_named(inputs: dict[str, Artifact], tmp_path: Path) -> None:
    with pytest.raises(BadData, match="each of the 24 train prompts has more than 5 tokens") as caught:
        run_stage(PPO, tmp_path, inputs, **(FAST | {"max_prompt_length": 5}))
    assert "max_prompt_length" in caught.value.hint
