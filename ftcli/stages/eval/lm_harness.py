"""Academic tasks through lm-evaluation-harness (the extra ``ftcli[lm-eval]``), on a model that is already in memory.

Tasks are the harness's own, by name, or YAML files in a folder of the user's. The harness makes the prompts and scores the answers;
its value of each row is kept, so that two models are compared in pairs like every other metric. Its own standard errors, which
take models as independent, are not used, nor its cache of answers, which does not know the model
(github.com/EleutherAI/lm-evaluation-harness/issues/2715).
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from ftcli.core.errors import UsageError
from ftcli.metrics.figures import Figures
from ftcli.models.generate import adapters_in, split_model
from ftcli.stages.eval.lm_lengths import check_room, cut_prompts, room
from ftcli.stages.eval.lm_samples import Answered, figures_of_group, figures_of_task
from ftcli.stages.eval.lm_tasks import Harness, harness_modules, load_tasks, quiet


@dataclass(frozen=True)
class HarnessResult:
    """``figures`` by names ``lm_eval.<task>.<metric>``; ``notes`` say what has no figure, and why, and which prompts were cut.

    ``about`` is for the report: the harness's version, each task's version and number of examples in the prompt, the chat
    template's digest or none.
    """

    figures: Figures
    notes: list[str] = field(default_factory=list)
    about: dict[str, Any] = field(default_factory=dict)


def run_tasks(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    tasks: Sequence[str],
    task_folder: Path | None = None,
    *,
    comparable: str = "",
    chat_template: bool = True,
    shots: int | None = None,
    limit: int | None = None,
    batch_size: int = 8,
    max_length: int | None = None,
    prefix_id: int | None = None,
    seed: int = 0,
) -> HarnessResult:
    """Run ``tasks``, by name, of ``task_folder`` or of the harness, on ``model``, with its adapters if it has any.

    ``comparable`` goes to every figure. ``chat_template``: whether prompts are put into the tokenizer's template; whether they
    were is part of a figure's signature. ``shots`` overrides the tasks' number of examples in the prompt, except where that is 0;
    ``limit`` takes the first rows of each task. ``prefix_id`` is the token before a text that is scored from its start; by default
    the tokenizer's bos, else its eos. ``max_length`` is of prompt and answer, and never more than the model has positions.

    Raises `UsageError` where the harness is not installed, and for tasks that are not known, cannot be loaded, need data that is
    not on this machine, ask for longer answers than there is room for, or would run code that the model writes.
    """
    harness = harness_modules()
    if chat_template and not tokenizer.chat_template:
        raise UsageError(
            "lm-eval: the tokenizer has no chat template to put the tasks' prompts into",
            "switch the chat template off for these tasks",
        )
    loaded = load_tasks(harness, list(tasks), task_folder)
    for task in loaded["tasks"].values():
        own = task.get_config("num_fewshot")
        if own is None or (shots is not None and own != 0):
            task.set_config(key="num_fewshot", value=shots or 0)
        task.set_fewshot_seed(seed=seed)
    with quiet(), adapters_in(model, split_model(model)[0].dtype), torch.random.fork_rng():
        torch.manual_seed(seed)
        lm = harness.HFLM(
            pretrained=model,
            tokenizer=copy.deepcopy(tokenizer),  # the harness sets its padding
            batch_size=batch_size,
            max_length=room(model, max_length),
            prefix_token_id=prefix_id,
        )
        for name, task in loaded["tasks"].items():
            check_room(name, task, lm)
        found = harness.evaluate(
            lm,
            loaded,
            limit=limit,
            bootstrap_iters=0,
            apply_chat_template=chat_template,
            fewshot_as_multiturn=chat_template,
        )
    template = hashlib.sha256(str(tokenizer.chat_template).encode()).hexdigest()[:12] if chat_template else "none"
    result = _result(harness, tasks, loaded, found, comparable, template, int(lm.prefix_token_id))
    for name, task in loaded["tasks"].items():
        result.notes.extend(cut_prompts(name, task, lm))
    return result


def _result(
    harness: Harness,
    asked: Sequence[str],
    loaded: Mapping[str, Any],
    found: Mapping[str, Any],
    comparable: str,
    template: str,
    prefix_id: int,
) -> HarnessResult:
    """The figures of the tasks in ``asked``; those of a group's tasks only where the group has none itself."""
    answered = {
        name: Answered(
            name,
            task,
            found["samples"][name],
            found["results"][name],
            found["higher_is_better"][name],
            "|".join(
                [
                    f"lm_eval {harness.version}",
                    f"version {found['versions'].get(name)}",
                    f"{found['n-shot'].get(name)} shots",
                    f"chat {template}",
                    *([f"prefix {prefix_id}"] if task.OUTPUT_TYPE == "loglikelihood_rolling" else []),
                ]
            ),
            comparable,
        )
        for name, task in loaded["tasks"].items()
    }
    own = {name: figures_of_task(one) for name, one in answered.items()}
    result = HarnessResult(
        {},
        about={
            "lm_eval": harness.version,
            "chat_template": template,
            "tasks": {
                name: {"version": found["versions"].get(name), "shots": found["n-shot"].get(name)} for name in own
            },
        },
    )
    covered: set[str] = set()
    for group in loaded["groups"].values():
        names = [task.task_name for task in group.get_all_tasks()]
        pooled = figures_of_group(
            group.name, found["results"].get(group.name, {}), {name: own[name].figures for name in names}
        )
        result.figures.update(pooled)
        covered.update(names if pooled else [])
    for name, one in own.items():
        if name not in covered or name in asked:
            result.figures.update(one.figures)
            result.notes.extend(one.notes)
    return result
