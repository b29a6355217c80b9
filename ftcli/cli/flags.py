"""From a stage's config model to its command: every field and every input becomes an option.

Values are read as a recipe reads them (`ftcli.pipeline.yaml_lines.value_for`) and validated by the same model, so a flag and a
YAML value mean the same and fail the same.
"""

from __future__ import annotations

import inspect
import keyword
import os
import tempfile
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import typer
import typer.core

from ftcli.cli.inputs import find, newest
from ftcli.cli.output import launcher, print_result, report_texts
from ftcli.cli.score import given_options, print_scores
from ftcli.core.config import Problem, StageConfig, nearest, parse
from ftcli.core.console import Console
from ftcli.core.errors import UsageError
from ftcli.core.events import Events
from ftcli.core.rundir import Published, RunDir
from ftcli.core.stage import Artifact, Context, Input, Kind, Stage
from ftcli.launch.environment import check_processes, refuse_other_launchers
from ftcli.launch.spec import load_stage
from ftcli.pipeline.references import ID_PATTERN, LABEL_PATTERN, default_label, repeated_label
from ftcli.pipeline.resolve import from_published
from ftcli.pipeline.runner import Task, decide, execute
from ftcli.pipeline.yaml_lines import value_for


class Command(typer.core.TyperCommand):
    """A command that names all its unknown options at once, each with the nearest known one, or with the reason why it is not
    offered."""

    refused: Mapping[str, str] = {}

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        known = {
            name: not getattr(parameter, "is_flag", True)
            for parameter in self.get_params(ctx)
            for name in [*parameter.opts, *parameter.secondary_opts]
        }
        unknown = _unknown_options(known, args)
        if unknown:
            words = {name[2:].replace("-", "_"): name for name in known if name.startswith("--")}
            asked = {name: name[2:].replace("-", "_") for name in unknown}
            hints = [nearest(word, words).replace("_", "-") for word in asked.values() if word not in self.refused]
            raise UsageError(
                "\n".join(
                    f"{self.name}: {name} is not offered: {self.refused[word]}"
                    if word in self.refused
                    else f"{self.name}: no such option {name}"
                    for name, word in asked.items()
                ),
                "; ".join(hint.replace("did you mean ", "did you mean --") for hint in hints if hint)
                or f"ftcli {self.name} --help lists its options",
            )
        return super().parse_args(ctx, args)


def _unknown_options(known: Mapping[str, bool], args: Sequence[str]) -> list[str]:
    """Long options in ``args`` that are not in ``known``, which tells of each whether a value follows it."""
    unknown = []
    left = list(args)
    while left and (arg := left.pop(0)) != "--":
        name, equals, _ = arg.partition("=")
        if name.startswith("--") and name not in known:
            unknown.append(name)
        elif known.get(name) and not equals and left:
            left.pop(0)
    return list(dict.fromkeys(unknown))


def stage_command(name: str, target: str, text: str) -> Any:
    """The command of one stage, as Typer's own command object."""
    stage = load_stage(target)

    def command(**values: Any) -> None:
        run_stage(target, stage, values)

    parameters = [
        *_common(name),
        *_inspecting(stage),
        *_scoring(stage),
        *_planning(stage),
        *_sharing(stage),
        *(_input_option(*item) for item in stage.inputs.items()),
        *_settings(stage.config),
    ]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    doc = inspect.cleandoc(inspect.getmodule(stage.run).__doc__ or "") if inspect.getmodule(stage.run) else ""
    help_text = "\n\n".join(
        part for part in (text, doc, f"Example:\n\n  {stage.example}" if stage.example else "") if part
    )
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.command(name, cls=Command, help=help_text)(command)
    made = typer.main.get_command(app)
    made.refused = stage.config.refused  # type: ignore[attr-defined]
    return made


def _parameter(name: str, annotation: Any, option: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=option, annotation=annotation)


def _common(name: str) -> list[inspect.Parameter]:
    return [
        _parameter(
            "run_",
            Path,
            typer.Option(Path("runs/default"), "--run", help="Run directory; made if missing.", envvar="FTCLI_RUN"),
        ),
        _parameter("id_", str, typer.Option(name, "--id", help="Name of this stage in the run directory.")),
        _parameter("force_", bool, typer.Option(False, "--force", help="Run again even if the result is there.")),
        _parameter("wait_", bool, typer.Option(False, "--wait", help="Wait if another process works on this stage.")),
        _parameter("json_", bool, typer.Option(False, "--json", help="Print the result as JSON instead of its path.")),
        _parameter(
            "in_process_", bool, typer.Option(False, "--in-process", help="Run inside this process, for a debugger.")
        ),
    ]


