"""Academic tasks through lm-evaluation-harness (the extra ``ftcli[lm-eval]``), on a model that is already in memory.

Tasks are the harness's own, by name, or YAML files in a folder of the user's. The harness makes the prompts and scores the answers;
its value of each row is kept, so that two models are compared in pairs like every other metric. Its own standard errors, which
take models as independent, are not used, nor its cache of answers, which does not know the model
(github.com/EleutherAI/lm-evaluation-harness/issues/2715).
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
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
from ftcli.stages.eval.subject import Save

Kept = Callable[[str, Sequence[Mapping[str, Any]], Callable[[list[int], Save], None], str], list[Any]]


@dataclass(frozen=True)
class HarnessResult:
    """``figures`` by names ``lm_eval.<task>.<metric>``; ``notes`` say what has no figure, and why, and which prompts were cut.

    A figure's signature has the harness's version, the task's, its number of examples in the prompt, and the chat template's digest
    or none.
    """

    figures: Figures
    notes: list[str] = field(default_factory=list)


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
    kept: Kept | None = None,
) -> HarnessResult:
    """Run ``tasks``, by name, of ``task_folder`` or of the harness, on ``model``, with its adapters if it has any.

    ``comparable`` goes to every figure. ``chat_template``: whether prompts are put into the tokenizer's template; whether they
    were is part of a figure's signature. ``shots`` overrides the tasks' number of examples in the prompt, except where that is 0;
    ``limit`` takes the first rows of each task. ``prefix_id`` is the token before a text that is scored from its start; by default
    the tokenizer's bos, else its eos. ``max_length`` is of prompt and answer, and never more than the model has positions. With
    ``kept`` (`ftcli.stages.eval.subject.Subject.kept`) a request is answered once, as long as all that decides it is the same.

    Raises `UsageError` where the harness is not installed, and for tasks that are not known, cannot be loaded, need data that is
    not on this machine, ask for longer answers than there is room for, or would run code that the model writes.
    """
    harness = harness_modules()
    if chat_template and not tokenizer.chat_template:
        raise UsageError(
            "lm-eval: the tokenizer has no chat template to put the tasks' prompts into",
            "set lm_eval_chat to false",
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
        if kept is not None:
            _answer_from(kept, lm, harness.version)
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


def _answer_from(kept: Kept, lm: Any, version: str) -> None:
    """Let ``lm`` look into ``kept`` before it computes. A request is text, so what it stands for in the data is of no account."""
    about = {"harness": version, "max_length": lm.max_length, "before": lm.prefix_token_id}
    for kind in ("loglikelihood", "loglikelihood_rolling", "generate_until"):
        setattr(lm, kind, partial(_answers, kept, about, kind, getattr(lm, kind)))


def _answers(
    kept: Kept,
    about: Mapping[str, Any],
    kind: str,
    ask: Callable[..., Sequence[Any]],
    requests: Sequence[Any],
    **options: Any,
) -> Sequence[Any]:
    """The harness's answers to ``requests``, all of the type ``kind``."""
    if kind == "generate_until" and any(_is_sampled(request.args[1]) for request in requests):
        return ask(requests, **options)  # a task may draw several answers to the same request

    def compute(rows: list[int], save: Save) -> None:
        save(rows, ask([requests[row] for row in rows], **options))

    return kept(f"lm-eval {kind}", [{**about, "request": request.args} for request in requests], compute, "lm-eval")


def _is_sampled(settings: Mapping[str, Any]) -> bool:
    return bool(settings.get("do_sample") or settings.get("temperature"))


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
    result = HarnessResult({})
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
