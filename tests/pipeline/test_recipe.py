from __future__ import annotations

from pathlib import Path

import pytest

from ftcli.core.errors import UsageError
from ftcli.pipeline.recipe import Recipe, read_recipe
from ftcli.pipeline.references import External, StageOutput

pytestmark = pytest.mark.usefixtures("toy_stages")


def recipe(folder: Path, text: str, *sets: str) -> Recipe:
    path = folder / "r.yaml"
    path.write_text(text)
    return read_recipe(path, sets)


def problems(folder: Path, text: str, *sets: str) -> list[str]:
    """The messages, without the path in front: ``3: lora: unknown key x``."""
    with pytest.raises(UsageError) as caught:
        recipe(folder, text, *sets)
    return caught.value.message.replace(f"{folder}/r.yaml:", "").split("\n")


def test_a_recipe_becomes_entries_with_the_origin_of_every_value(tmp_path: Path) -> None:
    found = recipe(
        tmp_path,
        "name: mine\ndefaults: {seed: 7, steps: 9}\nstages:\n  - use: make\n    id: rows\n    with: {steps: 2, loud: true}\n"
        "  - use: join\n    inputs:\n      data: rows.data\n",
        "rows.text=a: b #c",
        "rows.words=[x, y]",
    )
    rows, join = found.entries
    assert (found.name, rows.id, rows.stage.name, join.id) == ("mine", "rows", "make", "join")
    assert rows.config.model_dump(exclude_defaults=True) == {
        "seed": 7,
        "steps": 2,
        "loud": True,
        "text": "a: b #c",
        "words": ("x", "y"),
    }
    path = tmp_path / "r.yaml"
    assert rows.origins == {
        "seed": f"{path}:2 (defaults)",
        "steps": f"{path}:6",
        "loud": f"{path}:6",
        "text": "--set",
        "words": "--set",
    }
    assert join.config.seed == 7
    assert "steps" not in join.origins, "join has no such setting"
    assert join.inputs == {"data": (("rows", StageOutput("rows", "data")),)}


def test_the_name_is_the_files_unless_given(tmp_path: Path) -> None:
    assert recipe(tmp_path, "stages: [{use: make}]").name == "r"


