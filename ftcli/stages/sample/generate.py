"""From prompts to answers to preference pairs, top to bottom."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from ftcli.core.errors import BadData, UsageError
from ftcli.core.stage import Artifact, Context
from ftcli.data.chat import render_prompt, stop_token_ids
from ftcli.data.rows import Row, RowType, prompt_of, read_split, reference_of, write_jsonl
from ftcli.models.generate import Generation, generate
from ftcli.models.load import load_model, load_tokenizer, pick_device, pick_dtype
from ftcli.stages.sample.config import SampleConfig

SPLITS = ("train", "validation", "test")
Answers = dict[str, list[list[Generation]]]
"""By split, and in the order of its rows: the k answers to each prompt."""


@dataclass(frozen=True)
class Speaker:
    """A model that answers, with its own tokenizer and chat template. ``key`` sets its random streams apart."""

    source: Artifact
    tokenizer: Any
    key: str = ""


def run(ctx: Context[SampleConfig]) -> None:
    started = time.monotonic()
    speakers = _speakers(ctx)
    counts: dict[str, int] = {}
    rows = {split: _read(ctx, split, speakers, counts) for split in SPLITS}
    if not any(rows.values()):
        raise BadData(f"{ctx.one('data').path}: no prompt to answer", "look at its train.jsonl and validation.jsonl")
    said = [(speaker, _answer(ctx, speaker, rows)) for speaker in speakers]
    own, answers = said[0]
    folders = {name: ctx.output(name) for name in ("samples", "pairs")}
    for split in SPLITS:
        found = zip(rows[split], answers[split], strict=True) if split != "test" else ()
        pairs = [pair for row, generations in found for pair in make_pairs(row, _texts(own, generations), counts)]
        _add(counts, pairs=write_jsonl(folders["pairs"] / f"{split}.jsonl", pairs))
    records = [
        _record(split, row, [(speaker, answers[split][place]) for speaker, answers in said])
        for split in SPLITS
        for place, row in enumerate(rows[split])
    ]
    write_jsonl(folders["samples"] / "samples.jsonl", records)
    _summarize(ctx, records, counts, time.monotonic() - started)


def _speakers(ctx: Context[SampleConfig]) -> list[Speaker]:
    """The model and the others. Raises `UsageError` for two of one name, which samples.jsonl could not tell apart."""
    first, others = ctx.one("model"), ctx.many("others")
    if first.label in [other.label for other in others]:
        raise UsageError(
            f"input others: {first.label} is what the model is called too", "name it: others LABEL=REF, or a mapping"
        )
    keys = ["", *(f"{other.label}/" for other in others)]
    return [
        Speaker(source, load_tokenizer(source.path), key) for source, key in zip((first, *others), keys, strict=True)
    ]


def _read(ctx: Context[SampleConfig], split: str, speakers: list[Speaker], counts: dict[str, int]) -> list[Row]:
    """The rows of one split whose prompt is short enough for every model."""
    config = ctx.config
    limit = {"train": config.train_prompts, "validation": config.validation_prompts, "test": config.test_prompts}[split]
    kinds = RowType.MESSAGES, RowType.PROMPT, RowType.PREFERENCE
    rows = read_split(ctx.one("data").path, split, *kinds, limit=limit) if limit != 0 else []
    kept = [row for row in rows if all(len(_render(one, row)) <= config.max_prompt_length for one in speakers)]
    _add(counts, too_long_prompts=len(rows) - len(kept), prompts=len(kept))
    return kept


def _render(speaker: Speaker, row: Row) -> list[int]:
    return render_prompt(speaker.tokenizer, prompt_of(row), tools=row.get("tools"))


def _answer(ctx: Context[SampleConfig], speaker: Speaker, rows: dict[str, list[Row]]) -> Answers:
    """Load the model of ``speaker`` and let it answer all ``rows``."""
    device = pick_device()
    model = load_model(speaker.source, pick_dtype(ctx.config.precision, device), device)
    return {split: _generate(ctx, speaker, model, split, rows[split]) for split in SPLITS}


def _generate(
    ctx: Context[SampleConfig], speaker: Speaker, model: Any, split: str, rows: list[Row]
) -> list[list[Generation]]:
    config, k = ctx.config, ctx.config.samples_per_prompt
    task = " ".join(["sample", split, *([speaker.source.label] if speaker.key else [])])
    found = generate(
        model,
        [prompt for row in rows for prompt in [_render(speaker, row)] * k],
        [f"{speaker.key}{row['id']}#{sample}" for row in rows for sample in range(k)],
        stop_ids=stop_token_ids(speaker.tokenizer, model.generation_config.eos_token_id),
        pad_id=speaker.tokenizer.pad_token_id,
        max_new_tokens=config.max_new_tokens,
        temperature=config.temperature,
        seed=config.seed,
        batch_size=config.batch_size,
        on_batch=lambda done: ctx.events.progress(task, done, len(rows) * k),
        on_halved=lambda size: ctx.events.note(f"out of memory: {size} rows at a time from here on"),
    )
    return [found[place * k : (place + 1) * k] for place in range(len(rows))]


def _texts(speaker: Speaker, generations: list[Generation]) -> list[str]:
    return [speaker.tokenizer.decode(item.ids, skip_special_tokens=True).strip() for item in generations]


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


def _record(split: str, row: Row, said: list[tuple[Speaker, list[Generation]]]) -> Row:
    """A line of samples.jsonl. Answers name their model only where there are several."""
    return {
        "id": row["id"],
        "split": split,
        "prompt": prompt_of(row),
        "reference": reference_of(row),
        "answers": [
            {"text": text, "tokens": len(found.ids), "finish_reason": found.finish_reason}
            | ({"model": speaker.source.label} if len(said) > 1 else {})
            for speaker, generations in said
            for text, found in zip(_texts(speaker, generations), generations, strict=True)
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
