from __future__ import annotations

import os
from pathlib import Path

import pytest

from ftcli.core.errors import UsageError
from ftcli.core.rundir import RunDir
from ftcli.core.stage import Artifact, Kind
from ftcli.launch.inline import run_inline
from ftcli.pipeline.functions import check_function, split_function
from ftcli.pipeline.lineage import lineage, tree, verify
from ftcli.pipeline.plan import forecast, run_recipe
from ftcli.pipeline.recipe import Recipe, read_recipe
from ftcli.pipeline.resolve import from_outside

REWARDS = """\
from functools import partial
from os.path import *
raise RuntimeError("read, never run")

def accuracy(completions, answer): ...

async def slow(completions): ...

class Judge:
    def score(self, completions): ...

judge, length = Judge(), partial(accuracy, answer="x")
if length:
    def fallback(completions): ...
try:
    import numpy.linalg as la
except ImportError:
    def la(completions): ...
"""


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FTCLI_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "rewards.py"
    path.write_text(REWARDS.replace("from os.path import *\n", "\n"))
    return path


@pytest.mark.parametrize("name", ["accuracy", "judge", "length", "fallback", "la", "partial"])
def test_what_a_file_defines_assigns_or_imports_may_be_its_function(file: Path, name: str) -> None:
    check_function(file, name)


@pytest.mark.parametrize(
    ("name", "message", "hint"),
    [
        ("acuracy", "{file}: no function acuracy (it has accuracy, fallback, la)", "did you mean accuracy?"),
        ("zzz", "{file}: no function zzz (it has accuracy, fallback, la)", "correct the name"),
        ("score", "{file}: no function score (it has accuracy, fallback, la)", "correct the name"),
        ("", "{file}: which function? (it has accuracy, fallback, la)", "write rewards.py:NAME"),
        ("slow", "{file}:7: slow is an async def", "make it a plain def"),
        ("Judge", "{file}:9: Judge is a class (it has accuracy, fallback, la)", "name a function"),
    ],
)
def test_a_name_that_is_no_function_is_refused_with_those_that_are(
    file: Path, name: str, message: str, hint: str
) -> None:
    with pytest.raises(UsageError) as caught:
        check_function(file, name)
    assert (caught.value.message, caught.value.hint) == (message.format(file=file), hint)


