"""Turns a stage's model into something to ship, and proves that it is the trained model.

merged adds an adapter to its base and writes a plain Hugging Face folder; adapter writes a PEFT folder that names its base;
gguf merges and has llama.cpp's own converter make one file of it. What is written is loaded again from disk and compared with
the model as it was trained, on held-out rows; nothing is published if they differ. A model card tells how it was made."""

from __future__ import annotations

from ftcli.core.stage import Context, Input, Kind, Stage
from ftcli.stages.export.config import ExportConfig


def run(ctx: Context[ExportConfig]) -> None:
    from ftcli.stages.export.export import export

    export(ctx)


EXPORT = Stage(
    name="export",
    config=ExportConfig,
    inputs={
        "from": Input(Kind.MODEL, "the model to ship; an adapter brings its base"),
        "data": Input(Kind.DATA, "held-out rows to compare on: test, else validation", required=False),
        "report": Input(Kind.REPORT, "an eval report whose figures of this model go into the card", required=False),
        "converter": Input(Kind.SOURCE, "llama.cpp's convert_hf_to_gguf.py, for gguf", required=False),
    },
    outputs={"model": Kind.MODEL},
    run=run,
    module="ftcli.stages.export.export",
    example="ftcli export --run runs/first --from lora --to merged --data prep",
)
