"""Run one stage, or return its earlier output. The only code that publishes.

Every decision is said aloud with its reason: ``prep: cached``, ``sft: run (data changed)``.
"""

from __future__ import annotations

import functools
import importlib.metadata
import os
import platform
import shutil
import subprocess
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ftcli
from ftcli.core.config import StageConfig
from ftcli.core.errors import Busy, NeedsHuman, OutOfMemory, StageFailed, disk_errors
from ftcli.core.events import Sink
from ftcli.core.fingerprint import fingerprint, fingerprint_parts
from ftcli.core.rundir import Published, RunDir, Work, now
from ftcli.core.stage import Artifact, Stage
from ftcli.launch.spec import Job, Result

LIBRARIES = ("torch", "transformers", "trl", "peft", "bitsandbytes", "datasets", "evaluate", "accelerate")

Launcher = Callable[[Job, Sink], Result]


@dataclass(frozen=True)
class Task:
    """A stage whose inputs are all there."""

    id: str
    target: str
    stage: Stage[Any]
    config: StageConfig
    inputs: Mapping[str, tuple[Artifact, ...]]
    processes: int = 1
    """How many share the work: no part of the fingerprint."""

    def parts(self) -> dict[str, Any]:
        return fingerprint_parts(self.stage, self.config, self.inputs)

    def fp12(self) -> str:
        return fingerprint(self.parts())[:12]


@dataclass(frozen=True)
class Decision:
    """Whether a task must run, why, and the earlier output if it need not."""

    run: bool
    reason: str
    cached: Published | None = None


def decide(task: Task, run: RunDir, *, force: bool = False) -> Decision:
    """Say whether ``task`` must run. Reads the run directory only."""
    earlier = run.published(task.id, task.fp12())
    if earlier is not None:
        damage = earlier.damage()
        if damage:
            return Decision(True, f"its output is damaged: {damage[0]}")
        return Decision(True, "forced") if force else Decision(False, "cached", earlier)
    latest = run.latest(task.id)
    work = run.pending().get(f"{task.id}-{task.fp12()}")
    if work is None:
        return Decision(True, _what_changed(task, latest))
    waits = waits_for_people(work)
    return Decision(True, "waited for people: looks again" if waits else "interrupted earlier: goes on")


def waits_for_people(work: Path) -> bool:
    """Whether the stage that works in the folder ``work`` ended with `NeedsHuman`."""
    left = Result.read(Work(work).scratch)
    return left is not None and left.exit_code == NeedsHuman.exit_code


def _what_changed(task: Task, latest: Published | None) -> str:
    if latest is None:
        return "first time"
    old, new = latest.manifest["parts"], task.parts()
    changes = [f"{name} changed" for name in new["inputs"] if new["inputs"][name] != old["inputs"].get(name)]
    changes += [f"{name} is gone" for name in old["inputs"] if name not in new["inputs"]]
    if old["stage"] != new["stage"]:
        changes.append(f"was a {old['stage']} stage")
    elif old["version"] != new["version"]:
        changes.append(f"{task.stage.name} works differently since version {new['version']}")
    defaults = type(task.config).model_fields
    for key in sorted({*old["config"], *new["config"]}):
        before, after = old["config"].get(key, "default"), new["config"].get(key, "default")
        if before != after and key in defaults:
            changes.append(f"{key} {before} -> {after}")
    return ", ".join(changes) or "changed"


def execute(
    task: Task,
    run: RunDir,
    launch: Launcher,
    sink: Sink,
    say: Callable[[str], None],
    *,
    force: bool = False,
    wait: bool = False,
    done: Callable[[Published], None] | None = None,
) -> Published:
    """Return the published output of ``task``, running it if needed; ``done`` is told of it first.

    Raises what the stage raised (its work stays, so that the same command goes on from there), `Busy` if another
    process works on it, and `DiskError` if publishing fails. A stage that judged a gate publishes whatever the verdict, and
    says it in its facts: `GateFailed` or `GateNotEvaluable` is raised then, of an earlier output too.
    """
    published = _published(task, run, launch, sink, say, force=force, wait=wait)
    if done is not None:
        done(published)
    _raise_verdict(task, published)
    return published


def _raise_verdict(task: Task, published: Published) -> None:
    gate = published.manifest["facts"].get("gate")
    if gate is not None:
        Result(gate["exit_code"], f"{task.id}: {gate['message']}", gate["hint"]).raise_for_failure()