def _inspecting(stage: Stage[Any]) -> list[inspect.Parameter]:
    text = "Show what is in the inputs and what would become of it; write nothing."
    return [_parameter("inspect_", bool, typer.Option(False, "--inspect", help=text))] if stage.inspect else []


def _planning(stage: Stage[Any]) -> list[inspect.Parameter]:
    text = "Say how many rows or votes would show an effect of this size; measure nothing."
    option = typer.Option(None, "--power", metavar="EFFECT", help=text)
    return [_parameter("power_", str | None, option)] if stage.plan else []


def _sharing(stage: Stage[Any]) -> list[inspect.Parameter]:
    text = "Processes of this machine that share the work, with a GPU each where there are any."
    option = typer.Option(1, "--processes", min=1, metavar="INT", help=text)
    return [_parameter("processes_", int, option)] if stage.parallel else []


def _scoring(stage: Stage[Any]) -> list[inspect.Parameter]:
    if stage.score is None:
        return []
    output, kind = next(iter(stage.outputs.items()))
    text = (
        f"Score the JSON lines of a file (- is stdin) with what the stage --id made, or {_option(output)}; print them."
    )
    other = f"What --score scores with, in place of what the stage --id made. [{kind}]"
    return [
        _parameter("score_", str | None, typer.Option(None, "--score", metavar="FILE", help=text)),
        _parameter("scorer_", str | None, typer.Option(None, _option(output), metavar="REF", help=other)),
    ]


def _input_option(name: str, spec: Input) -> inspect.Parameter:
    unless = f", or {_option(spec.unless)}" if spec.unless else ""
    text = f"{spec.help} [{spec.kind}{unless if spec.required else ', optional'}]"
    parameter, option = _input_parameter(name), _option(name)
    metavar = "FILE.py:NAME" if spec.kind is Kind.FUNCTION else "REF"
    if spec.many:
        note = f"{text} Repeat for several; LABEL={metavar} names one."
        return _parameter(parameter, list[str] | None, typer.Option(None, option, metavar=metavar, help=note))
    return _parameter(parameter, str | None, typer.Option(None, option, metavar=metavar, help=text))


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _input_parameter(name: str) -> str:
    """What the option of the input ``name`` is called inside Python, where ``from`` cannot be a parameter."""
    return f"{name}_" if keyword.iskeyword(name) else name


def _settings(model: type[StageConfig]) -> list[inspect.Parameter]:
    return [_setting(name, field) for name, field in model.model_fields.items()]


def _setting(name: str, field: Any) -> inspect.Parameter:
    flag = _option(name)
    default = field.get_default(call_default_factory=True)
    shown = "" if field.is_required() or default in (None, ()) else f" [default: {_shown(default)}]"
    text = f"{' '.join((field.description or '').split())}{shown}"
    if field.annotation in (bool, bool | None):
        return _parameter(
            name, bool | None, typer.Option(None, f"{flag}/--no-{flag[2:]}", help=text, show_default=False)
        )
    option = typer.Option(None, flag, metavar=_metavar(field.annotation), help=text, show_default=False)
    return _parameter(name, list[str] | None if _is_list(field.annotation) else str | None, option)


def _shown(default: Any) -> str:
    return " ".join(map(str, default)) if isinstance(default, list | tuple) else str(default)


def _is_list(annotation: Any) -> bool:
    members = typing.get_args(annotation) if isinstance(annotation, types.UnionType) else (annotation,)
    return any(typing.get_origin(member) in (list, tuple) for member in members)


def _metavar(annotation: Any) -> str:
    """``INT``, ``FLOAT``, ``a|b`` for a choice, else ``VALUE``."""
    members = (
        typing.get_args(annotation)
        if typing.get_origin(annotation) in (types.UnionType, typing.Union)
        else (annotation,)
    )
    names = []
    for member in members:
        if typing.get_origin(member) is typing.Literal:
            names += [str(value) for value in typing.get_args(member)]
        elif member in (int, float):
            names.append(member.__name__.upper())
    return "|".join(names) or "VALUE"


