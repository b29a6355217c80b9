"""lora teaches a real model something: its loss on held-out answers falls by more than chance explains.

FTCLI_TEST_DATA=folder/with/alpaca_en_demo.json pytest -m slow tests/e2e/test_learning.py
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import bootstrap
from transformers import AutoModelForCausalLM, AutoTokenizer

from ftcli.core.stage import Kind
from ftcli.pipeline.fetch import NotFetched, demo_model
from ftcli.stages.sft.stage import LORA
from tests.conftest import artifact, run_stage, write_data
from tests.stages.sft.test_train import answer_nll, load_plain

DATA = Path(os.environ.get("FTCLI_TEST_DATA", "")) / "alpaca_en_demo.json"


def short_rows() -> list[dict[str, Any]]:
    rows = []
    for number, item in enumerate(json.loads(DATA.read_text(encoding="utf-8"))):
        question = f"{item['instruction']}\n{item['input']}".strip()
        if item["output"] and len(question) + len(item["output"]) < 500:
            messages = [{"role": "user", "content": question}, {"role": "assistant", "content": item["output"]}]
            rows.append({"id": f"row-{number}", "messages": messages, "meta": {}})
    return rows


@pytest.mark.slow
@pytest.mark.model
@pytest.mark.timeout(1800)
@pytest.mark.skipif(not DATA.is_file(), reason="FTCLI_TEST_DATA names no folder with alpaca_en_demo.json")
def test_lora_lowers_the_loss_of_held_out_answers_beyond_chance(tmp_path: Path) -> None:
    try:
        base, _ = demo_model("smollm2", fetch=False)
    except NotFetched:
        pytest.skip("the demo model is not on this machine")
    rows = short_rows()
    held_out = 80
    data = write_data(tmp_path / "data", lambda index: rows[index], len(rows) - held_out, 0, held_out)
    inputs = {"model": artifact(Kind.MODEL, base), "data": artifact(Kind.DATA, data)}
    ctx = run_stage(LORA, tmp_path, inputs, max_steps=60, global_batch_size=8, learning_rate=1e-3, max_length=256)
    tokenizer = AutoTokenizer.from_pretrained(base)
    sums = []
    for model in (AutoModelForCausalLM.from_pretrained(base).eval(), load_plain(ctx.out / "model", base)):
        found = [answer_nll(model, tokenizer, row) for row in rows[-held_out:]]
        sums.append([loss * count for loss, count in found])
        counts = [count for _, count in found]
    change = np.array(sums[1]) - np.array(sums[0])

    def a_token(differences: np.ndarray, tokens: np.ndarray, axis: int = -1) -> np.ndarray:
        return differences.sum(axis=axis) / tokens.sum(axis=axis)

    interval = bootstrap(
        (change, np.array(counts)), a_token, paired=True, rng=np.random.default_rng(1)
    ).confidence_interval
    before, after = (sum(values) / sum(counts) for values in sums)
    print(
        f"\n{before:.4f} -> {after:.4f} nats a token, change {interval.low:.4f} to {interval.high:.4f}, {held_out} rows"
    )
    assert interval.high < 0
