"""Every recipe that the project ships is valid: keys, references, kinds and values."""

from __future__ import annotations

from pathlib import Path

import pytest

from ftcli.pipeline.recipe import read_recipe
from ftcli.pipeline.references import StageOutput

ROOT = Path(__file__).parents[2] / "recipes"
RECIPES = sorted(ROOT.rglob("*.yaml"))


def test_the_sweep_sees_every_recipe() -> None:
    assert [path.relative_to(ROOT).as_posix() for path in RECIPES] == [
        "ci-gate.yaml",
        "human-rlhf.yaml",
        "ppo-function-reward.yaml",
        "quickstart.yaml",
        "rlhf.yaml",
        "sft-lora.yaml",
    ]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipe_is_valid_and_says_how_to_run_it(path: Path) -> None:
    recipe = read_recipe(path)
    assert recipe.name == path.stem
    assert f"ftcli run recipes/{path.name} --run runs/{path.stem}" in path.read_text(encoding="utf-8")


def test_quickstart_runs_all_eight_stages_and_compares_three_techniques_from_one_base() -> None:
    entries = {entry.id: entry for entry in read_recipe(ROOT / "quickstart.yaml").entries}
    assert list(entries) == ["prep", "sft", "lora", "qlora", "sample", "reward", "ppo", "eval"]
    assert {str(entries[id].inputs["model"][0][1]) for id in ("sft", "lora", "qlora")} == {"demo:smollm2"}
    assert [label for label, _ in entries["eval"].inputs["models"]] == ["base", "sft", "lora", "qlora", "ppo"]
    assert {entries[id].inputs["model"][0][1] for id in ("sample", "reward", "ppo")} == {StageOutput("lora", "model")}
