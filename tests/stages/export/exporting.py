"""Run the stage as a worker does, and keep what it says; a stand-in for llama.cpp's converter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ftcli.core.events import Event, Events
from ftcli.core.stage import Artifact, Context
from ftcli.stages.export.config import ExportConfig
from ftcli.stages.export.stage import EXPORT


def context(folder: Path, inputs: dict[str, Artifact], **settings: Any) -> tuple[Context[ExportConfig], list[str]]:
    """A context, and the list that its notes will be in."""
    notes: list[str] = []

    def keep(event: Event) -> None:
        if event["event"] == "note":
            notes.append(event["text"])

    for name in ("out", "scratch"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    events = Events(folder / "scratch", keep)
    many = {name: (item,) for name, item in inputs.items()}
    return Context(ExportConfig(**settings), many, folder / "out", folder / "scratch", events), notes


def export(folder: Path, inputs: dict[str, Artifact], **settings: Any) -> tuple[Path, list[str], dict[str, Any]]:
    """The exported folder, the notes and the facts."""
    ctx, notes = context(folder, inputs, **settings)
    EXPORT.run(ctx)
    return ctx.out / "model", notes, ctx.events.summary


CONVERTER = """
import argparse, sys
from pathlib import Path
parser = argparse.ArgumentParser()
parser.add_argument("model", type=Path)
parser.add_argument("--outfile", type=Path, required=True)
parser.add_argument("--outtype", choices=["f32", "f16", "bf16", "q8_0"], required=True)
parser.add_argument("--model-name", required=True)
found = parser.parse_args()
assert (found.model / "config.json").is_file() and (found.model / "tokenizer.json").is_file()
"""


def fake_converter(folder: Path, body: str = "") -> Path:
    """A script that checks its arguments as llama.cpp's does, and then runs ``body``."""
    folder.mkdir(parents=True, exist_ok=True)
    script = folder / "convert_hf_to_gguf.py"
    script.write_text(CONVERTER + body)
    return script
