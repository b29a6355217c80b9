"""Turn a GGUF file into a plain Hugging Face model folder, once.

    python -m ftcli.models.gguf MODEL.gguf FOLDER

Quantised weights are dequantised to float32. They are not the weights that the file was made from, so the folder's
source.json says where it comes from. transformers marks a model read from GGUF as quantised, which would make it
refuse to save it.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections import Counter
from pathlib import Path

import torch
from gguf import GGMLQuantizationType, GGUFReader
from transformers import AutoModelForCausalLM, AutoTokenizer

from ftcli.core.artifacts import file_sha256, fsync_path, fsync_tree, write_json
from ftcli.core.errors import FtcliError, UsageError

MAGIC = b"GGUF"


def convert(gguf: Path, folder: Path) -> None:
    """Write the model, tokenizer, chat template and generation config of ``gguf`` to ``folder``, which appears whole
    or not at all.

    Does nothing when ``folder`` exists. Raises `UsageError` when ``gguf`` is no GGUF file or holds no model that
    transformers can read.
    """
    if folder.exists():
        return
    _check_magic(gguf)
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f"{folder.name}.tmp-{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        _write(gguf, temporary)
        fsync_tree(temporary)
        _publish(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _check_magic(gguf: Path) -> None:
    hint = "give a model in GGUF format, a Hugging Face model folder, or hf:org/name"
    if not gguf.is_file():
        raise UsageError(f"{gguf}: no such file", hint)
    with gguf.open("rb") as file:
        if file.read(len(MAGIC)) != MAGIC:
            raise UsageError(f"{gguf}: no GGUF file (it does not begin with GGUF)", hint)


def _write(gguf: Path, folder: Path) -> None:
    try:
        quantization = tensor_types(gguf)
        model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    except (ValueError, OSError, NotImplementedError, KeyError, IndexError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UsageError(
            f"{gguf}: cannot be read as a model: {reason}", "check that the download is whole, or use another file"
        ) from None
    del model.config.quantization_config
    model.hf_quantizer = None
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    write_json(
        folder / "source.json",
        {"file": gguf.name, "sha256": file_sha256(gguf), "format": "gguf", "quantization": quantization},
    )


def tensor_types(gguf: Path) -> dict[str, int]:
    """How many tensors are stored in each GGML type, e.g. ``{"Q4_1": 210, "F32": 61}``."""
    counts = Counter(GGMLQuantizationType(tensor.tensor_type).name for tensor in GGUFReader(gguf).tensors)
    return dict(sorted(counts.items()))


def _publish(temporary: Path, folder: Path) -> None:
    try:
        temporary.rename(folder)
    except OSError:
        if not folder.is_dir():  # else another process converted the same file meanwhile
            raise
    fsync_path(folder.parent)


def main(arguments: list[str]) -> int:
    if len(arguments) != 2:
        print("usage: python -m ftcli.models.gguf MODEL.gguf FOLDER", file=sys.stderr)
        return 2
    try:
        convert(Path(arguments[0]), Path(arguments[1]))
    except FtcliError as error:
        print(f"error: {error.message}", file=sys.stderr)
        if error.hint:
            print(f"hint: {error.hint}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
