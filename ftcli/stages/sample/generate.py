"""From prompts to answers to preference pairs, top to bottom."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from ftcli.core.errors import BadData
from ftcli.core.stage import Context
from ftcli.data.chat import render_prompt, stop_token_ids
from ftcli.data.rows import Row, RowType, prompt_of, read_split, reference_of, write_jsonl
from ftcli.models.generate import Generation, generate
from ftcli.models.load import load_model, load_tokenizer, pick_device, pick_dtype
from ftcli.stages.sample.config import SampleConfig

SPLITS = ("train", "validation")


@dataclass(frozen=True)
class Sampled:
    """One prompt with its k answers, as text and as the decode loop gave them."""

    row: Row
    texts: list[str]
    generations: list[Generation]


def run(ctx: Context[SampleConfig]) -> None:
    config = ctx.config
    source = ctx.one("model")
    tokenizer = load_tokenizer(source.path)
    device = pick_device()
    model = load_model(source, pick_dtype(config.precision, device), device)
    stop_ids = stop_token_ids(tokenizer, model.generation_config.eos_token_id)
    started = time.monotonic()
    counts: dict[str, int] = {}
    folders = {name: ctx.output(name) for name in ("samples", "pairs")}
    write_jsonl(folders["pairs"] / "test.jsonl", [])
    records: list[Row] = []
    for split, limit in zip(SPLITS, (config.train_prompts, config.validation_prompts), strict=True):
        rows = read_split(
            ctx.one("data").path, split, RowType.MESSAGES, RowType.PROMPT, RowType.PREFERENCE, limit=limit
        )
        prompts = {row["id"]: render_prompt(tokenizer, prompt_of(row), tools=row.get("tools")) for row in rows}
        kept = [row for row in rows if len(prompts[row["id"]]) <= config.max_prompt_length]
        _add(counts, too_long_prompts=len(rows) - len(kept), prompts=len(kept))
        sampled = _sample(ctx, split, model, tokenizer, kept, prompts, stop_ids)
        records += [_record(split, item) for item in sampled]
        pairs = [pair for item in sampled for pair in make_pairs(item.row, item.texts, counts)]
        _add(counts, pairs=write_jsonl(folders["pairs"] / f"{split}.jsonl", pairs))
    if not records:
        raise BadData(f"{ctx.one('data').path}: no prompt to answer", "look at its train.jsonl and validation.jsonl")
    write_jsonl(folders["samples"] / "samples.jsonl", records)
    _summarize(ctx, records, counts, time.monotonic() - started)


def _sample(
    ctx: Context[SampleConfig],
    split: str,
    model: Any,
    tokenizer: Any,
    rows: list[Row],
    prompts: dict[str, list[int]],
    stop_ids: frozenset[int],
) -> list[Sampled]:
    config, k = ctx.config, ctx.config.samples_per_prompt
    generations = generate(
        model,
        [prompts[row["id"]] for row in rows for _ in range(k)],
        [f"{row['id']}#{sample}" for row in rows for sample in range(k)],
        stop_ids=stop_ids,
        pad_id=tokenizer.pad_token_id,
        max_new_tokens=config.max_new_tokens,
        temperature=config.temperature,
        seed=config.seed,
        batch_size=config.batch_size,
        on_batch=lambda done: ctx.events.progress(f"sample {split}", done, len(rows) * k),
        on_halved=lambda size: ctx.events.note(f"out of memory: {size} rows at a time from here on"),
    )
    texts = [tokenizer.decode(item.ids, skip_special_tokens=True).strip() for item in generations]
    return [
        Sampled(row, texts[index * k : (index + 1) * k], generations[index * k : (index + 1) * k])
        for index, row in enumerate(rows)
    ]


def make_pairs(row: Row, answers: list[str], counts: dict[str, int]) -> list[Row]:
    """Preference rows with the reference as chosen and each distinct answer as rejected.

    Counted in ``counts`` and left out: answers equal to the reference, answers that repeat an earlier one of the same
    prompt, and prompts without a reference.
    """
    reference = reference_of(row)
    if reference is None:
        _add(counts, prompts_without_reference=1)
        return []
    rejected = []
    for answer in answers:
        if answer == reference.strip():
            _add(counts, answers_equal_to_reference=1)
        elif answer in rejected:
            _add(counts, repeated_answers=1)
        else:
            rejected.append(answer)
    return [
        {
            "id": f"{row['id']}#{number}",
            "prompt": prompt_of(row),
            "chosen": [{"role": "assistant", "content": reference}],
            "rejected": [{"role": "assistant", "content": answer}],
            "meta": {"prompt_id": row["id"], "chosen_from": "reference", "rejected_from": "model"},
        }
        for number, answer in enumerate(rejected)
    ]


def _add(counts: dict[str, int], **values: int) -> None:
    for name, value in values.items():
        counts[name] = counts.get(name, 0) + value


def _record(split: str, item: Sampled) -> Row:
    return {
        "id": item.row["id"],
        "split": split,
        "prompt": prompt_of(item.row),
        "reference": reference_of(item.row),
        "answers": [
            {"text": text, "tokens": len(found.ids), "finish_reason": found.finish_reason}
            for text, found in zip(item.texts, item.generations, strict=True)
        ],
    }


def _summarize(ctx: Context[SampleConfig], records: list[Row], counts: dict[str, int], seconds: float) -> None:
    answers = [answer for record in records for answer in record["answers"]]
    tokens = sum(answer["tokens"] for answer in answers)
    stopped = sum(answer["finish_reason"] == "stop" for answer in answers)
    dropped = counts.get("answers_equal_to_reference", 0) + counts.get("repeated_answers", 0)
    ctx.events.note(
        f"{len(answers)} answers, {stopped / len(answers):.0%} ended by themselves; "
        f"{counts['pairs']} pairs, {dropped} identical answers dropped, {counts['too_long_prompts']} prompts too long"
    )
    ctx.events.summarize(
        {
            **{f"sample/{name}": value for name, value in counts.items()},
            "sample/answers": len(answers),
            "sample/eos_rate": stopped / len(answers),
            "sample/tokens_mean": tokens / len(answers),
            "perf/seconds": seconds,
            "perf/tokens_per_s": tokens / seconds,
        }
    )
