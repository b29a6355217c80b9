from __future__ import annotations

import json
import typing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic.fields import FieldInfo

from ftcli.core.rundir import RunDir
from ftcli.core.stage import Context, Input, Stage
from ftcli.launch.spec import load_stage
from ftcli.pipeline.recipe import read_recipe
from ftcli.stages import STAGES
from tests.cli.in_process import Called, ftcli
from tests.pipeline.toy import TOY_STAGES

COMMON = ("--run", "--id", "--force", "--wait", "--json", "--in-process", "--help")


@pytest.fixture
def run(tmp_path: Path, toy_stages: None) -> Path:
    return tmp_path / "run"


def make(run: Path, *arguments: str | Path) -> Called:
    return ftcli("make", "--run", run, "--in-process", *arguments)


def config_of(called: Called) -> dict[str, Any]:
    assert called.code == 0, called.err
    manifest = json.loads((Path(called.out.strip()).parent / "stage.json").read_text())
    config: dict[str, Any] = manifest["config"]
    return config


# ---- every field of every stage


def sample(annotation: Any, default: Any) -> tuple[list[str], Any]:
    """A value for a field that is not its default: as typed, and as YAML."""
    members = [item for item in typing.get_args(annotation) or [annotation] if item is not type(None)]
    if typing.get_origin(annotation) is typing.Literal:
        other = next(str(item) for item in flatten(annotation) if item != default)
        return [other], other
    if annotation in (bool, bool | None):
        return [], not default
    if typing.get_origin(members[0]) is typing.Literal:
        return sample(members[0], default)
    if typing.get_origin(annotation) in (tuple, list):
        value = list(default)[1:] or ["q_proj", "v_proj"]
        return [",".join(value)], value
    if annotation is dict or typing.get_origin(annotation) is dict:
        return ["{prompt: x}"], {"prompt": "x"}
    if members[0] is float:
        value = (default or 0.5) * 0.9
        return [repr(value)], value
    if members[0] is int:
        value = default * 2 if default else 1
        return [str(value)], value
    if members[0] is str:
        return ["a: b #c"], "a: b #c"
    raise NotImplementedError(annotation)


def flatten(annotation: Any) -> list[Any]:
    return [
        value
        for item in typing.get_args(annotation)
        for value in (flatten(item) if typing.get_origin(item) is typing.Literal else [item])
    ]


SPECIAL: dict[str, tuple[list[str], Any]] = {
    "total_episodes": (["256"], 256),
    "weights": (["{a: 2.0}"], {"a": 2.0}),
    "rules": (["[]"], []),
    "keep_languages": (["en,de"], ["en", "de"]),
    "max_auc": (["0.7"], 0.7),
    "dataset_weights": (["{a: 2.0}"], {"a": 2.0}),
    "reward_weights": (["{reward: 0.5}"], {"reward": 0.5}),
    "dual_clip": (["3.0"], 3.0),
    "stop_on": (["kl,entropy"], ["kl", "entropy"]),
    "gate": (["{metric: rougeL, max_drop: 0.01}"], [{"metric": "rougeL", "max_drop": 0.01}]),
    "fail_if": (["rougeL.delta < -0.01"], ["rougeL.delta < -0.01"]),
    "stride": (["256"], 256),
    "splits": (["test"], ["test"]),
    "attributes": (["{topic: [files, lists]}"], {"topic": ["files", "lists"]}),
}
"""Fields whose value must be one of few, or fit another field's default."""
BEST = {"early_stopping_patience", "load_best_model_at_end", "lr_scheduler_kwargs"}
ALONE = {
    "prep": {"too_long"},
    "sft": BEST,
    "lora": BEST,
    "qlora": {*BEST, "init_lora_weights"},
    "export": {"gguf_type"},
    "review": {"mode", "sample_size"},
    "rank": {"margin"},
    "synth": {"depth", "teacher_url", "teacher_model"},
    "ppo": {"rollout_is_cap"},
    "eval": {"judge_url", "judge_model", "lm_eval_chat", "lm_eval_shots", "lm_eval_limit"},
}
"""Fields that another field must go with."""

FIELDS = [
    pytest.param(name, field, id=f"{name}-{field}")
    for name in STAGES
    for field in load_stage(STAGES[name][0]).config.model_fields
    if field not in ALONE.get(name, ())
]