def test_many_inputs_are_labelled(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    head = "stages:\n  - use: make\n  - {use: make, id: two}\n  - use: join\n    inputs:\n      data: make.data\n"
    listed = recipe(tmp_path, head + "      others: [two.data, ./d]\n").entries[2]
    assert listed.inputs["others"] == (("two", StageOutput("two", "data")), ("d", External(str(tmp_path / "d"))))
    named = recipe(tmp_path, head + "      others: {x: two.data, y: make.data}\n").entries[2]
    assert [label for label, _ in named.inputs["others"]] == ["x", "y"]


def test_inputs_can_be_set_and_their_paths_are_relative_to_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here" / "mine #1").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    text = "stages:\n  - use: make\n  - {use: join, inputs: {data: make.data}}\n"
    join = recipe(tmp_path, text, "join.data=mine #1", "join.others={a: make.data, b: make.data}").entries[1]
    assert join.inputs["data"] == (("mine #1", External(str(tmp_path / "here" / "mine #1"))),)
    assert [label for label, _ in join.inputs["others"]] == ["a", "b"]
    assert problems(tmp_path, text, "join.data=gone")[0].startswith("--set join.data: input data: gone: no such file")


def test_everything_wrong_is_reported_at_once_with_its_line(tmp_path: Path) -> None:
    found = problems(
        tmp_path,
        "nam: x\n"  # 1
        "defaults: {sed: 1, steps: none}\n"  # 2
        "stages:\n"  # 3
        "  - use: mak\n"  # 4
        "  - use: make\n"  # 5
        "    wiht: {}\n"  # 6
        "    with:\n"  # 7
        "      stepps: 3\n"  # 8
        "      mode: fanci\n"  # 9
        "  - use: join\n"  # 10
        "    inputs:\n"  # 11
        "      dta: make.data\n"  # 12
        "      others: 3\n"  # 13
        "  - use: join\n"  # 14
        "    id: second\n"  # 15
        "    inputs: {data: make.dat, others: [join.report, gone.jsonl]}\n",  # 16
        "make.words={",
        "mke.text=x",
        "nonsense",
        "make.txt=1",
    )
    text = "\n".join(found)
    expected = [
        "1: unknown key nam\n  hint: did you mean name?",
        "2: defaults: no stage here has sed\n  hint: did you mean seed?",
        "2: make: steps: input should be a valid integer",
        "4: unknown stage mak\n  hint: did you mean make?",
        "6: unknown key wiht\n  hint: did you mean with?",
        "8: make: unknown key stepps\n  hint: did you mean steps?",
        "9: make: mode: input should be 'plain' or 'fancy', got 'fanci'\n  hint: did you mean fancy?",
        "10: join: input data (a data) is missing\n  hint: Rows to read.",
        "12: join: unknown input dta\n  hint: did you mean data?",
        "13: join: input others: a list or a mapping from label to reference is needed, got 3",
        "16: second: input data: stage make has no output dat\n  hint: it has make.data",
        "16: second: input others: join.report is a report, a data is needed",
        f"16: second: input others: gone.jsonl: no such file or folder ({tmp_path}/gone.jsonl)",
        "--set mke.text=x: no stage mke\n  hint: did you mean make?",
        "--set nonsense: id.key=value is needed",
        "--set make.txt: unknown key txt\n  hint: did you mean text?",
    ]
    for line in expected:
        assert line in text
    assert len([line for line in found if not line.startswith("  hint")]) == len(expected)


JOIN = "  - use: join\n    inputs: {data: make.data}\n"


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("stages:\n" + JOIN + "  - use: make\n", "3: join: input data: make.data: make comes later", "above it"),
        (
            "stages:\n  - use: join\n    id: a\n    inputs: {data: b.report}\n"
            "  - use: join\n    id: b\n    inputs: {data: a.report}\n",
            "4: a: input data: b.report is a report, a data is needed",
            "",
        ),
        (
            "stages:\n  - {use: make, id: m}\n  - use: make\n  - use: make\n",
            "4: two stages have the id make (the other in line 3)",
            "give one an id:",
        ),
        ("stages:\n  - use: make\n    id: Make\n", "2: id 'Make': lower-case letters", ""),
        ("stages:\n  - use: make\n    with: [1]\n", "3: make: with is a mapping, got [1]", ""),
        ("stages:\n  - use: make\n    with: 0\n", "3: make: with is a mapping, got 0", ""),
        ("stages:\n  - use: make\ndefaults: []\n", "3: defaults is a mapping, got []", ""),
        ("stages:\n  - make\n", "2: each stage is a mapping with use: NAME", "stages are "),
        ("stages: {}\n", "1: a recipe is a mapping with a list of stages", "recipes/README.md"),
        ("stages: []\n", "1: a recipe is a mapping with a list of stages", ""),
        ("", "1: a recipe is a mapping with a list of stages", ""),
        ("- a\n", "1: a recipe is a mapping with a list of stages", ""),
        ("stages: [\n", "2: no valid YAML", ""),
        ("stages:\n  - use: make\n    use: make\n", "3: duplicate key use (first in line 2)", ""),
        ("name: ../../x\nstages: [{use: make}]\n", "1: name '../../x': one word", ""),
        ("name: [x]\nstages: [{use: make}]\n", "1: name ['x']: one word", ""),
        (
            "stages:\n  - use: make\n  - use: join\n    inputs: {data: [make.data]}\n",
            "4: join: input data: one reference is needed, got ['make.data']",
            "",
        ),
        (
            "stages:\n  - use: make\n  - use: join\n    inputs: {data: make.data, others: [make.data, make.data]}\n",
            "4: join: input others: two are labelled make",
            "a mapping from label to reference",
        ),
        ("stages:\n  - use: make\n  - use: join\n    inputs: {data: }\n", "4: join: input data: one reference", ""),
        ("stages:\n  - use: make\n  - use: join\n    inputs: {data: ''}\n", "4: join: input data: an empty", ""),
        (
            "stages:\n  - use: make\n  - use: join\n    inputs: {data: make.dta}\n",
            "4: join: input data: stage make has no output dta",
            "it has make.data",
        ),
        (
            "stages:\n  - use: make\n  - use: join\n    inputs: {data: mak.data}\n",
            "4: join: input data: mak.data: no such file or folder",
            "did you mean make.data?",
        ),
        ("stages:\n  - use: join\n    inputs: {data: hf:a/b}\n", "3: join: input data: hf:a/b cannot be a data", ""),
    ],
)
def test_a_mistake_is_named_with_its_line_and_what_to_do(tmp_path: Path, text: str, message: str, hint: str) -> None:
    found = problems(tmp_path, text)
    assert found[0].startswith(message)
    assert len([line for line in found if not line.startswith("  hint: ")]) in (1, 2)
    assert hint in "\n".join(found)


