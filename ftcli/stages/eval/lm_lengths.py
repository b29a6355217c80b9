"""Which prompts of lm-evaluation-harness's tasks fit the model: the harness cuts others, and its result does not say so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ftcli.core.errors import UsageError

_NAMES = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
"""A task's words for the longest answer, the first of which counts."""


def room(model: Any, max_length: int | None) -> int | None:
    """The longest prompt with its answer, in tokens: ``max_length``, or less where the model has fewer positions."""
    positions = getattr(model.config, "max_position_embeddings", None)
    known = [length for length in (max_length, positions) if length]
    return min(known) if known else None


def check_room(name: str, task: Any, lm: Any) -> None:
    """Raise `UsageError` where the answers that a task asks for, or offers, leave no token for the prompt."""
    if task.OUTPUT_TYPE == "multiple_choice":
        _check_choices(name, task, lm)
    if task.OUTPUT_TYPE != "generate_until":
        return
    longest = _longest_answer(task.config.generation_kwargs or {}, lm)
    if longest >= lm.max_length:
        raise UsageError(
            f"lm-eval: task {name} asks for answers of {longest} tokens, and prompt and answer have {lm.max_length}",
            "raise max_length, if the model can read as much, or set max_gen_toks in the task's generation_kwargs",
        )


def _check_choices(name: str, task: Any, lm: Any) -> None:
    for number, row in enumerate(task.eval_docs):
        for choice in task.doc_to_choice(row):
            text = str(choice)
            if len(text.encode()) < lm.max_length:  # no token is less than a byte
                continue
            if (tokens := len(lm.tok_encode(f" {text}"))) >= lm.max_length:
                raise UsageError(
                    f"lm-eval: task {name}: row {number} has a choice of {tokens} tokens, and prompt and answer have "
                    f"{lm.max_length}",
                    "raise max_length, if the model can read as much",
                )


def cut_prompts(name: str, task: Any, lm: Any) -> list[str]:
    """One note where rows of a task that was run had more tokens than fit, so that their prompts lost their beginning."""
    cut = {instance.doc_id for instance in task.instances if _is_cut(instance, lm)}
    rows = {instance.doc_id for instance in task.instances}
    return (
        [f"lm_eval.{name}: {len(cut)} of {len(rows)} prompts lost their beginning (max_length {lm.max_length})"]
        if cut
        else []
    )


def _is_cut(instance: Any, lm: Any) -> bool:
    if instance.request_type == "loglikelihood":
        prompt, answer = instance.args
        return bool(len(lm.tok_encode(prompt + answer)) > lm.max_length + 1)  # the last token is not read
    if instance.request_type == "generate_until":
        prompt, settings = instance.args
        return bool(len(lm.tok_encode(prompt)) > lm.max_length - _longest_answer(settings, lm))
    return False  # rolling likelihood takes windows


def _longest_answer(settings: Mapping[str, Any], lm: Any) -> int:
    return int(next((settings[name] for name in _NAMES if settings.get(name) is not None), lm.max_gen_toks))
