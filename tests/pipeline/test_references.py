from __future__ import annotations

from pathlib import Path

import pytest

from ftcli.core.errors import UsageError
from ftcli.core.stage import Kind
from ftcli.pipeline.references import (
    ID_PATTERN,
    External,
    default_label,
    external,
    labelled_references,
    repeated_label,
)


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("lora.model", "lora"),
        ("hf:org/name", "name"),
        ("hf:org/name@main", "name"),
        ("demo:smollm2", "smollm2"),
        ("/models/my-model", "my-model"),
        ("./model.gguf", "model.gguf"),
        ("a/b.c", "b.c"),
        ("rewards.py:accuracy", "accuracy"),
        ("../my rewards/v1.2.py:is_short", "is_short"),
    ],
)
def test_a_label_comes_from_the_reference(text: str, label: str) -> None:
    assert default_label(text) == label


def test_lists_and_mappings_are_labelled_where_many_are_taken() -> None:
    assert labelled_references("lora.model", many=False) == [("lora", "lora.model")]
    assert labelled_references(["hf:a/b", "lora.model"], many=True) == [("b", "hf:a/b"), ("lora", "lora.model")]
    assert labelled_references({"before": "hf:a/b", "": "lora.model"}, many=True) == [
        ("before", "hf:a/b"),
        ("lora", "lora.model"),
    ]


@pytest.mark.parametrize("value", [["a"], {"a": "b"}, 3, None, True])
def test_one_reference_is_text(value: object) -> None:
    assert labelled_references(value, many=False) is None


@pytest.mark.parametrize("value", [[1], {"a": 1}, [["a"]], 3, None])
def test_many_references_are_texts(value: object) -> None:
    assert labelled_references(value, many=True) is None


def test_a_label_may_stand_once() -> None:
    assert repeated_label(["a", "b"]) == ""
    assert repeated_label(["a", "b", "b"]) == "two are labelled b"


def test_a_path_is_relative_to_the_folder_and_becomes_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.jsonl").touch()
    monkeypatch.setenv("HOME", str(tmp_path))
    assert external(tmp_path, Kind.SOURCE, "x.jsonl") == External(str(tmp_path / "x.jsonl"))
    assert external(Path("/"), Kind.SOURCE, str(tmp_path / "x.jsonl")) == External(str(tmp_path / "x.jsonl"))
    assert external(Path("/"), Kind.SOURCE, "~/x.jsonl") == External(str(tmp_path / "x.jsonl"))


def test_a_function_is_a_file_and_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "r.py").touch()
    monkeypatch.setenv("HOME", str(tmp_path))
    assert external(tmp_path, Kind.FUNCTION, "r.py:f") == External(f"{tmp_path}/r.py:f")
    assert external(Path("/"), Kind.FUNCTION, "~/r.py:f") == External(f"{tmp_path}/r.py:f")
    assert external(tmp_path, Kind.FUNCTION, "r.py") == External(f"{tmp_path}/r.py:"), "what it lacks is said later"


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ("gone.jsonl", Kind.SOURCE, "gone.jsonl: no such file or folder"),
        ("", Kind.MODEL, "an empty reference, a model is needed"),
        ("x" * 5000, Kind.SOURCE, "cannot be a path"),
        ("~nobody-has-this-name/x", Kind.SOURCE, "cannot be a path"),
        ("pydoc:json", Kind.MODEL, "pydoc:json cannot be a model"),
        ("demo:smollm2", Kind.SOURCE, "demo:smollm2 cannot be a source"),
        ("hf:a/b", Kind.REWARD, "hf:a/b cannot be a reward"),
        ("hf:a/b", Kind.FUNCTION, "hf:a/b cannot be a function"),
        ("", Kind.FUNCTION, "an empty reference, a function is needed"),
        ("gone.py:f", Kind.FUNCTION, "^gone.py: no such file or folder"),
        ("gone.py", Kind.FUNCTION, "^gone.py: no such file or folder"),
        ("rewards:f", Kind.FUNCTION, "rewards:f: no function of a .py file"),
        ("package.module:f", Kind.FUNCTION, "package.module:f: no function of a .py file"),
        ("rewards.py:a.b", Kind.FUNCTION, "rewards.py:a.b: no function of a .py file"),
        ("make.data", Kind.FUNCTION, "make.data: no function of a .py file"),
    ],
)
def test_what_cannot_be_the_input_is_refused(tmp_path: Path, text: str, kind: Kind, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        external(tmp_path, kind, text)


@pytest.mark.parametrize("id", ["a", "lora-2", "x_1", "a" * 64])
def test_ids_are_words(id: str) -> None:
    assert ID_PATTERN.match(id)


@pytest.mark.parametrize("id", ["", "A", "1a", "-a", "a.b", "a/b", "..", "a\n", "a b", "a" * 65, "é"])
def test_an_id_is_safe_as_a_folder_and_in_a_reference(id: str) -> None:
    assert not ID_PATTERN.match(id)
