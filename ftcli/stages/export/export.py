"""Export, read from top to bottom: the trained model's answers -> what is shipped -> the same answers from it, fresh from
disk -> a gate -> a card."""

from __future__ import annotations

import gc
import json
import shutil
import time
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from ftcli.core.artifacts import file_sha256, write_json
from ftcli.core.errors import UsageError
from ftcli.core.stage import Artifact, Context
from ftcli.models.load import load_model, load_tokenizer_of, pick_device, read_base_record, write_base_record
from ftcli.models.merge import compute_dtype, merge, quantization_of, stored_dtype
from ftcli.models.parity import answer_logprobs, compare
from ftcli.stages.export.card import try_to_write_card
from ftcli.stages.export.config import ExportConfig
from ftcli.stages.export.gguf import find_converter, read_back, write_gguf
from ftcli.stages.export.lineage import model_name
from ftcli.stages.export.proof import Reference, proven, rounded
from ftcli.stages.export.rows import built_in_pairs, held_out_pairs

TOKENIZER_FILES = (
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "*.model",
    "*.jinja",
)


def export(ctx: Context[ExportConfig]) -> None:
    """Write the output ``model``. Raises `GateFailed` if it is not the trained model."""
    started = time.monotonic()
    if ctx.config.to == "adapter":
        proof = write_adapter(ctx)
    else:
        proof = write_whole(ctx)
        write_json(ctx.output("model") / "parity.json", proof)
    try_to_write_card(ctx, proof)
    last = proof.get("gguf", {}).get("parity") or proof.get("merged", {}).get("parity", {})
    ctx.events.summarize(
        {
            "to": ctx.config.to,
            **{f"parity/{name}": value for name, value in last.items()},
            **{f"parity/{name}": proof[name] for name in ("dtype", "rows") if name in proof},
            "perf/seconds": round(time.monotonic() - started, 3),
        }
    )


def write_adapter(ctx: Context[ExportConfig]) -> dict[str, Any]:
    """The adapter as a folder that other tools can load: PEFT's two files, and the tokenizer."""
    source, folder = ctx.one("from"), ctx.output("model")
    if source.base is None:
        raise UsageError(f"{source.ref} is a whole model, not an adapter", "export it with --to merged")
    for path in sorted(source.path.glob("adapter_*")):
        shutil.copyfile(path, folder / path.name)
    copy_tokenizer(source, folder)
    record = read_base_record(source.path)
    write_base_record(folder, source.base, record.get("quantization"), record.get("double_quant"))
    config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    if not source.base.ref.startswith("hf:"):
        config["base_model_name_or_path"] = str(source.base.path)
        ctx.events.note(f"the base has no name on the hub: adapter_config.json names the folder {source.base.path}")
    config["inference_mode"] = True
    write_json(folder / "adapter_config.json", config)
    if quantization_of(source):
        ctx.events.note(
            f"trained on the base in 4 bits ({quantization_of(source)}): load it so, or export --to merged; "
            "on the base in full precision it is a little off"
        )
    return {}


def write_whole(ctx: Context[ExportConfig]) -> dict[str, Any]:
    """Merge, save, convert if asked for; return the proof. Nothing stays in memory from one model to the next."""
    config, source, folder = ctx.config, ctx.one("from"), ctx.output("model")
    converter = find_converter(ctx) if config.to == "gguf" else None
    device = pick_device()
    reference = trained_answers(ctx, device)
    plain = folder if converter is None else ctx.scratch / "model"
    write_merged(ctx, plain, device)
    dtype = stored_dtype(source)
    proof: dict[str, Any] = {
        "rows": reference.rows,
        "dtype": f"{reference.dtype} as trained, {_name(dtype)} as exported",
        "limits": {"min_top1_agreement": config.min_top1_agreement, "max_kl_share": config.max_kl_share},
        "merged": proven(ctx, reference, "merged", plain, dtype, device, _name(dtype)),
    }
    if reference.base is not None:
        proof["base_without_adapter"] = {"parity": rounded(reference.base)}
    if converter is not None:
        name = f"model-{config.gguf_type}.gguf"
        write_gguf(converter, plain, folder / name, config.gguf_type, model_name(source))
        made = {"file": name, "converter_sha256": file_sha256(converter)}
        back = ctx.scratch / "read-back"
        shutil.rmtree(back, ignore_errors=True)
        problem = read_back(folder / name, back)
        if problem:
            ctx.events.note(f"the GGUF file itself was not compared: {problem}")
            proof["gguf"] = {**made, "not_compared": problem}
        else:
            found = proven(ctx, reference, name, back, torch.float32, device, config.gguf_type)
            proof["gguf"] = {**made, "dtype": f"{config.gguf_type}, dequantised to float32", **found}
    return proof


def trained_answers(ctx: Context[ExportConfig], device: torch.device) -> Reference:
    source = ctx.one("from")
    tokenizer = load_tokenizer_of(source)
    dtype = compute_dtype(source, device)
    model = load_model(source, dtype, device)
    _check_vocabulary(source, tokenizer, model)
    pairs, rows = held_out_pairs(ctx, tokenizer, model.generation_config.eos_token_id)
    if not pairs:
        pairs, rows = built_in_pairs(model, tokenizer, ctx.config)
    logprobs = answer_logprobs(model, pairs)
    base = None
    if source.base is not None:
        with model.disable_adapter():
            base = compare(logprobs, answer_logprobs(model, pairs), pairs)
    del model
    gc.collect()
    return Reference(pairs, rows, logprobs, _name(dtype), base)


def _check_vocabulary(source: Artifact, tokenizer: PreTrainedTokenizerBase, model: Any) -> None:
    rows = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > rows:
        raise UsageError(
            f"{source.ref}: its tokenizer has {len(tokenizer)} tokens, the model rows for {rows}",
            "the embeddings of added tokens were not saved with it: save them (modules_to_save) and train again",
        )


def write_merged(ctx: Context[ExportConfig], folder: Path, device: torch.device) -> None:
    """A plain Hugging Face folder."""
    source = ctx.one("from")
    shutil.rmtree(folder, ignore_errors=True)
    merged = merge(source, device)
    for note in merged.notes:
        ctx.events.note(note)
    merged.model.save_pretrained(folder)
    copy_tokenizer(source, folder)
    del merged
    gc.collect()


def copy_tokenizer(source: Artifact, folder: Path) -> None:
    """The tokenizer's files and chat template as they are; an adapter that was saved without has its base's."""
    has_own = source.base is None or (source.path / "tokenizer_config.json").is_file()
    owner = source.path if has_own else source.base.path  # type: ignore[union-attr]
    for pattern in TOKENIZER_FILES:
        for path in sorted(owner.glob(pattern)):
            shutil.copyfile(path, folder / path.name)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