def _published(
    task: Task,
    run: RunDir,
    launch: Launcher,
    sink: Sink,
    say: Callable[[str], None],
    *,
    force: bool,
    wait: bool,
) -> Published:
    with disk_errors(run.root):
        decision = decide(task, run, force=force)
        if decision.cached is None:
            waiting = (lambda holder: say(f"{task.id}: waits for {holder}")) if wait else None
            with run.lock(task.id, waiting=waiting):
                decision = decide(task, run, force=force)  # another process may have finished it meanwhile
                if decision.cached is None:
                    say(f"{task.id}: run ({decision.reason})")
                    return _run(task, run, launch, sink, say)
        say(f"{task.id}: cached")
        _settle(run, decision.cached)
        return decision.cached


def _settle(run: RunDir, cached: Published) -> None:
    """Tidy up after a crash that came between publishing and tidying. Who holds the stage now will do it instead."""
    if not run.is_settled(cached):
        with suppress(Busy), run.lock(cached.id):
            run.settle(cached)


def _run(task: Task, run: RunDir, launch: Launcher, sink: Sink, say: Callable[[str], None]) -> Published:
    fp12 = task.fp12()
    started = now()
    work, result = _launch(task, run, fp12, launch, sink, say)
    if result.exit_code == StageFailed.exit_code:
        raise StageFailed(
            f"{task.id} failed: {result.message}", result.hint or f"the log is {work.scratch / 'log.txt'}"
        )
    result.raise_for_failure()
    _keep_logs(work)
    manifest = {
        "stage": task.stage.name,
        "version": task.stage.version,
        "fingerprint": fingerprint(task.parts()),
        "parts": task.parts(),
        "config": task.config.model_dump(mode="json"),
        "inputs": {name: [_input_record(item) for item in items] for name, items in task.inputs.items()},
        "facts": dict(result.facts),
        "software": {"ftcli": ftcli.__version__, "python": platform.python_version(), **_library_versions()},
        "git": _git_commit(),
        "hardware": _hardware(),
        "started": started,
        "ended": now(),
    }
    outputs = {name: str(kind) for name, kind in task.stage.outputs.items()}
    return run.publish(work, task.id, fp12, outputs, manifest)


def _launch(
    task: Task, run: RunDir, fp12: str, launch: Launcher, sink: Sink, say: Callable[[str], None]
) -> tuple[Work, Result]:
    """Run the stage; after it ran out of memory again, with settings that need less, in a process without leftovers."""
    config = task.config
    while True:
        work = run.begin(task.id, fp12)
        settings = config.model_dump(mode="json")
        job = Job(task.target, settings, task.inputs, work.out, work.scratch, task.processes, run.desk)
        result = launch(job, sink)
        if result.exit_code != OutOfMemory.exit_code or task.stage.leaner is None:
            return work, result
        found = task.stage.leaner(config, result.facts)
        if found is None:
            return work, result
        config, text = found
        say(f"{task.id}: out of memory; again {text}")


def _keep_logs(work: Work) -> None:
    for name in ("metrics.jsonl", "log.txt"):
        if (work.scratch / name).is_file():
            shutil.copyfile(work.scratch / name, work.out / name)


def _input_record(item: Artifact) -> dict[str, Any]:
    """What stage.json keeps of an input: enough to find and check it again, and no path of this machine inside the run."""
    record: dict[str, Any] = {"label": item.label, "ref": item.ref, "kind": str(item.kind), "digest": item.digest}
    if "source" in item.facts:
        record["source"] = item.facts["source"]
    if item.base is not None:
        record["base"] = _input_record(item.base)
    return record


@functools.cache
def _library_versions() -> dict[str, str]:
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _git_commit() -> dict[str, Any] | None:
    """The commit of the repository that the command was given in, and whether it had changes; None outside one."""
    try:
        sha = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        status = subprocess.run(
            ["git", "--no-optional-locks", "status", "--porcelain"], capture_output=True, text=True, check=True
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    return {"commit": sha, "dirty": bool(status.strip())}


def _hardware() -> dict[str, Any]:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {"machine": platform.machine(), "system": platform.system(), "cpus": os.cpu_count(), "memory_bytes": memory}
