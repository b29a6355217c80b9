"""Evaluate models: one loading of the base for all its adapters, one model at a time, then the figures and the report.

Every model sees the same rows in the same number format. Text metrics and health use greedy answers. A reward model also scores
answers sampled with one seed a row, since a policy can gain much there while its likeliest answer hardly moves.
"""

from __future__ import annotations

import gc
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from ftcli.core.artifacts import write_json
from ftcli.core.errors import BadData, UsageError
from ftcli.core.stage import Artifact, Context
from ftcli.data.chat import render_answer, stop_token_ids
from ftcli.data.rows import Row, RowType, prompt_of, read_split, reference_of
from ftcli.metrics.perplexity import score_answers
from ftcli.metrics.text import non_ascii_share
from ftcli.models.generate import adapters_in, generate, split_model
from ftcli.models.heads import load_head
from ftcli.models.load import load_adapter, load_base, load_tokenizer_of, pick_device, pick_dtype, read_base_record
from ftcli.rl.reward_model import load_reward_model
from ftcli.rl.sequences import Exchange
from ftcli.stages.eval.config import EvalConfig
from ftcli.stages.eval.figures import collect
from ftcli.stages.eval.outcome import Answer, Outcome
from ftcli.stages.eval.write import write_report

Ids = list[int]


def evaluate_models(ctx: Context[EvalConfig]) -> None:
    """Run the stage: measure each model (skipping those that an interrupted run finished), score, compare, write."""
    started = time.monotonic()
    config, models = ctx.config, ctx.many("models")
    reward = ctx.maybe("reward")
    check_models(models, reward)
    device = pick_device()
    dtype = pick_dtype(config.precision, device)
    rows, left_out = read_rows(ctx, models[0])
    outcomes: dict[str, Outcome] = {}
    for artifact, model in each_model(ctx, models, dtype, device):
        outcomes[artifact.label] = measured(ctx, artifact, model, rows)
        del model  # or the next base would be loaded beside this one
    outcomes = {artifact.label: outcomes[artifact.label] for artifact in models}  # as given, not as loaded
    if reward is not None:
        score_answers_with(ctx, reward, rows, outcomes, dtype, device)
    data = ctx.one("data")
    result = collect(
        outcomes,
        [str(reference_of(row)) for row in rows],
        config,
        models=models,
        reward=reward,
        about={
            "data": {"ref": data.ref, "digest": data.digest, "split": config.split},
            "rows": {"scored": len(rows), "answered": len(answered(rows, config)), "left_out": left_out},
            "dtype": str(dtype).removeprefix("torch."),
            "device": device.type,
        },
    )
    write_report(ctx, result, rows, outcomes)
    ctx.events.summarize({"rows": len(rows), "models": len(models), "perf/seconds": time.monotonic() - started})


def check_models(models: Sequence[Artifact], reward: Artifact | None) -> None:
    """Refuse, before any work, labels that clash and a reward model that cannot score these models' answers."""
    clashes = [label for label, count in Counter(item.label for item in models).items() if count > 1]
    if clashes:
        raise UsageError(
            f"models: {', '.join(clashes)} names more than one model",
            "write a mapping of labels: models: {base: ..., lora: ...}",
        )
    if reward is None:
        return
    if reward.base is None:
        raise UsageError(
            f"reward: {reward.ref} does not say which base model it belongs to", "give `ftcli reward`'s output"
        )
    load_head(reward.path)
    own = load_tokenizer_of(reward)
    for artifact in models:
        other = load_tokenizer_of(artifact)
        if other.get_vocab() != own.get_vocab() or other.chat_template != own.chat_template:
            raise UsageError(
                f"reward: {reward.ref} is built on another base than {artifact.label} ({artifact.ref}): it reads other tokens",
                "train the reward model on the same base model, or evaluate without it",
            )


def read_rows(ctx: Context[EvalConfig], baseline: Artifact) -> tuple[list[Row], int]:
    """Rows short enough to compute, and how many were not; at least one remains or `BadData` is raised."""
    config, folder = ctx.config, ctx.one("data").path
    read = read_split(folder, config.split, RowType.MESSAGES, limit=config.limit)
    rows = [row for row in read if reference_of(row) is not None]
    if not rows:
        raise BadData(
            f"{folder}: split {config.split} has no rows with an answer in text",
            "give prep more data, or a larger share of it to this split",
        )
    if len(rows) < len(read):
        ctx.events.note(f"{len(read) - len(rows)} of {len(read)} rows left out: their last answer calls a tool")
    tokenizer = load_tokenizer_of(baseline)
    stop_ids = stop_token_ids(tokenizer)
    kept = [row for row in rows if sum(map(len, encode(tokenizer, row, stop_ids))) <= config.max_length]
    left_out = len(rows) - len(kept)
    if not kept:
        raise BadData(f"all {len(rows)} rows have more than {config.max_length} tokens", "raise max_length")
    if left_out:
        ctx.events.note(f"{left_out} of {len(rows)} rows left out: more than {config.max_length} tokens (max_length)")
    unseen = non_ascii_share([str(reference_of(row)) for row in kept])
    if "rouge" in config.metrics and config.rouge_tokenizer == "ascii" and unseen > 0.2:
        ctx.events.note(f"ROUGE does not see {unseen:.0%} of the references' letters; set rouge_tokenizer: words")
    return kept, left_out


def answered(rows: Sequence[Row], config: EvalConfig) -> Sequence[Row]:
    """The rows that the models answer."""
    return rows[: config.generation_limit]


def encode(tokenizer: PreTrainedTokenizerBase, row: Row, stop_ids: frozenset[int]) -> tuple[Ids, Ids]:
    return render_answer(tokenizer, prompt_of(row), str(reference_of(row)), stop_ids, tools=row.get("tools"))


