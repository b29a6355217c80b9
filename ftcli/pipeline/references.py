"""What a stage's input can refer to, and how it is written.

``prep.data`` is an output of another stage, ``hf:org/name[@revision]`` the hub, ``pydoc:package`` docstrings, ``demo:name`` a
built-in model, ``file.py:name`` a Python function, and everything else a path.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ftcli.core.errors import UsageError
from ftcli.core.stage import Kind
from ftcli.data.sources.paths import is_pattern
from ftcli.pipeline.functions import FUNCTION, split_function

SCHEMES = ("hf:", "pydoc:", "demo:")
ID_PATTERN = re.compile(r"^[a-z][a-z0-9_-]{0,63}\Z")
LABEL_PATTERN = re.compile(r"^[\w .+-]+\Z")


@dataclass(frozen=True)
class StageOutput:
    """A reference to an output of an earlier stage of the same run."""

    id: str
    output: str

    def __str__(self) -> str:
        return f"{self.id}.{self.output}"


@dataclass(frozen=True)
class External:
    """Something from outside the run: ``hf:``, ``pydoc:``, ``demo:``, or a path (absolute), for a function with ``:name``."""

    ref: str

    def __str__(self) -> str:
        return self.ref


Reference = StageOutput | External


def labelled_references(value: Any, *, many: bool) -> list[tuple[str, str]] | None:
    """``(label, reference text)`` pairs of an input as written, or None if its shape is wrong.

    A list takes its labels from the references: ``lora.model`` is ``lora``, a function its name, a path its last part.
    """
    if isinstance(value, str):
        pairs = [("", value)]
    elif many and isinstance(value, list) and all(isinstance(item, str) for item in value):
        pairs = [("", item) for item in value]
    elif many and isinstance(value, dict) and all(isinstance(item, str) for item in value.values()):
        pairs = list(value.items())
    else:
        return None
    return [(label or default_label(text), text) for label, text in pairs]


def default_label(text: str) -> str:
    if text.startswith(SCHEMES):
        return text.partition(":")[2].partition("@")[0].rpartition("/")[2]
    if (function := FUNCTION.fullmatch(text)) and function["name"]:
        return function["name"]
    id, dot, output = text.partition(".")
    return id if dot and ID_PATTERN.match(id) and output.isidentifier() else Path(text).name


def external(folder: Path, kind: Kind, text: str, hint: str = "") -> External:
    """A reference to something outside the run; a path is taken relative to ``folder`` and must exist."""
    if text.startswith(SCHEMES):
        scheme = text.partition(":")[0]
        fits = {"hf": (Kind.MODEL, Kind.SOURCE), "demo": (Kind.MODEL,), "pydoc": (Kind.SOURCE,)}[scheme]
        if kind not in fits:
            raise UsageError(f"{text} cannot be a {kind}", f"{scheme}: gives a {' or a '.join(fits)}")
        return External(text)
    if not text:
        raise UsageError(f"an empty reference, a {kind} is needed", hint)
    file, name = split_function(text) if kind is Kind.FUNCTION else (text, "")
    try:
        path = (folder / Path(file).expanduser()).absolute()
        found = path.exists() or (kind is Kind.SOURCE and is_pattern(path))
    except (OSError, RuntimeError) as error:
        raise UsageError(f"{text[:80]}: cannot be a path: {error}") from None
    if not found:
        raise UsageError(f"{file}: no such file or folder ({path})", hint or "paths are relative to the recipe")
    return External(f"{path}:{name}" if kind is Kind.FUNCTION else str(path))


def repeated_label(labels: Sequence[str]) -> str:
    """What is wrong with the labels of an input that takes several, or an empty string."""
    twice = next((label for label in labels if labels.count(label) > 1), None)
    return f"two are labelled {twice}" if twice is not None else ""
