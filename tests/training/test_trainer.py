from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from trl import SFTConfig

from ftcli.core.errors import Diverged
from ftcli.core.events import Event, Events
from ftcli.data.chat import render_messages, stop_token_ids
from ftcli.models.load import load_base, load_tokenizer
from ftcli.training.adapters import add_lora
from ftcli.training.callbacks import Reporter
from ftcli.training.tally import Tally
from ftcli.training.trainer import AnswerTrainer
from tests.tiny import messages_row

CPU = torch.device("cpu")


def trainer(model: Any, tiny_model: Path, folder: Path, events: Events, **settings: Any) -> AnswerTrainer:
    tokenizer = load_tokenizer(tiny_model)
    rendered = [render_messages(tokenizer, messages_row(i)["messages"], stop_token_ids(tokenizer)) for i in range(8)]
    rows = Dataset.from_list(
        [
            {
                "input_ids": row.input_ids,
                "labels": [
                    token if trained else -100 for token, trained in zip(row.input_ids, row.loss_mask, strict=True)
                ],
            }
            for row in rendered
        ]
    )
    arguments = SFTConfig(
        output_dir=str(folder / "staging"),
        per_device_train_batch_size=2,
        dataset_kwargs={"skip_prepare_dataset": True},
        use_cpu=True,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        **settings,
    )
    tally = Tally()
    return AnswerTrainer(
        model,
        arguments,
        rows,
        rows,
        tokenizer,
        tally,
        events,
        folder,
        [Reporter(events, tally)],
    )


def test_a_step_that_is_not_finite_leaves_the_weights_as_they_were(tiny_model: Path, tmp_path: Path) -> None:
    model = load_base(tiny_model, torch.float32, CPU)
    training = trainer(model, tiny_model, tmp_path, Events(tmp_path), learning_rate=1e30, bf16=False, max_steps=4)
    with pytest.raises(Diverged):
        training.train()
    assert all(weight.isfinite().all() for weight in model.parameters())


def test_adapters_on_a_4_bit_model_stay_in_float32(tiny_model: Path, tmp_path: Path) -> None:
    base = load_base(tiny_model, torch.bfloat16, CPU, "nf4")
    model = add_lora(base, r=2, alpha=4, dropout=0.0, target_modules=["all-linear"])
    before = {name: weight.detach().clone() for name, weight in model.named_parameters() if weight.requires_grad}
    trainer(model, tiny_model, tmp_path, Events(tmp_path))
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            assert weight.dtype is torch.float32
            assert torch.equal(weight, before[name])


def test_progress_shows_steps_loss_and_rate(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[Event] = []
    model = load_base(tiny_model, torch.float32, CPU)
    events = Events(tmp_path, seen.append)
    capsys.readouterr()
    trainer(model, tiny_model, tmp_path, events, bf16=False, max_steps=3, eval_strategy="steps", eval_steps=3).train()
    steps = [event for event in seen if event.get("task") == "train"]
    assert [(event["done"], event["total"]) for event in steps] == [(1, 3), (2, 3), (3, 3)]
    assert steps[-1]["shown"]["loss"] == [event for event in seen if event["event"] == "metrics"][1]["train/loss"]
    assert steps[-1]["shown"]["tokens_per_s"] > 0
    checks = [event for event in seen if event.get("task") == "validate"]
    assert [(event["done"], event["total"]) for event in checks] == [(1, 1)]
    assert capsys.readouterr().out == ""  # standard output belongs to the result
