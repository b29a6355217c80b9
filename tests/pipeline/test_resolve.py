from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from ftcli.core.artifacts import digest_records, file_records
from ftcli.core.errors import Corrupt, UsageError
from ftcli.core.fingerprint import artifact_digest
from ftcli.core.rundir import Published, RunDir
from ftcli.core.stage import Artifact, Kind
from ftcli.pipeline.fetch import NotFetched
from ftcli.pipeline.resolve import from_outside, from_published


@pytest.fixture(autouse=True)
def empty_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FTCLI_CACHE", str(tmp_path / "cache"))
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


def model(folder: Path, weights: str = "weights") -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_text(weights)
    return folder


def adapter(folder: Path, config: Any = None, record: Any = None) -> Path:
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text(json.dumps(config or {}))
    (folder / "adapter_model.safetensors").write_text("adapter")
    if record is not None:
        (folder / "base_model.json").write_text(json.dumps(record))
    return folder


def digest(folder: Path) -> str:
    return digest_records(file_records(folder))


def publish(run: RunDir, id: str, fp12: str, *, base: Path | None = None) -> Published:
    """A published model, or an adapter whose base was published in the same run."""
    work = run.begin(id, fp12)
    if base is None:
        model(work.out / "model", id)
    else:
        folder = work.out / "model"
        adapter(folder, record={"ref": os.path.relpath(base, folder), "digest": digest(base)})
    manifest = {"stage": "sft", "facts": {"train/loss": 1.5}, "ended": "", "inputs": {}}
    return run.publish(work, id, fp12, {"model": "model"}, manifest)


# ---- models and data from outside


def test_a_model_folder_is_digested(tmp_path: Path) -> None:
    folder = model(tmp_path / "m")
    assert from_outside(str(folder), Kind.MODEL, "x") == Artifact(
        Kind.MODEL, str(folder), folder, digest(folder), "x", None, {}
    )


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (
            lambda folder: (folder / "model.safetensors").unlink(),
            r"no weights \(\*.safetensors\).* \(it holds config.json\)",
        ),
        (lambda folder: (folder / "config.json").unlink(), r"no config.json .*\(it holds model.safetensors\)"),
        (lambda folder: [path.unlink() for path in folder.iterdir()], r"no config.json .*\(it is empty\)"),
    ],
)
def test_a_folder_that_is_no_model_is_refused_with_what_it_holds(tmp_path: Path, harm: Any, message: str) -> None:
    folder = model(tmp_path / "m")
    harm(folder)
    with pytest.raises(UsageError, match=message) as caught:
        from_outside(str(folder), Kind.MODEL, "")
    assert str(folder) in caught.value.message
    assert caught.value.hint


def test_a_file_that_is_no_gguf_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "m.bin").touch()
    with pytest.raises(UsageError, match=r"m.bin: a model is a folder or a \.gguf file"):
        from_outside(str(tmp_path / "m.bin"), Kind.MODEL, "")


