"""The model card: README.md with front matter that the hub understands, made from the manifests alone.

It has no dates, durations or paths of this machine, so the same model gives the same card. A card that cannot be made is a note:
the model is worth more than its card.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

import ftcli
from ftcli.core.stage import Artifact, Context, Kind
from ftcli.models.merge import quantization_of
from ftcli.stages.export.config import ExportConfig
from ftcli.stages.export.lineage import (
    UNKNOWN,
    Record,
    eval_figures,
    first_base,
    hub_id,
    licence,
    model_name,
    outside,
    producer,
    shown_ref,
    training_data,
    tree,
)

LIBRARY = {"merged": "transformers", "adapter": "peft", "gguf": "gguf"}
RELATION = {"merged": "finetune", "adapter": "adapter", "gguf": "quantized"}
FIGURES = ("train/loss", "val/loss", "objective/", "reward/", "eval/")
"""Facts of a stage that are figures of the model."""


def try_to_write_card(ctx: Context[ExportConfig], proof: Mapping[str, Any]) -> None:
    """Write README.md to the output; whatever goes wrong with it is said, and does not stop the export."""
    path = ctx.output("model") / "README.md"
    try:
        card = ModelCard(model_card(ctx, proof), ignore_metadata_errors=False)
        path.write_text(str(card), encoding="utf-8")
    except Exception as error:  # a lost model for a card's sake is the worse fault, whatever the card's was
        path.unlink(missing_ok=True)
        ctx.events.note(f"no model card was written: {type(error).__name__}: {error}")


def model_card(ctx: Context[ExportConfig], proof: Mapping[str, Any]) -> str:
    """The text of the card."""
    source = ctx.one("from")
    base = first_base(source)
    model_licence = _licence_of_base(source, base)
    if model_licence == UNKNOWN:
        ctx.events.note(
            f"the licence of {shown_ref(base['ref'])} is not known: the card says so; look it up before you share"
        )
    report = ctx.maybe("report")
    measured = eval_figures(report, source.digest) if report is not None else None
    if report is not None and measured is None:
        ctx.events.note(f"{report.ref} did not measure this model: the card has none of its figures")
    name = model_name(source)
    data = ModelCardData(
        license=model_licence,
        library_name=LIBRARY[ctx.config.to],
        pipeline_tag="text-generation",
        tags=["ftcli", *_techniques(source)],
        datasets=[hub for record in outside(source, Kind.SOURCE) if (hub := hub_id(record))] or None,
        **_base_fields(ctx.config.to, base),
        **_results(name, measured),
    )
    sections = [
        f"# {name}",
        _summary(ctx, base, source),
        _licences(source, base, model_licence),
        _training(source),
        _figures(source, measured),
        _parity(proof),
        "## Lineage\n\n```\n" + "\n".join(tree(source)) + "\n```",
        f"Made with ftcli {ftcli.__version__}.",
    ]
    return f"---\n{data}\n---\n\n" + "\n\n".join(section for section in sections if section) + "\n"


def _licence_of_base(source: Artifact, base: Record) -> str:
    """Of the first base; what an earlier card says of a model from outside counts, too."""
    direct = source.base or source
    folder = direct.path if direct.ref == base["ref"] else None
    return licence(base, folder)


def _base_fields(to: str, base: Record) -> dict[str, Any]:
    hub = hub_id(base)
    return {"base_model": hub, "base_model_relation": RELATION[to]} if hub else {}


def _techniques(source: Artifact) -> list[str]:
    return list(
        dict.fromkeys(made["stage"] for made in source.made.values() if made["stage"] not in ("prep", "sample"))
    )


def _results(name: str, measured: tuple[dict[str, Any], dict[str, Any]] | None) -> dict[str, Any]:
    if measured is None:
        return {}
    about, figures = measured
    results = [
        EvalResult(
            task_type="text-generation",
            dataset_type="local",
            dataset_name=shown_ref(about["data"]["ref"]),
            dataset_split=about["data"]["split"],
            metric_type=metric,
            metric_value=figure["value"],
        )
        for metric, figure in figures.items()
        if isinstance(figure.get("value"), int | float)
    ]
    return {"model_name": name, "eval_results": results} if results else {}


def _summary(ctx: Context[ExportConfig], base: Record, source: Artifact) -> str:
    what = {
        "merged": "A whole model: the adapter is merged into its base.",
        "adapter": "A PEFT adapter; load it together with its base.",
        "gguf": f"One GGUF file ({ctx.config.gguf_type}) of the whole model.",
    }[ctx.config.to]
    if source.base is None and ctx.config.to == "merged":
        what = "A whole model."
    quantised = quantization_of(source)
    lines = [what, "", f"- base model: {shown_ref(base['ref'])}, `{base['digest']}`"]
    origin = base.get("source", {})
    if origin:
        lines.append(f"- the base came from: {', '.join(f'{key} {value}' for key, value in origin.items())}")
    if quantised:
        how = "the adapter belongs to it" if ctx.config.to == "adapter" else "merged into its dequantised weights"
        lines.append(f"- trained on the base in 4 bits ({quantised}); {how}")
    return "\n".join(lines)


def _licences(source: Artifact, base: Record, model_licence: str) -> str:
    lines = [f"- base model {shown_ref(base['ref'])}: {model_licence}"]
    lines += [f"- data {shown_ref(item['ref'])}: {licence(item)}" for item in outside(source, Kind.SOURCE)]
    return "\n".join(
        [
            "## Licences",
            "",
            *lines,
            "",
            "What is unknown here was not recorded with its source; it may have terms of its own.",
        ]
        if any(line.endswith(UNKNOWN) for line in lines)
        else ["## Licences", "", *lines]
    )


def _training(source: Artifact) -> str:
    lines: list[str] = []
    for name, record, facts in training_data(source):
        rows = ", ".join(
            f"{facts[f'data/{split}_rows']} {split}"
            for split in ("train", "validation", "test")
            if f"data/{split}_rows" in facts
        )
        lines.append(f"- data {name}: {rows + ' rows, ' if rows else ''}`{record['digest']}`")
    for place, made in source.made.items():
        settings = (
            ", ".join(f"{key} {value}" for key, value in made["settings"].items()) or "all settings at their defaults"
        )
        lines.append(f"- {place.split('/')[1]} ({made['stage']}, ftcli {made['ftcli']}): {settings}")
    return "## Training\n\n" + "\n".join(lines) if lines else ""


def _figures(source: Artifact, measured: tuple[dict[str, Any], dict[str, Any]] | None) -> str:
    own = source.made.get(producer(source.ref), {}).get("facts", {})
    rows = [
        f"| {name} | {value:.4g} | {producer(source.ref).split('/')[1]} |"
        for name, value in own.items()
        if name.startswith(FIGURES) and isinstance(value, int | float)
    ]
    if measured is not None:
        about, figures = measured
        where = f"eval, {about['data']['split']} rows of {shown_ref(about['data']['ref'])}"
        rows += [
            f"| {name} | {figure['value']:.4g} | {where} |"
            for name, figure in figures.items()
            if isinstance(figure.get("value"), int | float)
        ]
    return (
        "\n".join(["## Figures", "", "| figure | value | measured by |", "| --- | ---: | --- |", *rows]) if rows else ""
    )


def _parity(proof: Mapping[str, Any]) -> str:
    named = {
        what: proof[key]["parity"]
        for key, what in (
            ("merged", "merged, read from disk"),
            ("gguf", "GGUF, read back"),
            ("base_without_adapter", "base without the adapter, for comparison"),
        )
        if "parity" in proof.get(key, {})
    }
    if not named:
        return ""
    table = [
        f"| {what} | {one['top1_agreement']:.2%} | "
        + " | ".join(f"{one[name]:.2g}" for name in ("logprob_mean_diff", "logprob_max_diff", "kl"))
        + " |"
        for what, one in named.items()
    ]
    positions = next(iter(named.values()))["positions"]
    text = [
        "## Compared with the model as it was trained",
        "",
        f"On {positions} answer tokens; {proof['dtype']}.",
        "",
        "| model | same likeliest token | mean log-prob difference | largest | KL, nats |",
        "| --- | ---: | ---: | ---: | ---: |",
        *table,
    ]
    if "not_compared" in proof.get("gguf", {}):
        text += ["", f"The GGUF file itself was not compared: {proof['gguf']['not_compared']}."]
    return "\n".join(text)
