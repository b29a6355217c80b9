"""One GGUF file by llama.cpp's own converter, and the model read back from it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from gguf import GGUFReader
from transformers.modeling_gguf_pytorch_utils import GGUF_SUPPORTED_ARCHITECTURES  # noqa: TID253  (a part of the verb)

from ftcli.core.errors import FtcliError, GateFailed, StageFailed, UsageError
from ftcli.core.stage import Context
from ftcli.models.gguf import convert as read_gguf
from ftcli.stages.export.config import ExportConfig

SCRIPT = "convert_hf_to_gguf.py"
INSTALL = (
    "git clone https://github.com/ggml-org/llama.cpp and pip install its requirements/requirements-convert_hf_to_gguf.txt, "
    "then set LLAMA_CPP to that folder"
)


def find_converter(ctx: Context[ExportConfig]) -> Path:
    """llama.cpp's script: the input ``converter``, else in the folder $LLAMA_CPP, else on PATH; each a file or its folder."""
    given = ctx.maybe("converter")
    named = os.environ.get("LLAMA_CPP")
    if given is not None:
        where, place = "--converter", given.path
    elif named:
        where, place = "LLAMA_CPP", Path(named).expanduser()
    elif found := shutil.which(SCRIPT):
        return Path(found)
    else:
        raise UsageError(
            f"to gguf: {SCRIPT} is named neither by --converter nor by LLAMA_CPP, and is not on PATH", INSTALL
        )
    script = place / SCRIPT if place.is_dir() else place
    if script.suffix != ".py" or not script.is_file():
        raise UsageError(f"{where} {place}: no {SCRIPT} there", INSTALL)
    return script


def write_gguf(script: Path, model: Path, file: Path, gguf_type: str, name: str) -> None:
    """Convert the folder ``model``; the converter's own words go to the log."""
    options = ["--outfile", str(file), "--outtype", gguf_type, "--model-name", name]
    done = subprocess.run(
        [sys.executable, str(script), str(model), *options], capture_output=True, text=True, check=False
    )
    print(done.stdout, done.stderr, sep="\n", flush=True)
    if done.returncode != 0 or not file.is_file():
        lines = [line for line in done.stderr.splitlines() if line.strip()] or ["it wrote no file and gave no reason"]
        missing = "No module named" in lines[-1]
        raise StageFailed(f"{script.name} failed: {lines[-1].strip()}", INSTALL if missing else "see the log")


def read_back(file: Path, folder: Path) -> str:
    """Turn ``file`` into a model folder again; return why that cannot be done, or an empty string.

    Raises `GateFailed` when the file is no whole GGUF file, or of an architecture that can be read and yet cannot be.
    """
    try:
        field = GGUFReader(file).get_field("general.architecture")
        architecture = str(field.contents()) if field else ""
    except (ValueError, IndexError, OSError) as error:
        raise GateFailed(f"{file.name}: what the converter wrote is no GGUF file: {error}", "see the log") from None
    if architecture not in GGUF_SUPPORTED_ARCHITECTURES:
        return f"transformers reads no GGUF files of the architecture {architecture}"
    try:
        read_gguf(file, folder)
    except FtcliError as error:
        raise GateFailed(f"{file.name}: cannot be read back: {error.message}", "see the log") from None
    return ""