def test_behind_an_import_of_everything_there_may_be_any_name(tmp_path: Path) -> None:
    (tmp_path / "rewards.py").write_text(REWARDS)
    check_function(tmp_path / "rewards.py", "basename")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"def f(completions):\n  return [\n", "rewards.py:2: no valid Python: '[' was never closed"),
        (b"x = 1\nname = '\xff'\n", "rewards.py:2: no valid Python: (unicode error)"),
        (b"x = 1\0", "no valid Python: source code string cannot contain null bytes"),
        (b"", "rewards.py: no function f (it has none)"),
        (b"f(" * 5000, "rewards.py:1: no valid Python: too many nested parentheses"),
    ],
)
def test_a_file_that_is_no_python_is_named_with_its_line(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "rewards.py"
    path.write_bytes(content)
    with pytest.raises(UsageError) as caught:
        check_function(path, "f")
    assert message in caught.value.message


def test_an_odd_escape_is_not_warned_of(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    (tmp_path / "rewards.py").write_text("def f(completions):\n    return '\\d'\n")
    check_function(tmp_path / "rewards.py", "f")
    assert not recwarn.list


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "rewards.py").mkdir()
    with pytest.raises(UsageError, match=r"rewards.py: cannot be read: Is a directory"):
        check_function(tmp_path / "rewards.py", "f")


def test_only_the_shape_file_py_name_is_a_function() -> None:
    assert split_function("a b/v1.2.py:f_1") == ("a b/v1.2.py", "f_1")
    assert split_function("/x:y/r.py:f") == ("/x:y/r.py", "f")
    assert split_function("r.py") == split_function("r.py:") == ("r.py", "")
    for text in ("r", "r.txt:f", "r.py:f:g", "r.py:a-b", ":f", "f"):
        with pytest.raises(UsageError, match=r"no function of a \.py file"):
            split_function(text)


# ---- as an artifact


def test_a_function_is_digested_by_its_file_and_name(file: Path) -> None:
    first = from_outside(f"{file}:accuracy", Kind.FUNCTION, "acc", fetch=False)
    assert (first.kind, first.ref, first.path, first.label) == (Kind.FUNCTION, f"{file}:accuracy", file, "acc")
    assert Artifact.from_json(first.to_json()) == first
    assert from_outside(f"{file}:accuracy", Kind.FUNCTION, "acc").digest == first.digest
    assert from_outside(f"{file}:fallback", Kind.FUNCTION, "acc").digest != first.digest
    file.write_text(file.read_text().replace("answer)", "solution)"))
    assert from_outside(f"{file}:accuracy", Kind.FUNCTION, "acc").digest != first.digest


def test_a_function_that_is_not_there_is_no_artifact(file: Path) -> None:
    with pytest.raises(UsageError, match="no function acc "):
        from_outside(f"{file}:acc", Kind.FUNCTION, "acc")


# ---- through a recipe

TEXT = "stages:\n  - use: rate\n    inputs: {rate_func: ['rewards.py:accuracy', 'rewards.py:fallback']}\n"


def recipe(folder: Path, text: str, *sets: str) -> Recipe:
    path = folder / "r.yaml"
    path.write_text(text)
    return read_recipe(path, sets)


def run_all(plan: Recipe, run: RunDir) -> list[str]:
    said: list[str] = []
    run_recipe(plan, run, run_inline, lambda event: None, said.append)
    return said


def forecasts(plan: Recipe, run: RunDir) -> list[tuple[bool | None, str]]:
    return [(item.runs, item.reason) for item in forecast(plan, run)]


def rated(run: RunDir) -> str:
    item = run.latest("rate")
    assert item is not None
    return (item.output("data") / "train.jsonl").read_text()


@pytest.mark.usefixtures("toy_stages")
def test_an_edited_function_runs_its_stage_again(tmp_path: Path, file: Path) -> None:
    run = RunDir(tmp_path / "run")
    assert forecasts(recipe(tmp_path, TEXT), run) == [(True, "first time")]
    assert run_all(recipe(tmp_path, TEXT), run) == ["rate: run (first time)"]
    assert rated(run) == "accuracy rewards.py:accuracy\nfallback rewards.py:fallback"
    assert forecasts(recipe(tmp_path, TEXT), run) == [(False, "cached")]
    os.utime(file)
    assert run_all(recipe(tmp_path, TEXT), run) == ["rate: cached"]
    file.write_text(file.read_text() + "\n")
    assert forecasts(recipe(tmp_path, TEXT), run) == [(True, "rate_func changed")]
    assert run_all(recipe(tmp_path, TEXT), run) == ["rate: run (rate_func changed)"]


@pytest.mark.usefixtures("toy_stages")
def test_a_result_outlives_the_file_that_its_function_was_in(tmp_path: Path, file: Path) -> None:
    run = RunDir(tmp_path / "run")
    run_all(recipe(tmp_path, TEXT), run)
    file.unlink()
    assert verify(run) == {}
    records = lineage(run)[0]["inputs"]["rate_func"]
    assert [record["ref"] for record in records] == [f"{file}:accuracy", f"{file}:fallback"]
    assert [line.split("  ")[:3] for line in tree(run)[1:]] == [
        ["", f"rate_func: {file}:{name}", records[0]["digest"][:19]] for name in ("accuracy", "fallback")
    ]
    after = "stages:\n  - use: join\n    inputs: {data: PATH}\n"
    item = run.latest("rate")
    assert item is not None
    text = after.replace("PATH", str(item.output("data")))
    assert run_all(recipe(tmp_path, text), run) == ["join: run (first time)"]
    with pytest.raises(UsageError, match=r"r.yaml:3: rate: input rate_func: rewards.py: no such file or folder"):
        recipe(tmp_path, TEXT)


@pytest.mark.usefixtures("toy_stages")
def test_functions_are_labelled_by_name_or_as_written(tmp_path: Path, file: Path) -> None:
    def labels(inputs: str, *sets: str) -> list[str]:
        plan = recipe(tmp_path, f"stages:\n  - use: rate\n    inputs: {inputs}\n", *sets)
        return [label for label, _ in plan.entries[0].inputs["rate_func"]]

    assert labels("{rate_func: rewards.py:accuracy}") == ["accuracy"]
    assert labels("{rate_func: {right: rewards.py:accuracy, any: rewards.py:fallback}}") == ["right", "any"]
    assert labels("{}", f"rate.rate_func=[{file}:accuracy, {file}:fallback]") == ["accuracy", "fallback"]
    assert labels("{}", f"rate.rate_func={file}:accuracy") == ["accuracy"]
    (tmp_path / "other.py").write_text("def accuracy(completions): ...")
    with pytest.raises(UsageError, match="two are labelled accuracy"):
        labels("{rate_func: [rewards.py:accuracy, other.py:accuracy]}")


@pytest.mark.usefixtures("toy_stages")
def test_a_file_named_like_a_stage_is_the_file(tmp_path: Path) -> None:
    (tmp_path / "make.py").write_text("def data(completions): ...")
    head = "stages:\n  - use: make\n  - use: rate\n    inputs: {rate_func: "
    reference = recipe(tmp_path, head + "make.py:data}\n").entries[1].inputs["rate_func"][0][1]
    assert str(reference) == f"{tmp_path}/make.py:data"
    with pytest.raises(UsageError, match=r"r.yaml:4: rate: input rate_func: make.data: no function of a .py file"):
        recipe(tmp_path, head + "make.data}\n")


@pytest.mark.usefixtures("toy_stages")
def test_all_functions_are_checked_before_the_first_stage(tmp_path: Path, file: Path) -> None:
    text = "stages:\n  - use: make\n" + TEXT.removeprefix("stages:\n").replace("accuracy", "acuracy")
    run = RunDir(tmp_path / "run")
    with pytest.raises(UsageError, match=r"rate: input rate_func: .*rewards.py: no function acuracy") as caught:
        run_all(recipe(tmp_path, text), run)
    assert caught.value.hint == "did you mean accuracy?"
    assert not run.root.exists()


@pytest.mark.usefixtures("toy_stages")
def test_an_input_may_be_left_out_where_another_stands_in_for_it(tmp_path: Path, file: Path) -> None:
    make = "stages:\n  - use: make\n  - use: rate\n    inputs: "
    assert recipe(tmp_path, make + "{data: make.data}\n").entries[1].inputs.keys() == {"data"}
    assert recipe(tmp_path, make + "{rate_func: rewards.py:accuracy}\n").entries[1].inputs.keys() == {"rate_func"}
    both = recipe(tmp_path, make + "{data: make.data, rate_func: rewards.py:accuracy}\n").entries[1]
    assert both.inputs.keys() == {"data", "rate_func"}
    for nothing in ("{}", "{rate_func: []}"):
        with pytest.raises(UsageError) as caught:
            recipe(tmp_path, make + nothing + "\n")
        assert caught.value.message == (
            f"{tmp_path}/r.yaml:3: rate: input data (a data) is missing, and so is rate_func (a function), which would do"
            "\n  hint: Rows that were rated."
        )
