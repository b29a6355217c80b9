"""One PPO run with TRL 1.12.0, the last release that has it; `benchmarks/ppo.py` starts this in TRL's environment.

    python -m benchmarks.ppo_trl JOB.json RECORD.json

TRL's trainer is used as it is. Two of its functions are wrapped to read the clock and to count tokens, its log is read by a
callback, and the reward of the learning tasks is a rule in the shape of a reward model, the only reward that it takes.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from peft import LoraConfig, inject_adapter_in_model
from tokenizers import Tokenizer, models
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    PreTrainedTokenizerFast,
    TrainerCallback,
)
from trl.experimental.ppo import PPOConfig, PPOTrainer, ppo_trainer

from benchmarks.ppo_job import RULES, Job, Meter, digests

LORA: dict[str, Any] = {"r": 16, "lora_alpha": 32, "lora_dropout": 0.0, "target_modules": "all-linear"}


class RuleModel(nn.Module):
    """A rule in the shape in which TRL's ``get_reward`` takes a reward model: ``model`` gives hidden states, ``score`` a logit for
    each, and the one at the last token before padding is the score.

    Here hidden states are pairs of (is no padding, id), and each place has the score of its whole row, whose response begins at
    column ``width``.
    """

    base_model_prefix = "model"

    def __init__(self, rule: str, width: int) -> None:
        super().__init__()
        self.rule, self.width = RULES[rule], width
        self.model = self._hidden

    def _hidden(self, input_ids: Tensor, attention_mask: Tensor, **kwargs: Any) -> SimpleNamespace:
        return SimpleNamespace(hidden_states=[torch.stack([attention_mask.long(), input_ids], dim=-1)])

    def score(self, hidden: Tensor) -> Tensor:
        present, ids = hidden[..., 0].bool(), hidden[..., 1]
        scores = [
            self.rule(
                row[: self.width][kept[: self.width]].tolist(),
                row[self.width :][kept[self.width :]].tolist(),
            )
            for row, kept in zip(ids, present, strict=True)
        ]
        return torch.tensor(scores)[:, None, None].expand(*ids.shape, 1).clone()


class Prompts(torch.utils.data.Dataset[dict[str, list[int]]]):
    """``prompts`` one after another, again and again, whichever rows are asked for.

    TRL shuffles and, in the last update of each pass over its data, takes an optimizer step after every micro-batch. So data
    that does not end gives it the prompts of the job and the steps that its settings say.
    """

    def __init__(self, prompts: list[list[int]], rows: int) -> None:
        self.prompts, self.rows, self.taken = prompts, rows, 0

    def __len__(self) -> int:
        return self.rows

    def __getitem__(self, index: int) -> dict[str, list[int]]:
        self.taken += 1
        return {"input_ids": self.prompts[(self.taken - 1) % len(self.prompts)]}


class Watch(TrainerCallback):
    def __init__(self, meter: Meter, marks: dict[str, float]) -> None:
        self.meter, self.marks = meter, marks

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.meter.lap()

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.meter.scores.append(float(kwargs["logs"]["objective/scores"]))

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.meter.lap()
        marks = self.marks
        self.meter.phases.append(
            {
                "gen": marks["generated"] - marks["began"],
                "score": marks["scored"] - marks["generated"],
                "train": time.perf_counter() - marks["scored"],
            }
        )


def watched(meter: Meter, pad_id: int) -> dict[str, float]:
    """Wrap the two functions of TRL between which its phases lie; return the clock readings of the current update."""
    marks: dict[str, float] = {}
    generate, whiten = ppo_trainer.batch_generation, ppo_trainer.masked_whiten

    def batch_generation(model: Any, queries: Tensor, *args: Any) -> Any:
        marks["began"] = time.perf_counter()
        found = generate(model, queries, *args)
        marks["generated"] = time.perf_counter()
        meter.seen += digests(row[row != pad_id].tolist() for row in queries)
        meter.tokens += int((found[0][:, queries.shape[1] :] != pad_id).sum())
        return found

    def masked_whiten(*args: Any, **kwargs: Any) -> Any:
        found = whiten(*args, **kwargs)
        marks["scored"] = time.perf_counter()
        return found

    ppo_trainer.batch_generation, ppo_trainer.masked_whiten = batch_generation, masked_whiten
    return marks


def critic(job: Job, dtype: torch.dtype) -> Any:
    """A classifier with one output, as TRL's example makes it; with ``lora-critic`` its adapter and head alone are trained."""
    model = AutoModelForSequenceClassification.from_pretrained(job.model, num_labels=1, dtype=dtype)
    nn.init.zeros_(model.score.weight)
    if job.mode == "lora-critic":
        model.requires_grad_(False)
        inject_adapter_in_model(LoraConfig(**LORA), model.model)
        model.score.requires_grad_(True)  # in the model's number format, since TRL calls it outside of autocast
        for name, weight in model.named_parameters():
            if "lora_" in name:
                weight.data = weight.data.float()
                weight.requires_grad_(True)
    return model


def trainer_of(job: Job, meter: Meter, scratch: Path) -> PPOTrainer:
    torch.manual_seed(job.seed)
    dtype = torch.bfloat16 if job.bf16 else torch.float32
    policy = AutoModelForCausalLM.from_pretrained(job.model, dtype=dtype)
    vocabulary = policy.config.vocab_size
    pad_id, eos = vocabulary, job.stop_id if job.stop_id is not None else policy.config.eos_token_id
    words = models.WordLevel({"<eos>": eos, "<pad>": pad_id, "<unk>": 0}, unk_token="<unk>")
    # Padding has an id beyond the vocabulary, since TRL takes each one that was sampled for the end of the response.
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(words), eos_token="<eos>", pad_token="<pad>")
    width = max(len(ids) for ids in job.prompts)

    def collate(rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        longest = width if job.rule else max(len(row["input_ids"]) for row in rows)
        padded = [[pad_id] * (longest - len(row["input_ids"])) + row["input_ids"] for row in rows]
        return {"input_ids": torch.tensor(padded)}

    if job.rule:
        reward: Any = RuleModel(job.rule, width)
    else:
        reward = AutoModelForSequenceClassification.from_pretrained(job.model, num_labels=1, dtype=dtype)
    settings = PPOConfig(
        output_dir=str(scratch),
        per_device_train_batch_size=job.micro_batch,
        gradient_accumulation_steps=job.rollouts // job.micro_batch,
        num_mini_batches=1,
        num_ppo_epochs=job.epochs,
        total_episodes=job.updates * job.rollouts,
        response_length=job.response_length,
        stop_token_id=job.stop_id,
        temperature=1.0,
        learning_rate=job.learning_rate,
        lr_scheduler_type="constant",
        kl_coef=job.kl_coef,
        num_sample_generations=0,
        bf16=job.bf16,
        use_cpu=True,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        seed=job.seed,
    )
    return PPOTrainer(
        args=settings,
        processing_class=tokenizer,
        model=policy,
        ref_model=None,
        reward_model=reward,
        value_model=critic(job, dtype),
        train_dataset=Prompts(job.prompts, (job.updates + 2) * job.rollouts),
        data_collator=collate,
        peft_config=None if job.mode == "full" else LoraConfig(task_type="CAUSAL_LM", **LORA),
        callbacks=[Watch(meter, watched(meter, pad_id))],
    )


def main() -> None:
    job, record = Job.read(Path(sys.argv[1])), Path(sys.argv[2])
    meter = Meter()
    trainer = trainer_of(job, meter, record.with_suffix(""))
    trainer.train()
    meter.write(record, trainer.optimizer)


if __name__ == "__main__":
    main()