def run_stage(target: str, stage: Stage[Any], values: Mapping[str, Any]) -> None:
    """Validate the flags, find the inputs, run the stage and print where its result is."""
    refuse_other_launchers(os.environ, "with --processes N" if stage.parallel else "which needs one process only")
    run = RunDir(values["run_"])
    id = str(values["id_"])
    if not ID_PATTERN.match(id):
        raise UsageError(f"--id {id}: lower-case letters, digits, - and _, a letter first")
    if values.get("score_") is not None:
        print_scores(run, id, stage, values)
        return
    if values.get("scorer_") is not None:
        raise UsageError(f"{_option(next(iter(stage.outputs)))} says what to score with", "give --score FILE, too")
    if values.get("power_") is not None:
        _print_plan(stage, values)
        return
    config = _config(stage, values)
    with Console() as console:
        typed = {name: values[_input_parameter(name)] for name in stage.inputs}
        given = {name: value for name, value in typed.items() if value not in (None, [])}
        inputs = {name: _artifacts(run, id, name, spec, given, console) for name, spec in stage.inputs.items()}
        inputs = {name: items for name, items in inputs.items() if items}
        if values.get("inspect_"):
            print(_seen(stage, config, inputs))
            return
        task = Task(id, target, stage, config, inputs, values.get("processes_", 1))
        if decide(task, run, force=values["force_"]).run:
            check_processes(task.processes, in_process=values["in_process_"])
        launch = launcher(in_process=values["in_process_"])

        def done(published: Published) -> None:
            """What there is to say of a result, also where its gate failed."""
            for text in report_texts(published):
                console.say(text)
            run.write_index(run.index().get("name", run.root.name), run.ids())
            print_result(published, as_json=values["json_"])

        execute(task, run, launch, console.sink, console.say, force=values["force_"], wait=values["wait_"], done=done)


def _print_plan(stage: Stage[Any], values: Mapping[str, Any]) -> None:
    """What the stage says of a planned measurement. Raises `UsageError` where other options are given: they would do nothing."""
    if stage.plan is None:
        raise ValueError(f"{stage.name} has nothing to plan with")
    others = given_options(stage, values, but=("run_", "id_", "power_"))
    if others:
        raise UsageError(f"--power takes none of {others}: it measures nothing", "leave them out")
    print(stage.plan(values["power_"]))


def _seen(stage: Stage[Any], config: StageConfig, inputs: Mapping[str, tuple[Artifact, ...]]) -> str:
    """What the stage says of its inputs; whatever it writes meanwhile is gone afterwards."""
    if stage.inspect is None:
        raise ValueError(f"{stage.name} has nothing to inspect with")
    with tempfile.TemporaryDirectory(prefix="ftcli-") as folder:
        scratch = Path(folder)
        return stage.inspect(Context(config, inputs, scratch / "out", scratch, Events(scratch)))


def _config(stage: Stage[Any], values: Mapping[str, Any]) -> StageConfig:
    given = {name: values[name] for name in stage.config.model_fields if values[name] is not None}
    parsed = {name: _value(stage.config.model_fields[name].annotation, value) for name, value in given.items()}
    model: type[StageConfig] = stage.config
    config, problems = parse(model, parsed)
    if config is None:
        raise refused(problems)
    return config


def refused(problems: Sequence[Problem]) -> UsageError:
    """One error for what is wrong with settings that were typed as options."""
    lines = [
        f"--{item.message.replace('_', '-', item.key.count('_'))}" if item.key else item.message for item in problems
    ]
    return UsageError("\n".join(lines), "; ".join(item.hint for item in problems if item.hint))


def _value(annotation: Any, given: Any) -> Any:
    """What was typed as a value; an option that was repeated gives one list."""
    if isinstance(given, bool):
        return given
    if isinstance(given, list):
        parts = [value_for(annotation, item) for item in given]
        return None if parts == [None] else [value for part in parts for value in part or []]
    return value_for(annotation, given)


def _artifacts(
    run: RunDir, id: str, name: str, spec: Input, given: Mapping[str, str | list[str]], console: Console
) -> tuple[Artifact, ...]:
    """What was given for the input ``name``; the newest fitting output of ``run`` where nothing was and it is needed."""
    value = given.get(name, [])
    texts = [value] if isinstance(value, str) else value
    if not texts and spec.is_needed(given):
        found = newest(run, spec.kind, but=id)
        if found is None:
            instead = f", or give {_option(spec.unless)}" if spec.unless else ""
            raise UsageError(
                f"a {spec.kind} is needed and {run.root} holds none", f"{spec.help} Name one with its option{instead}."
            )
        item, output = found
        console.say(
            f"{id}: input {name} is {item.id}.{output} ({item.path.name}), the newest {spec.kind} in {run.root}"
        )
        return (from_published(item, output, spec.kind, item.id),)
    given_ones = []
    for text in texts:
        label, equals, ref = text.partition("=")
        if not (spec.many and equals and LABEL_PATTERN.match(label)):
            label, ref = default_label(text), text
        given_ones.append(find(run, _option(name), ref, spec.kind, label))
    if spec.many and (twice := repeated_label([item.label for item in given_ones])):
        raise UsageError(f"{_option(name)}: {twice}", f"name them: {_option(name)} LABEL=REF")
    return tuple(given_ones)