@pytest.fixture
def captured(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The settings that reach `run_stage`'s config, in place of running a stage."""
    from ftcli.cli import flags

    found: dict[str, Any] = {}

    def keep(target: str, stage: Stage[Any], values: dict[str, Any]) -> None:
        found["config"] = flags._config(stage, values)

    monkeypatch.setattr(flags, "run_stage", keep)
    return found


@pytest.mark.parametrize(("name", "field"), FIELDS)
def test_a_flag_and_a_yaml_value_mean_the_same(
    name: str, field: str, captured: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = load_stage(STAGES[name][0])
    info: FieldInfo = stage.config.model_fields[field]
    typed, value = SPECIAL.get(field) or sample(info.annotation, info.get_default(call_default_factory=True))
    option = f"--{field.replace('_', '-')}"
    arguments = [option, *typed] if typed else [option if value else f"--no-{option[2:]}"]
    called = ftcli(name, *arguments)
    assert called.code == 0, called.err
    by_flag = captured["config"]
    assert getattr(by_flag, field) != info.get_default(call_default_factory=True)
    bare = Stage(stage.name, stage.config, {}, stage.outputs, stage.run)
    monkeypatch.setitem(STAGES, name, ("tests.cli.test_flags:BARE", "x"))
    monkeypatch.setitem(globals(), "BARE", bare)
    path = tmp_path / "r.yaml"
    path.write_text(f"stages:\n  - use: {name}\n    with: {json.dumps({field: value})}\n")
    assert read_recipe(path).entries[0].config == by_flag
    if typed:
        path.write_text(f"stages:\n  - use: {name}\n")
        assert read_recipe(path, [f"{name}.{field}={typed[0]}"]).entries[0].config == by_flag
    round_trip = stage.config.model_validate(json.loads(json.dumps(by_flag.model_dump(mode="json"))))
    assert round_trip == by_flag, "the worker gets the config as JSON"


@pytest.mark.parametrize("name", STAGES)
def test_every_field_and_input_is_an_option_with_help(name: str) -> None:
    stage = load_stage(STAGES[name][0])
    shown = ftcli(name, "--help").out
    for field, info in stage.config.model_fields.items():
        assert f"--{field.replace('_', '-')}" in shown
        assert info.description, f"{name}.{field} has no docstring"
    for field, spec in stage.inputs.items():
        assert f"--{field.replace('_', '-')} " in shown
        assert spec.help
    options = {f"--{field.replace('_', '-')}" for field in [*stage.config.model_fields, *stage.inputs]}
    assert options & set(COMMON) == set()


# ---- values


@pytest.mark.parametrize(
    ("arguments", "field", "value"),
    [
        (["--loud"], "loud", True),
        (["--no-loud"], "loud", False),
        (["--words", "a,b"], "words", ["a", "b"]),
        (["--words", "a", "--words", "b"], "words", ["a", "b"]),
        (["--words", "[a, b]"], "words", ["a", "b"]),
        (["--words", "1"], "words", ["1"]),
        (["--scale", "2e-1"], "scale", 0.2),
        (["--scale", "null"], "scale", None),
        (["--text", "null"], "text", "null"),
        (["--text", "010"], "text", "010"),
        (["--text", "a: b #c"], "text", "a: b #c"),
        (["--text="], "text", ""),
        (["--steps", "010"], "steps", 10),
        (["--mode=fancy"], "mode", "fancy"),
    ],
)
def test_values_are_what_was_typed(run: Path, arguments: list[str], field: str, value: object) -> None:
    assert config_of(make(run, *arguments))[field] == value


def test_all_bad_values_are_named_at_once(run: Path) -> None:
    called = make(run, "--steps", "many", "--mode", "fanci", "--scale", "0", "--size-bytes", "x")
    assert called.code == 2
    assert called.err.splitlines() == [
        "error: --steps: input should be a valid integer, unable to parse string as an integer, got 'many'",
        "--scale: input should be greater than 0, got 0",
        "--mode: input should be 'plain' or 'fancy', got 'fanci'",
        "--size-bytes: input should be a valid integer, unable to parse string as an integer, got 'x'",
        "hint: did you mean fancy?",
    ]
    assert not run.exists()


@pytest.mark.parametrize(
    ("arguments", "unknown", "hint"),
    [
        (["--stepps", "3"], ["--stepps"], "did you mean --steps?"),
        (["--stepps=3", "--lowd"], ["--stepps", "--lowd"], "did you mean --steps?; did you mean --loud?"),
        (["--text", "--stepps"], [], ""),
        (["--step-secondz", "1"], ["--step-secondz"], "did you mean --step-seconds?"),
        (["--zzz"], ["--zzz"], "ftcli make --help lists its options"),
    ],
)
def test_all_unknown_options_are_named_with_the_nearest(
    run: Path, arguments: list[str], unknown: list[str], hint: str
) -> None:
    called = make(run, *arguments)
    if not unknown:
        assert config_of(called)["text"] == "--stepps", "what follows an option is its value"
        return
    assert called.code == 2
    first, *rest = called.err.splitlines()
    assert [first.removeprefix("error: "), *rest[:-1]] == [f"make: no such option {name}" for name in unknown]
    assert rest[-1] == f"hint: {hint}"


def test_names_of_other_tools_are_understood() -> None:
    called = ftcli("lora", "--lr", "1", "--rank", "8", "--cutoff-len", "512")
    assert called.code == 2
    assert "hint: did you mean --learning-rate?; did you mean --lora-r?; did you mean --max-length?" in called.err


# ---- inputs


def test_an_input_is_the_newest_fitting_output_and_this_is_said(run: Path) -> None:
    made = Path(make(run).out.strip())
    called = ftcli("join", "--run", run, "--in-process")
    assert called.code == 0
    assert f"join: input data is make.data ({made.parent.name}), the newest data in {run}" in called.err.splitlines()
    assert "join: run (first time)" in called.err.splitlines()


def test_an_input_that_nothing_fits_asks_for_one(run: Path) -> None:
    called = ftcli("join", "--run", run)
    assert called.code == 2
    assert called.err == (
        f"error: a data is needed and {run} holds none\nhint: Rows to read. Name one with its option.\n"
    )
    assert not run.exists()


def test_many_inputs_have_labels(run: Path, tmp_path: Path) -> None:
    make(run)
    for name in ("lr=1e-4", "b"):
        (tmp_path / name / "rows").mkdir(parents=True)
        (tmp_path / name / "rows" / "train.jsonl").write_text(name)
    arguments = ("--data", "make.data", "--others", "make.data", "--others", f"x y={tmp_path}/b/rows")
    called = ftcli("join", "--run", run, "--in-process", *arguments, "--others", tmp_path / "lr=1e-4" / "rows")
    assert called.code == 0, called.err
    assert (Path(called.out.strip()) / "summary.txt").read_text() == "4 inputs: make, make, x y, rows\n"
    clash = ftcli("join", "--run", run, *arguments, "--others", "make.data")
    assert clash.code == 2
    assert clash.err == "error: --others: two are labelled make\nhint: name them: --others LABEL=REF\n"


def test_a_stages_id_alone_means_its_only_fitting_output(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    made = Path(make(run).out.strip())
    join = ("join", "--run", run, "--in-process", "--data")
    called = ftcli(*join, "make")
    assert called.code == 0, called.err
    manifest = json.loads((Path(called.out.strip()).parent / "stage.json").read_text())
    assert manifest["inputs"]["data"][0]["ref"] == f"stages/make/{made.parent.name}/data"
    assert ftcli(*join, "make.data").err.startswith("join: cached\n")
    assert ftcli(*join, "join").err == (
        "error: --data: stage join has no data (join.report is a report)\nhint: name a stage that makes one\n"
    )
    (tmp_path / "make").mkdir()
    clash = ftcli(*join, "make")
    assert clash.code == 2
    assert clash.err == (
        "error: --data: make is a stage of this run, and a file or folder here\nhint: write make.data or ./make\n"
    )


def test_a_path_named_like_a_stage_that_does_not_fit_is_the_path(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make(run)
    assert ftcli("join", "--run", run, "--in-process").code == 0
    (tmp_path / "join").mkdir()
    (tmp_path / "join" / "train.jsonl").write_text("{}")
    called = ftcli("join", "--run", run, "--in-process", "--id", "second", "--data", "join")
    assert called.code == 0, called.err


def test_a_stages_id_alone_is_refused_where_several_outputs_fit(run: Path) -> None:
    make(run)
    path = next((run / "stages" / "make").glob("*/stage.json"))
    manifest = json.loads(path.read_text())
    manifest["outputs"]["more"] = manifest["outputs"]["data"]
    path.write_text(json.dumps(manifest))
    called = ftcli("join", "--run", run, "--in-process", "--data", "make")
    assert (called.code, called.err) == (
        2,
        "error: --data: stage make has several outputs that are a data\nhint: name one of make.data, make.more\n",
    )


@pytest.fixture
def rewards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of functions in the current folder."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "rewards.py"
    path.write_text("def accuracy(completions): ...\ndef is_short(completions): ...\n")
    return path


def rate(run: Path, *arguments: str) -> Called:
    return ftcli("rate", "--run", run, "--in-process", *arguments)


def rated(called: Called) -> str:
    assert called.code == 0, called.err
    return (Path(called.out.strip()) / "train.jsonl").read_text()


def test_functions_are_named_by_file_and_name_and_may_be_labelled(run: Path, rewards: Path) -> None:
    functions = ("--rate-func", "rewards.py:accuracy", "--rate-func", f"brief={rewards}:is_short")
    called = rate(run, *functions)
    assert rated(called) == "accuracy rewards.py:accuracy\nbrief rewards.py:is_short"
    manifest = json.loads((Path(called.out.strip()).parent / "stage.json").read_text())
    records = manifest["inputs"]["rate_func"]
    assert [(item["label"], item["ref"]) for item in records] == [
        ("accuracy", f"{rewards}:accuracy"),
        ("brief", f"{rewards}:is_short"),
    ]
    assert rate(run, *functions).err == "rate: cached\n"
    rewards.write_text(rewards.read_text() + "# edited\n")
    assert "rate: run (rate_func changed)" in rate(run, *functions).err
    help_text = " ".join(ftcli("rate", "--help").out.split())
    assert "--rate-func FILE.py:NAME Functions that rate. [function, optional] Repeat for several" in help_text
    assert "--data REF Rows that were rated. [data, or --rate-func]" in help_text


@pytest.mark.parametrize(
    ("typed", "message", "hint"),
    [
        ("rewards.py:acuracy", "{file}: no function acuracy (it has accuracy, is_short)", "did you mean accuracy?"),
        ("rewards.py", "{file}: which function? (it has accuracy, is_short)", "write rewards.py:NAME"),
        ("gone.py:f", "gone.py: no such file or folder ({folder}/gone.py)", "paths are relative to the current folder"),
        (
            "make",
            "make: no function of a .py file",
            "a function is written FILE.py:NAME, for example rewards.py:accuracy",
        ),
        (
            "make.data",
            "make.data: no function of a .py file",
            "a function is written FILE.py:NAME, for example rewards.py:accuracy",
        ),
    ],
)
def test_a_wrong_function_names_its_option(run: Path, rewards: Path, typed: str, message: str, hint: str) -> None:
    make(run)
    called = rate(run, "--rate-func", typed)
    assert called.code == 2
    text = message.format(file=rewards, folder=rewards.parent)
    assert called.err == f"error: --rate-func: {text}\nhint: {hint}\n"


def test_two_functions_of_one_name_need_labels(run: Path, rewards: Path) -> None:
    called = rate(run, "--rate-func", "rewards.py:accuracy", "--rate-func", f"{rewards}:accuracy")
    assert (called.code, called.err) == (
        2,
        "error: --rate-func: two are labelled accuracy\nhint: name them: --rate-func LABEL=REF\n",
    )


def test_an_input_that_another_stands_in_for_is_looked_for_only_without_it(run: Path, rewards: Path) -> None:
    called = rate(run)
    assert (called.code, called.err) == (
        2,
        f"error: a data is needed and {run} holds none\n"
        "hint: Rows that were rated. Name one with its option, or give --rate-func.\n",
    )
    make(run)
    assert rated(rate(run)) == "make"
    assert rated(rate(run, "--rate-func", "rewards.py:accuracy")) == "accuracy rewards.py:accuracy"
    both = rate(run, "--rate-func", "rewards.py:accuracy", "--data", "make")
    assert rated(both) == "accuracy rewards.py:accuracy\nmake"


def test_an_input_may_have_the_name_of_a_python_keyword(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.pipeline.toy import JOIN

    stage = replace(JOIN, inputs={"from": JOIN.inputs["data"], "class": JOIN.inputs["others"]}, run=count_inputs)
    monkeypatch.setitem(STAGES, "join", ("tests.cli.test_flags:KEYWORDS", "x"))
    monkeypatch.setitem(globals(), "KEYWORDS", stage)
    make(run)
    help_text = ftcli("join", "--help").out
    assert "--from" in help_text
    assert "--class" in help_text
    called = ftcli(
        "join", "--run", run, "--in-process", "--from", "make", "--class", "a=make", "--class", "b=make.data"
    )
    assert called.code == 0, called.err
    assert (Path(called.out.strip()) / "summary.txt").read_text() == "from make, class a b"


def count_inputs(ctx: Context[Any]) -> None:
    text = ", ".join(f"{name} {' '.join(item.label for item in items)}" for name, items in ctx.inputs.items())
    (ctx.output("report") / "summary.txt").write_text(text)


@pytest.mark.parametrize(
    ("reference", "code", "message"),
    [
        ("make.dta", 2, "error: --data: make.dta: no such file or folder"),
        ("join.report", 2, "error: --data: join.report is a report, a data is needed"),
        ("", 2, "error: --data: an empty reference, a data is needed"),
        ("hf:a/b", 2, "error: --data: hf:a/b cannot be a data"),
        (".", 2, "no train.jsonl, validation.jsonl or test.jsonl"),
    ],
)
def test_a_wrong_reference_names_its_option(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reference: str, code: int, message: str
) -> None:
    make(run)
    assert ftcli("join", "--run", run, "--in-process").code == 0
    monkeypatch.chdir(tmp_path)
    called = ftcli("join", "--run", run, "--id", "second", "--data", reference)
    assert called.code == code
    assert message in called.err
    assert called.out == ""


# ---- the rest of the command


def test_the_result_is_a_path_or_json(run: Path) -> None:
    path = Path(make(run).out.strip())
    assert path.is_absolute()
    assert (path / "train.jsonl").is_file()
    value = json.loads(make(run, "--json").out)
    assert value["outputs"]["data"]["path"] == str(path)
    assert value["path"] == str(path.parent)
    assert (value["id"], value["stage"]) == ("make", "make")
    assert value["facts"]["toy/first_step"] == 1


def test_another_id_is_another_stage(run: Path) -> None:
    make(run)
    assert "other: run (first time)" in make(run, "--id", "other").err
    assert RunDir(run).ids() == ["make", "other"]
    called = make(run, "--id", "Not/Good")
    assert (called.code, called.err) == (
        2,
        "error: --id Not/Good: lower-case letters, digits, - and _, a letter first\n",
    )


def test_force_runs_again(run: Path) -> None:
    make(run)
    assert make(run).err == "make: cached\n"
    assert make(run, "--force").err.startswith("make: run (forced)\n")


def test_the_run_directory_may_come_from_the_environment(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FTCLI_RUN", str(run))
    called = ftcli("make", "--in-process")
    assert Path(called.out.strip()).is_relative_to(run)


def test_a_file_as_run_directory_exits_2(run: Path) -> None:
    run.touch()
    called = make(run)
    assert called.code == 2
    assert "a run directory is needed" in called.err


@pytest.mark.parametrize(("how", "code"), [("error", 1), ("bad-data", 65)])
def test_a_failing_stage_has_its_exit_code_and_one_message(run: Path, how: str, code: int) -> None:
    called = ftcli("make", "--run", run, "--fail", how)
    assert called.code == code
    assert called.out == ""
    assert "Traceback" not in called.err
    assert called.err.count("error: ") == 1
    assert called.err.count("hint: ") == 1


def test_the_toy_stages_are_not_in_the_table_of_the_program() -> None:
    assert set(STAGES) & set(TOY_STAGES) == set()
    assert all(isinstance(spec, Input) for name in STAGES for spec in load_stage(STAGES[name][0]).inputs.values())


def test_an_option_that_a_stage_must_not_have_is_refused_with_the_reason() -> None:
    called = ftcli("ppo", "--top-p", "0.9", "--lern-rate", "1")
    assert called.code == 2
    assert "ppo: --top-p is not offered: cuts the distribution" in called.err
    assert "ppo: no such option --lern-rate" in called.err
    assert "did you mean --learning-rate?" in called.err
