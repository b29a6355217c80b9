"""lm-evaluation-harness's tasks, loaded one by one, with one error for what is not there."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ftcli.core.config import nearest
from ftcli.core.errors import UsageError

EXTRA = "lm-evaluation-harness is not installed"
INSTALL = "pip install 'ftcli[lm-eval]'"


def check_tasks(tasks: Sequence[str], task_folder: Path | None = None) -> None:
    """Raise what `run_tasks` would of these tasks, before any model is loaded."""
    load_tasks(harness_modules(), list(tasks), task_folder)


@dataclass(frozen=True)
class Harness:
    """What is used of the harness, which is imported on first need: it is an extra, and takes seconds."""

    version: str
    HFLM: Any
    evaluate: Any
    task_manager: Any
    load_yaml: Any


def harness_modules() -> Harness:
    try:
        package = importlib.import_module("lm_eval")
        manager = importlib.import_module("lm_eval.tasks")
        huggingface = importlib.import_module("lm_eval.models.huggingface")
        evaluator = importlib.import_module("lm_eval.evaluator")
        yaml_loader = importlib.import_module("lm_eval.tasks._yaml_loader")
    except ModuleNotFoundError as error:
        raise UsageError(f"lm-eval: {EXTRA} (no module {error.name})", INSTALL) from None
    return Harness(
        package.__version__, huggingface.HFLM, evaluator.evaluate, manager.TaskManager, yaml_loader.load_yaml
    )


def load_tasks(harness: Harness, tasks: list[str], folder: Path | None) -> dict[str, Any]:
    """The tasks and groups by name; each is loaded alone, so that an error can name it."""
    if folder is not None and not folder.is_dir():
        raise UsageError(f"{folder}: no folder of tasks", "give a folder with lm-evaluation-harness task files (.yaml)")
    with quiet():
        manager = harness.task_manager(include_path=str(folder) if folder else None, include_defaults=False)
        if any(name not in manager.task_index for name in tasks):  # the harness's own take a minute or two to index
            manager = _with_the_harness_own(harness, folder)
        unknown = [name for name in tasks if name not in manager.task_index]
        if unknown:
            hint = nearest(unknown[0], manager.all_tasks) or "`lm-eval ls tasks` lists the harness's own"
            raise UsageError(f"lm-eval: no task {', '.join(unknown)}{_unreadable(harness, folder)}", hint)
        loaded: dict[str, Any] = {"tasks": {}, "groups": {}, "group_map": {}}
        for name in tasks:
            for part, found in _load_one(manager, name).items():
                loaded[part].update(found)
    return loaded


@cache
def _with_the_harness_own(harness: Harness, folder: Path | None) -> Any:
    """The tasks of ``folder`` and some 14 000 others; once a process, since going through them takes a minute."""
    return harness.task_manager(include_path=str(folder) if folder else None)


def _load_one(manager: Any, name: str) -> dict[str, Any]:
    try:
        loaded: dict[str, Any] = manager.load([name])
    except Exception as error:  # whatever a task file, its functions and its data bring about
        path, names = _place(manager, name)
        arguments = ", ".join(f'"{each}"' for each in names)
        if _is_out_of_reach(error):
            raise UsageError(
                f"{path}: task {name} needs the data set {' '.join(names)}, which is not on this machine ({_first_line(error)})",
                f"fetch it once, where there is a network: python -c 'from datasets import load_dataset as l; l({arguments})'",
            ) from None
        raise UsageError(
            f"{path}: task {name} cannot be loaded: {type(error).__name__}: {_first_line(error)}"
        ) from None
    for task in loaded["tasks"].values():
        if getattr(task, "UNSAFE_CODE", False):
            raise UsageError(
                f"lm-eval: task {task.task_name} runs code that the model writes, which ftcli does not do",
                "run it with lm-eval itself, in a sandbox",
            )
        if getattr(task, "MULTIMODAL", False):
            raise UsageError(f"lm-eval: task {task.task_name} needs a model that sees images", "leave it out")
    return loaded


def _place(manager: Any, name: str) -> tuple[str, list[str]]:
    """The file of a task, and the names of its data set and of the configuration of that."""
    entry = manager.task_index[name]
    config = entry.cfg or {}
    names = [str(config[key]) for key in ("dataset_path", "dataset_name") if config.get(key)]
    return str(entry.yaml_path or f"lm-eval: {name}"), names


def _is_out_of_reach(error: BaseException) -> bool:
    """Whether data is missing because the network is, or is switched off (`ftcli.launch.environment`)."""
    chain: BaseException | None = error
    while chain is not None:
        if type(chain).__name__ in ("OfflineModeIsEnabled", "DatasetNotFoundError", "LocalEntryNotFoundError"):
            return True
        if isinstance(chain, ConnectionError):
            return True
        chain = chain.__cause__ or chain.__context__
    return False


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]


def _unreadable(harness: Harness, folder: Path | None) -> str:
    """The first file of ``folder`` that the harness passed over, as it does without a word, and why."""
    for path in sorted(folder.rglob("*.yaml")) if folder else []:
        try:
            harness.load_yaml(path, resolve_func=False)
        except Exception as error:
            return f"; {path} was passed over: {_first_line(error)}"
    return ""


@contextmanager
def quiet() -> Iterator[None]:
    """Warnings only: the harness logs a line for each row."""
    logger = logging.getLogger("lm_eval")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