def test_stages_that_need_each_other_or_themselves_are_refused(tmp_path: Path) -> None:
    text = (
        "stages:\n"
        "  - {use: sample, id: a, inputs: {model: demo:smollm2, data: b.pairs}}\n"
        "  - {use: sample, id: b, inputs: {model: demo:smollm2, data: a.pairs}}\n"
        "  - {use: sample, id: c, inputs: {model: demo:smollm2, data: c.pairs}}\n"
    )
    assert [line for line in problems(tmp_path, text) if "hint" not in line] == [
        "2: a: input data: b.pairs: a and b need each other",
        "4: c: input data: c.pairs: a stage cannot use its own output",
    ]


def test_a_circle_of_three_is_refused(tmp_path: Path) -> None:
    text = "stages:\n" + "".join(
        f"  - {{use: sample, id: {id}, inputs: {{model: demo:smollm2, data: {needs}.pairs}}}}\n"
        for id, needs in (("a", "c"), ("b", "a"), ("c", "b"))
    )
    assert problems(tmp_path, text)[0] == "2: a: input data: c.pairs: c comes later"


@pytest.mark.parametrize("make", [lambda path: path.mkdir(), lambda path: path.write_bytes(b"\xff\xfe")])
def test_a_recipe_that_cannot_be_read_is_said(tmp_path: Path, make: object) -> None:
    path = tmp_path / "x.yaml"
    make(path)  # type: ignore[operator]
    with pytest.raises(UsageError, match="cannot be read as a recipe"):
        read_recipe(path)


def test_a_recipe_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such recipe"):
        read_recipe(tmp_path / "x.yaml")


def test_a_stage_is_found_by_id_or_the_nearest_is_named(tmp_path: Path) -> None:
    found = recipe(tmp_path, "stages:\n  - use: make\n" + JOIN)
    assert found.index("join") == 1
    with pytest.raises(UsageError, match="no stage jion in recipe r") as caught:
        found.index("jion")
    assert caught.value.hint == "did you mean join?"


def test_a_mistake_inside_a_list_of_mappings_is_named_with_its_own_line(tmp_path: Path) -> None:
    text = (
        "defaults:\n  gate:\n    - {metric: rougeL, max_dorp: 1}\n"
        "stages:\n  - use: judge\n"
        "  - use: judge\n    id: other\n    with:\n      gate:\n        - metric: rougeL\n          max_drop: 0.1\n"
        "        - metric: rougeL\n          max_ration: 2\n        - metric: rogueL\n"
    )
    found = problems(tmp_path, text)
    assert found == [
        "3: judge: gate.0: unknown key max_dorp",
        "  hint: did you mean max_drop?",
        "13: other: gate.1: unknown key max_ration",
        "  hint: did you mean max_ratio?",
        "14: other: gate.2.metric: unknown metric rogueL; did you mean rougeL?",
    ]
    with_set = problems(tmp_path, "stages:\n  - use: judge\n", "judge.gate={metric: rougeL, max_dorp: 1}")
    assert with_set == ["--set judge.gate: gate.0: unknown key max_dorp", "  hint: did you mean max_drop?"]
