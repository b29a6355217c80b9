"""The commands about whole runs: run, plan, status, lineage, verify."""

from __future__ import annotations

import json
import os
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer

from ftcli.cli.output import print_reports, print_table, result_json
from ftcli.core.console import Console
from ftcli.core.errors import Corrupt, GateFailed, GateNotEvaluable, UsageError
from ftcli.core.rundir import Published, RunDir
from ftcli.launch.environment import check_processes, refuse_other_launchers
from ftcli.launch.inline import run_inline
from ftcli.launch.warm import WarmWorkers
from ftcli.pipeline import lineage as lineage_of
from ftcli.pipeline.plan import Forecast, describe, forecast, run_recipe
from ftcli.pipeline.recipe import Recipe, read_recipe
from ftcli.pipeline.runner import Launcher, waits_for_people

WIDE = 60
"""Characters of a setting beyond which its origin just follows, and does not push those of the others away."""

RecipePath = Annotated[Path, typer.Argument(help="The recipe, a YAML file.", metavar="RECIPE")]
RunPath = Annotated[
    Path | None, typer.Option("--run", help="Run directory.  [default: runs/<name of the recipe>]", envvar="FTCLI_RUN")
]
ExistingRun = Annotated[Path, typer.Option("--run", help="Run directory.", envvar="FTCLI_RUN")]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", help="Change one setting or input: id.key=value. Repeatable.", metavar="ID.KEY=VALUE"),
]
Until = Annotated[
    str | None, typer.Option("--until", help="Run up to this stage, and only what it needs.", metavar="ID")
]
Force = Annotated[list[str] | None, typer.Option("--force", help="Run this stage again. Repeatable.", metavar="ID")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def run(
    recipe: RecipePath,
    run: RunPath = None,
    sets: Sets = None,
    until: Until = None,
    force: Force = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would run, and run nothing.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait if another process works on a stage.")] = False,
    in_process: Annotated[bool, typer.Option("--in-process", help="Run stages inside this process.")] = False,
    as_json: AsJson = False,
) -> None:
    """Run a recipe: each stage whose result is not there yet, in order.

    Everything is checked before the first stage starts. Run the same command again after a change or a crash:
    finished stages are cached, an interrupted one goes on.

    Example:

      ftcli run recipes/quickstart.yaml --run runs/quickstart
    """
    refuse_other_launchers(os.environ, "with launch: {processes: N} on an entry of the recipe")
    plan = read_recipe(recipe, sets or [])
    directory = _run_dir(run, plan)
    if dry_run:
        _print_forecasts(forecast(plan, directory, until=until, force=force or []), as_json=as_json)
        return
    expected = forecast(plan, directory, until=until, force=force or [])
    done: list[Published] = []
    try:
        with Console() as console, _workers(expected, in_process=in_process) as launch:
            run_recipe(
                plan,
                directory,
                launch,
                console.sink,
                console.say,
                until=until,
                force=force or [],
                wait=wait,
                done=done.append,
            )
    except (GateFailed, GateNotEvaluable):
        _print_done(done, as_json=as_json)
        raise
    _print_done(done, as_json=as_json)


def plan(
    recipe: RecipePath, run: RunPath = None, sets: Sets = None, until: Until = None, as_json: AsJson = False
) -> None:
    """Check a recipe and print, for each stage, what it would do and every setting that is not a default, with its origin.

    Example:

      ftcli plan recipes/quickstart.yaml --set lora.learning_rate=1e-4
    """
    recipe_plan = read_recipe(recipe, sets or [])
    forecasts = forecast(recipe_plan, _run_dir(run, recipe_plan), until=until)
    if as_json:
        print(json.dumps(describe(forecasts), indent=2))
        return
    for item in describe(forecasts):
        print(f"{item['id']}: {_what(item['runs'])} ({item['reason']})")
        for name, refs in item["inputs"].items():
            print(f"    {name}: {', '.join(_labelled(ref) for ref in refs)}")
        if item["processes"] > 1:
            print(f"    launch: {item['processes']} processes")
        widths = [len(f"{s['key']} = {s['value']}") for s in item["settings"]]
        width = max((one for one in widths if one <= WIDE), default=0)
        for setting in item["settings"]:
            print(f"    {(setting['key'] + ' = ' + str(setting['value'])).ljust(width)}  # {setting['origin']}")


def status(run: ExistingRun = Path("runs/default"), as_json: AsJson = False) -> None:
    """Show the newest result of each stage in a run directory, and work that is not finished.

    Example:

      ftcli status --run runs/quickstart
    """
    directory = _existing(run)
    done = directory.all_latest()
    if as_json:
        pending = {name: str(path) for name, path in directory.pending().items()}
        waiting = [name for name, path in directory.pending().items() if waits_for_people(path)]
        value = {"done": [result_json(item) for item in done], "pending": pending, "waiting": waiting}
        print(json.dumps(value, indent=2))
        return
    rows = [_status_row(item) for item in done]
    for name, path in directory.pending().items():
        state = "waits for people" if waits_for_people(path) else "unfinished"
        rows.append([name.rpartition("-")[0], state, "", "", f".work/{name}"])
    print_table(["stage", "ended", "seconds", "size", "path"], rows)


def lineage(run: ExistingRun = Path("runs/default"), as_json: AsJson = False) -> None:
    """Show what each result of a run was made from, down to inputs from outside with their digests.

    Example:

      ftcli lineage --run runs/quickstart --json
    """
    directory = _existing(run)
    print(json.dumps(lineage_of.lineage(directory), indent=2) if as_json else "\n".join(lineage_of.tree(directory)))


def verify(run: ExistingRun = Path("runs/default"), as_json: AsJson = False) -> None:
    """Rehash every published file of a run directory and name what is not as recorded (exit code 76).

    Example:

      ftcli verify --run runs/quickstart
    """
    directory = _existing(run)
    count = len(directory.folders())
    found = lineage_of.verify(directory)
    if as_json:
        print(json.dumps(found, indent=2))
    if found:
        lines = [f"{path}/{text}" for path, texts in found.items() for text in texts]
        stages = sorted({path.split("/")[1] for path in found})
        raise Corrupt("\n".join(lines), f"make it again: --force {' --force '.join(stages)}")
    if not as_json:
        print(f"{count} published outputs, all as recorded")


def _workers(forecasts: list[Forecast], *, in_process: bool) -> AbstractContextManager[Launcher]:
    """How to start workers for the stages that will run; what those after the first import is imported once for all.

    Raises `UsageError` where one of them cannot have as many as its ``launch:`` asks for.
    """
    entries = [item.entry for item in forecasts if item.runs is not False]
    for entry in entries:
        try:
            check_processes(entry.processes, in_process=in_process)
        except UsageError as error:
            raise UsageError(f"{entry.id}: launch: {error.message}", error.hint) from None
    if in_process:
        return nullcontext(run_inline)
    return WarmWorkers({entry.stage.module for entry in entries[1:] if entry.stage.module})


def _run_dir(run: Path | None, recipe: Recipe) -> RunDir:
    return RunDir(run or Path("runs") / recipe.name)


def _existing(run: Path) -> RunDir:
    directory = RunDir(run)
    if not (run / "stages").is_dir() and not (run / ".work").is_dir():
        raise UsageError(f"{run}: no run directory", "name one with --run; `ftcli run RECIPE` makes one")
    return directory


def _what(runs: bool | None) -> str:
    return {True: "run", False: "cached", None: "decided later"}[runs]


def _print_forecasts(forecasts: list[Forecast], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(describe(forecasts), indent=2))
    else:
        for item in forecasts:
            print(f"{item.entry.id}: {_what(item.runs)} ({item.reason})")


def _labelled(ref: dict[str, Any]) -> str:
    return str(ref["ref"])


def _print_done(done: list[Published], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps([result_json(item) for item in done], indent=2))
        return
    print_table(["stage", "ended", "seconds", "size", "path"], [_status_row(item) for item in done])
    print_reports(done)


def _status_row(item: Published) -> list[str]:
    seconds = item.manifest["facts"].get("perf/worker_seconds")
    size = sum(record["bytes"] for record in item.manifest["outputs"].values())
    return [
        item.id,
        str(item.manifest["ended"]),
        f"{seconds:.1f}" if seconds is not None else "",
        f"{size / 2**20:.1f} MiB",
        f"stages/{item.id}/{item.path.name}",
    ]
