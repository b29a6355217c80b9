"""Run a recipe from top to bottom, or say what running it would do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ftcli.core.config import non_default
from ftcli.core.errors import UsageError
from ftcli.core.events import Sink
from ftcli.core.rundir import Published, RunDir
from ftcli.core.stage import Artifact
from ftcli.pipeline.fetch import NotFetched
from ftcli.pipeline.recipe import Entry, Recipe
from ftcli.pipeline.references import External, Reference, StageOutput
from ftcli.pipeline.resolve import from_outside, from_published
from ftcli.pipeline.runner import Launcher, Task, decide, execute


@dataclass(frozen=True)
class Forecast:
    """What a stage would do now. ``runs`` is None where that depends on an earlier stage that must run first."""

    entry: Entry
    runs: bool | None
    reason: str


def wanted(recipe: Recipe, until: str | None) -> tuple[Entry, ...]:
    """The stages to run: all, or those that ``until`` needs and itself."""
    if until is None:
        return recipe.entries
    last = recipe.entries[recipe.index(until)]
    needed = {last.id}
    for entry in reversed(recipe.entries):
        if entry.id in needed:
            needed |= {ref.id for pairs in entry.inputs.values() for _, ref in pairs if isinstance(ref, StageOutput)}
    return tuple(entry for entry in recipe.entries if entry.id in needed)


def run_recipe(
    recipe: Recipe,
    run: RunDir,
    launch: Launcher,
    sink: Sink,
    say: Callable[[str], None],
    *,
    until: str | None = None,
    force: Sequence[str] = (),
    wait: bool = False,
    done: Callable[[Published], None] | None = None,
) -> list[Published]:
    """Run the stages of ``recipe`` in order and return their outputs; ``done`` is told of each as soon as it is there.

    Everything from outside is fetched and checked first. A gate that fails ends the recipe.
    """
    for id in force:
        recipe.index(id)
    entries = wanted(recipe, until)
    outside = _resolve_outside(entries)
    run.write_index(recipe.name, [entry.id for entry in recipe.entries])
    found: dict[str, Published] = {}
    for entry in entries:
        task = _task(entry, outside, found)
        found[entry.id] = execute(task, run, launch, sink, say, force=entry.id in force, wait=wait, done=done)
    return list(found.values())


def forecast(recipe: Recipe, run: RunDir, *, until: str | None = None, force: Sequence[str] = ()) -> list[Forecast]:
    """What `run_recipe` would do now, without fetching or writing anything."""
    done: dict[str, Published] = {}
    found = []
    for entry in wanted(recipe, until):
        waits = [
            ref.id
            for pairs in entry.inputs.values()
            for _, ref in pairs
            if isinstance(ref, StageOutput) and ref.id not in done
        ]
        if waits:
            found.append(Forecast(entry, None, f"after {', '.join(dict.fromkeys(waits))}"))
            continue
        try:
            task = _task(entry, _resolve_outside([entry], fetch=False), done, fetch=False)
            decision = decide(task, run, force=entry.id in force)
        except NotFetched as error:
            found.append(Forecast(entry, True, error.message))
            continue
        found.append(Forecast(entry, decision.run, decision.reason))
        if decision.cached is not None:
            done[entry.id] = decision.cached
    return found


def _resolve_outside(entries: Sequence[Entry], *, fetch: bool = True) -> dict[tuple[str, str], Artifact]:
    """Artifacts by ``(entry.input, label)``; raises `UsageError` with every reference that cannot be used."""
    found: dict[tuple[str, str], Artifact] = {}
    problems: list[UsageError] = []
    wanted = [(entry, name, *pair) for entry in entries for name, pairs in entry.inputs.items() for pair in pairs]
    for entry, name, label, ref in wanted:
        if isinstance(ref, External):
            try:
                artifact = from_outside(ref.ref, entry.stage.inputs[name].kind, label, fetch=fetch)
            except UsageError as error:
                problems.append(UsageError(f"{entry.id}: input {name}: {error.message}", error.hint))
            else:
                found[(f"{entry.id}.{name}", label)] = artifact
    if problems:
        hints = dict.fromkeys(problem.hint for problem in problems if problem.hint)
        raise UsageError("\n".join(problem.message for problem in problems), "; ".join(hints))
    return found


def _task(
    entry: Entry, outside: dict[tuple[str, str], Artifact], done: dict[str, Published], *, fetch: bool = True
) -> Task:
    def artifact(name: str, label: str, ref: Reference) -> Artifact:
        if isinstance(ref, StageOutput):
            return from_published(done[ref.id], ref.output, entry.stage.inputs[name].kind, label, fetch=fetch)
        return outside[(f"{entry.id}.{name}", label)]

    inputs = {name: tuple(artifact(name, label, ref) for label, ref in pairs) for name, pairs in entry.inputs.items()}
    return Task(entry.id, entry.target, entry.stage, entry.config, inputs, entry.processes)


def describe(forecasts: Sequence[Forecast]) -> list[dict[str, Any]]:
    """Plain data of a plan: for each stage its inputs, every value that is not a default with its origin, and what it will do."""
    return [
        {
            "id": item.entry.id,
            "stage": item.entry.stage.name,
            "runs": item.runs,
            "reason": item.reason,
            "processes": item.entry.processes,
            "inputs": {
                name: [{"label": label, "ref": str(ref)} for label, ref in pairs]
                for name, pairs in item.entry.inputs.items()
            },
            "settings": [
                {"key": key, "value": value, "origin": item.entry.origins.get(key, "")}
                for key, value in non_default(item.entry.config).items()
            ],
        }
        for item in forecasts
    ]
