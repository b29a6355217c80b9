"""A scripted teacher on loopback, and runs of synth with it."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ftcli.core.stage import Context, Kind
from ftcli.data.rows import read_jsonl
from ftcli.stages.synth.stage import SYNTH
from tests.conftest import artifact, run_stage, write_data
from tests.models.fake_chat import Answer, FakeChat, completion

Json = dict[str, Any]
WORDS = [f"{first}{last}" for first in "bdfgklmnprst" for last in ("aro", "ene", "ilu", "omi", "usa", "yre")]


def sentence(seed: object, words: int = 12) -> str:
    """Words that only ``seed`` decides; two of them have little in common."""
    return " ".join(random.Random(str(seed)).choices(WORDS, k=words))


def seed_row(index: int) -> Json:
    """A row whose id is one that prep would give."""
    messages = [
        {"role": "user", "content": f"{sentence(('seed', index))}?"},
        {"role": "assistant", "content": f"{sentence(('answer', index))}."},
    ]
    return {"id": f"{index:024x}", "messages": messages, "meta": {}}


def seeds(folder: Path, train: int = 6, validation: int = 0, make: Callable[[int], Json] = seed_row) -> Path:
    return write_data(folder, make, train, validation, 0)


def asked(body: Json) -> str:
    content: str = body["messages"][0]["content"]
    return content


def written(body: Json) -> Answer:
    """A new request and answer, decided by what was asked and the seed of the request."""
    number = (asked(body), body.get("seed"))
    exchange = {"instruction": f"{sentence(('new', number))}?", "response": f"{sentence(('told', number))}."}
    return completion(json.dumps(exchange))


def teach(folder: Path, teacher: FakeChat, data: Path | None, **settings: Any) -> Context[Any]:
    inputs = settings.pop("inputs", {})
    if data is not None:
        inputs = {"seeds": artifact(Kind.DATA, data), **inputs}
    more = {key: settings.pop(key) for key in ("stop", "sink") if key in settings}
    return run_stage(SYNTH, folder, inputs, teacher_url=teacher.url, teacher_model="big", **settings, **more)


def rows_of(context: Context[Any], split: str = "train") -> list[Json]:
    return list(read_jsonl(context.out / "data" / f"{split}.jsonl"))


def rejected_of(folder: Path) -> list[Json]:
    return list(read_jsonl(folder / "out" / "report" / "rejected.jsonl"))
