"""Reads raw rows, cleans and checks them, finds duplicates, leaks and conflicts, and splits; every row is accounted for.

The output data holds train, validation and test rows; the output report what was found: rejects.jsonl (each refused row
with file, line and reason), duplicates.jsonl, conflicts.jsonl, flags.jsonl, stats.json, report.html and report.md. All splits
of the source are read and split anew: prompts that are equal or nearly so are never in two splits.

--inspect shows the format found, three rows and the problems of the first rows, and writes nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ftcli.core.errors import UsageError
from ftcli.core.stage import Context, Input, Kind, Stage
from ftcli.stages.prep.config import PrepConfig

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from ftcli.stages.prep.plan import Plan


def run(ctx: Context[PrepConfig]) -> None:
    from ftcli.stages.prep.prepare import prepare

    prepare(ctx)


def inspect(ctx: Context[PrepConfig]) -> str:
    from ftcli.stages.prep.look import look

    return look(ctx)


def run_elsewhere(plan: Plan, config: PrepConfig) -> None:
    """The first pass in tasks of datatrove, which is an extra."""
    try:
        from ftcli.stages.prep.scale import run_tasks
    except ImportError as error:
        raise UsageError(
            f"executor {config.executor} needs {error.name}, which is not installed", "pip install 'ftcli[scale]'"
        ) from None
    run_tasks(plan, config)


def load_tokenizer(folder: str) -> PreTrainedTokenizerBase:
    """The tokenizer in a model folder.

    The library `ftcli.models` would import torch and bitsandbytes for it, which takes longer than most preparations.
    """
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UsageError(f"{folder}: no tokenizer can be loaded from it: {reason}", "is it a model folder?") from None


PREP = Stage(
    name="prep",
    config=PrepConfig,
    inputs={
        "source": Input(
            Kind.SOURCE,
            "Raw rows: a file (.jsonl .json .csv .tsv .parquet .txt .md, also .gz and .zst), a folder or pattern of such, "
            "hf:org/name, or pydoc:package.",
            many=True,
        ),
        "model": Input(Kind.MODEL, "Its tokenizer counts the tokens of each row.", required=False),
        "against": Input(
            Kind.SOURCE, "Evaluation sets that the train rows must not contain.", required=False, many=True
        ),
        "reference": Input(
            Kind.SOURCE, "A sample of what the model will meet; the report compares its prompts.", required=False
        ),
    },
    outputs={"data": Kind.DATA, "report": Kind.REPORT},
    run=run,
    version=2,
    example="ftcli prep --run runs/x --source pydoc:stdlib --limit 2000",
    inspect=inspect,
)
