"""Models, rows and runs of the eval stage that several test files share."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ftcli.core.stage import Artifact, Context, Kind
from ftcli.data.rows import Row, read_jsonl
from ftcli.models.load import load_base, write_base_record
from ftcli.stages.eval.stage import EVAL
from ftcli.training.adapters import add_lora
from tests.conftest import artifact, run_stage
from tests.data.planted import Prose

CPU = torch.device("cpu")
SETTINGS: dict[str, Any] = {
    "max_new_tokens": 6,
    "resamples": 200,
    "precision": "fp32",
    "shown_samples": 2,
    "suite": "none",
}


def write_adapter(folder: Path, base: Artifact, quantization: str | None = None, seed: int = 1) -> Path:
    """A LoRA adapter whose weights are random and large enough to matter."""
    model = add_lora(
        load_base(base.path, torch.float32, CPU, quantization), r=4, alpha=8, dropout=0.0, target_modules=["all-linear"]
    )
    torch.manual_seed(seed)
    for name, weight in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(weight, std=0.2)
    model.save_pretrained(folder)
    write_base_record(folder, base, quantization, True if quantization else None)
    return folder


def write_damaged(folder: Path, base: Artifact) -> Path:
    """The model with noise on its weights that is far larger than they are."""
    from transformers import AutoModelForCausalLM

    shutil.copytree(base.path, folder)
    model = AutoModelForCausalLM.from_pretrained(base.path)
    torch.manual_seed(5)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight), alpha=0.5)
    model.save_pretrained(folder)
    return folder


def unlike_rows(count: int, seed: int = 1) -> list[Row]:
    """Chat rows of which no two have anything in common."""
    prose = Prose(seed)
    return [
        {
            "id": f"prose-{index}",
            "messages": [
                {"role": "user", "content": prose.text(12)},
                {"role": "assistant", "content": prose.text(8)},
            ],
            "meta": {},
        }
        for index in range(count)
    ]


def evaluate(folder: Path, inputs: dict[str, Any], sink: Any = lambda event: None, **settings: Any) -> Context[Any]:
    """Run the stage in ``folder`` with `SETTINGS` and ``settings``."""
    return run_stage(EVAL, folder, inputs, sink=sink, **{**SETTINGS, **settings})


def report_of(folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """metrics.json and samples.jsonl."""
    report = folder / "out" / "report"
    return json.loads((report / "metrics.json").read_text()), list(read_jsonl(report / "samples.jsonl"))


def notes_of(folder: Path, inputs: dict[str, Any], **settings: Any) -> list[str]:
    """What a run says to people."""
    seen: list[str] = []
    evaluate(folder, inputs, lambda event: seen.append(event.get("text", "")), **settings)
    return [text for text in seen if text]


def made_from(own: Artifact, by: str, **inputs: Artifact) -> Artifact:
    """``own`` as the output of the stage ``by``, which had ``inputs``, in a run directory."""
    records = {
        name: [{"label": "", "ref": str(item.path), "kind": str(item.kind), "digest": item.digest}]
        for name, item in inputs.items()
    }
    place = f"stages/{by}/0123456789ab"
    made = {"stage": by, "settings": {}, "inputs": records, "outputs": {}, "facts": {}, "path": str(own.path)}
    return replace(own, ref=f"{place}/model", made={place: made})


def comparison(result: dict[str, Any], model: str, against: str, metric: str) -> dict[str, Any]:
    wanted = (model, against, metric)
    return next(one for one in result["comparisons"] if (one["model"], one["against"], one["metric"]) == wanted)


def source(path: Path) -> Artifact:
    return artifact(Kind.SOURCE, path)
