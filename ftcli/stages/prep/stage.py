"""Reads raw rows, cleans them, drops exact duplicates and splits them without leakage; every row is accounted for.

Writes train.jsonl, validation.jsonl and test.jsonl of canonical rows, rejects.jsonl (each refused row with file,
line and reason) and stats.json. All splits of the source are read and split anew, by prompt: no prompt is in two
splits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ftcli.core.errors import UsageError
from ftcli.core.stage import Artifact, Context, Input, Kind, Stage
from ftcli.stages.prep.config import PrepConfig

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def run(ctx: Context[PrepConfig]) -> None:
    from ftcli.stages.prep.prepare import prepare

    prepare(ctx, open_tokenizer(ctx.maybe("model")))


def open_tokenizer(model: Artifact | None) -> PreTrainedTokenizerBase | None:
    """The tokenizer of the optional model input: an adapter's own, or else its base's.

    The library `ftcli.models` would import torch and bitsandbytes for it, which takes longer than most preparations.
    """
    if model is None:
        return None
    from transformers import AutoTokenizer

    has_own = model.base is None or (model.path / "tokenizer_config.json").is_file()
    folder = model.path if has_own or model.base is None else model.base.path
    try:
        return AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UsageError(
            f"{model.ref}: no tokenizer can be loaded from it: {reason}", "is it a model folder?"
        ) from None


PREP = Stage(
    name="prep",
    config=PrepConfig,
    inputs={
        "source": Input(
            Kind.SOURCE,
            "Raw rows: a .jsonl, .json, .csv, .tsv or .parquet file, a folder of such, hf:org/name, or pydoc:package.",
        ),
        "model": Input(Kind.MODEL, "Its tokenizer counts the tokens of each row.", required=False),
    },
    outputs={"data": Kind.DATA},
    run=run,
    example="ftcli prep --run runs/x --source pydoc:stdlib --limit 2000",
)