@dataclass(frozen=True)
class Base:
    """What a loading of a base is shared by: the weights and how they are stored."""

    digest: str
    quantization: str | None
    double_quant: bool


def base_of(artifact: Artifact) -> Base:
    if artifact.base is None:
        return Base(artifact.digest, None, True)
    record = read_base_record(artifact.path)
    return Base(artifact.base.digest, record.get("quantization"), record.get("double_quant", True))


def each_model(
    ctx: Context[EvalConfig], models: Sequence[Artifact], dtype: torch.dtype, device: torch.device
) -> Iterator[tuple[Artifact, Any]]:
    """Each model in turn, ready to compute, or with None where scratch already holds its outcome; one base in memory at a time."""
    groups: dict[Base, list[Artifact]] = {}
    for artifact in models:
        groups.setdefault(base_of(artifact), []).append(artifact)
    for base, members in groups.items():
        waiting = [artifact for artifact in members if not outcome_path(ctx, artifact).exists()]
        yield from ((artifact, None) for artifact in members if artifact not in waiting)
        if not waiting:
            continue
        folder = (members[0].base or members[0]).path
        model = load_base(folder, dtype, device, base.quantization, base.double_quant)
        for artifact in waiting:
            if artifact.base is None:
                yield artifact, model
                continue
            wrapped = load_adapter(model, artifact).eval()
            yield artifact, wrapped
            model = wrapped.unload()
            del wrapped
        del model
        free_memory()


def free_memory() -> None:
    """A model is full of reference cycles, so it goes only when they are collected."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def outcome_path(ctx: Context[EvalConfig], artifact: Artifact) -> Any:
    return ctx.scratch / f"outcome-{ctx.many('models').index(artifact)}.json"


def measured(ctx: Context[EvalConfig], artifact: Artifact, model: Any, rows: Sequence[Row]) -> Outcome:
    """The outcome of one model, from scratch if it is there."""
    path = outcome_path(ctx, artifact)
    if model is None:
        return Outcome.from_json(json.loads(path.read_text(encoding="utf-8")))
    outcome = measure(ctx, artifact, model, rows)
    write_json(path, outcome.to_json())
    return outcome


def measure(ctx: Context[EvalConfig], artifact: Artifact, model: Any, rows: Sequence[Row]) -> Outcome:
    """Score the references and generate answers. Sampled answers are only needed for a reward model."""
    config = ctx.config
    tokenizer = load_tokenizer_of(artifact)
    stop_ids = stop_token_ids(tokenizer, model.generation_config.eos_token_id)
    pairs = [encode(tokenizer, row, stop_ids) for row in rows]
    asked = answered(rows, config)
    outcome = Outcome()

    def progress(task: str, total: int) -> Callable[[int], None]:
        return lambda done: ctx.events.progress(f"{artifact.label}: {task}", done, total)

    def answers(task: str, repeats: int, temperature: float) -> list[Answer]:
        prompts = [prompt for prompt, _ in pairs[: len(asked)] for _ in range(repeats)]
        generations = generate(
            model,
            prompts,
            [f"{row['id']}#{repeat}" for row in asked for repeat in range(repeats)],
            stop_ids=stop_ids,
            pad_id=int(tokenizer.pad_token_id),
            max_new_tokens=config.max_new_tokens,
            temperature=temperature,
            seed=config.seed,
            batch_size=config.batch_size,
            on_batch=progress(task, len(prompts)),
        )
        texts = [tokenizer.decode(one.ids, skip_special_tokens=True) for one in generations]
        return [Answer(text, one.ids, one.finish_reason) for text, one in zip(texts, generations, strict=True)]

    if "perplexity" in config.metrics:
        backbone, head = split_model(model)
        with adapters_in(model, backbone.dtype):
            scores = score_answers(
                backbone,
                head,
                pairs,
                pad_id=int(tokenizer.pad_token_id),
                batch_size=config.batch_size,
                on_batch=progress("perplexity", len(rows)),
            )
        outcome = replace(outcome, nll=[score.nll for score in scores], tokens=[score.tokens for score in scores])
    if ctx.maybe("reward") is not None or set(config.metrics) - {"perplexity"}:
        outcome = replace(outcome, greedy=answers("greedy answers", 1, 0.0))
    if ctx.maybe("reward") is not None:
        outcome = replace(outcome, sampled=answers("sampled answers", config.samples_per_prompt, config.temperature))
    return outcome


def score_answers_with(
    ctx: Context[EvalConfig],
    reward: Artifact,
    rows: Sequence[Row],
    outcomes: dict[str, Outcome],
    dtype: torch.dtype,
    device: torch.device,
) -> None:
    """Fill in the reward model's scores of all answers."""
    tokenizer = load_tokenizer_of(reward)
    stop_ids = stop_token_ids(tokenizer)
    prompts = [encode(tokenizer, row, stop_ids)[0] for row in answered(rows, ctx.config)]
    model = load_reward_model(reward, dtype, device, int(tokenizer.pad_token_id))

    def scores(answers: Sequence[Answer], repeats: int) -> list[float]:
        asked = [prompt for prompt in prompts for _ in range(repeats)]
        exchanges = [Exchange(prompt, answer.ids) for prompt, answer in zip(asked, answers, strict=True)]
        return model.score_exchanges(exchanges, ctx.config.batch_size)

    for done, (label, outcome) in enumerate(outcomes.items(), start=1):
        greedy, sampled = scores(outcome.greedy, 1), scores(outcome.sampled, ctx.config.samples_per_prompt)
        outcomes[label] = replace(outcome, greedy_scores=greedy, sampled_scores=sampled)
        ctx.events.progress("reward model", done, len(outcomes))