def test_a_data_folder_has_a_split(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    with pytest.raises(UsageError, match=r"no train.jsonl, validation.jsonl or test.jsonl") as caught:
        from_outside(str(tmp_path / "d"), Kind.DATA, "")
    assert "ftcli prep" in caught.value.hint
    (tmp_path / "d" / "test.jsonl").touch()
    assert from_outside(str(tmp_path / "d"), Kind.DATA, "").digest == digest(tmp_path / "d")
    with pytest.raises(UsageError, match="a data is a folder"):
        from_outside(str(tmp_path / "d" / "test.jsonl"), Kind.DATA, "")


def test_a_reward_model_needs_weights(tmp_path: Path) -> None:
    (tmp_path / "r").mkdir()
    with pytest.raises(UsageError, match="no weights"):
        from_outside(str(tmp_path / "r"), Kind.REWARD, "")


def test_a_source_is_a_file_a_folder_a_package_or_a_commit_on_the_hub(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text("{}")
    assert from_outside(str(tmp_path / "x.jsonl"), Kind.SOURCE, "").digest == digest(tmp_path / "x.jsonl")
    commit = "a" * 40
    pinned = from_outside(f"hf:org/rows@{commit}", Kind.SOURCE, "")
    assert (pinned.ref, pinned.digest) == (f"hf:org/rows@{commit}", f"hf:org/rows@{commit}")
    docs = from_outside("pydoc:json", Kind.SOURCE, "")
    assert docs.ref == "pydoc:json"
    assert docs.digest == from_outside("pydoc:json", Kind.SOURCE, "").digest
    assert docs.digest != from_outside("pydoc:email", Kind.SOURCE, "").digest
    with pytest.raises(UsageError, match="no_such_package"):
        from_outside("pydoc:no_such_package", Kind.SOURCE, "")


def test_a_pipe_cannot_be_a_source(tmp_path: Path) -> None:
    """Its content would not be in the fingerprint, so the second call would find the first one's result."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError, match="a pipe or device cannot be read again"):
        from_outside(str(tmp_path / "pipe"), Kind.SOURCE, "")


def test_a_data_set_on_the_hub_that_cannot_be_looked_up(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="hf:org/rows: cannot be found") as caught:
        from_outside("hf:org/rows@main", Kind.SOURCE, "")
    assert "network" in caught.value.hint
    with pytest.raises(NotFetched):
        from_outside("hf:org/rows", Kind.SOURCE, "", fetch=False)


# ---- adapters and their bases


def test_an_adapter_brings_its_base(tmp_path: Path) -> None:
    base = model(tmp_path / "base")
    folder = adapter(tmp_path / "a", record={"ref": str(base), "digest": digest(base)})
    found = from_outside(str(folder), Kind.MODEL, "x")
    assert found.base == Artifact(Kind.MODEL, str(base), base, digest(base), "", None, {})


def test_an_adapter_whose_base_changed_is_corrupt(tmp_path: Path) -> None:
    base = model(tmp_path / "base")
    folder = adapter(tmp_path / "a", record={"ref": str(base), "digest": digest(base)})
    was = digest(base)
    (base / "model.safetensors").write_text("other weights")
    with pytest.raises(Corrupt) as caught:
        from_outside(str(folder), Kind.MODEL, "")
    assert f"{folder}: this adapter was trained on {base} with digest {was[:19]}" in caught.value.message
    assert f"which is now {digest(base)[:19]}" in caught.value.message


def test_an_adapter_whose_base_is_gone_names_it(tmp_path: Path) -> None:
    folder = adapter(tmp_path / "a", record={"ref": "../base", "digest": "sha256:x"})
    with pytest.raises(Corrupt, match=f"{folder}: the base of this adapter: {tmp_path}/base: a model is a folder"):
        from_outside(str(folder), Kind.MODEL, "")


@pytest.mark.parametrize("file", ["adapter_config.json", "base_model.json"])
@pytest.mark.parametrize("content", ["", "{", "[]", "\x00"])
def test_an_adapter_with_a_broken_file_is_corrupt(tmp_path: Path, file: str, content: str) -> None:
    folder = adapter(tmp_path / "a")
    (folder / file).write_text(content)
    with pytest.raises(Corrupt, match=file):
        from_outside(str(folder), Kind.MODEL, "")


def test_an_adapter_of_another_tool_names_its_base_by_path_or_hub_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    base = model(tmp_path / "base")
    for number, name in enumerate([str(base), "base", "../base"]):
        folder = adapter(tmp_path / f"a{number}", {"base_model_name_or_path": name})
        found = from_outside(str(folder), Kind.MODEL, "")
        assert found.base is not None
        assert found.base.digest == digest(base)
    hub = adapter(tmp_path / "hub-adapter", {"base_model_name_or_path": "org/base", "revision": "b" * 40})
    with pytest.raises(NotFetched, match="hf:org/base"):
        from_outside(str(hub), Kind.MODEL, "", fetch=False)
    nameless = adapter(tmp_path / "nameless")
    with pytest.raises(UsageError, match="no base_model_name_or_path"):
        from_outside(str(nameless), Kind.MODEL, "")


# ---- published outputs


def test_a_published_output_has_the_recorded_digest_and_facts(tmp_path: Path) -> None:
    item = publish(RunDir(tmp_path / "run"), "sft", "0" * 12)
    found = from_published(item, "model", Kind.MODEL, "sft")
    assert found.ref == f"stages/sft/{'0' * 12}/model"
    assert found.digest == digest(item.output("model"))
    assert found.facts == {"train/loss": 1.5, "bytes": len("{}sft")}


def test_a_published_output_with_missing_files_is_corrupt(tmp_path: Path) -> None:
    item = publish(RunDir(tmp_path / "run"), "sft", "0" * 12)
    (item.output("model") / "config.json").unlink()
    with pytest.raises(Corrupt, match=r"model/config.json: missing") as caught:
        from_published(item, "model", Kind.MODEL, "sft")
    assert "run stage sft once more" in caught.value.hint


@pytest.mark.parametrize("where", ["moved", "linked", "copied"])
def test_an_adapter_in_a_run_directory_finds_its_base_wherever_the_run_is(tmp_path: Path, where: str) -> None:
    """And its own path and the base's path begin alike, so that a next adapter can be relative again."""
    first = RunDir(tmp_path / "first")
    base = publish(first, "sft", "0" * 12)
    publish(first, "lora", "1" * 12, base=base.output("model"))
    root = tmp_path / "deeper" / "second"
    root.parent.mkdir()
    if where == "moved":
        (tmp_path / "first").rename(root)
    elif where == "copied":
        shutil.copytree(tmp_path / "first", root, symlinks=True)
        shutil.rmtree(tmp_path / "first" / "stages" / "sft")
    else:
        root.symlink_to(tmp_path / "first")
    item = RunDir(root).latest("lora")
    assert item is not None
    found = from_published(item, "model", Kind.MODEL, "")
    assert found.base is not None
    assert found.base.ref == f"stages/sft/{'0' * 12}/model"
    assert found.base.path == root / "stages" / "sft" / ("0" * 12) / "model"


def test_an_adapter_of_another_run_directory_keeps_the_absolute_path_of_its_base(tmp_path: Path) -> None:
    """``stages/...`` would be looked for in the run that uses it."""
    run = RunDir(tmp_path / "run")
    base = publish(run, "sft", "0" * 12)
    item = publish(run, "lora", "1" * 12, base=base.output("model"))
    found = from_outside(str(item.output("model")), Kind.MODEL, "")
    assert found.base is not None
    assert found.base.ref == str(base.output("model"))
    through_link = from_outside(str(tmp_path / "run/stages/lora/latest/model"), Kind.MODEL, "")
    assert through_link.base is not None
    assert through_link.base.digest == digest(base.output("model"))


def test_a_pattern_is_digested_by_the_names_and_contents_of_its_files(tmp_path: Path) -> None:
    for folder, text in (("a", "1"), ("b", "2")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.jsonl").write_text(text)
    pattern = str(tmp_path / "*" / "x.jsonl")
    first = from_outside(pattern, Kind.SOURCE, "s")
    assert from_outside(pattern, Kind.SOURCE, "s").digest == first.digest
    (tmp_path / "b").rename(tmp_path / "c")
    renamed = from_outside(pattern, Kind.SOURCE, "s").digest
    (tmp_path / "c/x.jsonl").write_text("3")
    assert len({first.digest, renamed, from_outside(pattern, Kind.SOURCE, "s").digest}) == 3


def test_a_pattern_without_files_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no file"):
        from_outside(str(tmp_path / "*.jsonl"), Kind.SOURCE, "s")


# ---- how something was made


def published_from(
    run: RunDir, id: str, fp12: str, *inputs: dict[str, Any], facts: dict[str, Any] | None = None
) -> Published:
    work = run.begin(id, fp12)
    model(work.out / "model", id)
    manifest = {
        "stage": "sft",
        "facts": facts or {},
        "ended": "",
        "parts": {"config": {"seed": 7}},
        "inputs": {"model": list(inputs)},
        "software": {"ftcli": "1.2", "torch": "2"},
    }
    return run.publish(work, id, fp12, {"model": "model"}, manifest)


def record(id: str, fp12: str) -> dict[str, Any]:
    return {"label": "", "ref": f"stages/{id}/{fp12}/model", "kind": "model", "digest": "sha256:x"}


def test_an_artifact_tells_how_it_and_its_inputs_were_made_and_its_digest_does_not(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    outside = {"label": "", "ref": "demo:smollm2", "kind": "model", "digest": "sha256:y", "source": {"from": "hub"}}
    facts = {"val/loss": 1.5, "curves": {"val/loss": [[1, 2]]}, "perf/seconds": 9.0, "format": "chat"}
    published_from(run, "first", "0" * 12, outside, facts=facts)
    published_from(run, "base", "1" * 12)
    adapter_record = {**record("first", "0" * 12), "base": record("base", "1" * 12)}
    last = published_from(run, "last", "2" * 12, adapter_record, adapter_record, record("gone", "3" * 12))
    found = from_published(last, "model", Kind.MODEL, "")
    assert list(found.made) == ["stages/last/222222222222", "stages/first/000000000000", "stages/base/111111111111"]
    first = found.made["stages/first/000000000000"]
    assert first["facts"] == {"val/loss": 1.5, "format": "chat"}, "no clocks, no curves"
    assert first["inputs"] == {"model": [outside]}
    assert (first["stage"], first["settings"], first["ftcli"]) == ("sft", {"seed": 7}, "1.2")
    assert first["path"] == str(run.root / "stages/first" / ("0" * 12))
    assert first["outputs"]["model"]["digest"] == digest(run.root / "stages/first" / ("0" * 12) / "model")
    assert Artifact.from_json(json.loads(json.dumps(found.to_json()))) == found, "it survives the job file"
    assert artifact_digest(found) == artifact_digest(Artifact(found.kind, found.ref, found.path, found.digest))


def test_an_output_of_another_run_directory_tells_how_it_was_made(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    published_from(run, "first", "0" * 12)
    last = published_from(run, "last", "2" * 12, record("first", "0" * 12))
    (last.path.parent / "latest").unlink(missing_ok=True)
    (last.path.parent / "latest").symlink_to(last.path.name)
    for path in (last.path, last.path.parent / "latest"):
        assert (
            from_outside(str(path / "model"), Kind.MODEL, "").made == from_published(last, "model", Kind.MODEL, "").made
        )
    assert from_outside(str(model(tmp_path / "plain")), Kind.MODEL, "").made == {}
    lonely = model(tmp_path / "stages" / "lonely" / ("4" * 12) / "model")
    assert from_outside(str(lonely), Kind.MODEL, "").made == {}, "no stage.json"


def test_a_producer_with_a_torn_manifest_is_left_out(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    first = published_from(run, "first", "0" * 12)
    last = published_from(run, "last", "2" * 12, record("first", "0" * 12))
    (first.path / "stage.json").write_text("{")
    assert list(from_published(last, "model", Kind.MODEL, "").made) == ["stages/last/222222222222"]
