"""The whole road on a tiny model: each stage by its own command in its own process, then as a recipe that finds all done."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ftcli.data.rows import write_jsonl
from tests.tiny import messages_row

RECIPE = """
name: road
stages:
  - use: prep
    inputs: {{source: raw.jsonl, model: "{model}"}}
    with: {{validation_share: 0.2, test_share: 0.2}}
  - use: sft
    inputs: {{model: "{model}", data: prep.data}}
    with: &sft {{max_steps: 2, global_batch_size: 4, precision: fp32}}
  - use: lora
    inputs: {{model: "{model}", data: prep.data}}
    with: {{max_steps: 2, global_batch_size: 4, precision: fp32, lora_r: 4}}
  - use: qlora
    inputs: {{model: "{model}", data: prep.data}}
    with: {{max_steps: 2, global_batch_size: 4, precision: fp32, lora_r: 4}}
  - use: sample
    inputs: {{model: lora.model, data: prep.data}}
    with: {{samples_per_prompt: 2, max_new_tokens: 6, precision: fp32}}
  - use: reward
    inputs: {{model: lora.model, data: sample.pairs}}
    with: {{max_steps: 2, global_batch_size: 4, precision: fp32}}
  - use: ppo
    inputs: {{model: lora.model, reward: reward.reward, data: prep.data}}
    with:
      {{total_episodes: 8, rollout_batch_size: 4, response_length: 6, eval_prompts: 4, value_init: head_only,
        reward_gate: warn, precision: fp32}}
  - use: eval
    inputs:
      models: {{base: "{model}", sft: sft.model, lora: lora.model, qlora: qlora.model, ppo: ppo.model}}
      data: prep.data
      reward: reward.reward
    with: {{max_new_tokens: 6, precision: fp32, resamples: 100}}
"""
SFT = "--max-steps 2 --global-batch-size 4 --precision fp32"
COMMANDS = {
    "prep": "--source raw.jsonl --model {model} --validation-share 0.2 --test-share 0.2",
    "sft": f"--model {{model}} {SFT}",
    "lora": f"--model {{model}} {SFT} --lora-r 4",
    "qlora": f"--model {{model}} {SFT} --lora-r 4",
    "sample": "--model lora.model --samples-per-prompt 2 --max-new-tokens 6 --precision fp32",
    "reward": f"--model lora.model --data sample.pairs {SFT}",
    "ppo": "--model lora.model --data prep.data --total-episodes 8 --rollout-batch-size 4 --response-length 6 --reward-gate warn"
    " --eval-prompts 4 --value-init head_only --precision fp32",
    "eval": "--models base={model} --models sft=sft.model --models lora=lora.model --models qlora=qlora.model"
    " --models ppo=ppo.model --data prep.data --reward reward.reward --max-new-tokens 6 --precision fp32 --resamples 100",
}
OUTPUTS = {
    "prep": "train.jsonl",
    "sft": "model.safetensors",
    "lora": "adapter_model.safetensors",
    "qlora": "adapter_model.safetensors",
    "sample": "samples.jsonl",
    "reward": "head.safetensors",
    "ppo": "adapter_model.safetensors",
    "eval": "report.html",
}

Ftcli = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def ftcli(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Ftcli:
    """Runs the program in a folder with raw.jsonl and road.yaml, offline."""
    folder = tmp_path_factory.mktemp("road")
    write_jsonl(folder / "raw.jsonl", [{"messages": messages_row(index)["messages"]} for index in range(40)])
    (folder / "road.yaml").write_text(RECIPE.replace("&sft ", "").format(model=tiny_model), encoding="utf-8")
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "FTCLI_CACHE": str(folder / "cache"), "FTCLI_RUN": "run"}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "ftcli", *arguments]
        return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)

    return run


@pytest.fixture(scope="module")
def road(ftcli: Ftcli, tiny_model: Path) -> dict[str, subprocess.CompletedProcess[str]]:
    """Every stage run once by its own command, in order."""
    return {name: ftcli(name, *text.format(model=tiny_model).split()) for name, text in COMMANDS.items()}


@pytest.mark.parametrize("name", COMMANDS)
def test_each_stage_command_prints_the_folder_it_made_and_nothing_else(
    name: str, road: dict[str, subprocess.CompletedProcess[str]]
) -> None:
    done = road[name]
    assert done.returncode == 0, done.stderr
    folder = Path(done.stdout.removesuffix("\n"))
    assert (folder / OUTPUTS[name]).is_file(), done.stdout
    assert f"{name}: run (first time)" in done.stderr


def test_a_recipe_with_the_same_settings_finds_everything_done(
    ftcli: Ftcli, road: dict[str, subprocess.CompletedProcess[str]]
) -> None:
    done = ftcli("run", "road.yaml")
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stderr.splitlines() if line] == [f"{name}: cached" for name in COMMANDS]
    assert "report.html" in done.stdout


def test_a_changed_setting_reruns_its_stage_and_what_depends_on_it(
    ftcli: Ftcli, road: dict[str, subprocess.CompletedProcess[str]]
) -> None:
    done = ftcli("run", "road.yaml", "--set", "ppo.kl_coef=0.1", "--dry-run")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[:6] == [f"{name}: cached (cached)" for name in list(COMMANDS)[:6]]
    assert lines[6] == "ppo: run (kl_coef default -> 0.1)"
    assert lines[7].startswith("eval: decided later")


def test_the_run_verifies_and_its_lineage_reaches_the_raw_file(
    ftcli: Ftcli, road: dict[str, subprocess.CompletedProcess[str]]
) -> None:
    assert ftcli("verify").returncode == 0
    tree = json.loads(ftcli("lineage", "--json").stdout)
    refs = {ref["ref"] for item in tree for records in item["inputs"].values() for ref in records}
    assert any(ref.endswith("raw.jsonl") for ref in refs)
    assert any(ref.startswith("stages/reward/") for ref in refs)
