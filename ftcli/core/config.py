"""One pydantic model describes a stage's settings; flags, YAML keys, ``--help`` and the fingerprint come from it.

Everything here is about such models in general: which fields decide the result, what differs from the defaults, and how
wrong input is reported, all problems at once and each with the nearest known name.
"""

from __future__ import annotations

import difflib
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError


class ExecOnly:
    """Marks a field (``Annotated[int, ExecOnly()]``) that changes speed or logs only, never the result."""


class StageConfig(BaseModel):
    """Settings common to all stages."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    refused: ClassVar[Mapping[str, str]] = {}
    """Settings that other tools have and this stage must not, with the reason."""

    seed: int = 42
    """Seed for data order, new weights and sampling."""


C = TypeVar("C", bound=StageConfig)


@dataclass(frozen=True)
class Problem:
    """One thing wrong with one setting. ``key`` is empty when the settings as a whole are at fault; ``at`` is the place inside
    the setting's value, e.g. ``(0, "max_drop")`` of a list of rules."""

    key: str
    message: str
    hint: str = ""
    at: tuple[str | int, ...] = ()


PEER_NAMES = {
    "batch_size": "global_batch_size",
    "per_device_train_batch_size": "micro_batch_size",
    "gradient_accumulation_steps": "global_batch_size",
    "cutoff_len": "max_length",
    "sequence_len": "max_length",
    "max_seq_length": "max_length",
    "max_row_tokens": "max_length",
    "num_epochs": "num_train_epochs",
    "epochs": "num_train_epochs",
    "lr": "learning_rate",
    "rank": "lora_r",
    "r": "lora_r",
    "lora_rank": "lora_r",
    "alpha": "lora_alpha",
    "max_tokens": "max_new_tokens",
    "kl_coefficient": "kl_coef",
}
"""What other tools call the same setting; used for hints only."""


def nearest(word: str, known: Iterable[str]) -> str:
    """Return ``did you mean X?`` for the known name nearest to ``word``, or an empty string."""
    known = list(known)
    alias = PEER_NAMES.get(word)
    if alias in known:
        return f"did you mean {alias}?"
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f"did you mean {close[0]}?" if close else ""


def is_exec_only(model: type[StageConfig], name: str) -> bool:
    return any(isinstance(mark, ExecOnly) for mark in model.model_fields[name].metadata)


def non_default(config: StageConfig) -> dict[str, Any]:
    """JSON values of the fields that differ from their default."""
    values = config.model_dump(mode="json")
    return {
        name: values[name]
        for name, field in type(config).model_fields.items()
        if field.is_required() or getattr(config, name) != field.get_default(call_default_factory=True)
    }


def semantic(config: StageConfig) -> dict[str, Any]:
    """The part of ``config`` that the fingerprint sees: not a default, and not marked ``ExecOnly``.

    Leaving defaults out keeps finished work valid when a later version adds a field; changing a default must bump the
    stage's version instead.
    """
    return {name: value for name, value in non_default(config).items() if not is_exec_only(type(config), name)}


def parse(model: type[C], values: Mapping[str, Any]) -> tuple[C | None, list[Problem]]:
    """Validate ``values``; return the config, or every problem found."""
    try:
        return model.model_validate(dict(values)), []
    except ValidationError as error:
        return None, [_problem(model, item) for item in error.errors()]


def _problem(model: type[StageConfig], item: Any) -> Problem:
    path = [str(part) for part in item["loc"]]
    key, at = path[0] if path else "", tuple(item["loc"][1:])
    where = ".".join(part for part in path if not part.startswith(("constrained-", "function-")))
    if item["type"] == "extra_forbidden":
        if key in model.refused:
            return Problem(key, f"{key} is not offered: {model.refused[key]}")
        if at:
            return Problem(key, f"{where.rpartition('.')[0]}: unknown key {path[-1]}", _nearest_inside(model, path), at)
        return Problem(key, f"unknown key {key}", nearest(key, model.model_fields))
    if item["type"] == "missing":
        return Problem(key, f"{where} must be given", at=at)
    message = item["msg"].removeprefix("Value error, ")
    if item["type"] == "value_error":
        return Problem(key, f"{where}: {message}" if where else message, at=at)
    hint = ""
    if item["type"] == "literal_error":
        hint = nearest(str(item["input"]), _literals(item))
    return Problem(key, f"{where}: {message[0].lower()}{message[1:]}, got {item['input']!r}", hint, at)


def _nearest_inside(model: type[BaseModel], path: list[str]) -> str:
    """What the last of ``path`` may have meant, in the models that the setting's value, or each of its items, must fit."""
    known = [name for inner in _models_in(model.model_fields[path[0]].annotation) for name in inner.model_fields]
    return nearest(path[-1], known) or f"it has {', '.join(known)}"


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    """The models that a type names, e.g. ``Rule`` of ``tuple[Rule, ...]``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in typing.get_args(annotation) for model in _models_in(part)]


def _literals(item: Any) -> list[str]:
    expected = str(item.get("ctx", {}).get("expected", ""))
    return [part.strip().strip("'") for part in expected.replace(" or ", ",").split(",")]
