from __future__ import annotations

import os
from pathlib import Path

import pytest

from ftcli.core.errors import GateFailed, StageFailed, UsageError
from ftcli.core.stage import Kind
from ftcli.stages.export.gguf import find_converter, read_back, write_gguf
from tests.conftest import artifact
from tests.stages.export.exporting import context, fake_converter


@pytest.mark.parametrize("how", ["--converter", "--converter folder", "LLAMA_CPP", "PATH"])
def test_the_converter_is_found(how: str, tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = fake_converter(tmp_path / "llama.cpp")
    script.chmod(0o755)
    inputs = {"from": artifact(Kind.MODEL, tiny_model)}
    if how.startswith("--converter"):
        inputs["converter"] = artifact(Kind.SOURCE, script.parent if "folder" in how else script)
        monkeypatch.setenv("LLAMA_CPP", "/nowhere")
    elif how == "LLAMA_CPP":
        monkeypatch.setenv("LLAMA_CPP", str(script.parent))
    else:
        monkeypatch.setenv("PATH", f"{script.parent}:{os.environ['PATH']}")
    assert find_converter(context(tmp_path, inputs, to="gguf")[0]) == script


def test_without_a_converter_the_message_says_what_to_install(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    ctx, _ = context(tmp_path, {"from": artifact(Kind.MODEL, tiny_model)}, to="gguf")
    with pytest.raises(UsageError, match=r"convert_hf_to_gguf\.py is named neither") as caught:
        find_converter(ctx)
    assert "llama.cpp" in caught.value.hint
    monkeypatch.setenv("LLAMA_CPP", str(tmp_path / "nowhere"))
    with pytest.raises(UsageError, match=r"LLAMA_CPP .*nowhere: no convert_hf_to_gguf\.py there"):
        find_converter(ctx)


def test_the_converter_is_told_the_model_the_file_and_the_type(tmp_path: Path, tiny_model: Path) -> None:
    script = fake_converter(tmp_path / "x", "found.outfile.write_text(f'{found.outtype} {found.model_name}')")
    write_gguf(script, tiny_model, tmp_path / "model.gguf", "q8_0", "a name")
    assert (tmp_path / "model.gguf").read_text() == "q8_0 a name"


@pytest.mark.parametrize(
    ("body", "message", "hint"),
    [
        ("sys.exit('this architecture is unknown')", "failed: this architecture is unknown", "log"),
        ("pass", "it wrote no file", "log"),
        ("import no_such_module", "No module named 'no_such_module'", "pip install"),
    ],
)
def test_a_converter_that_fails_says_why(body: str, message: str, hint: str, tmp_path: Path, tiny_model: Path) -> None:
    with pytest.raises(StageFailed, match=message) as caught:
        write_gguf(fake_converter(tmp_path / "x", body), tiny_model, tmp_path / "model.gguf", "f16", "x")
    assert hint in caught.value.hint


def test_a_file_that_is_no_gguf_fails_the_gate(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(b"junk" * 99)
    with pytest.raises(GateFailed, match=r"model\.gguf: what the converter wrote is no GGUF file"):
        read_back(tmp_path / "model.gguf", tmp_path / "out")
